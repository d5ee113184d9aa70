"""Pixel counts of each image for the bootstrap, as sparse tables: an image shows a few of the classes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array


@dataclass(frozen=True)
class ImageCounts:
    """Pixels of each image, without ignored ones: (N, C+1) int64, background first.

    A hundred bytes for an image, where full tables of COCO's classes would have two thousand.
    """

    true_positives: csr_array
    predicted: csr_array
    truth: csr_array


class CountRows:
    """The three rows of each image, set one image at a time, in any order."""

    def __init__(self, images: int, class_count: int) -> None:
        self._shape = (images, class_count + 1)
        self._tables = [(array("i"), array("h"), array("q")) for _ in range(3)]  # rows, columns, values

    def set(self, index: int, true_positives: npt.ArrayLike, predicted: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Each (C+1,), whole numbers."""
        for (rows, columns, values), given in zip(self._tables, (true_positives, predicted, truth), strict=True):
            row = np.asarray(given, np.int64)
            there = np.flatnonzero(row)
            rows.extend([index] * len(there))
            columns.extend(there.tolist())
            values.extend(row[there].tolist())

    def counts(self) -> ImageCounts:
        """What was set; rows of other images are 0."""
        return ImageCounts(*(self._table(*parts) for parts in self._tables))

    def _table(self, rows: array[int], columns: array[int], values: array[int]) -> csr_array:
        places = np.frombuffer(rows, np.int32), np.frombuffer(columns, np.int16)
        return coo_array((np.frombuffer(values, np.int64), places), shape=self._shape).tocsr()
