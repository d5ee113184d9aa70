"""One tiny real run, trained and scored through the pipeline, that the tests of the report copy and damage."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import DataConfig, FPRConfig, HostConfig, OptimiserConfig, RunConfig, ViewsConfig
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.progress import Reporter
from tag2mask.report import write_report
from tag2mask.stages import pipeline

NAMES = ('<script>alert("cat")</script>', "dog & son", '"><img src=x onerror=alert(1)>')
CONTEXTS = ("<i>grass</i>", "water")
HUES = ((220, 40, 40), (40, 200, 60), (60, 60, 230))


def make_data(root: Path) -> None:
    """Twelve pictures of coloured squares on striped ground, with tags, masks and contexts."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(12):
        tags = [number % 3] + ([(number + 1) % 3] if number % 4 == 3 else [])
        pixels = generator.integers(90, 150, (60, 80, 3)).astype(np.uint8)
        mask, context = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
        context[40:] = len(NAMES) + 1 + number % 2
        pixels[40::4] = 20 + 200 * (number % 2)
        for place, c in enumerate(tags):
            box = np.s_[12:36, 8 + 36 * place : 34 + 36 * place]
            pixels[box], mask[box] = HUES[c], c + 1
        mask[:2] = 255
        name = f'{number} <b onclick="x">&.png'
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "images" / name)
        write_mask(root / "masks" / name, mask)
        write_mask(root / "masks_stuff" / name, context)
        rows.append((f"images/{name}", "train", ";".join(NAMES[c] for c in tags)))
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "split", "labels"), *rows])
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    (root / "classes_stuff.txt").write_text("\n".join([*NAMES, *CONTEXTS]) + "\n")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all pieces. Tests must not change it; ``run`` is a copy.

    It hardly learns, so that its maps are those of a random network everywhere: the margin makes the negatives suppress
    something, and none is asked for support.
    """
    folder = tmp_path_factory.mktemp("report")
    make_data(folder / "data <1>")
    config = RunConfig(
        data=DataConfig(kind="folder", root=str(folder / "data <1>")),
        host=HostConfig(backbone="test_resnet", weights="none", levels=("layer4",), freeze="layer2", side=0),
        views=ViewsConfig(size=64),
        classify=OptimiserConfig(epochs=2, batch_size=4, learning_rate=1e-5, backbone_rate=1e-6),
        rectify=OptimiserConfig(epochs=2, batch_size=4, learning_rate=1e-5, backbone_rate=1e-6),
        fpr=FPRConfig(margin=1.5, support="off", refill=1),
        methods=("continued", "halo", "fpr"),
        seeds=(1, 2),
        threads=1,
    )
    run, reporter = folder / "run", Reporter(quiet=True)
    try:
        pipeline.train(config, run, reporter)
        pipeline.evaluate_run(run, (), "", reporter)
        pipeline.prepare_report(run, reporter)
    finally:
        torch.set_flush_denormal(False)  # the pipeline sets it for the process; hypothesis refuses to work with it
    shutil.rmtree(run / "cache", ignore_errors=True)
    return run


@pytest.fixture(scope="session")
def page(finished_run: Path) -> str:
    """The page of the whole run."""
    return write_report(finished_run).read_text(encoding="utf-8")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to take pieces from."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "report.html").unlink(missing_ok=True)
    return copy


@pytest.fixture
def summary(finished_run: Path) -> dict[str, Any]:
    """summary.json of the run."""
    content: dict[str, Any] = json.loads((finished_run / "summary.json").read_text())
    return content


@pytest.fixture
def details(finished_run: Path) -> dict[str, Any]:
    """details.json of the run."""
    content: dict[str, Any] = json.loads((finished_run / "details.json").read_text())
    return content
