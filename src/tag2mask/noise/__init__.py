"""Label noise: which tags are suspected missing or wrong, from arrays alone."""

from __future__ import annotations

from tag2mask.noise.folds import fit_classifiers, out_of_fold_probabilities
from tag2mask.noise.suspects import (
    KINDS,
    Suspicion,
    positive_likeness,
    second_opinion,
    suspicion,
)

__all__ = [
    "KINDS",
    "Suspicion",
    "fit_classifiers",
    "out_of_fold_probabilities",
    "positive_likeness",
    "second_opinion",
    "suspicion",
]
