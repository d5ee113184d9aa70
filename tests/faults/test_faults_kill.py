"""Killed between any two operations on files, or at any time, every stage goes on and ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stages.photos import REFINE, SEGMENT, write_photos

DRIVER = Path(__file__).with_name("kill_driver.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the driver forks")


def killed(folder: Path, tiny: list[str], environment: dict[str, str], **plan: int) -> dict[str, Any]:
    """What the driver found, for the whole chain on a few photos."""
    photos = write_photos(folder / "photos")
    data = ["--data.kind", "folder", "--data.root", str(photos), "--methods", "fpr"]
    commands = [
        ["train", "--out", "RUN", *data, *tiny, "--resume"],
        ["localize", "RUN", "--methods", "fpr", "--quiet"],
        ["refine", "RUN", "--with", "crf", *REFINE, "--quiet"],
        ["refine", "RUN", "--with", "irn", *REFINE, "--quiet"],
        ["segment", "RUN", "--from", "irn", *SEGMENT, "--quiet"],
        ["refine", "RUN", "--with", "irn", *REFINE, "--refine.crf", "deeplab_v2", "--quiet"],  # makes all of it anew
        ["segment", "RUN", "--from", "irn", "--quiet"],  # sets the first one aside
    ]
    path = folder / "plan.json"
    path.write_text(json.dumps({"commands": commands, "seed": 0, "kills": 0, "timed": 0, "every": 0, **plan}))
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(path)], env=environment, capture_output=True, text=True, timeout=7200, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(found)
    return found


def test_killed_at_random_moments_of_all_stages(tmp_path: Path, tiny: list[str], environment: dict[str, str]) -> None:
    """One run, killed again and again while it goes on; compared after every command with one that was left alone."""
    found = killed(tmp_path, tiny, environment, kills=3, timed=1)
    assert not found["different"]
    assert sum(found["kills"]) >= 14 and all(found["kills"])


@pytest.mark.slow
def test_killed_before_every_change_of_a_file(tmp_path: Path, tiny: list[str], environment: dict[str, str]) -> None:
    """Each time from where the command began."""
    found = killed(tmp_path, tiny, environment, every=1)
    assert not found["different"]
    assert found["kills"] == found["changes"]
