"""A process that ends takes the others with it, says so, and loses nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tag2mask.errors import InputError
from tag2mask.launch import devices_asked, is_member
from tests.conftest import RunCommand

SECONDS = 60.0


def children(pid: int) -> list[int]:
    """Numbers of a process's children, in the order in which they were started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def weights(run: Path) -> dict[str, str]:
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in run.glob("seed0/*/weights.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], scenes: list[str]) -> dict[str, str]:
    """Weights of two processes that nobody has disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, "-m", "tag2mask.cli", "train", "--out", str(run), *options(tiny, scenes)]
    subprocess.run(command, check=True, timeout=300)
    return weights(run)


def options(tiny: list[str], scenes: list[str]) -> list[str]:
    return [*tiny, *scenes, "--methods", "fpr", "--devices", "2", "--rectify.epochs", "40"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell a process's children")
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_run_which_can_go_on(
    run_command: RunCommand, environment: dict[str, str], tmp_path: Path, tiny: list[str], scenes: list[str],
    whole: dict[str, str], victim: int,
) -> None:  # fmt: skip
    run = tmp_path / "cut"
    command = [sys.executable, "-m", "tag2mask.cli", "train", "--out", str(run), *options(tiny, scenes)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, deadline = run / "seed0" / "fpr" / "metrics.jsonl", time.monotonic() + 2 * SECONDS
    while not (metrics.is_file() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    members = children(process.pid)
    assert len(members) == 2, "one process for each --devices"
    os.kill(members[victim], signal.SIGKILL)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert f"process {victim} of 2 was ended by SIGKILL" in told and "--resume" in told and "Traceback" not in told, told
    assert not any(Path(f"/proc/{member}").exists() for member in members), "nobody is left waiting"
    cam = "seed0/cam/weights.safetensors"
    assert weights(run) == {cam: whole[cam]}, "what was finished is kept"
    resumed = run_command("train", "--out", run, *options(tiny, scenes), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert weights(run) == whole, "bit for bit"


def test_mistakes_of_all_are_told_once(run_command: RunCommand, tmp_path: Path, tiny: list[str], scenes: list[str]) -> None:
    found = run_command("train", "--out", tmp_path / "run", *tiny, *scenes, "--devices", "2", "--data.kind", "folder", "--data.root", tmp_path / "none")
    assert found.returncode == 2 and found.stderr.count("error:") == 1 and "none" in found.stderr, found.stderr
    found = run_command("train", "--out", tmp_path / "run", *tiny, *scenes, "--devices", "3", "--classify.batch_size", "2")
    assert found.returncode == 2 and "a batch has 2 of the photos and 3 processes are to share it" in found.stderr, found.stderr
    assert "Traceback" not in found.stderr and not (tmp_path / "run" / "settings.yaml").exists(), "nothing is begun"


def test_all_wait_while_another_run_fills_the_cache(tmp_path: Path, environment: dict[str, str], tiny: list[str], scenes: list[str]) -> None:
    run = tmp_path / "run"
    script = (
        "import sys, pathlib; from tag2mask.runs import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read(1)"
    )
    loud = [option for option in tiny if option != "--quiet"]
    command = [sys.executable, "-m", "tag2mask.cli", "train", "--out", str(run), *loud, *scenes, "--methods", "fpr", "--devices", "2"]
    holds = [sys.executable, "-c", script, str(run / "cache")]
    with subprocess.Popen(holds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == "held\n"
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            told = next((line for line in process.stderr if "waiting: another process" in line), "")
            assert told, "it says for whom, and does not end"
            other.stdin.write("x")
            other.stdin.flush()
            rest = process.stderr.read()
        assert process.returncode == 0, rest
    assert len(weights(run)) == 2


@pytest.mark.parametrize("arguments", [["--devices", "0"], ["--devices", "two"], ["--devices"], ["--devices=-1"]])
def test_a_number_of_processes_that_is_none(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="--devices"):
        devices_asked(["train", *arguments])


def test_who_has_started_this_process() -> None:
    assert devices_asked(["train", "--out", "x"]) == 1 and devices_asked(["train", "--devices=4"]) == 4
    assert not is_member({}) and not is_member({"WORLD_SIZE": "4"}), "a variable alone is no launcher"
    assert is_member({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"})
    assert not is_member({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1"})
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_JOB_NAME": "train"}
    assert not is_member({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_NAME": "train"}), "a batch script is alone"
    assert is_member(slurm) and not is_member({**slurm, "SLURM_JOB_NAME": "interactive"})


def test_whoever_ends_first_is_noticed_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Also where the others are busy with something that needs nobody."""
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(300)"
    watch = f"import tag2mask.launch as launch; launch.SECONDS_TO_END = 1.0; raise SystemExit(launch.run_members([{sys.executable!r}, '-c', {code!r}], 3))"
    start = time.monotonic()
    found = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1 and "process 1 of 3 was ended by SIGKILL" in found.stderr
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_others_end_with_the_one_that_started_them(number: signal.Signals, tmp_path: Path) -> None:
    code = "import os, pathlib, sys, time; from tag2mask.launch import end_with_launcher; end_with_launcher(); pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(str(os.getpid())); time.sleep(300)"
    watch = f"from tag2mask.launch import run_members; run_members([{sys.executable!r}, '-c', {code!r}, {str(tmp_path)!r}], 2)"
    process = subprocess.Popen([sys.executable, "-c", watch])
    deadline = time.monotonic() + SECONDS
    while not all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "01") and time.monotonic() < deadline:
        time.sleep(0.05)
    members = [int((tmp_path / name).read_text()) for name in "01"]
    process.send_signal(number)
    process.wait(timeout=SECONDS)
    while any(running(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(running(member) for member in members)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False
