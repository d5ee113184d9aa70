"""A Gaussian filter over millions of pixel pairs in linear time: the permutohedral lattice.

    filtered_i = sum_j k(f_i, f_j) v_j / sqrt(K_i K_j),   k(f, g) = exp(-|f - g|^2 / 2),   K_i = sum_j k(f_i, f_j)

A. Adams, J. Baek and A. Davis, "Fast high-dimensional filtering using the permutohedral lattice", 2010, with the
symmetric normalisation that dense CRFs use. Every pixel lies in a simplex of the lattice. It spreads its value over the
d + 1 vertices of that simplex (splat), the vertices are blurred with [1/2, 1, 1/2] along each of the d + 1 directions,
and the pixel reads the result from its vertices (slice). Splat and slice are one sparse matrix, once transposed; a blur
adds two gathered neighbours.

The vertices with remainder k are the points whose d + 1 integer coordinates, which sum to 0, are all k modulo d + 1. A
simplex has one vertex of each remainder; a step along a direction leads from remainder k to k + 1. So vertices are
numbered for each remainder alone, by what the coordinates leave when divided by d + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from tag2mask.errors import InputError

Values = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]

BLOCK = 4
"""Columns filtered at once: NumPy gathers rows of 1, 2 and 4 floats much faster than those of 3 or 5."""


class PermutohedralLattice:
    """The filter above for one set of features, built once and applied to any number of values."""

    def __init__(self, features: npt.NDArray[np.floating]) -> None:
        """Build for ``features`` (N, d), each divided by the standard deviation of its Gaussian; N and d at least 1.

        Raises ``InputError`` where the features reach so far that the vertices have no 64-bit number.
        """
        n, dimensions = features.shape
        simplices = enclosing_simplices(np.ascontiguousarray(features.T, np.float32))  # (N, d) -> (d, N)
        vertices, self._neighbours = number_vertices(simplices)
        self._vertex_count = len(self._neighbours[0, 0])
        starts = np.arange(0, n * (dimensions + 1) + 1, dimensions + 1, dtype=np.int32)
        indices, weights = vertices.ravel(), simplices.weights  # (N, d + 1) -> (N (d + 1),)
        self._slice = csr_array((weights.ravel(), indices, starts), shape=(n, self._vertex_count))
        scale = 1 / np.sqrt(self.filter(np.ones((n, 1), np.float32)))  # (N, 1); a pixel meets itself, so not 1 / 0
        self._slice = csr_array(((weights * scale).ravel(), indices, starts), shape=(n, self._vertex_count))

    def filter(self, values: Values) -> Values:
        """The values (N, L) filtered, (N, L) float32; linear in the values."""
        n, columns = values.shape
        filtered = np.empty((n, columns), np.float32)
        for start in range(0, columns, BLOCK):
            block = values[:, start : start + BLOCK]  # (N, B)
            width = block.shape[1]
            if width == 3:
                block = np.concatenate([block, np.zeros_like(block[:, :1])], axis=1)  # (N, 3) -> (N, 4)
            spread = self._slice.T @ np.ascontiguousarray(block, np.float32)  # (N, B) -> (V, B)
            for forward, backward in self._neighbours:
                half = spread.take(forward, axis=0)
                half += spread.take(backward, axis=0)
                half *= np.float32(0.5)
                spread += half
            filtered[:, start : start + BLOCK] = (self._slice @ spread)[:, :width]  # (V, B) -> (N, B)
        return filtered


@dataclass(frozen=True)
class Simplices:
    """For each of N points the simplex that encloses it."""

    corner: list[Values]
    """d arrays (N,): the first d coordinates of the vertex of remainder 0, divided by d + 1; whole numbers."""
    rank: list[npt.NDArray[np.int8]]
    """d arrays (N,), 0..d: how many coordinates are farther above that vertex. The vertex of remainder k lies one step
    lower in the coordinates whose rank is above d - k."""
    weights: Values
    """(N, d + 1): barycentric weight of the vertex of each remainder; not below 0 but for rounding, their sum is 1."""


def enclosing_simplices(features: Values) -> Simplices:
    """Embed features (d, N) into the plane of the lattice and find their simplices.

    The plane is that of d + 1 coordinates with sum 0, scaled so that the filter's blur has standard deviation 1. Each
    number is rounded to float32 where pydensecrf rounds: a point near a face of two simplices falls into the same one.
    """
    d, n = features.shape
    period = np.float32(d + 1)
    spread = float(np.float32(np.sqrt(2 / 3) * (d + 1)))
    scaled = [feature * np.float32(spread / np.sqrt((i + 1) * (i + 2))) for i, feature in enumerate(features)]
    above = np.zeros(n, np.float32)  # sum of the scaled features from i on
    coordinates = []
    for i in range(d, 0, -1):
        coordinates.append(above - np.float32(i) * scaled[i - 1])
        above = above + scaled[i - 1]
    coordinates = [above, *reversed(coordinates)]  # d + 1 arrays (N,)

    corner = [np.rint(x / period) for x in coordinates]
    offset = [x - period * nearest for x, nearest in zip(coordinates, corner, strict=True)]
    excess = np.sum(corner, axis=0).astype(np.int8)  # 0 if the nearest points' sum is 0, which a vertex needs
    rank = [excess.copy() for _ in range(d + 1)]
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            lower = (offset[i] < offset[j]).view(np.int8)
            rank[i] += lower
            rank[j] += 1 - lower
    for i in range(d + 1):  # the coordinates that were rounded farthest go the other way, until the sum is 0
        turn = (rank[i] < 0).view(np.int8) - (rank[i] > d).view(np.int8)
        rank[i] += turn * np.int8(d + 1)
        corner[i] += turn
        offset[i] -= turn * period
    return Simplices(corner[:d], rank[:d], barycentric_weights(offset))


def barycentric_weights(offset: list[Values]) -> Values:
    """(N, d + 1) weights from d + 1 arrays (N,), the coordinates less those of the vertex of remainder 0."""
    d = len(offset) - 1
    descending = list(offset)
    for last in range(d, 0, -1):  # a bubble sort of columns: far faster than sorting N short rows
        for i in range(last):
            high, low = descending[i], descending[i + 1]
            descending[i], descending[i + 1] = np.maximum(high, low), np.minimum(high, low)
    weights = np.empty((len(offset[0]), d + 1), np.float32)
    weights[:, 0] = descending[d] - descending[0] + np.float32(d + 1)
    for k in range(1, d + 1):
        weights[:, k] = descending[d - k] - descending[d - k + 1]
    weights *= np.float32(1 / (d + 1))
    return weights


def number_vertices(simplices: Simplices) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """Number the vertices that are in use, and find who is next to whom.

    Returns:
        vertices: (N, d + 1) int32, the number of each point's vertex of each remainder.
        neighbours: (d + 1, 2, V): along each direction the vertex one step on and one step back. The last of the V
        is a vertex that no point uses, is its own neighbour, and stands for all that are missing: its value stays 0.
    """
    d = len(simplices.corner)
    lowest = [x.min() - 2 for x in simplices.corner]  # one for the vertices' own step down, one for a neighbour's
    sizes = [int(x.max() - low) + 2 for x, low in zip(simplices.corner, lowest, strict=True)]
    strides = [math.prod(sizes[i + 1 :]) for i in range(d)]
    if math.prod(sizes) * (d + 1) ** d >= 2**63:
        raise InputError(
            "The standard deviations of the CRF are too small to number the lattice of an image of this size; expected "
            "some pixels and grey levels: use larger ones."
        )
    code = np.zeros(len(simplices.weights), np.int64)  # (N,)
    for x, low, stride in zip(simplices.corner, lowest, strides, strict=True):
        code += (x - low).astype(np.int64) * stride
    for rank in simplices.rank:
        code = code * (d + 1) + rank
    # Pixels of one simplex share its vertices; the rest is done once for each simplex.
    code, simplex_of_point = np.unique(code, return_inverse=True)  # (S,), (N,)
    steps_down: list[Codes] = []  # the ranks of each simplex
    for _ in range(d):
        code, last = np.divmod(code, d + 1)  # (S,)
        steps_down.insert(0, last)

    numbers = np.empty((len(code), d + 1), np.int32)  # (S, d + 1)
    found: list[Codes] = []
    starts = [0]
    for k in range(d + 1):
        for order, stride in zip(steps_down, strides, strict=True):
            code -= (order == d + 1 - k) * stride  # at k = 0 no rank is that high
        distinct, number = np.unique(code, return_inverse=True)
        numbers[:, k] = starts[-1] + number
        found.append(distinct)
        starts.append(starts[-1] + len(distinct))

    missing = starts[-1]
    neighbours = np.full((d + 1, 2, missing + 1), missing, np.intp)
    for k in range(d + 1):
        following = (k + 1) % (d + 1)
        # A step raises all coordinates by 1 and lowers one by d + 1. Divided by d + 1, only that one changes; from the
        # last remainder to the first all others do. The last coordinate is not in the code, as it follows from these.
        carry = sum(strides) if following == 0 else 0
        for direction, stride in enumerate([*strides, 0]):
            wanted = found[k] + (carry - stride)
            place = np.searchsorted(found[following], wanted)
            place[place == len(found[following])] = 0
            there = np.flatnonzero(found[following][place] == wanted)
            source, target = there + starts[k], place[there] + starts[following]
            neighbours[direction, 0, source] = target
            neighbours[direction, 1, target] = source
    return numbers[simplex_of_point], neighbours
