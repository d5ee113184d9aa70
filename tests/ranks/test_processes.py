"""The same work in several processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tag2mask.atomic import Written, read_back
from tag2mask.config import CRF_PRESETS, DataConfig
from tag2mask.data import open_images
from tag2mask.errors import InputError
from tag2mask.maps.store import save_maps
from tag2mask.processes import JOBS_FOR_A_PROCESS, over_images
from tag2mask.stages.mask_work import MaskJob, write_job_masks
from tests.stages.photos import contents, write_photos

JOBS = 2 * JOBS_FOR_A_PROCESS


@pytest.fixture
def jobs(tmp_path: Path) -> list[MaskJob]:
    """CRFs on the eight photos in turn, each time with other maps."""
    root = write_photos(tmp_path / "photos")
    images = open_images(DataConfig(kind="folder", root=str(root)))
    random, result = np.random.default_rng(0), []
    for number in range(JOBS):
        index = number % len(images)
        width, height = images.image(index).size
        maps = random.integers(0, 256, (2, height, width), dtype=np.uint8)
        path = tmp_path / "maps" / f"{number}.npz"
        save_maps(path, np.array([0, 2]), maps, np.ones(3))
        mask = Path(f"{number}.png")
        result.append(MaskJob(index, images.reader, path, (60, 90, 30), mask, None, CRF_PRESETS["irn"]))
    return result


def placed(jobs: list[MaskJob], folder: Path) -> list[MaskJob]:
    return [replace(job, mask=folder / job.mask, certain=folder / "certain" / job.mask) for job in jobs]


class Steps:
    """What a progress bar is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.seen.append((done, total))


def place(told: list[tuple[MaskJob, list[Written]]], job: MaskJob, written: list[Written]) -> None:
    told.append((job, written))


def test_two_processes_write_what_one_writes(jobs: list[MaskJob], tmp_path: Path) -> None:
    for processes, name in ((1, "one"), (2, "two")):
        steps, told = Steps(), []
        received = partial(place, told)
        over_images(write_job_masks, placed(jobs, tmp_path / name), JOBS, processes, steps, 3, received)
        assert len(told) == JOBS
        for job, written in told:
            assert job.certain is not None and written == [read_back(job.mask), read_back(job.certain)]
        assert steps.seen == [(number + 4, JOBS + 3) for number in range(JOBS)]
    one = contents(tmp_path / "one")
    assert len(one) == 2 * JOBS and one == contents(tmp_path / "two")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_error_of_a_worker_is_told(jobs: list[MaskJob], tmp_path: Path, processes: int) -> None:
    """A photo that is no picture; its message is the same wherever it was found, and what was done stays whole."""
    (tmp_path / "photos/images/p1.png").write_text("no picture")
    with pytest.raises(InputError, match="p1.png: this is not a picture"):
        over_images(write_job_masks, placed(jobs, tmp_path / "out"), JOBS, processes, Steps())
    assert (tmp_path / "out" / "0.png").is_file() and not list((tmp_path / "out").rglob("*.tmp"))


def pid_of(path: Path) -> None:
    path.write_text(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}")


def test_few_jobs_stay_in_this_process(tmp_path: Path) -> None:
    """A new process is dearer than they are; so are they with one process."""
    for count, processes in ((JOBS - 1, 8), (3, 0), (JOBS, 1)):
        over_images(pid_of, [tmp_path / str(n) for n in range(count)], count, processes, Steps())
        assert {(tmp_path / str(n)).read_text().split()[0] for n in range(count)} == {str(os.getpid())}
    over_images(pid_of, iter([]), 0, 2, Steps())


def test_what_a_worker_imports_is_light() -> None:
    script = "import sys, tag2mask.stages.mask_work, tag2mask.processes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=100, check=False).returncode == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    file = tmp_path / "worker"
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, os, signal, sys, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from pathlib import Path\n"
        "from tag2mask.processes import start_worker\n\n"
        "def lasting(path):\n"
        "    Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(120)\n\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), initializer=start_worker)\n"
        "    pool.submit(lasting, sys.argv[1])\n"
        "    while not Path(sys.argv[1]).is_file() or not Path(sys.argv[1]).read_text():\n"
        "        time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, str(program), str(file)], timeout=60, check=False)
    worker = Path("/proc") / file.read_text()
    for _ in range(100):
        if not worker.is_dir():
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there ten seconds after its parent")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_there_for_the_next_batch() -> None:
    """Each page that the system gives anew is a fault; 80 MB are freed and taken again."""
    code = (
        "import resource, numpy\n"
        "from tag2mask.processes import keep_freed_memory\n"
        "{}\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(30): batch = [numpy.ones(2_500_000) for _ in range(4)]; del batch\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)"
    )
    usual, kept = (
        int(subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stdout)
        for first in ("", "keep_freed_memory()")
    )
    assert kept < 0.2 * usual
