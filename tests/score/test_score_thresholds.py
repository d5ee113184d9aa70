"""Threshold levels by protocol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.score import (
    IGNORE,
    NEEDS_MASKS,
    PROTOCOLS,
    ScoreHistograms,
    choose_level,
    level_of,
    minimum_cross_entropy,
    scores,
)


def histograms_of(seed: int, noise: int = 60, images: int = 4) -> ScoreHistograms:
    """Maps that are high where their class is, with noise; the masks ignore some pixels."""
    generator = np.random.default_rng(seed)
    histograms = ScoreHistograms(3, images=images)
    for index in range(images):
        ids = generator.permutation(3)[:2]
        mask = generator.choice([0, 0, 0, *(ids + 1), IGNORE], size=(9, 11)).astype(np.uint8)
        peak = np.stack([mask == class_id + 1 for class_id in ids]) * 120
        maps = np.clip(peak + generator.normal(80, noise, peak.shape), 0, 255).astype(np.uint8)
        histograms.add(index, ids, maps, mask)
    return histograms


def cross_entropy(pixels: np.ndarray, level: int) -> float:
    """Li and Lee's criterion by definition: every value against the mean of its group."""
    total = 0.0
    for group in (range(level), range(level, 256)):
        values = np.repeat(np.array(group, float), pixels[list(group)])
        if len(values) and values.mean() > 0:
            total += sum(v * np.log(v / values.mean()) for v in values if v > 0)
    return total


seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, values=st.integers(2, 40))
def test_the_level_has_the_least_cross_entropy(seed: int, values: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = np.zeros(256, np.int64)
    pixels[generator.permutation(256)[:values]] = generator.integers(1, 30, values)
    level = minimum_cross_entropy(pixels)
    by_level = [cross_entropy(pixels, other) for other in range(1, 256)]
    assert by_level[level - 1] <= min(by_level) + 1e-6 * (1 + abs(min(by_level)))
    assert pixels[:level].any()
    assert pixels[level:].any()


def test_the_rule_parts_two_peaks_in_the_middle_of_the_gap() -> None:
    pixels = np.zeros(256, np.int64)
    pixels[[10, 200]] = 5
    assert minimum_cross_entropy(pixels) == 105  # levels 11 to 200 are equally good
    pixels[[9, 11, 199, 201]] = 2
    assert 12 <= minimum_cross_entropy(pixels) <= 199


def test_the_rule_does_not_overflow_on_a_large_set() -> None:
    pixels = np.zeros(256, np.int64)
    pixels[[0, 100, 255]] = 10**13
    pixels[0] *= 3
    assert minimum_cross_entropy(pixels) == minimum_cross_entropy(pixels // 10**12)


@pytest.mark.parametrize("values", [[], [0], [255], [40]])
def test_the_rule_without_two_values_is_the_fixed_threshold(values: list[int]) -> None:
    pixels = np.zeros(256, np.int64)
    pixels[values] = 9
    assert minimum_cross_entropy(pixels) == 77


@pytest.mark.parametrize(
    ("threshold", "level"),
    [(0.30, 77), (0.2, 51), (0.6, 153), (3 * 0.2, 153), (0.7, 179), (1.0, 255), (1e-12, 1), (0.4, 102)],
)
def test_a_fixed_threshold_is_the_first_level_that_reaches_it(threshold: float, level: int) -> None:
    assert level_of(threshold) == level
    assert choose_level(histograms_of(0), "fixed", fixed=threshold) == level


@given(st.integers(1, 255))
def test_the_threshold_of_a_level_is_that_level(level: int) -> None:
    assert level_of(level / 255) == level


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan"), 30.0])
def test_a_fixed_threshold_out_of_range_is_named(threshold: float) -> None:
    with pytest.raises(InputError, match=f"fixed threshold is {threshold}; expected"):
        choose_level(histograms_of(0), "fixed", fixed=threshold)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, noise=st.integers(1, 120))
def test_oracle_is_at_least_as_good_as_every_other_level(seed: int, noise: int) -> None:
    histograms = histograms_of(seed, noise)
    by_level = [scores(histograms, level).miou for level in range(1, 256)]
    assert choose_level(histograms, "oracle") == int(np.argmax(by_level)) + 1


@settings(deadline=None, max_examples=25)
@given(seed=seeds, noise=st.integers(1, 120))
def test_matched_gives_the_share_of_the_truth_up_to_one_level(seed: int, noise: int) -> None:
    histograms = histograms_of(seed, noise)
    found = scores(histograms, choose_level(histograms, "matched"))
    shares = [scores(histograms, level).foreground_share for level in range(1, 256)]
    above = [share for share in shares if share >= found.truth_share]
    below = [share for share in shares if share < found.truth_share]
    next_to_truth = [*([min(above)] if above else []), *([max(below)] if below else [])]
    assert found.foreground_share == min(next_to_truth, key=lambda share: abs(share - found.truth_share))


def test_matched_takes_all_it_can_when_no_level_is_enough() -> None:
    histograms = ScoreHistograms(1, images=1)
    histograms.add(0, [0], np.array([[[0, 0, 7]]], np.uint8), np.array([[1, 1, 1]], np.uint8))
    assert choose_level(histograms, "matched") == 1


def test_gtfree_reads_nothing_but_the_maps_and_takes_another_rule() -> None:
    generator = np.random.default_rng(1)
    maps = generator.integers(0, 256, (2, 8, 8), dtype=np.uint8)
    found = []
    for mask in (None, np.zeros((8, 8), np.uint8), generator.choice([1, 2, IGNORE], (8, 8)).astype(np.uint8)):
        histograms = ScoreHistograms(2, images=2)
        histograms.add(0, [0, 1], maps, mask)
        histograms.add(1, [], np.zeros((0, 90, 90), np.uint8), None if mask is None else np.zeros((90, 90), np.uint8))
        found.append(choose_level(histograms, "gtfree"))
        assert choose_level(histograms, "gtfree", rule=lambda levels: int(levels.argmax())) == int(
            np.bincount(maps.max(axis=0).ravel()).argmax()
        )
    assert found == [minimum_cross_entropy(np.bincount(maps.max(axis=0).ravel(), minlength=256))] * 3


def test_protocols_that_read_masks_say_so_when_there_are_none() -> None:
    histograms = ScoreHistograms(1, images=1)
    histograms.add(0, [0], np.full((1, 2, 2), 9, np.uint8), None)
    for protocol in PROTOCOLS:
        if protocol in NEEDS_MASKS:
            with pytest.raises(InputError, match=f"{protocol}.* reads masks.*use gtfree"):
                choose_level(histograms, protocol)
        else:
            assert choose_level(histograms, protocol) == 77


def test_an_unknown_protocol_is_told_the_known_ones() -> None:
    with pytest.raises(InputError, match="'best'; expected one of gtfree, fixed, matched, oracle"):
        choose_level(histograms_of(0), "best")  # type: ignore[arg-type]
