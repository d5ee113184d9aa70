"""Confident learning for tags: which pairs of image and class look missing or wrong, and how much.

The probabilities must come from classifiers that did not see the tag in question (``out_of_fold_probabilities``).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tag2mask.fpr.prototypes import cluster
from tag2mask.fpr.support import likeness
from tag2mask.noise.folds import Probabilities, Tags

Kind = Literal["missing", "wrong"]
KINDS: tuple[Kind, ...] = ("missing", "wrong")
"""missing: not tagged, though the class seems to be there. wrong: tagged, though it seems not to be."""


REGIONS_PER_PROTOTYPE = 20
"""A prototype of a few regions lies nearer to those than any other region could, and nothing would look like them."""
LEARNT = 0.85
"""Area under the curve, tagged against other images, from which on a class counts as learnt. At .96 the test denies
about 2 % of right tags, at .75 a quarter."""


@dataclass(frozen=True)
class Suspicion:
    """How much each pair of image and class looks like an error of its tag."""

    tags: Tags
    """(N, C), as given: a suspect that is tagged is suspected wrong, one that is not is suspected missing."""
    score: Probabilities
    """(N, C), from 0 to 1: how much the pair belongs to the other side; the ranking."""
    flagged: npt.NDArray[np.bool_]
    """(N, C): beyond the threshold of its class."""
    learnt: npt.NDArray[np.bool_]
    """(C,): classes that were learnt well enough to say anything; no other has a suspect."""

    def ranked(self) -> npt.NDArray[np.int64]:
        """Flagged pairs (R, 2) [image, class], most suspicious first, ties by image and class."""
        pairs = np.argwhere(self.flagged)
        return pairs[np.argsort(-self.score[self.flagged], kind="stable")]

    def kind(self, image: int, class_index: int) -> Kind:
        """What the pair would be."""
        return "wrong" if self.tags[image, class_index] else "missing"


def suspicion(probabilities: Probabilities, tags: Tags) -> Suspicion:
    """The confident-learning test, class by class.

    A class's threshold is the mean probability of the images tagged with it: one that is not tagged and reaches it
    looks like those that are, so its tag is suspected missing. The mirror rule, with the probability of absence and the
    images that lack the class, gives the suspected wrong ones. The score puts all classes on one scale: of both sides,
    present and absent, the probability less that side's threshold plus the larger threshold; then the share of the side
    that the tag does not say.

    Args:
        probabilities: (N, C) out of fold, in [0, 1].
        tags: (N, C).

    Returns:
        Scores and flags. A class that every image has, or none, has no suspects, nor has one that was hardly learnt: a
        weak classifier contradicts many tags that are right.
    """
    score, flagged = np.zeros_like(probabilities), np.zeros_like(tags)
    learnt = np.zeros(tags.shape[1], np.bool_)
    for c in range(tags.shape[1]):
        tagged, present = tags[:, c], probabilities[:, c]  # (N,)
        if tagged.all() or not tagged.any():
            continue
        threshold, mirror = present[tagged].mean(), (1 - present[~tagged]).mean()
        other = np.where(tagged, 1 - present, present)  # (N,) probability of what the tag does not say
        bound = np.where(tagged, mirror, threshold)
        larger = max(threshold, mirror)
        score[:, c] = (other - bound + larger) / (1 - threshold - mirror + 2 * larger)
        learnt[c] = roc_auc_score(tagged, present) >= LEARNT
        flagged[:, c] = learnt[c] & (other >= bound)
    return Suspicion(tags, score, flagged, learnt)


def second_opinion(probabilities: Probabilities, tags: Tags) -> npt.NDArray[np.bool_] | None:
    """What the library cleanlab flags by its own rule, or None where it is not installed (extra ``noise``).

    It estimates how many tags of each class are wrong and flags that many of the least likely ones; two rules that
    agree on a pair are a reason to look at it. The ranking does not depend on it.

    Returns:
        (N, C).
    """
    try:
        from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    except ImportError:
        return None
    rows = [np.flatnonzero(row).tolist() for row in tags]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with one tag
        found = find_multilabel_issues_per_class(rows, probabilities, n_jobs=1)
    flagged: npt.NDArray[np.bool_] = np.asarray(found, np.bool_).reshape(tags.shape)
    flagged[:, tags.all(axis=0) | ~tags.any(axis=0)] = False  # nothing was learnt of them
    return flagged


def positive_likeness(regions: Tensor, positives: Tensor, count: int = 10, seed: int = 0) -> Tensor:
    """How much a region looks like the labelled ones of a class.

    The labelled regions are condensed to prototypes (k-means, as in the rectification). A region's likeness is the
    share of the labelled ones that lie at least as far from their nearest prototype as it does from its own. It is for
    the eye: in the ranking it gained nothing on photos.

    Args:
        regions: (R, D) region features of suspects; positives: (P, D) those of images that have the class.
        count: prototypes, at most; one for every ``REGIONS_PER_PROTOTYPE`` positives.

    Returns:
        (R,) in [0, 1]; 0 where there is no positive.
    """
    if not len(positives):
        return torch.zeros(len(regions))
    count = max(1, min(count, len(positives) // REGIONS_PER_PROTOTYPE))
    prototypes, _ = cluster(positives, count, seed, 1, len(positives))  # (K, D)
    return likeness(regions, positives, prototypes)
