"""A run with maps, masks, walks and a segmenter, and a disk that is full: what the fault tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.stages.photos import REFINE, SEGMENT, copied, train

Mount = Callable[..., Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with everything. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("faults"), tiny)
    assert main(["localize", str(run), "--methods", "fpr", "--quiet"]) == 0
    assert main(["refine", str(run), "--with", "irn", *REFINE, "--quiet"]) == 0
    assert main(["segment", str(run), "--from", "irn", *SEGMENT, "--quiet"]) == 0
    return run


@pytest.fixture
def run(finished: Path) -> Path:
    """A copy of it that a test may change; beside the photos."""
    return copied(finished, finished.parent / f"run{len(list(finished.parent.glob('run*')))}")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts by ``mount``'s options at a folder of the test's own; skips where this user may not mount."""
    mounted: list[Path] = []

    def at(name: str, *options: str) -> Path:
        place = tmp_path / name
        place.mkdir()
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield at
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)
