"""Scores of finished masks against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tag2mask.errors import InputError
from tag2mask.score import MaskCounts, mask_scores, paired_difference

CLASSES = 3
Pairs = list[tuple[np.ndarray, np.ndarray]]
planes = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))


def counted(pairs: Pairs) -> MaskCounts:
    counts = MaskCounts(CLASSES, len(pairs))
    for index, (mask, truth) in enumerate(pairs):
        counts.add(index, mask, truth)
    return counts


def by_loops(pairs: Pairs) -> dict[str, float]:
    """Every figure, pixel after pixel."""
    hits, truths, found = ([0] * (CLASSES + 1) for _ in range(3))
    unsure = pixels = 0
    for mask, truth in pairs:
        for said, is_ in zip(mask.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if is_ == 255:
                continue
            pixels += 1
            truths[is_] += 1
            if said == 255:
                unsure += 1
                continue
            found[said] += 1
            hits[is_] += said == is_

    def mean(values: list[tuple[int, int]]) -> float:
        known = [100 * a / b for a, b in values if b]
        return sum(known) / len(known) if known else math.nan

    every = range(CLASSES + 1)
    precision = mean([(hits[c], found[c]) for c in every if c])
    return {
        "miou": mean([(hits[c], truths[c] + found[c] - hits[c]) for c in every]),
        "precision": precision,
        "recall": mean([(hits[c], truths[c]) for c in every if c]),
        "fdr": 100 - precision,
        "unsure": mean([(unsure, pixels)]),
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(planes, planes), min_size=1, max_size=3))
def test_every_figure_is_that_of_the_loops(pairs: Pairs) -> None:
    found = mask_scores(counted(pairs))
    for name, value in by_loops(pairs).items():
        assert getattr(found, name) == pytest.approx(value, nan_ok=True), name
    assert found.images == sum(bool((truth != 255).any()) for _, truth in pairs)
    assert np.array_equal(found.class_fdr, [100 - p for p in _precisions(pairs)], equal_nan=True)


def _precisions(pairs: Pairs) -> list[float]:
    said, is_ = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    said = said[is_ != 255]
    is_ = is_[is_ != 255]
    with np.errstate(invalid="ignore"):
        return [np.float64(100) * ((said == c) & (is_ == c)).sum() / np.float64((said == c).sum()) for c in range(1, CLASSES + 1)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(planes, planes), min_size=2, max_size=4), st.randoms())
def test_the_order_of_images_and_pixels_does_not_matter(pairs: Pairs, random: object) -> None:
    turned = [(mask.T, truth.T) for mask, truth in reversed(pairs)]
    first, second = mask_scores(counted(pairs)), mask_scores(counted(turned))
    assert np.array_equal(first.iou, second.iou, equal_nan=True)
    assert np.array_equal([first.miou, first.unsure], [second.miou, second.unsure], equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(planes, arrays(np.uint8, (4, 5), elements=st.integers(0, 3)))
def test_opening_pixels_never_helps_recall(mask: np.ndarray, truth: np.ndarray) -> None:
    """A pixel left open is a miss of its class, and no prediction of any."""
    opened = mask.copy()
    opened[0] = 255
    pair = counted([(mask, truth)]), counted([(opened, truth)])
    before, after = ({k: v.toarray() for k, v in vars(counts.image_counts()).items()} for counts in pair)
    assert (after["true_positives"] <= before["true_positives"]).all()
    assert (after["predicted"] <= before["predicted"]).all()
    assert np.array_equal(after["truth"], before["truth"])
    assert mask_scores(pair[1]).unsure >= 25


def test_the_truth_itself_and_its_opposite() -> None:
    truth = np.array([[0, 1, 255], [2, 3, 0]], np.uint8)
    right = mask_scores(counted([(np.where(truth == 255, 1, truth), truth)]))
    assert (right.miou, right.precision, right.recall, right.fdr, right.unsure) == (100, 100, 100, 0, 0)
    nothing = mask_scores(counted([(np.full_like(truth, 255), truth)]))
    assert nothing.miou == nothing.recall == 0 and nothing.unsure == 100 and math.isnan(nothing.precision)


def test_an_image_counted_again_replaces_itself() -> None:
    truth = np.array([[0, 1]], np.uint8)
    counts = counted([(truth, truth), (truth[:, ::-1], truth)])
    counts.add(1, truth, truth)
    assert mask_scores(counts).miou == 100 and int(counts.table.sum()) == 4


def test_counts_of_images_serve_the_bootstrap() -> None:
    """What it compares is the mIoU of the scores."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, (6, 8, 8)).astype(np.uint8)
    good = np.where(random.random(truth.shape) < 0.9, truth, 255).astype(np.uint8)
    poor = np.where(random.random(truth.shape) < 0.4, truth, 0).astype(np.uint8)
    ours, theirs = (counted(list(zip(masks, truth, strict=True))) for masks in (good, poor))
    found = paired_difference(ours.image_counts(), theirs.image_counts(), seed=0)
    assert found.difference == pytest.approx(mask_scores(ours).miou - mask_scores(theirs).miou)
    assert 0 < found.low <= found.difference <= found.high and found.images == 6


@pytest.mark.parametrize("place", ["mask", "truth"])
def test_values_that_are_no_class(place: str) -> None:
    good, bad = np.zeros((2, 2), np.uint8), np.full((2, 2), 4, np.uint8)
    with pytest.raises(InputError, match="image 0 has values above 3"):
        counted([(bad, good) if place == "mask" else (good, bad)])
    with pytest.raises(InputError, match="image 0 is .2, 2., its truth .2, 3."):
        counted([(good, np.zeros((2, 3), np.uint8))])
    counted([(bad, np.full((2, 2), 255, np.uint8))])  # where the truth is unknown nothing is looked at
