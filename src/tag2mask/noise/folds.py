"""What a classifier that never saw an image's tags thinks of that image.

A class activation map's logit is its linear classifier on the mean feature. Logistic regressions on pooled features of
the frozen backbone are that classifier, and training one for each fold and class takes seconds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

Probabilities = npt.NDArray[np.float64]
Tags = npt.NDArray[np.bool_]

STRENGTH = 5.0
"""Inverse weight of the penalty of a regression, divided by the number of features: standardised features add up, so
the same number fits 300 and 3000 of them. From 3 to 10 the ranking hardly changes."""
COMPONENTS = 512
"""Directions of the features that are kept, those in which the images differ most. The penalty is the same in every
direction, so with fewer images than this nothing is lost, and a fit takes milliseconds."""
ITERATIONS = 200
"""Upper bound of the solver's steps; it ends long before."""


def out_of_fold_probabilities(
    features: npt.NDArray[np.floating], tags: Tags, folds: int = 5, seed: int = 0
) -> Probabilities:
    """Probability of each class in each image, by regressions that were fitted without the image.

    Each class has folds of its own, dealt so that each holds its share of the tagged images.

    Args:
        features: (N, D) pooled features of a backbone that no tag has trained.
        tags: (N, C).
        folds: at least 2; fewer are made of fewer images.
        seed: of the dealing.

    Returns:
        (N, C), range [0, 1]. A class that fewer than two images have, or fewer than two lack, cannot be learnt from
        the others: it gets the share of images that have it, everywhere.
    """
    values = components(features)  # (N, P)
    strength = STRENGTH / max(1, features.shape[1])
    result = np.tile(tags.mean(axis=0), (len(tags), 1)).astype(np.float64)  # (N, C)
    random = np.random.default_rng(seed)
    for c in range(tags.shape[1]):
        fold = dealt(tags[:, c], folds, random)
        count = int(tags[:, c].sum())
        if min(count, len(tags) - count) >= 2:  # then every fitting set has both
            for number in range(fold.max() + 1):
                held = fold == number
                result[held, c] = _fitted(values[~held], tags[~held, c], values[held], strength)
    return result


def dealt(tagged: npt.NDArray[np.bool_], folds: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Fold of each image, (N,): the tagged ones in random order are dealt out like cards, then the others."""
    order = np.concatenate([random.permutation(np.flatnonzero(group)) for group in (tagged, ~tagged)])
    fold = np.empty(len(tagged), np.int64)
    fold[order] = np.arange(len(tagged)) % folds
    return fold


def components(features: npt.NDArray[np.floating]) -> Probabilities:
    """Standardised features (N, D) in the directions of their largest variance: (N, P), P <= ``COMPONENTS``."""
    values = np.asarray(features, np.float64)
    deviation = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)  # a constant feature stays 0
    with threadpool_limits(1):  # sums over threads come in no fixed order
        if len(values) <= values.shape[1]:  # through the smaller of the two products, (N, N) or (D, D)
            variance, directions = np.linalg.eigh(values @ values.T)
            rotated = directions * np.sqrt(variance.clip(min=0))
        else:
            variance, directions = np.linalg.eigh(values.T @ values)
            rotated = values @ directions
    result: Probabilities = rotated[:, ::-1][:, :COMPONENTS]
    return result


def _fitted(
    known: Probabilities, tagged: npt.NDArray[np.bool_], asked: Probabilities, strength: float
) -> Probabilities:
    """Fit on (M, P) and (M,), answer for (R, P): (R,) in [0, 1]."""
    with threadpool_limits(1):
        model = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(known, tagged)
        answer: Probabilities = model.predict_proba(asked)[:, 1]
    return answer
