"""VOC 2012 with SBD and COCO 2014, in their exact layouts: train, localize, refine and evaluate by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tag2mask.cli import main
from tag2mask.data.classes import COCO_NAMES
from tests.data.layouts import VOC_AUGMENTED, VOC_VAL, write_coco, write_voc
from tests.stages.photos import REFINE, contents, png


def from_tags_to_figures(run: Path, options: list[str], split: str) -> dict[str, dict[str, object]]:
    """Train, localize, refine by a CRF and evaluate on both splits; gives the figures."""
    assert main(["train", "--out", str(run), *options, "--methods", "fpr"]) == 0
    quiet = ["--quiet"]
    for chosen in ([], ["--split", split]):
        assert main(["localize", str(run), *chosen, *quiet]) == 0
        assert main(["refine", str(run), "--with", "crf", *REFINE, *chosen, *quiet]) == 0
        assert main(["evaluate", str(run), *chosen, *quiet]) == 0
        assert main(["evaluate", str(run), "--stages", *chosen, *quiet]) == 0
    names = {"": "summary.json", split: f"summary.{split}.json"}
    return {key: json.loads((run / name).read_text()) for key, name in names.items()}


def masks(run: Path, folder: str) -> dict[str, np.ndarray]:
    return {path.stem: png(path) for path in sorted((run / "seed0" / "fpr" / folder).glob("*.png"))}


def figures(summary: dict[str, object]) -> str:
    text = json.dumps(summary)
    assert "gtfree" in text and "NaN" not in text
    return text


def test_voc_with_sbd(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Three classes of the twenty; the list train_aug is computed, and its masks are VOC's and SBD's."""
    root, run = write_voc(tmp_path / "data"), tmp_path / "run"
    data = ["--data.kind", "voc", "--data.root", str(root), "--data.classes", "boat,person,train"]
    data += ["--data.split", "train_aug"]
    assert main(["check", *data, *tiny]) == 0
    shown = capsys.readouterr().out
    assert "PASCAL VOC 2012 train_aug, images: 10,582 published, 11 here; they do not agree" in shown
    assert "tags  sha256 " in shown and "masks sha256 - " not in shown and "0 errors, 0 warnings" in shown
    summaries = from_tags_to_figures(run, [*data, *tiny], "val")
    assert all(figures(summary) for summary in summaries.values())
    for folder, ids in (("masks/train_aug", VOC_AUGMENTED), ("crf/masks/val", VOC_VAL)):
        found = masks(run, folder)
        assert tuple(found) == tuple(sorted(ids))
        assert all(set(np.unique(mask)) <= {0, 1, 2, 3, 255} for mask in found.values())
    weights = contents(run / "seed0", ".safetensors")
    shutil.rmtree(root / "SegmentationClass")
    shutil.rmtree(tmp_path / "data" / "benchmark_RELEASE" / "dataset" / "cls")
    assert main(["train", "--out", str(tmp_path / "blind"), *data, *tiny, "--methods", "fpr"]) == 0
    blind = contents(tmp_path / "blind" / "seed0", ".safetensors")
    assert {k: v for k, v in weights.items() if k in blind} == blind, "masks are for evaluation alone"


def test_coco(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """All eighty classes, three of which have photos."""
    root, run = write_coco(tmp_path / "coco"), tmp_path / "run"
    assert main(["check", str(root), "--data.masks", "none", *tiny]) == 0
    without = capsys.readouterr().out
    assert main(["check", str(root), *tiny]) == 0
    shown = capsys.readouterr().out
    assert "COCO train2014, images: 82,783 published, 12 here; they do not agree" in shown
    assert "12 images, 80 classes, " in shown and "super-class" in shown
    checksums = [line for line in shown.splitlines() if "sha256" in line]
    assert checksums[0] in without and "mask" not in without.partition("sha256")[2] and len(checksums[1]) == len("masks sha256 ") + 64
    data = ["--data.kind", "coco", "--data.root", str(root)]
    summaries = from_tags_to_figures(run, [*data, *tiny], "val")
    assert all(figures(summary) for summary in summaries.values())
    allowed = {0, *(COCO_NAMES.index(name) + 1 for name in ("boat", "person", "train"))}
    found = masks(run, "masks/train")
    assert len(found) == 12 and "COCO_train2014_000000000009" in found
    assert all(set(np.unique(mask)) <= allowed for mask in found.values())
    assert len(masks(run, "crf/masks/val")) == 4


def test_voc_animals_is_read_as_voc(shared_animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["--data.classes", "cat,cow,dog,horse,person,sheep"]
    assert main(["check", str(shared_animals), *classes, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "437 images, 6 classes, 524 tags" in shown and "0 errors, 0 warnings" in shown
    assert "1,464 published, 437 here; they do not agree: this is a part of it" in shown
    assert "masks sha256 69ef197558f3a5589a2755c08c5c907482996f60831cb129799d35dfa2c401f8" in shown


@pytest.fixture
def shared_animals() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "voc_animals"
    if not folder.is_dir():
        pytest.skip(f"the development set is not at {folder}")
    return folder
