"""Two runs in one folder: whatever writes to it, or relies on what lies there, waits its turn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.cli import main
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
