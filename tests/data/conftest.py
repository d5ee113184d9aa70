"""Small real data sets on disk, and the development sets where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import DataConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the development sets; they are no part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"the development sets are not at {SHARED}")
    return SHARED


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Writes a picture with a texture of its own (seeded) and gives its path back."""

    def write(path: Path, size: tuple[int, int] = (12, 8), seed: int = 0, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def album(tmp_path: Path, picture: Callable[..., Path]) -> DataConfig:
    """Folder layout: four pictures, two classes, sound."""
    root = tmp_path / "album"
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.png", "trip/d.jpg")):
        picture(root / "images" / name, seed=seed)
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "labels.csv").write_text(
        "image,split,labels\n"
        "images/a.jpg,train,cat\n"
        "images/b.jpg,train,dog;cat\n"
        "images/c.png,train,\n"
        "images/trip/d.jpg,val,dog\n"
    )
    return DataConfig(kind="folder", root=str(root), split="train")


@pytest.fixture
def devkit(tmp_path: Path, picture: Callable[..., Path]) -> DataConfig:
    """VOC layout: three pictures, boxes in XML, sound."""
    root = tmp_path / "devkit"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n2007_000003\n")
    (lists / "val.txt").write_text("2007_000003\n")
    (root / "Annotations").mkdir()
    tags = {"2007_000001": ("person", "dog"), "2007_000002": ("train",), "2007_000003": ()}
    for seed, (image_id, names) in enumerate(tags.items()):
        picture(root / "JPEGImages" / f"{image_id}.jpg", seed=seed)
        objects = "".join(
            f"<object><name>{name}</name><difficult>1</difficult><part><name>head</name></part></object>"
            for name in names
        )
        (root / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
    return DataConfig(kind="voc", root=str(root), split="train")
