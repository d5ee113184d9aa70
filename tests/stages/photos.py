"""A folder of eleven small photos, a run trained on it in a moment, and settings that make every stage as quick."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tests.conftest import COLOURS, draw_photo

NAMES = tuple(COLOURS)
TRAIN, VAL = 8, 3
UNTAGGED, NESTED = "p5", "trip/p3"
"""A photo without any tag, and one in a folder of its own."""
REFINE = [
    "--refine.processes", "1", "--refine.views.size", "64", "--refine.optimiser.epochs", "2",
    "--refine.optimiser.batch_size", "4", "--refine.irn.edge_channels", "4", "--refine.irn.steps", "16",
    "--refine.psa.channels", "[4,4,8]", "--refine.psa.radius", "3", "--refine.psa.steps", "4",
    "--refine.psa.background", "4",
]  # fmt: skip
SEGMENT = [
    "--segment.encoder", "test_efficientnet", "--segment.weights", "none", "--segment.size", "64",
    "--segment.optimiser.epochs", "2", "--segment.optimiser.batch_size", "4",
]  # fmt: skip


def write_photos(root: Path, masks: bool = True) -> Path:
    """Photos of four sizes, two formats and two splits, with tags and, if wanted, masks."""
    rows = ["image,split,labels"]
    for number in range(TRAIN + VAL):
        present = [] if number == 5 else [c for c in range(3) if (number % 7 + 1) >> c & 1]
        photo, mask = draw_photo([(64, 48), (50, 70), (40, 40), (91, 33)][number % 4], present, number)
        name = NESTED if number == 3 else f"p{number}"
        file = f"images/{name}.{'png' if number % 3 else 'jpg'}"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        photo.save(root / file)
        if masks:
            (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        rows.append(f"{file},{'val' if number >= TRAIN else 'train'},{';'.join(NAMES[c] for c in present)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return root


def train(folder: Path, tiny: list[str], masks: bool = True, methods: str = "fpr") -> Path:
    """Write ``folder``/photos and train ``folder``/run on them."""
    root, run = write_photos(folder / "photos", masks), folder / "run"
    data = ["--data.kind", "folder", "--data.root", str(root)]
    assert main(["train", "--out", str(run), *data, *tiny, "--methods", methods]) == 0
    return run


def copied(run: Path, target: Path) -> Path:
    """The same run in another place; it reads the same photos."""
    shutil.copytree(run, target)
    return target


def photos(run: Path, split: str) -> Iterator[tuple[str, tuple[int, int], set[int]]]:
    """Id, (H, W) and the mask values that its tags allow, for each photo beside a run."""
    root = run.parent / "photos"
    with (root / "labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                width, height = Image.open(root / row["image"]).size
                name = Path(row["image"]).relative_to("images").with_suffix("").as_posix()
                yield name, (height, width), {NAMES.index(tag) + 1 for tag in row["labels"].split(";") if tag}


def png(path: Path) -> np.ndarray:
    """(H, W) uint8 of a palette PNG."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def contents(folder: Path, *suffixes: str) -> dict[str, bytes]:
    """Files below a folder, those that end in one of ``suffixes``, but for locks and frozen features."""
    every = (p for p in sorted(folder.rglob("*")) if p.is_file() and "cache" not in p.parts and p.name != "run.lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in every if not suffixes or p.name.endswith(suffixes)}


def times(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def changed(before: dict[str, int], folder: Path) -> set[str]:
    """Files that were written, made or removed since ``before``."""
    after = times(folder)
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


class Killed(BaseException):
    """What a simulated kill raises; nothing catches it."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[list[int]]:
    """Raise ``Killed`` in place of the ``count``-th rename, by which every file appears; gives the number so far."""
    calls, rename = [0], os.replace

    def counted(source: object, target: object) -> None:
        calls[0] += 1
        if calls[0] == count:
            raise Killed
        rename(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", counted)
        yield calls
