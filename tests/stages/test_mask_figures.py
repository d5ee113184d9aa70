"""`tag2mask evaluate --stages`: figures of finished masks, counted here once more from the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import RefineConfig
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.manifests import Manifest
from tag2mask.score import MaskCounts
from tag2mask.stages.mask_figures import markdown, summarise_stages
from tests.stages.photos import NAMES, REFINE, SEGMENT, TRAIN, VAL, copied, photos, png, times, train

FOLDERS = {"seed": "masks", "crf": "crf/masks", "irn": "irn/masks", "segmenter:irn": "segmenter/irn/masks"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """Two methods, two seeds, up to a segmenter. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("figures"), [*tiny, "--seeds", "0,3"], methods="continued,fpr")
    methods = ["--methods", "continued,fpr", "--quiet"]
    assert main(["refine", str(run), *REFINE, *methods]) == 0
    assert main(["segment", str(run), *SEGMENT, *methods]) == 0
    return run


@pytest.fixture
def copy(run: Path) -> Path:
    """A copy of it that a test may change; beside the photos."""
    return copied(run, run.parent / f"copy{len(list(run.parent.glob('copy*')))}")


def evaluate(run: Path, *options: str) -> int:
    return main(["evaluate", str(run), "--stages", "--quiet", *options])


def figures(run: Path, seed: int, method: str, stage: str, split: str) -> dict[str, float]:
    """mIoU and the rest by boolean planes, photo after photo; a class that occurs nowhere counts nowhere."""
    hits, truths, found = np.zeros((3, len(NAMES) + 1))
    unsure = pixels = 0
    for name, _, _ in photos(run, split):
        truth = np.array(Image.open(run.parent / "photos" / "masks" / f"{name}.png"))
        mask = png(run / f"seed{seed}" / method / FOLDERS[stage] / split / f"{name}.png")
        known = truth != 255
        pixels, unsure = pixels + known.sum(), unsure + ((mask == 255) & known).sum()
        for c in range(len(NAMES) + 1):
            hits[c] += ((mask == c) & (truth == c)).sum()
            truths[c] += (truth == c).sum()
            found[c] += ((mask == c) & known).sum()
    with np.errstate(invalid="ignore"):
        iou, precision, recall = (hits / below for below in (truths + found - hits, found, truths))
    result = {"miou": np.nanmean(iou), "recall": np.nanmean(recall[1:]), "unsure": unsure / pixels}
    if found[1:].any():
        result |= {"precision": np.nanmean(precision[1:]), "fdr": 1 - np.nanmean(precision[1:])}
    return {key: 100 * float(value) for key, value in result.items()}


@pytest.mark.parametrize("split", ["", "val"])
def test_figures_are_those_of_the_files(copy: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mask with pixels left open among them: they are a miss and no prediction."""
    folder = copy / "seed0/fpr/irn/masks/train"
    for path in sorted(folder.rglob("*.png"))[:3]:
        mask = png(path)
        mask[: len(mask) // 3] = 255
        Manifest(folder).add(path, write_mask(path, mask))
    capsys.readouterr()
    assert evaluate(copy, *(["--split", split] if split else [])) == 0
    shown = capsys.readouterr().out
    content = json.loads((copy / (f"stages.{split}.json" if split else "stages.json")).read_text())
    assert content["seeds"] == [0, 3] and content["split"] == (split or "train") and content["protocol"] == "gtfree"
    assert content["images"] == (VAL if split else TRAIN)
    assert list(content["stages"]) == ["continued", "fpr"]
    for method, table in content["stages"].items():
        assert list(table) == list(FOLDERS)
        for stage, found in table.items():
            seeds = [figures(copy, seed, method, stage, split or "train") for seed in (0, 3)]
            for name, figure in found.items():
                values = [each[name] for each in seeds if name in each]
                if values:
                    assert figure["mean"] == pytest.approx(np.mean(values), abs=6e-5), (method, stage, name)
                    assert figure["std"] == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0, abs=6e-5)
                else:
                    assert figure["mean"] is None
    assert (content["stages"]["fpr"]["irn"]["unsure"]["mean"] > 0) == (not split)
    row = next(line for line in shown.splitlines() if line.startswith("| fpr |"))
    assert f"| {content['stages']['fpr']['irn']['miou']['mean']:.1f} ±" in row
    assert "maps | + CRF | + IRN | segmenter, from IRN |" in shown


def test_differences_of_two_methods_are_paired_for_each_seed_and_stage(copy: Path) -> None:
    assert evaluate(copy) == 0
    content = json.loads((copy / "stages.json").read_text())
    assert set(content["fpr_minus_continued"]) == {"0", "3"}
    for seed, stages in content["fpr_minus_continued"].items():
        assert set(stages) == set(FOLDERS)
        for stage, found in stages.items():
            ours, control = (figures(copy, int(seed), m, stage, "train")["miou"] for m in ("fpr", "continued"))
            assert found["difference"] == pytest.approx(ours - control, abs=1e-6)
            assert found["low"] <= found["high"] and found["images"] == TRAIN


def test_a_second_call_makes_no_mask(copy: Path) -> None:
    assert evaluate(copy) == 0
    before = times(copy)
    assert evaluate(copy) == 0
    assert {name for name, time in times(copy).items() if before.get(name) != time} == {"stages.json"}


def test_some_methods_are_shown_but_not_stored(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert evaluate(copy, "--methods", "fpr") == 0
    assert "| fpr |" in (shown := capsys.readouterr().out) and "continued" not in shown
    assert not (copy / "stages.json").exists()


def test_without_masks_there_is_nothing_to_score(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*options: str) -> str:
        capsys.readouterr()
        assert evaluate(copy, *options) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    assert "method 'halo' is not in this run" in error("--methods", "halo")
    for method in ("continued", "fpr"):
        shutil.rmtree(copy / "seed0" / method / "segmenter")
    assert evaluate(copy) == 0, "there are refined masks"
    for method in ("continued", "fpr"):
        shutil.rmtree(copy / "seed0" / method / "crf")
    assert f"{copy} has no refined masks; run `tag2mask refine {copy}` first" in error()


def test_a_folder_without_truth(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path, tiny, masks=False)
    assert main(["refine", str(run), "--with", "crf", *REFINE, "--quiet"]) == 0
    capsys.readouterr()
    assert evaluate(run) == 2
    assert "has no masks, so there is nothing to score" in capsys.readouterr().err


def test_a_figure_that_no_seed_knows_is_a_dash() -> None:
    """Not a number is not JSON; a set whose truth is all 255 has no mIoU."""
    counts = MaskCounts(2, 1)
    counts.add(0, np.ones((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    summary = summarise_stages({0: {"cam": {"seed": counts}}}, "train", RefineConfig())
    assert summary["stages"]["cam"]["seed"]["miou"]["mean"] is None and summary["images"] == 0
    json.dumps(summary, allow_nan=False)
    assert "| cam | – |" in markdown(summary)
