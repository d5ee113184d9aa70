"""A declared budget of annotated images: the third way to a threshold, between no mask and all of them.

Letters as in ``histograms``; n annotated images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tag2mask.errors import InputError
from tag2mask.score.histograms import LEVELS, Counts, ScoreHistograms, check_level
from tag2mask.score.metrics import Floats, intersection_over_union, mean_of_known

PULL = 50.0
"""Points of mIoU that one annotated image must gain to move the threshold by a factor of e away from the prior."""


@dataclass(frozen=True)
class AnnotatedImages:
    """Pixels of n images at every level, without ignored ones: column t-1 is threshold level t, row 0 background."""

    true_positives: Counts
    """(n, C+1, 255)."""
    predicted: Counts
    """(n, C+1, 255)."""
    truth: Counts
    """(n, C+1)."""

    def rows(self, chosen: npt.NDArray[np.integer]) -> AnnotatedImages:
        """Those of the images at ``chosen`` (m,), places 0..n-1."""
        return AnnotatedImages(self.true_positives[chosen], self.predicted[chosen], self.truth[chosen])


def annotated_images(histograms: ScoreHistograms, images: Sequence[int] | npt.NDArray[np.integer]) -> AnnotatedImages:
    """What the masks of ``images`` (n,) say about every threshold; indices into the set of the histograms.

    Raises ``InputError`` when there is no image, or none of them has a pixel whose truth is known.
    """
    chosen = np.asarray(images, np.intp).reshape(-1)
    if not len(chosen):
        raise InputError("The budget of annotated images is 0; expected 1 or more, or the protocol gtfree.")
    counts = [histograms.image_counts(level) for level in range(1, LEVELS)]
    truth = counts[0].truth[chosen].toarray()  # (n, C+1)
    if not truth.any():
        raise InputError("The budget's images have no mask; annotate them, or use the protocol gtfree.")
    true_positives = np.stack([count.true_positives[chosen].toarray() for count in counts], axis=2)  # (n, C+1, 255)
    predicted = np.stack([count.predicted[chosen].toarray() for count in counts], axis=2)  # (n, C+1, 255)
    return AnnotatedImages(true_positives, predicted, truth)


def budget_level(annotated: AnnotatedImages, prior: int, pull: float = PULL) -> int:
    """Threshold level 1..255 of protocol budget: what n annotated images say, pulled towards a level without masks.

    argmax_t mIoU_n(t) - pull / n (ln(t / t_prior))^2, with mIoU_n over the pixels of the n images and the classes that
    they show. One image says little: the mIoU of its best level is often nowhere near the best level of the set. The
    pull fades as 1 / n, as the variance of a mean does. Of equally good levels the middle one is taken.

    Args:
        annotated: of n images, at least one.
        prior: level 1..255, that of protocol gtfree.
        pull: 0 or more, in points of mIoU; 0 trusts the annotated images alone.

    Raises:
        ValueError: for a prior out of range.
    """
    check_level(prior)
    levels = np.arange(1, LEVELS)  # (255,)
    score = miou_of(annotated) - pull / len(annotated.truth) * np.log(levels / prior) ** 2
    best = levels[score >= score.max() - 1e-9]
    return int(best[(len(best) - 1) // 2])


def miou_of(annotated: AnnotatedImages) -> Floats:
    """(255,) mean IoU, percent, of the pixels of these images at levels 1..255, over the classes that they show."""
    true_positives, predicted = annotated.true_positives.sum(axis=0), annotated.predicted.sum(axis=0)  # (C+1, 255)
    iou = intersection_over_union(true_positives, predicted, annotated.truth.sum(axis=0)[:, None])  # (C+1, 255)
    return mean_of_known(iou, axis=0)  # (255,)


def draw_images(tags: npt.NDArray[np.bool_], budget: int, draws: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """Which images would be annotated: ``draws`` samples without replacement, of images with at least one tag.

    Args:
        tags: (N, C); budget: n; draws: how many samples; seed: of the samples.

    Returns:
        (draws, n) indices.

    Raises:
        InputError: for a budget below 1 or above the number of tagged images.
    """
    tagged = np.flatnonzero(tags.any(axis=1))  # (T,)
    if not 1 <= budget <= len(tagged):
        raise InputError(f"The budget is {budget} annotated images; expected 1 to {len(tagged)}, the images with tags.")
    random = np.random.default_rng((seed, budget))
    return np.stack([random.choice(tagged, budget, replace=False) for _ in range(draws)])  # draws x (n,) -> (draws, n)
