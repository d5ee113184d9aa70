"""The random walk over pairs of pixels, exact and sparse (PSA, IRN).

The family squares the dense transition matrix eight times. Here the maps take the 256 steps one by one, through a
matrix with at most 2 P + 1 entries in a column: the same result, without the N x N matrix that does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from tag2mask.refine.pairs import PairGeometry

Floats = npt.NDArray[np.floating[Any]]

NEGLIGIBLE = 1e-20
"""Smallest entry of T that is kept. What hundreds of steps could carry through all smaller ones is less than the
rounding of one step; to keep them costs time, and products of many are numbers that processors are slow with."""


def bordered(field: Tensor, radius: int, value: float) -> Tensor:
    """A border left, right and below, so that every pixel of ``field`` (N, D, H, W) becomes a source.

    A border of ``radius`` and the sources in it that are dropped afterwards change nothing, so it is one thinner.
    """
    return functional.pad(field, (radius - 1, radius - 1, 0, radius - 1), value=value)


def edge_transition(edge: Floats, geometry: PairGeometry, beta: float) -> sparse.csc_array:
    """The transition matrix of the walk that boundaries stop: a = 1 - max over path of the edge probability.

    Args:
        edge: (H, W) float, from 0 to 1.
        geometry: of radius 5 in the family.
        beta: power of the affinities.

    Returns:
        T, as ``pair_transition`` gives it.
    """
    with torch.no_grad():
        field = torch.from_numpy(np.ascontiguousarray(edge, np.float64))[None, None]  # (1, 1, H, W)
        affinity = geometry.path_affinity(bordered(field, geometry.radius, 1.0))[0]  # (P, HW)
    return pair_transition(affinity.numpy(), (edge.shape[0], edge.shape[1]), geometry, beta)


def pair_transition(
    affinity: Floats, size: tuple[int, int], geometry: PairGeometry, beta: float
) -> sparse.csc_array:
    """T = S with every column divided by its sum, S = A^beta elementwise, A symmetric with unit diagonal.

    Args:
        affinity: (P, HW), from 0 to 1, for every pixel of the grid as a source; pairs that leave the grid are dropped.
        size: H, W.
        geometry: the directions of ``affinity``.
        beta: power.

    Returns:
        (HW, HW) float64 in compressed columns; columns sum to 1.
    """
    height, width = size
    expected = (len(geometry.directions), height * width)
    if affinity.shape != expected:
        raise ValueError(f"affinities of {affinity.shape}; expected {expected} for a grid of {size}")
    backward = tuple((-dy, -dx) for dy, dx in geometry.directions)
    offsets = sorted([*backward, (0, 0), *geometry.directions])  # as their pixels stand in memory: rows come out sorted
    weights = np.zeros((height, width, len(offsets)))  # of pixel i and its neighbour at each offset
    weights[:, :, offsets.index((0, 0))] = 1
    for (dy, dx), values in zip(geometry.directions, affinity, strict=True):
        sources = np.s_[: max(height - dy, 0), max(-dx, 0) : max(width - max(dx, 0), 0)]
        destinations = np.s_[dy:, max(dx, 0) : max(width + min(dx, 0), 0)]
        inside = values.reshape(height, width)[sources] ** beta  # (h, w): both ends in the grid
        weights[(*sources, offsets.index((dy, dx)))] = inside
        weights[(*destinations, offsets.index((-dy, -dx)))] = inside
    weights /= weights.sum(axis=2, keepdims=True)
    entries = weights.reshape(height * width, len(offsets))  # (HW, 2P + 1)
    taken = entries > NEGLIGIBLE
    starts = np.concatenate([[0], taken.sum(axis=1).cumsum()]).astype(np.int32)  # (HW + 1,)
    steps = np.array([dy * width + dx for dy, dx in offsets], np.int32)
    neighbours = (np.arange(height * width, dtype=np.int32)[:, None] + steps)[taken]  # (number of entries,)
    # As S is symmetric, its rows divided by their sums are the columns of T.
    return sparse.csc_array((entries[taken], neighbours, starts), shape=(height * width, height * width))


def random_walk(maps: Floats, transition: sparse.csc_array, steps: int = 256) -> npt.NDArray[np.float64]:
    """x <- x T, ``steps`` times, for every map.

    As the columns of T sum to 1, a pixel takes the mean over its neighbourhood, weighted by the affinities: constant
    maps stay as they are, no value leaves the range of the map, and the sum of values, each weighted by its pixel's
    column sum in S, is kept.

    Args:
        maps: (C, H, W); transition: T, (HW, HW).

    Returns:
        (C, H, W) float64.
    """
    rows = transition.T.tocsr()  # the same memory, read as rows
    walked = np.empty(maps.shape)
    for c, one in enumerate(maps):  # one vector at a time is faster than a matrix of few columns
        x = np.asarray(one, np.float64).ravel()  # (HW,)
        for _ in range(steps):
            x = rows @ x
        walked[c] = x.reshape(one.shape)
    return walked


def upsampled_scores(walked: Floats, size: tuple[int, int], stride: int) -> npt.NDArray[np.float32]:
    """Walked maps at the size of the photo, divided by the highest value of all classes.

    One maximum for the image, not one for each class: a class that the walk has diluted everywhere stays low.

    Args:
        walked: (C, h, w), h = (H - 1) // stride + 1 and w alike; size: H, W of the photo; stride: of the edge grid.

    Returns:
        (C, H, W) float32, from 0 to 1; zeros where all maps are zero.
    """
    height, width = size
    if walked.shape[1:] != ((height - 1) // stride + 1, (width - 1) // stride + 1):
        raise ValueError(f"maps of {walked.shape[1:]} are not those of a photo of {size} at stride {stride}")
    if len(walked) == 0:
        return np.zeros((0, height, width), np.float32)
    field = torch.from_numpy(walked.astype(np.float32))[None]  # (1, C, h, w)
    large = functional.interpolate(field, scale_factor=stride, mode="bilinear", align_corners=False)
    scores: npt.NDArray[np.float32] = large[0, :, :height, :width].numpy()  # (C, H, W)
    highest = scores.max()
    return scores / highest if highest > 0 else scores


def walked_mask(scores: Floats, class_ids: npt.NDArray[np.integer], background: float) -> npt.NDArray[np.uint8]:
    """The class of the highest score, background where none exceeds ``background``.

    Args:
        scores: (C, H, W), from 0 to 1; class_ids: (C,), of each map, counted from 0.
        background: the constant score of the background; config's is 0.25.

    Returns:
        (H, W) uint8, 0 background, class + 1.
    """
    plane = np.full((1, *scores.shape[1:]), background, scores.dtype)
    best = np.concatenate([plane, scores]).argmax(axis=0)  # (1 + C, H, W) -> (H, W)
    return np.concatenate([[0], class_ids + 1]).astype(np.uint8)[best]
