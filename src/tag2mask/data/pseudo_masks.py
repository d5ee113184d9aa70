"""Pseudo masks as files: palette PNGs that came out of tags, written by one stage and read by the next.

They are another type than ``tag2mask.data.masks.Masks``, the truth, which no module that trains may import.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.atomic import Written, write_bytes
from tag2mask.data.classes import palette
from tag2mask.data.files import Folder, fault
from tag2mask.data.images import opened
from tag2mask.errors import InputError

UNSURE = 255
"""Value of the pixels that the method does not decide; losses and scores pass them over."""


@dataclass(frozen=True)
class PseudoMasks:
    """The pseudo masks of N images, on disk. Made by ``open_pseudo_masks``, which looks whether all are there."""

    folder: Path
    ids: tuple[str, ...]
    """Strings as they stand in the list; sub-folders are separated by ``/``."""
    class_count: int
    paths: tuple[Path, ...]
    """One file for each id."""

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, index: int, size_hw: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8: 0 background, c + 1 class c, 255 unsure; ``size_hw`` as in ``read_pseudo_mask``."""
        return read_pseudo_mask(self.paths[index], self.class_count, size_hw)


def open_pseudo_masks(folder: Path, ids: Sequence[str], class_count: int) -> PseudoMasks:
    """The files ``<id>.png`` in ``folder``, whatever Unicode form either side uses.

    Raises ``InputError`` with the first that is missing and the number of those that are.
    """
    finder = Folder(folder)
    found = [finder.find(f"{image_id}.png") for image_id in ids]
    missing = [image_id for image_id, path in zip(ids, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"{folder / f'{missing[0]}.png'}: there is no pseudo mask for this image, as for {len(missing)} of "
            f"{len(ids)}; make the missing ones, or take their ids off the list."
        )
    paths = tuple(path for path in found if path is not None)
    return PseudoMasks(folder, tuple(ids), class_count, paths)


def read_pseudo_mask(path: Path, class_count: int, size_hw: tuple[int, int] | None = None) -> np.ndarray:
    """One pseudo mask.

    Args:
        path: an 8 bit palette or grey PNG of class numbers.
        class_count: C.
        size_hw: (H, W) that the mask must have, that of the upright image; None for any.

    Returns:
        (H, W) uint8: 0 background, c + 1 class c, 255 unsure.

    Raises:
        InputError: names the file; it is missing, damaged or a colour picture, has a value that is no class, or
            another size.
    """
    with opened(path) as image:
        require_numbers(image, path)
        picture = image.point([0] + [1] * 255, "L") if image.mode == "1" else image
        present = np.flatnonzero(picture.histogram())  # the values that occur
        mask = np.array(picture, dtype=np.uint8)  # (H, W)
    unknown = present[(present > class_count) & (present != UNSURE)]
    if len(unknown):
        shown = ", ".join(str(value) for value in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        raise fault(
            path,
            f"the pseudo mask has the values {shown}; expected 0 to {class_count}, or 255 for pixels that are unsure",
            "make it again with these classes",
        )
    return sized(mask, size_hw, path)


def write_mask(path: Path, mask: np.ndarray) -> Written:
    """Write (H, W) uint8 (0 background, c + 1 class c, 255 unsure) as an 8 bit palette PNG in the VOC colours.

    Atomic: a reader sees the old file, the new one or none, never a part. Makes the folder of ``path`` if need be.
    Returns what the file holds.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"a mask is (H, W) uint8; got {mask.shape} {mask.dtype}")
    picture = Image.fromarray(mask)
    picture.putpalette(palette(255).tobytes())
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return write_bytes(path, content.getvalue())


def require_numbers(image: Image.Image, path: Path) -> None:
    """Raise ``DataError`` unless an opened picture can hold class numbers: 8 bit palette or grey, and no JPEG."""
    if image.mode not in ("P", "L", "1"):
        raise fault(
            path,
            f"the mask is a colour or deep picture (mode {image.mode}), not a palette PNG: usually a program "
            "that saved the colours of the palette instead of the class numbers",
            "save it as an 8 bit palette or grey PNG of class numbers",
        )
    if image.format == "JPEG":
        raise fault(path, "the mask is a JPEG, which blurs class numbers", "save it as an 8 bit palette PNG")


def sized(mask: np.ndarray, size_hw: tuple[int, int] | None, where: str | Path) -> np.ndarray:
    """``mask`` (H, W) itself; ``DataError`` that names ``where`` when ``size_hw`` is given and another."""
    if size_hw is None or mask.shape == tuple(size_hw):
        return mask
    height, width = mask.shape
    todo = "make the mask again at the size of the image"
    if mask.shape == tuple(size_hw)[::-1]:
        todo = "rotate the mask: the EXIF data of the image turn it by a quarter, or width and height are mixed up"
    raise fault(
        where,
        f"the mask is {width}x{height} (width x height), the upright image {size_hw[1]}x{size_hw[0]}",
        todo,
    )
