"""The lowest threshold of protocol gtfree: what the maps of absent classes reach all the same."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.cli import main
from tag2mask.maps.store import load_maps, save_maps
from tag2mask.score import PROTOCOLS, ScoreHistograms, absent_floor, choose_level, minimum_cross_entropy

SEEDS = st.integers(0, 2**32 - 1)


def peaks_and_tags(seed: int, images: int = 12, classes: int = 4, absent: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (N, C), those of absent classes about ``absent`` times as high, and tags (N, C)."""
    random = np.random.default_rng(seed)
    tags = random.random((images, classes)) < random.uniform(0.1, 0.9)
    return random.gamma(3, 1, tags.shape) * np.where(tags, 1, absent) * random.uniform(0.1, 9, classes), tags


def by_loops(peaks: np.ndarray, tags: np.ndarray) -> int:
    """What 25 % of the absent pairs reach, relative to their class's median peak; 1 where that is the peak itself."""
    reached = []
    for c in range(tags.shape[1]):
        having = sorted(float(peaks[i, c]) for i in range(len(tags)) if tags[i, c])
        if not having:
            continue
        middle = (having[(len(having) - 1) // 2] + having[len(having) // 2]) / 2
        if middle == 0:
            continue
        reached += [float(peaks[i, c]) / (middle + 1e-5) for i in range(len(tags)) if not tags[i, c]]
    if not reached:
        return 1
    reached.sort()
    place = 0.75 * (len(reached) - 1)
    below, above = reached[math.floor(place)], reached[math.ceil(place)]
    floor = below + (above - below) * (place - math.floor(place))
    return math.ceil(255 * floor) if 0 < floor < 1 else 1


@settings(deadline=None, max_examples=150)
@given(SEEDS, st.integers(1, 15), st.integers(1, 5), st.floats(0, 2))
def test_equals_the_loops(seed: int, images: int, classes: int, absent: float) -> None:
    peaks, tags = peaks_and_tags(seed, images, classes, absent)
    found = absent_floor(peaks, tags)
    assert 1 <= found <= 255
    expected = by_loops(peaks, tags)
    assert found == expected or near_a_level(peaks, tags)


def near_a_level(peaks: np.ndarray, tags: np.ndarray) -> bool:
    """Whether a last bit may decide between two levels."""
    return by_loops(peaks * (1 - 1e-9), tags) != by_loops(peaks * (1 + 1e-9), tags)


@settings(deadline=None)
@given(SEEDS, st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_the_scale_of_a_class_s_maps_does_not_matter(seed: int, factors: list[float]) -> None:
    peaks, tags = peaks_and_tags(seed)
    peaks += 0.1
    scaled = absent_floor(1000 * peaks * np.array(factors), tags)  # far above the small number in the denominator
    assert abs(scaled - absent_floor(1000 * peaks, tags)) % 254 <= 1  # from 255, the next higher is 1: no floor


@settings(deadline=None)
@given(SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_photos_and_classes_does_not_matter(seed: int, random: object) -> None:
    peaks, tags = peaks_and_tags(seed)
    rows, columns = list(range(len(tags))), list(range(tags.shape[1]))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    assert absent_floor(peaks[rows][:, columns], tags[rows][:, columns]) == absent_floor(peaks, tags)


@settings(deadline=None)
@given(SEEDS, st.floats(1, 3))
def test_higher_maps_of_absent_classes_never_lower_the_floor_unless_it_tells_nothing(seed: int, factor: float) -> None:
    peaks, tags = peaks_and_tags(seed, absent=0.3)
    higher = absent_floor(np.where(tags, peaks, factor * peaks), tags)
    assert higher >= absent_floor(peaks, tags) or higher == 1


def test_nothing_to_learn_from_is_no_floor() -> None:
    peaks, tags = peaks_and_tags(0)
    assert absent_floor(peaks, tags) > 1
    assert absent_floor(peaks, np.ones_like(tags)) == 1, "every photo has every class"
    assert absent_floor(peaks, np.zeros_like(tags)) == 1, "no photo has any"
    tags[:, :2], tags[:, 2:] = True, False
    assert absent_floor(peaks, tags) == 1, "no photo lacks a class that another has"
    assert absent_floor(np.zeros((0, 4)), np.zeros((0, 4), bool)) == 1


def test_a_class_that_nobody_has_counts_nothing() -> None:
    peaks, tags = peaks_and_tags(1)
    wider = np.column_stack([peaks, np.full(len(peaks), 1e6)]), np.column_stack([tags, np.zeros(len(tags), bool)])
    assert absent_floor(*wider) == absent_floor(peaks, tags)


@pytest.mark.parametrize(("share", "level"), [(0.0, 1), (0.2, 51), (0.5, 128), (0.999, 255), (1.01, 1), (7.0, 1)])
def test_absent_maps_of_one_height(share: float, level: int) -> None:
    tags = np.arange(12)[:, None] % 3 == np.arange(3)
    assert absent_floor(np.where(tags, 1e3, share * 1e3), tags) == level


def test_maps_that_are_0_or_no_numbers_are_no_evidence() -> None:
    tags = np.arange(12)[:, None] % 3 == np.arange(3)
    assert absent_floor(np.zeros(tags.shape), tags) == 1
    assert absent_floor(np.where(tags, 0.0, 1.0), tags) == 1, "higher where the class is not"
    peaks = np.where(tags, 1e3, 500.0)
    level = absent_floor(peaks, tags)
    peaks[:, 0] = np.where(tags[:, 0], 0.0, 900.0)
    assert absent_floor(peaks, tags) == level == 128, "the other classes decide"
    peaks[tags[:, 1], 1] = np.inf
    peaks[0, 2] = np.nan
    assert absent_floor(peaks, tags) in (1, level)


# In the choice of a level


def histograms_of(seed: int, masks: bool = True) -> ScoreHistograms:
    random = np.random.default_rng(seed)
    histograms = ScoreHistograms(2, images=3)
    for index in range(3):
        mask = random.integers(0, 3, (8, 9)).astype(np.uint8)
        maps = np.clip(random.normal(60, 30, (2, 8, 9)) + 90 * (mask == [[[1]], [[2]]]), 0, 255).astype(np.uint8)
        histograms.add(index, [0, 1], maps, mask if masks else None)
    return histograms


@given(SEEDS, st.integers(1, 255))
@settings(deadline=None, max_examples=30)
def test_the_level_is_that_of_the_rule_but_not_below_the_floor(seed: int, floor: int) -> None:
    histograms = histograms_of(seed)
    rule = minimum_cross_entropy(histograms.map_levels)
    assert choose_level(histograms, "gtfree", floor=floor) == (floor if floor > rule else rule)
    assert choose_level(histograms, "gtfree", floor=floor, rule=lambda levels: 40) == max(40, floor)
    for protocol in PROTOCOLS:
        if protocol != "gtfree":
            assert choose_level(histograms, protocol, floor=floor) == choose_level(histograms, protocol)


def test_the_floor_needs_no_mask() -> None:
    assert choose_level(histograms_of(0, masks=False), "gtfree", floor=200) == 200


# Through files and commands


def test_peaks_are_kept_with_the_maps(tmp_path: Path) -> None:
    peaks = np.array([0.0, 3.5, 1e-7, 2e4], np.float32)
    save_maps(tmp_path / "a.npz", np.array([1]), np.zeros((1, 5, 4), np.uint8), peaks)
    save_maps(tmp_path / "untagged.npz", np.array([], int), np.zeros((0, 5, 4), np.uint8), 2 * peaks)
    assert load_maps(tmp_path / "a.npz").peaks.tolist() == peaks.tolist()
    assert load_maps(tmp_path / "untagged.npz").peaks.tolist() == (2 * peaks).tolist(), "also of a photo without tags"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """Scenes with maps of two methods, masks and figures; tests must not change it."""
    run = tmp_path_factory.mktemp("floor") / "run"
    scenes = ["--data.cooccur.images", "24", "--data.cooccur.size", "64"]
    assert main(["train", "--out", str(run), *tiny, *scenes, "--methods", "fpr"]) == 0
    assert main(["localize", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--quiet"]) == 0
    return run


def levels_of_stored_maps(folder: Path, classes: int) -> tuple[int, int]:
    """Level by the rule alone and the floor, both from the files that `tag2mask localize` left."""
    stored = [load_maps(path) for path in sorted(folder.rglob("*.npz"))]
    values = np.zeros(256, np.int64)
    tags = np.zeros((len(stored), classes), bool)
    for index, image in enumerate(stored):
        tags[index, image.classes] = True
        if len(image.classes):
            values += np.bincount(image.maps.max(axis=0).ravel(), minlength=256)
    return minimum_cross_entropy(values), by_loops(np.array([image.peaks for image in stored]), tags)


def test_masks_have_the_threshold_of_the_figures(run: Path) -> None:
    """`localize` and `evaluate` go through the maps separately; batches of another size may change a last bit."""
    details = json.loads((run / "details.json").read_text())
    lifted = 0
    for method in ("cam", "fpr"):
        maps, masks = (run / "seed0" / method / kind / "train" for kind in ("maps", "masks"))
        rule, floor = levels_of_stored_maps(maps, len(details["classes"]))
        level = max(rule, floor)
        lifted += floor > rule
        figures = details["by_seed"]["0"][method]["gtfree"]
        assert abs(round(255 * figures["threshold"]) - level) <= 1
        for path in sorted(masks.rglob("*.png")):
            stored = load_maps(maps / path.relative_to(masks).with_suffix(".npz"))
            best = stored.maps.max(axis=0, initial=0)
            foreground = np.asarray(Image.open(path)) > 0
            assert foreground[best > level].all() and not foreground[best < level].any()
    assert lifted, "the floor decides for one of them at least"


def test_maps_of_an_older_version_without_peaks_are_made_again(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = min((copy / "seed0" / "cam" / "maps" / "train").glob("*.npz"))
    stored, content = load_maps(path), path.read_bytes()
    size = np.array(stored.maps.shape[1:], np.int32)
    np.savez_compressed(path, classes=stored.classes, maps=stored.maps, size=size)
    assert main(["localize", str(copy), "--quiet", "--methods", "cam"]) == 0
    assert path.read_bytes() == content
