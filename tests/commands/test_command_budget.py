"""What a declared budget of annotated photos is worth: `measure_budget` on a small run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.cli import main
from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.score import miou_by_level
from tag2mask.score.budget import annotated_images, budget_level
from tag2mask.stages import selection
from tag2mask.stages.evaluate import Truth
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.pipeline import read_settings, require_masks

WriteFolder = Callable[..., Path]
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def scene_run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """Scenes, two seeds, a control."""
    run = tmp_path_factory.mktemp("budget") / "run"
    scenes = ["--data.cooccur.images", "24", "--data.cooccur.size", "64", "--classify.epochs", "6"]
    options = ["--rectify.epochs", "1", "--methods", "halo", "--seeds", "0,1"]
    assert main(["train", "--out", str(run), *tiny, *scenes, *options]) == 0
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--quiet", "--split", "val"]) == 0
    return run


@pytest.mark.parametrize("split", ["", "val"])
def test_gtfree_and_oracle_are_those_of_the_summary(scene_run: Path, split: str) -> None:
    result = selection.measure_budget(scene_run, (1,), (), split, QUIET)
    summary = json.loads((scene_run / f"summary{f'.{split}' if split else ''}.json").read_text())
    assert result == json.loads((scene_run / f"budget{f'.{split}' if split else ''}.json").read_text())
    assert set(result["methods"]) == {"cam", "halo"}
    for method, row in result["methods"].items():
        for protocol in ("gtfree", "oracle"):
            assert row[protocol]["mean"] == pytest.approx(
                summary["methods"][method][protocol]["miou"]["mean"], abs=1e-3
            )
        assert row["1"]["mean"] <= row["oracle"]["mean"] + 1e-3


@pytest.mark.parametrize("split", ["", "val"])
def test_the_threshold_is_chosen_on_the_photos_trained_on(scene_run: Path, split: str) -> None:
    """With a budget of all of them there is one draw; its level, found here by the masks, scores either split."""
    config = read_settings(scene_run)
    expected = []
    for seed in config.seeds:
        setups = [set_up_seed(config, scene_run, seed, torch.device("cpu"), QUIET, part) for part in ("", split)]
        truth = {setup.data.split: Truth(require_masks(setup), setup.images) for setup in setups}
        scored = [selection.score(setup, "halo", scene_run, truth, QUIET) for setup in setups]
        trained_on, wanted = (method.histograms for method in scored)
        level = budget_level(annotated_images(trained_on, range(24)), scored[0].by_protocol["gtfree"].level)
        expected.append(miou_by_level(wanted)[level - 1])
    row = selection.measure_budget(scene_run, (24,), ("halo",), split, QUIET)["methods"]["halo"]
    assert row["24"]["mean"] == pytest.approx(np.mean(expected), abs=1e-3)


def test_the_table_says_what_reads_masks(scene_run: Path) -> None:
    result = selection.measure_budget(scene_run, (1, 3), ("cam",), "val", QUIET)
    table = selection.markdown(result).splitlines()
    assert table[0] == "| mIoU | gtfree | budget 1* | budget 3* | oracle* |"
    assert table[2].startswith(f"| CAM | {result['methods']['cam']['gtfree']['mean']:.1f} ±")
    assert "24 images, split val, seeds 0, 1" in table[-1]


def test_more_photos_than_there_are_is_an_error(scene_run: Path) -> None:
    with pytest.raises(InputError, match="budget is 25 annotated images; expected 1 to 24"):
        selection.measure_budget(scene_run, (25,), (), "", QUIET)
