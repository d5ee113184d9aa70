"""Real pictures on disk and a network that trains in a moment: what the tests of hosts, maps, engine and commands share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tag2mask.presets import PRESETS

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many test processes run as there are cores; commands inherit it

WriteFolder = Callable[..., Path]
RunCommand = Callable[..., subprocess.CompletedProcess[str]]

COLOURS = {"kite": (220, 60, 40), "leaf": (40, 170, 60), "pond": (40, 80, 210)}
"""The classes of the pictures and what each is painted with."""


def draw_photo(size: tuple[int, int], present: Sequence[int], seed: int) -> tuple[Image.Image, np.ndarray]:
    """A noisy picture of ``size`` (width, height) with a disc for each present class, and its mask (H, W) uint8."""
    width, height = size
    random = np.random.default_rng(seed)
    noise = random.integers(90, 160, (height, width, 3), dtype=np.uint8)
    picture, mask = Image.fromarray(noise), Image.new("L", size)
    radius = min(size) / 4
    for number in present:
        x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(picture).ellipse(box, fill=list(COLOURS.values())[number])
        ImageDraw.Draw(mask).ellipse(box, fill=number + 1)
    return picture, np.asarray(mask)


@pytest.fixture(autouse=True)
def numbers_as_usual() -> Iterator[None]:
    """The commands make denormal numbers zero for the whole process; other tests want them back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes photos of different sizes and formats with tags and, if wanted, masks; gives the folder.

    12 rows are of split train, 4 of split val; row 5 has no tag, and one file lies in a folder of its own.
    """

    def write(name: str = "photos", masks: bool = True) -> Path:
        root = tmp_path / name
        names = list(COLOURS)
        rows = ["image,split,labels"]
        for number in range(16):
            present = [] if number == 5 else [c for c in range(3) if (number % 7 + 1) >> c & 1]
            size = [(64, 48), (50, 70), (40, 40), (91, 33)][number % 4]
            photo, mask = draw_photo(size, present, number)
            stem = f"trip/p{number:02d}" if number == 7 else f"p{number:02d}"
            file = f"images/{stem}.{'png' if number % 3 else 'jpg'}"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            photo.save(root / file)
            rows.append(f"{file},{'val' if number >= 12 else 'train'},{';'.join(names[c] for c in present)}")
            if masks:
                path = root / "masks" / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
        (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (root / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        return root

    return write


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a training that takes half a second and has class maps, prototypes and suppressed pixels."""
    host = replace(
        PRESETS["paper"].host, backbone="test_efficientnet", weights="none", freeze="blocks.3", dilate=True,
        side=8, side_levels=("blocks.2", "blocks.4"),
    )  # fmt: skip
    return [
        *(f"--host.{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in asdict(host).items()),
        "--views.size", "64", "--threads", "1", "--quiet",
        "--classify.epochs", "2", "--classify.batch_size", "4", "--classify.learning_rate", "2",
        "--rectify.epochs", "3", "--rectify.batch_size", "4", "--rectify.learning_rate", "0.1",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def scenes() -> list[str]:
    """Settings for a few small built-in scenes."""
    return ["--data.cooccur.images", "14", "--data.cooccur.size", "64"]


@pytest.fixture
def environment() -> dict[str, str]:
    """Environment of a subprocess: one thread, nothing downloaded."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


@pytest.fixture
def run_command(environment: dict[str, str]) -> RunCommand:
    """Runs ``tag2mask`` in a process of its own."""

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tag2mask.cli", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return run
