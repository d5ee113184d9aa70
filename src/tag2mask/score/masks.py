"""Scores of finished masks: one confusion for each image, from which every figure is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tag2mask.errors import InputError
from tag2mask.score.histograms import IGNORE, Counts
from tag2mask.score.image_counts import CountRows, ImageCounts
from tag2mask.score.metrics import Floats, intersection_over_union, mean_of_known, percent

Plane = npt.NDArray[np.uint8]


class MaskCounts:
    """Pixels of N images by truth and mask; pixels whose truth is 255 count nowhere.

    A pixel that the mask leaves open (255) is a miss of its class: it counts as truth and as no prediction.

    An image is kept as the pairs of truth and mask that it has, some ten, not as a table of all pairs.
    """

    def __init__(self, class_count: int, images: int) -> None:
        self.class_count, self.image_count = class_count, images
        self._pairs: dict[int, bytes] = {}
        """Number of an image -> n int32 places in a table of all pairs, then n int32 numbers of pixels."""

    def add(self, index: int, mask: Plane, truth: Plane) -> None:
        """Count one image. Raises ``InputError`` for masks of another size or with values that are no class."""
        if mask.shape != truth.shape:
            raise InputError(f"the mask of image {index} is {mask.shape}, its truth {truth.shape}; expected one size.")
        size = self.class_count + 2
        known = truth != IGNORE
        row, column = truth[known].astype(np.int64), mask[known].astype(np.int64)
        if (row > self.class_count).any() or ((column > self.class_count) & (column != IGNORE)).any():
            raise InputError(f"the mask or the truth of image {index} has values above {self.class_count}.")
        column[column == IGNORE] = self.class_count + 1
        counted = np.bincount(row * size + column, minlength=(self.class_count + 1) * size)
        there = np.flatnonzero(counted)
        self._pairs[index] = np.concatenate([there, counted[there]]).astype(np.int32).tobytes()

    def take_in(self, part: MaskCounts) -> None:
        """Add the counts of other images."""
        self._pairs |= part._pairs

    @property
    def images(self) -> int:
        """Number of images with a pixel whose truth is known."""
        return sum(bool(packed) for packed in self._pairs.values())

    @property
    def table(self) -> Counts:
        """(C + 1, C + 2) int64, [truth, mask], of all images; the last column is what the masks leave open."""
        total = np.zeros((self.class_count + 1, self.class_count + 2), np.int64)
        for index in self._pairs:
            total += self._table_of(index)
        return total

    def image_counts(self) -> ImageCounts:
        """Pixels of each image for the bootstrap."""
        rows = CountRows(self.image_count, self.class_count)
        for index in self._pairs:
            table = self._table_of(index)
            inner = table[:, :-1]  # (C + 1, C + 1)
            rows.set(index, np.diagonal(inner), inner.sum(axis=0), table.sum(axis=1))
        return rows.counts()

    def _table_of(self, index: int) -> Counts:
        places, pixels = np.frombuffer(self._pairs[index], np.int32).reshape(2, -1)
        table = np.zeros((self.class_count + 1, self.class_count + 2), np.int64)
        table.reshape(-1)[places] = pixels
        return table


@dataclass(frozen=True)
class MaskScores:
    """Figures of a set of masks, in percent; means over classes, those of ``miou`` with the background."""

    images: int
    miou: float
    precision: float
    recall: float
    fdr: float
    """False discovery rate, 100 - precision."""
    unsure: float
    """Share of the pixels that the masks leave open."""
    iou: Floats
    """(C + 1,)."""
    class_fdr: Floats
    """(C,)."""


def mask_scores(counts: MaskCounts) -> MaskScores:
    """Figures over all images together, as the benchmarks of the field count them."""
    table = counts.table  # (C + 1, C + 2)
    truth, predicted = table.sum(axis=1), table[:, :-1].sum(axis=0)  # (C + 1,) each
    hits = np.diagonal(table[:, :-1])
    iou = intersection_over_union(hits, predicted, truth)
    precision, recall = percent(hits[1:], predicted[1:]), percent(hits[1:], truth[1:])
    return MaskScores(
        images=counts.images,
        miou=float(mean_of_known(iou)),
        precision=float(mean_of_known(precision)),
        recall=float(mean_of_known(recall)),
        fdr=float(mean_of_known(100 - precision)),
        unsure=float(percent(table[:, -1].sum(), table.sum())),
        iou=iou,
        class_fdr=100 - precision,
    )
