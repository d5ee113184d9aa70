"""Pixel counts of each image by map value: of many images in a temporary file, so that memory stays as it is.

For each present class the pixels that it won and those that it won rightly, by map value; the background by map value;
the truth: about 1 kB (2 P + 1) for P classes. Only what asks for single images, a bootstrap, reads it.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVELS = 256
"""Values a map can take (uint8); a threshold level is one of 1..255."""
KEPT_BYTES = 1 << 22
"""Records take this much memory at most; beyond they are moved to a file in the system's folder for temporary files
(``TMPDIR``), which goes with the process."""

Pixels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Levels:
    """Pixels of one image by map value."""

    class_ids: npt.NDArray[np.intp]
    """(P,)."""
    predicted: Pixels
    """(P, 256): won by the class."""
    true_positives: Pixels
    """(P, 256): won by the class, and the truth is the class."""
    background: Pixels
    """(256,): the truth is background."""
    truth: Pixels
    """(C+1,): by the truth, background first."""


class ImageLevels:
    """``Levels`` of images, in the order in which they were added."""

    def __init__(self, class_count: int) -> None:
        self._truths = class_count + 1
        self._records = tempfile.SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115
        self._indices = array("q")
        self._ends = array("q")

    def add(self, index: int, levels: Levels) -> None:
        """Append the record of an image."""
        parts = (levels.class_ids, levels.predicted, levels.true_positives, levels.background, levels.truth)
        self.append(index, b"".join(np.asarray(part, np.uint32).tobytes() for part in parts))

    def __iter__(self) -> Iterator[tuple[int, Levels]]:
        """Each image's number and its levels."""
        for index, record in self.records():
            flat = np.frombuffer(record, np.uint32)
            present = (len(flat) - LEVELS - self._truths) // (2 * LEVELS + 1)
            ids, predicted, hits, background, truth = np.split(
                flat, np.cumsum([present, present * LEVELS, present * LEVELS, LEVELS])
            )
            by_value = predicted.reshape(present, LEVELS), hits.reshape(present, LEVELS)
            yield index, Levels(ids.astype(np.intp), *by_value, background, truth)

    def __getstate__(self) -> tuple[int, list[tuple[int, bytes]]]:
        return self._truths - 1, list(self.records())

    def __setstate__(self, state: tuple[int, list[tuple[int, bytes]]]) -> None:
        self.__init__(state[0])  # type: ignore[misc]
        for index, record in state[1]:
            self.append(index, record)

    def extend(self, other: ImageLevels) -> None:
        """Append the records of another store."""
        for index, record in other.records():
            self.append(index, record)

    def __len__(self) -> int:
        return len(self._indices)

    def append(self, index: int, record: bytes) -> None:
        """Add the packed record of an image."""
        start = self._ends[-1] if self._ends else 0
        self._records.seek(start)
        self._records.write(record)
        self._indices.append(index)
        self._ends.append(start + len(record))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Each image's number and its packed record."""
        start = 0
        for index, end in zip(self._indices, self._ends, strict=True):
            self._records.seek(start)
            yield index, self._records.read(end - start)
            start = end
