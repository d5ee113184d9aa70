"""What a classifier that never saw an image's tags thinks of that image.

A class activation map's logit is its linear classifier on the mean feature. Logistic regressions on pooled features of
the frozen backbone are that classifier, and training one for each fold and class takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
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


@dataclass(frozen=True)
class Components:
    """Features in the directions in which the images differ most."""

    values: Probabilities
    """(N, P) of the images that they were found from, P <= ``COMPONENTS``."""
    mean: Probabilities
    deviation: Probabilities
    """(D,) of those images; 1 for a constant feature, which stays 0."""
    axes: Probabilities
    """(D, P) the directions."""

    def of(self, features: npt.NDArray[np.floating]) -> Probabilities:
        """Other images' features (M, D) in these directions: (M, P)."""
        with threadpool_limits(1):
            values: Probabilities = ((np.asarray(features, np.float64) - self.mean) / self.deviation) @ self.axes
        return values


@dataclass(frozen=True)
class TagClassifiers:
    """Regressions of each class on some images, one for each fold, which has not seen it."""

    probabilities: Probabilities
    """(N, C) of each class in these images, by the regressions that were fitted without the image. A class that fewer
    than two images have, or fewer than two lack, cannot be learnt from the others: it gets its share everywhere."""
    space: Components
    weights: Probabilities
    """(F, P + 1, C), the intercept last."""
    fitted: npt.NDArray[np.bool_]
    """(F, C): a class may have fewer folds."""

    def of(self, features: npt.NDArray[np.floating]) -> Probabilities:
        """What they think of other images, features (M, D), none of which any has seen: the folds' mean, (M, C)."""
        values = self.space.of(features)  # (M, P)
        with threadpool_limits(1):
            answers = expit(values @ self.weights[:, :-1] + self.weights[:, -1:])  # (F, M, C)
        folds = self.fitted.sum(axis=0)  # (C,)
        mean = (answers * self.fitted[:, None]).sum(axis=0) / folds.clip(min=1)
        result: Probabilities = np.where(folds > 0, mean, self.probabilities[:1])  # not learnt: the share
        return result


def out_of_fold_probabilities(
    features: npt.NDArray[np.floating], tags: Tags, folds: int = 5, seed: int = 0
) -> Probabilities:
    """Probability of each class in each image, by regressions that were fitted without the image.

    Arguments and the result, (N, C) in [0, 1], as of ``fit_classifiers``.
    """
    return fit_classifiers(features, tags, folds, seed).probabilities


def fit_classifiers(
    features: npt.NDArray[np.floating], tags: Tags, folds: int = 5, seed: int = 0
) -> TagClassifiers:
    """Fit regressions to all images but a fold, for each fold and class.

    Each class has folds of its own, dealt so that each holds its share of the tagged images.

    Args:
        features: (N, D) pooled features of a backbone that no tag has trained.
        tags: (N, C).
        folds: at least 2; fewer are made of fewer images.
        seed: of the dealing.
    """
    space = components(features)
    strength = STRENGTH / max(1, features.shape[1])
    number, classes = tags.shape
    result = np.tile(tags.mean(axis=0), (number, 1)).astype(np.float64)  # (N, C)
    weights = np.zeros((folds, space.values.shape[1] + 1, classes))
    fitted = np.zeros((folds, classes), np.bool_)
    random = np.random.default_rng(seed)
    for c in range(classes):
        fold = dealt(tags[:, c], folds, random)
        count = int(tags[:, c].sum())
        if min(count, number - count) >= 2:  # then every fitting set has both
            for part in range(fold.max() + 1):
                held = fold == part
                with threadpool_limits(1):
                    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
                    model.fit(space.values[~held], tags[~held, c])
                    result[held, c] = model.predict_proba(space.values[held])[:, 1]
                weights[part, :, c] = np.append(model.coef_[0], model.intercept_)
                fitted[part, c] = True
    return TagClassifiers(result, space, weights, fitted)


def dealt(tagged: npt.NDArray[np.bool_], folds: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Fold of each image, (N,): the tagged ones in random order are dealt out like cards, then the others."""
    order = np.concatenate([random.permutation(np.flatnonzero(group)) for group in (tagged, ~tagged)])
    fold = np.empty(len(tagged), np.int64)
    fold[order] = np.arange(len(tagged)) % folds
    return fold


def components(features: npt.NDArray[np.floating]) -> Components:
    """Standardised features (N, D) in the directions of their largest variance."""
    values = np.asarray(features, np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    values = (values - mean) / deviation
    with threadpool_limits(1):  # sums over threads come in no fixed order
        if len(values) <= values.shape[1]:  # through the smaller of the two products, (N, N) or (D, D)
            variance, directions = np.linalg.eigh(values @ values.T)  # ascending
            variance, directions = variance[::-1][:COMPONENTS].clip(min=0), directions[:, ::-1][:, :COMPONENTS]
            rotated = directions * np.sqrt(variance)  # (N, P)
            axes = values.T @ (rotated / np.where(variance > 0, variance, 1.0))  # (D, P)
        else:
            axes = np.ascontiguousarray(np.linalg.eigh(values.T @ values)[1][:, ::-1][:, :COMPONENTS])
            rotated = values @ axes
    return Components(rotated, mean, deviation, axes)
