"""Localization maps on disk: one compressed file for each image, no pickle, whole or not there."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.atomic import Written, write_bytes
from tag2mask.errors import InputError

LONGEST_STORED_SIDE = 192
"""Maps are stored at most this large, in pixels: their own grid is 10 to 30 cells wide, more would be interpolation."""


@dataclass(frozen=True)
class StoredMaps:
    """Maps of one image.

    Attributes:
        classes: (P,) int16 class numbers, from 0.
        maps: (P, H, W) uint8, round(255 x normalised map), at the image's size.
        peaks: (C,) float32, how high every class's map reaches before normalising (``maps.merge.map_peaks``).
    """

    classes: np.ndarray
    maps: np.ndarray
    peaks: np.ndarray


def quantised(maps: np.ndarray) -> np.ndarray:
    """Maps in [0, 1] as uint8, round(255 x); an error of at most 1/510."""
    return np.rint(np.clip(maps, 0.0, 1.0) * 255).astype(np.uint8)


def save_maps(path: Path, classes: np.ndarray, maps: np.ndarray, peaks: np.ndarray) -> Written:
    """Write the maps of one image, atomically; returns what the file holds.

    Args:
        path: ``<id>.npz``.
        classes: (P,) class numbers, from 0.
        maps: (P, H, W) uint8 at the image's size; larger ones are stored reduced and enlarged again when read.
        peaks: (C,) how high every class's map reaches before normalising.
    """
    height, width = maps.shape[1:]
    factor = min(1.0, LONGEST_STORED_SIDE / max(height, width, 1))
    small = _resized(maps, (max(1, round(height * factor)), max(1, round(width * factor))))
    content = io.BytesIO()  # at most some hundred kB; an archive cannot be closed on a full disk
    np.savez_compressed(
        content, classes=np.asarray(classes, np.int16), maps=small, size=np.array([height, width], np.int32),
        peaks=np.asarray(peaks, np.float32),
    )  # fmt: skip
    return write_bytes(path, content.getvalue())


def load_maps(path: Path) -> StoredMaps:
    """Read maps that ``save_maps`` wrote; nothing in the file is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            classes, small, size, peaks = file["classes"], file["maps"], file["size"], file["peaks"]
    except FileNotFoundError:
        raise InputError(f"there are no maps at {path}; run `tag2mask localize` first.") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers of zip and npy files raise nearly anything
        raise InputError(
            f"{path} is not a file of maps ({type(error).__name__}); delete it and localize again."
        ) from error
    return StoredMaps(classes, _resized(small, (int(size[0]), int(size[1]))), peaks)


def _resized(maps: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if maps.shape[1:] == size_hw:
        return maps
    height, width = size_hw
    planes = [np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.BILINEAR)) for m in maps]
    return np.stack(planes) if planes else np.zeros((0, height, width), np.uint8)
