"""Rectification without training: prototypes at inference, against loops, and as a method through the commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.fpr import compared_pixels, training_free_rectification
from tag2mask.maps.store import load_maps
from tests.paper import cases
from tests.paper.edge_cases import FULL
from tests.paper.reference import Bank

STEEPNESS = 20.0


def by_loops(features: Tensor, maps: Tensor, bank: Bank, steepness: float) -> Tensor:
    """M' of every pixel, in double precision."""
    result = torch.zeros_like(maps)
    for n in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            for y in range(maps.shape[2]):
                for x in range(maps.shape[3]):
                    weight = 1.0
                    if bank.positive[c] and bank.trimmed[c]:
                        pixel = features[n, :, y, x].tolist()
                        to_positive = min(math.dist(pixel, row) for row in bank.positive[c])
                        to_negative = min(math.dist(pixel, row) for row in bank.trimmed[c])
                        weight = 1 / (1 + (to_positive / to_negative) ** steepness)
                    result[n, c, y, x] = max(0.0, float(maps[n, c, y, x])) * weight
    return result


def sample(seed: int, height: int = 2) -> tuple[Tensor, Tensor]:
    """Features and maps of both signs, double precision."""
    batch = cases.batch(seed, height=height)
    return batch.features.detach(), batch.maps().detach()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1.0, 2.0, 7.5, 20.0]))
def test_equals_the_loops(seed: int, height: int, steepness: float) -> None:
    features, maps = sample(seed, height)
    lists = cases.bank(seed, cases.random_sizes(seed))
    found = training_free_rectification(features, maps, cases.padded(lists), steepness)
    torch.testing.assert_close(found, by_loops(features, maps, lists, steepness), rtol=1e-8, atol=1e-10)


def test_the_steepness_that_is_used_unless_another_is_told() -> None:
    features, maps = sample(0)
    lists = cases.bank(0, FULL)
    expected = by_loops(features, maps, lists, STEEPNESS)
    torch.testing.assert_close(training_free_rectification(features, maps, cases.padded(lists)), expected)
    assert not torch.allclose(expected, by_loops(features, maps, lists, 2 * STEEPNESS))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 20.0, 1e4]))
def test_a_map_is_only_ever_lowered_and_never_below_0(seed: int, steepness: float) -> None:
    features, maps = sample(seed)
    found = training_free_rectification(features, maps, cases.padded(cases.bank(seed, FULL)), steepness)
    assert (found >= 0).all() and (found <= maps.relu()).all() and torch.isfinite(found).all()


@pytest.mark.parametrize("sizes", [(0, 0, 0), (3, 0, 0), (0, 3, 3), (3, 3, 0)])
def test_a_class_without_positives_or_negatives_keeps_its_map(sizes: tuple[int, int, int]) -> None:
    """Without any, without negatives, without positives, without negatives that survive the trimming."""
    features, maps = sample(1)
    found = training_free_rectification(features, maps, cases.padded(cases.bank(1, [sizes, *FULL[1:]])))
    assert torch.equal(found[:, 0], maps[:, 0].relu())
    assert (found[:, 1] < maps[:, 1].relu())[maps[:, 1] > 0].all(), "the others have their maps lowered"


def test_a_pixel_on_a_negative_vanishes_and_one_on_a_positive_stays() -> None:
    features, _ = sample(2)
    maps = torch.full((2, 3, 2, 3), 5.0, dtype=torch.float64)
    lists = cases.bank(2, FULL)
    features[0, :, 0, 0] = torch.tensor(lists.trimmed[1][1])
    features[0, :, 1, 2] = torch.tensor(lists.positive[1][0])
    found = training_free_rectification(features, maps, cases.padded(lists))
    assert found[0, 1, 0, 0] < 1e-9 and found[0, 1, 1, 2] == pytest.approx(5.0)
    single = training_free_rectification(features.float(), maps.float(), cases.padded(lists, dtype=torch.float32))
    assert single[0, 1, 0, 0] < 1e-6 and single[0, 1, 1, 2] == pytest.approx(5.0)


def test_a_pixel_as_near_to_both_sides_has_its_value_halved() -> None:
    """Also where both distances are 0."""
    lists = cases.bank(3, FULL)
    lists.trimmed = [list(rows) for rows in lists.positive]
    features, maps = sample(3)
    features[0, :, 0, 0] = torch.tensor(lists.positive[0][0])
    found = training_free_rectification(features, maps, cases.padded(lists))
    torch.testing.assert_close(found, 0.5 * maps.relu())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_large_steepness_is_the_choice_of_the_nearer_side(seed: int) -> None:
    features, maps = sample(seed)
    prototypes = cases.padded(cases.bank(seed, FULL))
    present = torch.ones(2, 3, dtype=torch.bool)
    nearer_negative, nearer_positive = compared_pixels(features, maps, present, prototypes, theta=0.0)
    found = training_free_rectification(features, maps, prototypes, steepness=1e9)
    apart = compared_pixels(features, maps, present, prototypes, theta=0.0, margin=0.999)
    assert (found[nearer_negative & apart[0]] < 1e-9).all()
    torch.testing.assert_close(found[nearer_positive & apart[1]], maps[nearer_positive & apart[1]])


