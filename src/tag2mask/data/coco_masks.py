"""Masks of classes from COCO's outlines of objects, for evaluation alone: no module that trains may import this one.

COCO has no masks of classes, and what others make of its outlines differs. Here, always in this order:

1. everything is background (0);
2. regions of crowds become 255, whatever their class;
3. the other regions are painted over it, larger ones (in pixels) first, so that the smaller lies on top; of equally
   large ones the one with the lower annotation id first. A class that is not in use is painted as 255.

So a pixel is 255 where a crowd and no single object is, or where the object on top is of a class not in use. An outline
becomes pixels by pycocotools: the union of the polygons of an annotation, or its run lengths. A polygon of fewer than
three points covers nothing.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.coco import annotation_file
from tag2mask.data.coco_index import CocoIndex, read_coco
from tag2mask.data.files import fault, normal
from tag2mask.data.images import TaggedImages
from tag2mask.data.masks import IGNORE, Masks, mask_table
from tag2mask.data.rows import id_of, inside
from tag2mask.errors import InputError

MOST_PIXELS = 180_000_000
"""Of a mask; Pillow opens no larger picture either, unless it is told to."""


def open_coco_masks(config: DataConfig, images: TaggedImages) -> Masks | None:
    """The masks of ``images``, drawn when they are read; None where the annotations are boxes without outlines.

    Raises ``InputError`` when pycocotools is not installed.
    """
    path = annotation_file(config)
    index = read_coco(path)
    if not index.outlined.any():
        return None
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise InputError(
            "masks from COCO's annotations need the package pycocotools, which is not installed; run "
            "`pip install 'tag2mask[coco]'`, or set data.masks to `none`."
        ) from None
    number_of = {id_of(inside(name, str(path))): number for number, name in enumerate(index.files)}
    numbers = tuple(number_of[normal(image_id)] for image_id in images.ids)
    table = mask_table(index.names, images.classes)  # (256,)
    return Masks(images.classes, images.ids, partial(read_coco_mask, index, numbers, table))


def read_coco_mask(index: CocoIndex, numbers: tuple[int, ...], table: np.ndarray, position: int) -> np.ndarray:
    """The mask of the image ``numbers[position]`` of a file, by the rule above.

    Args:
        table: (256,) uint8, the value in the mask for each category's position + 1.

    Returns:
        (H, W) uint8: 0 background, c + 1 class c, 255 ignore.

    Raises:
        InputError: names the annotation whose outline is missing or no outline, or the image without a size.
    """
    image = numbers[position]
    height, width = index.sizes[image].tolist()
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        where = f"{index.path}, image id {index.ids[image]}"
        raise fault(where, f"height and width are {height} and {width}", "write the size of the picture")
    mask = np.zeros((height, width), np.uint8)
    single: list[tuple[int, int, int, np.ndarray]] = []
    with index.path.open("rb") as file:
        for annotation in index.annotations(image):
            start, end = index.span[annotation].tolist()
            file.seek(start)
            where = f"{index.path}, annotation id {index.number[annotation]}"
            region = _region(_outline(file.read(end - start), where), (height, width), where)
            if index.crowd[annotation]:
                mask[region] = IGNORE
            else:
                value = int(table[int(index.category[annotation]) + 1])
                single.append((-int(region.sum()), int(index.number[annotation]), value, region))
    for _, _, value, region in sorted(single, key=lambda entry: entry[:3]):
        mask[region] = value
    return mask


def _outline(piece: bytes, where: str) -> Any:
    try:
        return json.loads(piece)["segmentation"]
    except (ValueError, LookupError, TypeError):
        raise fault(where, "there is no outline (segmentation)", "add it, or set data.masks to `none`") from None


def _region(outline: Any, size_hw: tuple[int, int], where: str) -> np.ndarray:
    """(H, W) bool."""
    height, width = size_hw
    if isinstance(outline, list):
        polygons = [_polygon(polygon, size_hw, where) for polygon in outline]
        lengths = _drawn([polygon for polygon in polygons if len(polygon) >= 6], size_hw)
    elif isinstance(outline, dict):
        lengths = _run_lengths(outline, size_hw, where)
    else:
        raise fault(where, "segmentation is neither polygons nor run lengths", "correct it, or hide data.masks")
    inside_it = np.arange(len(lengths)) % 2 == 1  # runs of zeros and ones in turn, column by column
    return np.repeat(inside_it, lengths).reshape(width, height).T


def _drawn(polygons: list[list[float]], size_hw: tuple[int, int]) -> list[int]:
    """Run lengths of the union of polygons."""
    from pycocotools import mask as run_lengths  # type: ignore[import-untyped, unused-ignore]

    if not polygons:
        return [size_hw[0] * size_hw[1]]
    union = run_lengths.merge(run_lengths.frPyObjects(polygons, *size_hw))
    return unpacked(union["counts"].decode("ascii"))


def _polygon(polygon: Any, size_hw: tuple[int, int], where: str) -> list[float]:
    """x, y, x, y ... of a polygon. What lies far outside the image would take the memory of a line that long."""
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise fault(where, "a polygon is no list of pairs x, y", "correct it")
    limit = 2 * max(size_hw) + 100
    for number in polygon:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise fault(where, f"a polygon holds {number!r}", "write numbers alone")
        if abs(number) > limit:
            what = f"a polygon reaches {number:g}, far outside the image of {size_hw[1]}x{size_hw[0]}"
            raise fault(where, what, "give coordinates in pixels, and the right height and width")
    return polygon


def _run_lengths(outline: dict[str, Any], size_hw: tuple[int, int], where: str) -> list[int]:
    """Run lengths that fill the image; pycocotools itself would not look."""
    counts, size = outline.get("counts"), outline.get("size")
    if size != list(size_hw):
        raise fault(where, f"the run lengths are of the size {size}, the image is {list(size_hw)} (H, W)", "correct it")
    lengths = unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(lengths, list) and all(isinstance(n, int) and n >= 0 for n in lengths)
    if not isinstance(lengths, list) or not whole or sum(lengths) != math.prod(size_hw):
        raise fault(where, f"the run lengths do not add up to {math.prod(size_hw)} pixels", "restore the annotation")
    return lengths


def unpacked(text: str) -> list[int]:
    """Lengths of the runs of zeros and ones in turn from COCO's compressed form; a part that is cut off counts nothing.

    A number is a row of characters from `0` on, five bits each, the lowest first; a sixth bit says that it goes on, the
    fifth bit of its last character is the sign. From the fourth on each is the difference to the last but one.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return []
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths
