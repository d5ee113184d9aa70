"""Rows of numbers in a file, written and read in any order, without mapping the file into memory.

Pages of a mapped file count as memory of the process that has read them, and writing to them on a full disk kills it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.atomic import named


def create_rows(path: Path, shape: tuple[int, ...]) -> None:
    """Make a file for an array (N, 2, ...) of float16 in NumPy's format, with all the room that it will need.

    Raises:
        OSError: the disk has less.
    """
    with named(path), path.open("wb") as file:
        header: dict[str, Any] = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        size = file.tell() + 2 * math.prod(shape)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


class RowWriter:
    """Writes rows of such a file; several processes may, each others."""

    def __init__(self, path: Path) -> None:
        # Without a buffer: one that holds two of this process's rows would write others' rows between them, as it has
        # read them before they were written.
        self._path, self._file = path, path.open("r+b", buffering=0)
        np.lib.format.read_magic(self._file)
        self._row = 2 * math.prod(np.lib.format.read_array_header_1_0(self._file)[0][1:])
        self._start = self._file.tell()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write rows (n, 2, ...) from row ``first`` on."""
        self._file.seek(self._start + first * self._row)
        left = np.ascontiguousarray(rows, "<f2").data.cast("B")
        with named(self._path):
            while len(left):
                left = left[self._file.write(left) :]

    def close(self) -> None:
        """Write to disk what is still in memory."""
        os.fsync(self._file.fileno())
        self._file.close()


class RowReader:
    """Reads parts of such an array.

    Attributes:
        shape: (N, 2, ...).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            self.shape, _, self._type = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()

    def rows(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """array[first, second], (n, ...), for n places on each of the two first axes.

        Raises:
            OSError: the file is cut off.
        """
        found = np.empty((len(first), *self.shape[2:]), self._type)
        with self._path.open("rb", buffering=0) as file:
            for place, number in zip(found, (2 * first + second).tolist(), strict=True):
                file.seek(self._start + number * place.nbytes)
                if file.readinto(place.data) < place.nbytes:
                    raise OSError(f"{self._path} is cut off")
        return found
