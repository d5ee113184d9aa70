"""Rows of numbers in a file, written in their order and read in any, without mapping the file into memory.

Pages of a mapped file count as memory of the process that has read them, and writing to them on a full disk kills it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class RowWriter:
    """Writes an array (N, 2, ...) of float16 in NumPy's format, its first rows first."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._file: BinaryIO = path.open("wb")
        header: dict[str, Any] = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows (n, 2, ...)."""
        self._file.write(np.ascontiguousarray(rows, "<f2").data)

    def close(self) -> None:
        """Write to disk what is still in memory."""
        self._file.flush()
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
