"""What ``ScoreHistograms`` and ``scores`` refuse, and what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tag2mask.data.masks import Contexts
from tag2mask.errors import InputError
from tag2mask.score import ScoreHistograms, scores

SMALL = np.zeros((1, 2, 2), np.uint8)
MASK = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("mask", "context", "message"),
    [
        (np.zeros((2, 3), np.uint8), None, r"mask of image 0 is \(2, 3\).*expected \(2, 2\)"),
        (MASK.astype(np.int64), None, "mask of image 0 is .* int64"),
        (MASK, np.zeros((1, 2), np.uint8), r"context mask of image 0 is \(1, 2\)"),
        (MASK + np.uint8(4), None, "mask of image 0 holds the value 4; expected 0 to 3 .* or 255"),
        (MASK + np.uint8(254), None, "holds the value 254"),
        (MASK, MASK + np.uint8(2), "context mask of image 0 holds the value 2; expected 0 to 1"),
    ],
)
def test_wrong_masks_are_named(mask: np.ndarray, context: np.ndarray | None, message: str) -> None:
    histograms = ScoreHistograms(3, 1, images=1)
    with pytest.raises(InputError, match=message):
        histograms.add(0, [1], SMALL, mask, context)
    assert not histograms.added.any()
    assert not histograms.map_levels.any()  # nothing was counted


@pytest.mark.parametrize(
    ("index", "ids", "maps", "message"),
    [
        (1, [0], SMALL, "out of range; expected 0 to 0"),
        (-1, [0], SMALL, "out of range"),
        (0, [0, 1], SMALL, r"expected \(2, height, width\)"),
        (0, [0], SMALL[0], "height, width"),
        (0, [0], SMALL.astype(np.float32), "float32; expected .* uint8"),
        (0, [3], SMALL, r"class ids of image 0 are \[3\]"),
        (0, [-1], SMALL, "distinct ones from 0 to 2"),
        (0, [1, 1], np.repeat(SMALL, 2, axis=0), "distinct"),
    ],
)
def test_wrong_maps_and_ids_are_named(index: int, ids: list[int], maps: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoreHistograms(3, images=1).add(index, ids, maps, MASK)


def test_an_image_counts_once() -> None:
    first, second = ScoreHistograms(3, images=2), ScoreHistograms(3, images=2)
    first.add(1, [0], SMALL, MASK)
    second.add(1, [0], SMALL, MASK)
    with pytest.raises(ValueError, match="image 1 was added before"):
        first.add(1, [0], SMALL, MASK)
    with pytest.raises(ValueError, match="image 1 is in both"):
        first.merge(second)
    with pytest.raises(ValueError, match="same classes, contexts and images"):
        first.merge(ScoreHistograms(3, images=3))


def test_too_many_classes_for_a_mask_are_an_input_error() -> None:
    ScoreHistograms(254, images=1)
    with pytest.raises(InputError, match="200 classes and 55 contexts; expected at most 254"):
        ScoreHistograms(200, 55, images=1)


def test_scores_refuse_other_contexts_and_levels() -> None:
    histograms = ScoreHistograms(3, 2, images=1)
    with pytest.raises(ValueError, match="1 contexts are given; 2 were counted"):
        scores(histograms, 77, Contexts(("grass",), reader=lambda index: MASK))
    for level in (0, 256):
        with pytest.raises(ValueError, match="expected 1 to 255"):
            scores(histograms, level)
        with pytest.raises(ValueError, match="expected 1 to 255"):
            histograms.image_counts(level)
