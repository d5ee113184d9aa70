"""Scores of tags, against their definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.score import absent_probability, bce, mean_average_precision


def tags(seed: int, images: int = 7, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 3, (images, classes)), generator.random((images, classes)) < 0.4


def slow_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the positives of the precision of all images that rank at least as high."""
    precisions = []
    for positive in np.flatnonzero(labels):
        above = [image for image in range(len(logits)) if logits[image] >= logits[positive]]
        precisions.append(sum(labels[image] for image in above) / len(above))
    return sum(precisions) / len(precisions)


@given(st.integers(0, 2**32 - 1))
def test_tag_scores_equal_their_definitions(seed: int) -> None:
    logits, labels = tags(seed)
    entropy, absent = [], []
    for pair in np.ndindex(logits.shape):
        probability = 1 / (1 + math.exp(-logits[pair]))
        entropy.append(-math.log(probability if labels[pair] else 1 - probability))
        if not labels[pair]:
            absent.append(probability)
    assert bce(logits, labels) == pytest.approx(sum(entropy) / len(entropy))
    assert absent_probability(logits, labels) == pytest.approx(sum(absent) / len(absent))
    precisions = [
        slow_average_precision(logits[:, c], labels[:, c]) for c in range(labels.shape[1]) if labels[:, c].any()
    ]
    assert mean_average_precision(logits, labels) == pytest.approx(100 * sum(precisions) / len(precisions))


def test_float32_logits_and_integer_labels_give_the_same() -> None:
    logits, labels = tags(1)
    logits = logits.astype(np.float32)
    for score in (bce, absent_probability, mean_average_precision):
        assert score(logits, labels.astype(np.int64)) == score(logits.astype(np.float64), labels)


def test_large_logits_neither_overflow_nor_round() -> None:
    logits, labels = np.array([[1000.0, -1000.0]]), np.array([[False, False]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bce(logits, labels) == 500
        assert bce(-logits, ~labels) == 500
        assert absent_probability(logits, labels) == 0.5


def test_classes_without_positives_are_skipped() -> None:
    logits = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert mean_average_precision(logits, np.array([[True, False], [False, False]])) == 100
    assert mean_average_precision(logits, np.array([[False, False], [True, False]])) == 50
    assert math.isnan(mean_average_precision(logits, np.zeros((2, 2), bool)))


def test_no_absent_class_has_no_probability() -> None:
    assert math.isnan(absent_probability(np.zeros((2, 2)), np.ones((2, 2), bool)))


@pytest.mark.parametrize("score", [bce, absent_probability, mean_average_precision])
def test_shapes_are_checked(score: object) -> None:
    assert callable(score)
    for logits, labels in (
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2), np.zeros(2)),
        (np.zeros((0, 3)),) * 2,
    ):
        with pytest.raises(ValueError, match="expected \\(images, classes\\), not empty"):
            score(logits, labels)
