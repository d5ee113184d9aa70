"""Masks and the like kept in memory up to a bound, packed: they are mostly flat, and shrink to a few per cent."""

from __future__ import annotations

import zlib

import numpy as np

OVERHEAD = 300
"""Bytes of the objects around a plane."""
FASTEST = 1
"""Of zlib."""


class KeptPlanes:
    """Planes (H, W) uint8 by a number, the first ones, until they take ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._packed: dict[int, tuple[tuple[int, ...], bytes]] = {}

    def keep(self, key: int, plane: np.ndarray) -> None:
        """Keep a plane if there is room."""
        if self._room < OVERHEAD or key in self._packed:
            return
        packed = zlib.compress(np.ascontiguousarray(plane).data, FASTEST)
        self._room -= len(packed) + OVERHEAD
        if self._room >= 0:
            self._packed[key] = plane.shape, packed

    def get(self, key: int) -> np.ndarray | None:
        """A plane as it was kept, read-only; None where it is not."""
        if key not in self._packed:
            return None
        shape, packed = self._packed[key]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
