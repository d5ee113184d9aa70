"""Single objects out of class maps: pixels follow their displacements to a centre (IRN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tag2mask.config.affinity import IRNConfig
from tag2mask.refine.irn import refine_maps
from tag2mask.refine.walk import Floats, upsampled_scores


@dataclass(frozen=True)
class Instance:
    """One object of a photo."""

    class_id: int
    """Counted from 0, as tags are."""
    score: float
    """Its highest score, above the background's and at most 1."""
    mask: npt.NDArray[np.bool_]
    """(H, W); masks of a photo's instances do not overlap."""


def end_places(displacement: Floats, steps: int) -> npt.NDArray[np.float64]:
    """Where each pixel comes to when it follows the displacements ``steps`` times, looked up bilinearly on the way.

    Args:
        displacement: (2, h, w), rows and columns, in pixels of the grid.

    Returns:
        (2, h, w) row and column, inside the grid.
    """
    field = np.asarray(displacement, np.float64)
    limits = np.array(field.shape[1:], np.float64)[:, None, None] - 1
    places = np.indices(field.shape[1:]).astype(np.float64)  # (2, h, w)
    for _ in range(steps):
        moves = [ndimage.map_coordinates(part, places, order=1, mode="nearest") for part in field]
        places = np.clip(places + np.stack(moves), 0, limits)
    return places


def pixel_groups(displacement: Floats, config: IRNConfig) -> npt.NDArray[np.intp]:
    """The centre to which each pixel belongs.

    Centres are the connected regions of displacements shorter than ``centre_radius``.

    Args:
        displacement: (2, h, w), rows and columns.

    Returns:
        (h, w): the number of the centre in which the pixel ends, from 1; 0 for pixels that end in none.
    """
    centres, _ = ndimage.label(np.hypot(displacement[0], displacement[1]) < config.centre_radius)  # (h, w)
    row, column = np.rint(end_places(displacement, config.centroid_steps)).astype(np.intp)
    groups: npt.NDArray[np.intp] = centres[row, column].astype(np.intp)
    return groups


def find_instances(
    maps: Floats, class_ids: npt.NDArray[np.integer[Any]], edge: Floats, displacement: Floats,
    size: tuple[int, int], stride: int, config: IRNConfig,
) -> list[Instance]:  # fmt: skip
    """Each class map is divided among the centres, every part walks, and the parts compete for each pixel.

    Pixels that end in no centre are kept together as one more part, so that a network without any centre still gives
    the masks of the classes. Pieces of a mask below ``smallest_fragment`` of the photo are dropped.

    Args:
        maps: (C, h, w) of the image's classes at the edge grid, not negative; class_ids: (C,), counted from 0.
        edge: (h, w), from 0 to 1; displacement: (2, h, w).
        size: H, W of the photo; stride: of the edge grid.

    Returns:
        The instances in order of class and centre; none where no part exceeds the background's score.
    """
    groups = pixel_groups(displacement, config)
    parts = [(c, np.where(groups == k, one, 0)) for c, one in enumerate(maps) for k in np.unique(groups)]
    parts = [(c, part) for c, part in parts if part.any()]
    if not parts:
        return []
    walked = refine_maps(np.stack([part for _, part in parts]), edge, config)  # (parts, h, w)
    scores = upsampled_scores(walked, size, stride)  # (parts, H, W)
    winner = np.where(scores.max(axis=0) > config.background, scores.argmax(axis=0), len(parts))  # (H, W)
    found = []
    for number, (c, _) in enumerate(parts):
        mask = without_fragments(winner == number, config.smallest_fragment)
        if mask.any():
            found.append(Instance(int(class_ids[c]), float(scores[number][mask].max()), mask))
    return found


def without_fragments(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    """(H, W) boolean without connected pieces that are smaller than a share ``smallest`` of all pixels."""
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel()) >= smallest * mask.size
    kept: npt.NDArray[np.bool_] = mask & large[pieces]
    return kept
