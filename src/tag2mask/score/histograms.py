"""Count pixels once, so that every threshold can be read off later.

A pixel belongs to the present (tagged) class whose map is largest there, its winner; ties go to the first
class in ``class_ids``. At threshold level t it is foreground when that largest value is at least t. So the
number of pixels for each (truth, winner, value) says everything about all 255 thresholds, and no image is
read twice. Memory grows by a few bytes an image: what a bootstrap wants of each goes to a temporary file.

Letters: N images, C classes, J contexts, P present classes of one image, H W its size, R regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.errors import InputError
from tag2mask.score.image_counts import CountRows, ImageCounts
from tag2mask.score.image_levels import LEVELS, ImageLevels, Levels

IGNORE = 255
"""Mask value of pixels that no score counts."""

# Every pixel lies in one region of the truth: ignored, background, a class, or background on a known context.
# In this order the region of a mask value without context is value + 1 in uint8 arithmetic, as 255 + 1 wraps
# to 0.
_IGNORED, _BACKGROUND, _FIRST_CLASS = 0, 1, 2

# np.bincount copies its input to 64 bit. Blocks keep that copy small enough for the allocator to reuse its
# memory; for a whole image the kernel hands out fresh pages each time, which took longer than the counting.
_BLOCK = 1 << 16
PART_IMAGES = 1000
"""Some 5 MB."""

Counts = npt.NDArray[np.int64]
Plane = npt.NDArray[np.uint8]


class ScoreHistograms:
    """Pixel counts of a set of images by truth, winner and map value; totals are int64."""

    def __init__(self, class_count: int, context_count: int = 0, *, images: int) -> None:
        """Empty histograms of a set of ``images`` (N) images.

        Each index 0..N-1 can be added once, in any order, also to several histograms that are merged later.
        Raises ``InputError`` when classes and contexts together do not fit a mask of 8 bits.
        """
        if class_count < 1 or context_count < 0 or images < 0:
            raise ValueError(f"{class_count=}, {context_count=}, {images=}; expected at least 1, 0 and 0")
        if class_count + context_count > IGNORE - 1:
            raise InputError(
                f"There are {class_count} classes and {context_count} contexts; expected at most "
                f"{IGNORE - 1} in all, as masks have 8 bits: leave out contexts or classes."
            )
        self.class_count = class_count
        self.context_count = context_count
        self.image_count = images
        self._first_context = _FIRST_CLASS + class_count
        self._region_count = self._first_context + context_count
        # winner 0: an image without any present class; winner c + 1: class c
        self._counts = np.zeros((class_count + 1, self._region_count, LEVELS), np.int64)  # (C+1, R, 256)
        self._images = ImageLevels(class_count)
        self._added = np.zeros(images, np.bool_)  # (N,)

    def add(
        self,
        index: int,
        class_ids: Sequence[int] | npt.NDArray[np.integer],
        maps: Plane,
        mask: Plane | None,
        context: Plane | None = None,
    ) -> None:
        """Count the pixels of image ``index``.

        ``class_ids`` (P,): its present classes, distinct, each 0..C-1; may be empty. ``maps`` (P, H, W)
        uint8: round(255 * normalised map), in the same order. ``mask`` (H, W) uint8: 0 background, c+1 class
        c, 255 ignore; None where there is no truth (then ``map_levels`` alone learns from the image).
        ``context`` (H, W) uint8: 0 none, j+1 context j; it counts on the background alone: a pixel of a class
        is on no context, also where the context's file says what lies under it.

        Raises ``InputError`` for a mask or context of another size or with an unknown value, ``ValueError``
        for an index out of range or added before, and for maps of another type or number.
        """
        ids = np.asarray(class_ids, np.intp).reshape(-1)
        self._check(index, ids, maps)
        regions = self._regions(index, maps.shape[1:], mask, context)
        counts = self._count(maps, regions)  # (max(P, 1), R, 256)
        slots = [class_id + 1 for class_id in ids.tolist()] or [0]
        for place, slot in enumerate(slots):
            self._counts[slot] += counts[place]

        self._added[index] = True
        if mask is None:
            return  # without truth there is nothing to know of a single image

        by_region = counts.sum(axis=(0, 2))  # (R,)
        truth = by_region[_BACKGROUND : self._first_context]  # (C+1,)
        truth[0] += by_region[self._first_context :].sum()
        background = counts[:, _BACKGROUND] + counts[:, self._first_context :].sum(axis=1)  # (max(P, 1), 256)
        counts = counts[: len(ids)]  # (P, R, 256)
        levels = Levels(
            class_ids=ids,
            predicted=counts[:, _BACKGROUND:].sum(axis=1),  # (P, 256)
            true_positives=counts[np.arange(len(ids)), ids + _FIRST_CLASS],  # (P, 256)
            background=background.sum(axis=0),  # (256,)
            truth=truth,
        )
        self._images.add(index, levels)

    def merge(self, other: ScoreHistograms) -> ScoreHistograms:
        """Histograms over the images of both, as if one had seen all of them.

        Raises ``ValueError`` when they differ in classes, contexts or size of the set, or share an image.
        """
        shape = (self.class_count, self.context_count, self.image_count)
        if shape != (other.class_count, other.context_count, other.image_count):
            raise ValueError("only histograms of the same classes, contexts and images can be merged")
        merged = ScoreHistograms(self.class_count, self.context_count, images=self.image_count)
        for part in (self, other):
            merged.take_in(part)
        return merged

    def parts(self) -> Iterator[ScoreHistograms]:
        """The same in pieces of ``PART_IMAGES`` images, to be sent and taken in one after the other."""
        part = ScoreHistograms(self.class_count, self.context_count, images=self.image_count)
        part._counts, part._added = self._counts, self._added.copy()
        for index, record in self._images.records():
            if len(part._images) == PART_IMAGES:
                yield part
                part = ScoreHistograms(self.class_count, self.context_count, images=self.image_count)
            part._images.append(index, record)
        yield part

    def take_in(self, part: ScoreHistograms) -> None:
        """Add a piece of other images' histograms."""
        if (both := self._added & part._added).any():
            raise ValueError(f"image {both.argmax()} is in both histograms; each image counts once")
        self._counts += part._counts
        self._added |= part._added
        self._images.extend(part._images)

    @property
    def added(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: the images that were added."""
        return self._added.copy()

    @property
    def joint(self) -> Counts:
        """(C+1, C+1, 256) int64 pixels by [truth, winner, value], without ignored pixels.

        Truth 0 is background. Winner 0 holds the images without present class, at value 0; winner c+1 is
        class c.
        """
        joint = self._counts[:, _BACKGROUND : self._first_context].copy()
        joint[:, 0] += self._counts[:, self._first_context :].sum(axis=1)
        return joint.transpose(1, 0, 2)  # (winner, truth, 256) -> (truth, winner, 256)

    @property
    def on_context(self) -> Counts:
        """(J, C+1, 256) int64 background pixels by [context, winner, value], without ignored pixels."""
        on_context = self._counts[:, self._first_context :]  # (winner, J, 256)
        return on_context.transpose(1, 0, 2)  # (J, winner, 256)

    @property
    def map_levels(self) -> Counts:
        """(256,) int64: the largest map value of every pixel of the images with at least one tag.

        It reads no mask: ignored pixels are in it like all others.
        """
        return np.asarray(self._counts[1:].sum(axis=(0, 1)), np.int64)

    def image_counts(self, level: int) -> ImageCounts:
        """Counts of each image at threshold ``level`` (1..255); rows of images that were not added are 0."""
        check_level(level)
        rows = CountRows(self.image_count, self.class_count)
        for index, image in self._images:
            true_positives, predicted = np.zeros((2, self.class_count + 1), np.int64)
            predicted[image.class_ids + 1] = image.predicted[:, level:].sum(axis=1)  # (P, 256) -> (P,)
            predicted[0] = image.truth.sum() - predicted.sum()
            true_positives[image.class_ids + 1] = image.true_positives[:, level:].sum(axis=1)  # (P, 256) -> (P,)
            true_positives[0] = image.background[:level].sum()
            rows.set(index, true_positives, predicted, image.truth)
        return rows.counts()

    def _check(self, index: int, ids: npt.NDArray[np.intp], maps: Plane) -> None:
        if not 0 <= index < self.image_count:
            raise ValueError(f"image index {index} is out of range; expected 0 to {self.image_count - 1}")
        if self._added[index]:
            raise ValueError(f"image {index} was added before; each image counts once")
        if maps.ndim != 3 or maps.dtype != np.uint8 or len(maps) != len(ids):
            raise ValueError(
                f"the maps of image {index} are {maps.shape} {maps.dtype}; expected ({len(ids)}, height, "
                "width) uint8, one for each present class"
            )
        if not set(ids.tolist()) <= set(range(self.class_count)) or len(set(ids.tolist())) < len(ids):
            raise ValueError(
                f"the class ids of image {index} are {ids.tolist()}; expected distinct ones from 0 to "
                f"{self.class_count - 1}"
            )

    def _regions(self, index: int, size: tuple[int, ...], mask: Plane | None, context: Plane | None) -> Plane:
        """(H, W) uint8: the region 0..R-1 of each pixel."""
        for name, plane in (("mask", mask), ("context mask", context)):
            if plane is not None and (plane.shape != size or plane.dtype != np.uint8):
                raise InputError(
                    f"The {name} of image {index} is {plane.shape} {plane.dtype}; expected {size} uint8 "
                    "(height, width), as its maps are: give it the size of its image."
                )
        if mask is None:
            return np.full(size, _IGNORED, np.uint8)
        regions = mask + np.uint8(1)
        if regions.max(initial=0) > self.class_count + 1:
            raise InputError(
                f"The mask of image {index} holds the value {int(regions.max()) - 1}; expected 0 to "
                f"{self.class_count} (background and classes) or {IGNORE} (ignored): check the classes."
            )
        if context is not None:
            if context.max(initial=0) > self.context_count:
                raise InputError(
                    f"The context mask of image {index} holds the value {int(context.max())}; expected 0 to "
                    f"{self.context_count}: check the list of contexts."
                )
            on_context = (mask == 0) & (context > 0)
            np.copyto(regions, context + np.uint8(self._first_context - 1), where=on_context)
        return regions

    def _count(self, maps: Plane, regions: Plane) -> Counts:
        """Pixels of one image by (place of the winner in ``maps``, region, value): (max(P, 1), R, 256) int64.

        An image without present class counts as one whose only map is 0.
        """
        value = maps[0] if len(maps) else np.zeros_like(regions)
        winner = np.zeros_like(regions)
        for place in range(1, len(maps)):
            better = maps[place] > value  # strictly: of equals, the first keeps the pixel
            winner = np.maximum(winner, better.view(np.uint8) * np.uint8(place))  # later places are larger
            value = np.maximum(value, maps[place])

        # One integer for each pixel, in the smallest type: 16 bits up to 11 present classes of 20.
        shape = (max(len(maps), 1), self._region_count, LEVELS)
        places = winner.astype(np.min_scalar_type(shape[0] * shape[1] - 1))
        places *= self._region_count
        places += regions
        codes = places.astype(np.min_scalar_type(shape[0] * shape[1] * shape[2] - 1)).reshape(-1)  # (H * W,)
        codes *= LEVELS
        codes += value.reshape(-1)
        counts = np.zeros(shape[0] * shape[1] * shape[2], np.int64)
        for start in range(0, len(codes), _BLOCK):
            counts += np.bincount(codes[start : start + _BLOCK], minlength=len(counts))
        return counts.reshape(shape)


def check_level(level: int) -> None:
    """Raise ``ValueError`` unless ``level`` is 1..255 (at 0 there would be no background)."""
    if not 1 <= level < LEVELS:
        raise ValueError(f"threshold level {level} is out of range; expected 1 to {LEVELS - 1}")
