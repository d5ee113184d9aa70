"""A full disk, a read-only one, a folder of somebody else: one sentence, and what was finished is there still."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.faults.conftest import Mount
from tests.stages.photos import REFINE, SEGMENT, contents, write_photos

FILES = (".safetensors", ".npz", ".png", ".json", "metrics.jsonl")
COMMANDS = (
    ("train",), ("localize", "RUN", "--methods", "fpr"), ("refine", "RUN", "--with", "irn", *REFINE),
    ("segment", "RUN", "--from", "irn", *SEGMENT), ("evaluate", "RUN"), ("evaluate", "RUN", "--stages"), ("report", "RUN"),
)  # fmt: skip


def sound(run: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether nothing of a run is damaged, and no file that was begun is left."""
    capsys.readouterr()
    left = [p for p in run.rglob("*") if p.name.endswith((".partial", ".tmp"))]
    main(["verify", str(run), "--quiet"])  # a file is described before it appears, so one may be missing
    return ", 0 damaged" in capsys.readouterr().out and not left


def fill(disk: Path, left: int) -> Path:
    """Take the space of a disk but for ``left`` bytes."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    ballast.write_bytes(b"0" * max(0, status.f_bavail * status.f_frsize - left))
    return ballast


@pytest.mark.parametrize("left", [0, 100_000])
def test_a_full_disk_at_every_stage(
    mount: Mount, tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], left: int
) -> None:
    """Each command fails on a disk with so many bytes left, and ends as if nothing had been when there is room."""
    photos, disk = write_photos(tmp_path / "photos"), mount("disk", "-t", "tmpfs", "-o", "size=40m", "none")
    run, whole = disk / "run", tmp_path / "whole"
    data = ["--data.kind", "folder", "--data.root", str(photos), *tiny, "--methods", "fpr", "--cache_gigabytes", "0"]
    told = 0
    for command in COMMANDS:
        begin = ["train", "--out", "RUN", *data, "--resume"] if command == ("train",) else [*command, "--quiet"]
        assert main([part.replace("RUN", str(whole)) for part in begin]) == 0
        ballast, before = fill(disk, left), contents(run, *FILES) if run.exists() else {}
        capsys.readouterr()
        code = main([part.replace("RUN", str(run)) for part in begin])
        text = capsys.readouterr().err
        if code:
            told += 1
            assert code == 2 and "is full (No space left on device); make room and give the same command again" in text
            assert str(run) in text and text.count("\n") == 1
            now = contents(run, *FILES)
            assert all(now.get(name) == content for name, content in before.items() if "settings" not in name)
        ballast.unlink()
        assert code == 0 or not (run / "settings.yaml").exists() or sound(run, capsys)
        assert main([part.replace("RUN", str(run)) for part in begin]) == 0
        assert sound(run, capsys)
    assert told >= (len(COMMANDS) if left == 0 else 3)
    timed = ("summary.json", "report.html")
    for name, content in contents(whole, *FILES).items():
        assert name in timed or (run / name).read_bytes() == content, name


def test_frozen_features_on_a_full_disk(
    mount: Mount, tmp_path: Path, tiny: list[str], environment: dict[str, str]
) -> None:
    """Their files are mapped into memory: without room the process would end by a signal. A limit shows it as well."""
    photos, disk = write_photos(tmp_path / "photos"), mount("disk", "-t", "tmpfs", "-o", "size=4m", "none")
    data = ["--data.kind", "folder", "--data.root", str(photos), *tiny, "--methods", "fpr", "--views.size", "128"]
    script = (
        "import shutil, sys\nfrom collections import namedtuple\nfrom tag2mask.cli import main\n"
        "shutil.disk_usage = lambda path: namedtuple('usage', 'free')(10**12)  # told too late, as by another's writing\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    fill(disk, 200_000)
    command = [sys.executable, "-c", script, "train", "--out", str(disk / "run"), *data]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2, done.stderr
    assert "is full (No space left on device)" in done.stderr and "level" not in "".join(os.listdir(disk / "run/cache"))


def test_a_limit_on_the_size_of_files(tmp_path: Path, tiny: list[str], environment: dict[str, str]) -> None:
    """What a quota or `ulimit -f` says is told in the same way; needs no right to mount."""
    photos = write_photos(tmp_path / "photos")
    data = ["--data.kind", "folder", "--data.root", str(photos), *tiny, "--methods", "fpr"]
    script = (
        "import resource, sys\nfrom tag2mask.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "train", "--out", str(tmp_path / "run"), *data]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2, done.stderr
    assert f"the disk of {tmp_path / 'run'}" in done.stderr and "is full (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert main(["train", "--out", str(tmp_path / "run"), *data, "--resume"]) == 0


def test_a_read_only_disk(run: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    """Told before any work, and looking at what is there goes on."""
    shutil.rmtree(run / "seed0/fpr/segmenter")
    place = mount("closed", "--bind", "-o", "ro", str(run))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    before = contents(run)
    out = ["--out", str(place / "out")]
    for command in (*COMMANDS[1:], ("sweep", "RUN", *out, "--vary", "fpr.margin=0.9,1"), ("audit", "RUN"),
                    ("export", "RUN", "--to", "coco", "--masks", "irn", *out)):  # fmt: skip
        capsys.readouterr()
        assert main([part.replace("RUN", str(place)) for part in command]) == 2, command
        text = capsys.readouterr().err
        assert str(place) in text and "(Read-only file system); choose another folder" in text
        assert text.count("\n") == 1, "no work was begun"
    assert main(["verify", str(place), "--quiet"]) == 0
    assert contents(run) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become somebody else")
def test_a_folder_of_somebody_else(run: Path, environment: dict[str, str]) -> None:
    """Permissions, which do not stop root."""
    script = "import os, sys\nfrom tag2mask.atomic import *\nos.setuid(65534)\n" + (
        "from pathlib import Path\ntry:\n    check_writable(Path(sys.argv[1]))\nexcept OSError as error:\n    print(told(error))"
    )
    command = [sys.executable, "-c", script, str(run / "seed0" / "new")]
    for folder in run.parents[:3]:
        folder.chmod(0o755)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(str(run / "seed0")) and "(Permission denied); choose another folder" in done.stdout
