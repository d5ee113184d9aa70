"""Two runs in one folder: whatever writes to it, or relies on what lies there, waits its turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tag2mask.cli import main
from tag2mask.errors import InputError
from tag2mask.runs import locked
from tests.stages.photos import REFINE, contents

COMMANDS = (
    ["train", "--out", "RUN", "--config", "RUN/settings.yaml", "--resume"], ["localize", "RUN"],
    ["refine", "RUN", "--with", "crf", *REFINE], ["segment", "RUN"], ["evaluate", "RUN"], ["evaluate", "RUN", "--stages"],
    ["evaluate", "RUN", "--suppressed"], ["evaluate", "RUN", "--budget", "2"], ["report", "RUN"], ["audit", "RUN"],
    ["export", "RUN", "--to", "coco", "--out", "RUN/coco.json"], ["import", "RUN/seed0/fpr/maps/train", "--out", "RUN"],
    ["sweep", "RUN/../run", "--out", "RUN", "--vary", "fpr.margin=0.9,1"],
)  # fmt: skip


def test_every_command_is_refused_while_another_process_holds_the_run(
    run: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys, pathlib; from tag2mask.runs import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(run)]
    before = contents(run)
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for parts in COMMANDS:
            capsys.readouterr()
            assert main([part.replace("RUN", str(run)) for part in parts]) == 2, parts
            text = capsys.readouterr().err
            assert f"another process ({other.pid}) is writing to {run}; wait for it" in text, parts
            assert text.count("\n") == 1, "nothing was begun"
        assert contents(run) == before
        assert main(["verify", str(run), "--quiet"]) == 0, "looking is allowed"
        other.communicate("")
    assert main(["report", str(run), "--quiet"]) == 0 and not (run / "run.lock").exists()


def test_a_lock_of_another_machine_counts_while_it_is_touched(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    lock.write_text(f"{os.getpid()}@another-machine")  # a number that is somebody's here, too
    with pytest.raises(InputError, match="another-machine"), locked(tmp_path):
        pass
    an_hour_ago = time.time() - 3600
    os.utime(lock, (an_hour_ago, an_hour_ago))
    with locked(tmp_path):
        assert "another-machine" not in lock.read_text()
    assert not lock.exists()


def test_whoever_holds_a_lock_touches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.runs.BEAT_SECONDS", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / "run.lock", (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / "run.lock").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert time.time() - (tmp_path / "run.lock").stat().st_mtime < 60
