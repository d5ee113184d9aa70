"""The paired bootstrap, against a loop over resamples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.score import IGNORE, ScoreHistograms, bootstrap, paired_bootstrap, scores


def histograms_of(seed: int, noise: float, images: int = 6, masks_seed: int = 0) -> ScoreHistograms:
    """Maps that show each pixel's class, the better the less noise; ``masks_seed`` alone makes the masks."""
    masks, generator = np.random.default_rng(masks_seed), np.random.default_rng(seed)
    histograms = ScoreHistograms(3, images=images)
    for index in range(images):
        ids = masks.permutation(3)[: masks.integers(1, 3)]
        mask = masks.choice([0, 0, *(ids + 1), IGNORE], size=(6, 7)).astype(np.uint8)
        clean = np.stack([mask == class_id + 1 for class_id in ids]) * 150
        maps = np.clip(clean + generator.normal(50, noise, clean.shape), 0, 255).astype(np.uint8)
        histograms.add(index, ids, maps, mask)
    return histograms


def slow_miou(histograms: ScoreHistograms, level: int, chosen: np.ndarray) -> float:
    counts = histograms.image_counts(level)
    found = []
    for class_id in range(histograms.class_count + 1):
        hits = sum(int(counts.true_positives[image, class_id]) for image in chosen)
        union = sum(int((counts.predicted + counts.truth)[image, class_id]) for image in chosen) - hits
        if union:
            found.append(100 * hits / union)
    return sum(found) / len(found)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), levels=st.tuples(st.integers(1, 255), st.integers(1, 255)))
def test_interval_equals_a_loop_over_resamples(seed: int, levels: tuple[int, int]) -> None:
    first, second = histograms_of(seed, 40), histograms_of(seed + 1, 80)
    found = paired_bootstrap(first, levels[0], second, levels[1], resamples=50, seed=seed)
    generator = np.random.default_rng(seed)
    differences = []
    for drawn in generator.multinomial(6, np.full(6, 1 / 6), size=50):
        chosen = np.repeat(np.arange(6), drawn)
        differences.append(slow_miou(first, levels[0], chosen) - slow_miou(second, levels[1], chosen))
    low, high = np.percentile(differences, [2.5, 97.5])
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1e-9)
    above = sum(difference > 1e-9 for difference in differences)
    assert found.share_above_zero == pytest.approx(100 * above / 50)
    assert found.difference == pytest.approx(scores(first, levels[0]).miou - scores(second, levels[1]).miou)
    assert (found.images, found.resamples) == (6, 50)


def test_blocks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = histograms_of(1, 40), histograms_of(2, 80)
    whole = paired_bootstrap(first, 100, second, 100, resamples=101)
    monkeypatch.setattr(bootstrap, "_BLOCK", 20)
    assert paired_bootstrap(first, 100, second, 100, resamples=101) == whole


def test_a_method_against_itself_differs_by_nothing() -> None:
    histograms = histograms_of(1, 60)
    found = paired_bootstrap(histograms, 90, histograms, 90)
    assert (found.difference, found.low, found.high, found.share_above_zero) == (0, 0, 0, 0)


def test_swapping_the_methods_turns_the_interval_round() -> None:
    first, second = histograms_of(1, 20, images=30), histograms_of(2, 90, images=30)
    one, other = paired_bootstrap(first, 120, second, 120), paired_bootstrap(second, 120, first, 120)
    assert one.low > 0
    assert one.share_above_zero == 100
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert other.share_above_zero == 0


def test_the_seed_decides() -> None:
    first, second = histograms_of(1, 40), histograms_of(2, 60)
    one = paired_bootstrap(first, 100, second, 100, seed=1)
    assert one == paired_bootstrap(first, 100, second, 100, seed=1)
    assert one.low != paired_bootstrap(first, 100, second, 100, seed=2).low


def test_the_interval_is_as_wide_as_chance() -> None:
    """Of 60 pairs of equally good methods, about 95 % of the intervals hold 0."""
    held = 0
    for trial in range(60):
        first = histograms_of(2 * trial, 60, images=25, masks_seed=trial)
        second = histograms_of(2 * trial + 1, 60, images=25, masks_seed=trial)
        found = paired_bootstrap(first, 110, second, 110, resamples=200)
        held += found.low <= 0 <= found.high
    assert 50 <= held <= 60


def test_different_sets_cannot_be_compared() -> None:
    first = histograms_of(1, 40)
    for other in (histograms_of(1, 40, masks_seed=1), histograms_of(1, 40, images=5)):
        with pytest.raises(InputError, match="different images or masks"):
            paired_bootstrap(first, 100, other, 100)


def test_without_masks_there_is_nothing_to_compare() -> None:
    histograms = ScoreHistograms(1, images=1)
    histograms.add(0, [0], np.ones((1, 2, 2), np.uint8), None)
    with pytest.raises(InputError, match="No image has a mask"):
        paired_bootstrap(histograms, 100, histograms, 100)


def test_no_resample_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        paired_bootstrap(histograms_of(1, 40), 100, histograms_of(2, 40), 100, resamples=0)
