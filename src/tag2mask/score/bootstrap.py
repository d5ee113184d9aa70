"""Is a method better by more than the choice of images explains? A paired bootstrap over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack

from tag2mask.errors import InputError
from tag2mask.score.histograms import ScoreHistograms
from tag2mask.score.image_counts import ImageCounts
from tag2mask.score.metrics import Floats, intersection_over_union, mean_of_known

# Weights held at a time (4 MB), so that memory does not grow with images times resamples.
_BLOCK = 1 << 19


@dataclass(frozen=True)
class PairedDifference:
    """mIoU of the first method minus mIoU of the second, in percentage points."""

    difference: float
    """On all images."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    share_above_zero: float
    """Percent (0..100) of the resamples in which the first method is better."""
    images: int
    """Number of images that have a mask."""
    resamples: int
    """Number of resamples."""


def paired_bootstrap(
    first: ScoreHistograms,
    first_level: int,
    second: ScoreHistograms,
    second_level: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of mIoU between two methods, each at its own level (1..255), with its 95 % interval.

    A resample draws as many images as there are, with replacement, the same ones for both methods, and scores
    the set that they make; the interval is the percentile interval (B. Efron and R. Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 13.3). The same seed gives the same interval. Raises
    ``InputError`` when the methods were scored on different images or masks, or when no image has a mask.
    """
    counts = first.image_counts(first_level), second.image_counts(second_level)
    return paired_difference(*counts, resamples=resamples, seed=seed)


def paired_difference(
    first: ImageCounts, second: ImageCounts, *, resamples: int = 1000, seed: int = 0
) -> PairedDifference:
    """``paired_bootstrap`` on pixels that are counted already: of maps at a level, or of finished masks."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1")
    counts = first, second
    if counts[0].truth.shape != counts[1].truth.shape or (counts[0].truth != counts[1].truth).nnz:
        raise InputError("The two methods were scored on different images or masks; compare methods on the same set.")
    images = int((counts[0].truth.sum(axis=1) > 0).sum())
    if images == 0:
        raise InputError("No image has a mask, so there is no mIoU to compare: give the data set its masks.")
    tables = [_table(each) for each in counts]
    everything = np.ones((1, images))
    difference = _miou(everything, tables[0]) - _miou(everything, tables[1])  # (1,)

    generator = np.random.default_rng(seed)
    probabilities = np.full(images, 1 / images)
    rows = max(1, _BLOCK // images)
    blocks = []
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(images, probabilities, size=min(rows, resamples - start))  # (S, N)
        weights = drawn.astype(np.float64)
        blocks.append(_miou(weights, tables[0]) - _miou(weights, tables[1]))  # (S,)
    differences = np.concatenate(blocks)
    low, high = np.percentile(differences, [2.5, 97.5])
    return PairedDifference(
        difference=float(difference[0]),
        low=float(low),
        high=float(high),
        share_above_zero=float(100 * (differences > 0).mean()),
        images=images,
        resamples=resamples,
    )


def _table(counts: ImageCounts) -> csr_array:
    """(N, 3 (C+1)) of the images with a mask: all counts side by side, so that one product sums them.

    float64 is exact here (below 2^53).
    """
    columns = hstack([counts.true_positives, counts.predicted, counts.truth], "csr")  # (N, 3 (C+1))
    return columns[np.flatnonzero(counts.truth.sum(axis=1))].astype(np.float64)


def _miou(weights: Floats, table: csr_array) -> Floats:
    """(S,) mIoU for each row of image weights (S, N)."""
    true_positives, predicted, truth = np.split(weights @ table, 3, axis=1)  # (S, 3 (C+1)) -> 3 of (S, C+1)
    return mean_of_known(intersection_over_union(true_positives, predicted, truth), axis=1)
