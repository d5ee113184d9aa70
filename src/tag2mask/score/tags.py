"""Scores of the image-level tags: logits (N, C) float against labels (N, C) bool."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.bool_]


def bce(logits: Logits, labels: Labels) -> float:
    """Mean over images and classes of the binary cross-entropy, in nats, 0 and up (the terms of Eq. 1).

    Taken from the logits, so that large ones neither overflow nor round to a probability of 0.
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))  # log(1 + e^z) - y z


def absent_probability(logits: Logits, labels: Labels) -> float:
    """Mean probability (0..1) given to classes that an image does not have; NaN when every image has all."""
    logits, labels = _checked(logits, labels)
    absent = logits[~labels]  # (number of absent pairs,)
    return float(np.exp(-np.logaddexp(0, -absent)).mean()) if absent.size else math.nan


def mean_average_precision(logits: Logits, labels: Labels) -> float:
    """Mean over classes of the average precision with which the logits rank the images, percent (0..100).

    Classes that no image has are skipped; NaN when that leaves none.
    """
    logits, labels = _checked(logits, labels)
    with_positives = np.flatnonzero(labels.any(axis=0))
    precisions = [average_precision_score(labels[:, c], logits[:, c]) for c in with_positives]
    return float(100 * np.mean(precisions)) if precisions else math.nan


def _checked(logits: Logits, labels: Labels) -> tuple[npt.NDArray[np.float64], Labels]:
    """The same as float64 and bool; labels of another type would index where they should select."""
    if logits.ndim != 2 or logits.shape != labels.shape or logits.size == 0:
        raise ValueError(
            f"the logits are {logits.shape}, the labels {labels.shape}; expected (images, classes), not empty"
        )
    return logits.astype(np.float64), labels.astype(np.bool_)