# As a method


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with the method and nothing else; its CAM learns for a while. Tests must not change it."""
    run = tmp_path_factory.mktemp("free") / "run"
    scenes = ["--data.cooccur.images", "24", "--data.cooccur.size", "64"]
    settings = [*tiny, *scenes, "--classify.epochs", "6"]
    assert main(["train", "--out", str(run), *settings, "--methods", "training_free"]) == 0
    return run


def test_it_has_the_weights_of_the_cam_and_prototypes(run: Path) -> None:
    cam, free = (run / "seed0" / method for method in ("cam", "training_free"))
    assert (cam / "weights.safetensors").read_bytes() == (free / "weights.safetensors").read_bytes()
    prototypes = load_prototypes(free / "prototypes.safetensors")
    assert (prototypes.positive_valid.any(1) & prototypes.trimmed_valid.any(1)).any()
    assert not (free / "metrics.jsonl").exists(), "nothing was trained"


def test_it_is_not_collected_again(run: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.stat().st_mtime_ns for path in (run / "seed0").rglob("*.safetensors")}
    again = ["--config", str(run / "settings.yaml"), "--quiet", "--resume"]
    assert main(["train", "--out", str(run), *again]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_its_maps_are_lower_and_its_logits_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Peaks of tagged classes are those of the rectified maps; the tags' figures are the CAM's, bit for bit."""
    assert main(["localize", str(run), "--quiet"]) == 0
    cam, free = (run / "seed0" / method / "maps" / "train" for method in ("cam", "training_free"))
    names = sorted(path.name for path in free.glob("*.npz"))
    assert len(names) == 24
    changed = 0
    for name in names:
        before, after = load_maps(cam / name), load_maps(free / name)
        assert after.classes.tolist() == before.classes.tolist() and after.maps.shape == before.maps.shape
        assert (after.peaks[after.classes] <= before.peaks[after.classes] * (1 + 1e-6)).all()
        changed += int((after.maps != before.maps).any())
    assert changed > 6
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert "FPR without training" in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tags"]["training_free"] == summary["tags"]["cam"]
    assert summary["methods"]["training_free"] != summary["methods"]["cam"]


def test_photos_of_another_split_and_the_report(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prototypes are those of the photos that were trained on."""
    root, run = write_folder(masks=False), tmp_path / "run"
    settings = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "training_free"]
    assert main(["train", "--out", str(run), *settings]) == 0
    prototypes = (run / "seed0" / "training_free" / "prototypes.safetensors").read_bytes()
    assert main(["localize", str(run), "--quiet", "--split", "val", "--methods", "training_free"]) == 0
    assert len(list((run / "seed0" / "training_free" / "maps" / "val").glob("*.npz"))) == 4
    assert main(["report", str(run), "--quiet"]) == 0
    assert "FPR without training" in (run / "report.html").read_text()
    assert (run / "seed0" / "training_free" / "prototypes.safetensors").read_bytes() == prototypes
    (run / "seed0" / "training_free" / "prototypes.safetensors").unlink()
    capsys.readouterr()
    assert main(["localize", str(run), "--quiet", "--methods", "training_free"]) == 2
    assert "there are no prototypes at" in capsys.readouterr().err


def test_it_fits_settings_that_compare_trained_features(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path
) -> None:
    """As in the preset `paper`: without training there is nothing but the levels to compare."""
    data = ["--data.kind", "folder", "--data.root", str(write_folder(masks=False)), "--methods", "training_free"]
    peaks = {}
    for name, compared in (("one", ["--fpr.feature_space", "trained", "--fpr.region_weight", "0.12"]), ("two", [])):
        assert main(["train", "--out", str(tmp_path / name), *tiny, *data, *compared]) == 0
        assert main(["localize", str(tmp_path / name), "--quiet"]) == 0
        for method in ("cam", "training_free"):
            folder = tmp_path / name / "seed0" / method / "maps" / "train"
            peaks[name, method] = np.array([load_maps(path).peaks for path in sorted(folder.rglob("*.npz"))])
    assert np.array_equal(peaks["one", "training_free"], peaks["two", "training_free"])
    assert (peaks["two", "training_free"] < peaks["two", "cam"]).any()
