"""Pairs of neighbouring pixels and the straight paths between them (PSA, IRN).

A pair is a source pixel and a direction (dy, dx) that leads to its destination. Half of all directions within the
radius is enough, as affinity is symmetric. Letters: P directions, S sources, L points of a path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tag2mask.errors import require

Offset = tuple[int, int]
"""Rows down and columns to the right."""


def half_disc(radius: int) -> tuple[Offset, ...]:
    """Directions (dy, dx) of length below ``radius``, of two opposite ones the one that goes down, or to the right."""
    right = [(0, dx) for dx in range(1, radius)]
    down = [
        (dy, dx)
        for dy in range(1, radius)
        for dx in range(1 - radius, radius)
        if dy * dy + dx * dx < radius * radius
    ]
    return (*right, *down)


def path_points(direction: Offset) -> tuple[Offset, ...]:
    """The pixels of a path, both ends included, from the destination back to the source (0, 0).

    Those of the bounding box of the two ends that lie nearer than 1 to the line: (dy x - dx y)^2 < dy^2 + dx^2.
    """
    dy, dx = direction
    box = [(y, x) for y in range(dy + 1) for x in range(min(dx, 0), max(dx, 0) + 1)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]
    return tuple(sorted(near, key=lambda point: point[0] * dy + point[1] * dx, reverse=True))


class PairGeometry:
    """All pairs of pixels nearer than a radius whose source keeps that distance to the left, right and lower border.

    Sources are the rows 0..H-r and the columns r-1..W-r of a grid (H, W), in reading order, so that every direction
    of every source ends inside the grid.

    Attributes:
        radius: r, at least 2; 10 in the training of IRN, 5 wherever maps are refined.
        directions: P offsets (dy, dx); 34 for radius 5, 152 for radius 10.
        paths: the points of each direction's path, from the destination to the source (0, 0).
    """

    def __init__(self, radius: int) -> None:
        require(radius >= 2, "radius", radius, "2 or more")
        self.radius = radius
        self.directions = half_disc(radius)
        self.paths = tuple(path_points(direction) for direction in self.directions)

    def source_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of sources in a grid.

        Raises:
            ValueError: the grid is too small to hold a source.
        """
        rows, columns = height - self.radius + 1, width - 2 * (self.radius - 1)
        if rows < 1 or columns < 1:
            raise ValueError(
                f"a grid of {height}x{width} has no pixel whose neighbours within radius {self.radius} are all inside"
            )
        return rows, columns

    def shifted(self, field: Tensor, offset: Offset) -> Tensor:
        """What ``field`` (..., H, W) holds at the given offset from each source: (..., h, w), a view."""
        rows, columns = self.source_size(field.shape[-2], field.shape[-1])
        top, left = offset[0], self.radius - 1 + offset[1]
        return field[..., top : top + rows, left : left + columns]

    def sources(self, field: Tensor) -> Tensor:
        """What ``field`` (..., H, W) holds at each source: (..., S)."""
        return self.shifted(field, (0, 0)).flatten(-2)

    def destinations(self, field: Tensor) -> Tensor:
        """What ``field`` (..., H, W) holds at each destination: (..., P, S)."""
        return torch.stack([self.shifted(field, d).flatten(-2) for d in self.directions], dim=-2)

    def path_affinity(self, edge: Tensor) -> Tensor:
        """a(source, destination) = 1 - max of the edge probability over the path between them.

        The maxima are taken over the pixels' ranks in their image, which are small integers; they name the pixel as
        well as order it. So the values are looked up once for each pair, not once for each point of its path, and so
        are the gradients: a pair's goes to the highest pixel of its path (of equal ones, the last in reading order).

        Args:
            edge: (N, 1, H, W) float, from 0 to 1, with gradient.

        Returns:
            (N, P, S) of the dtype of ``edge``.
        """
        n, _, height, width = edge.shape
        rows, columns = self.source_size(height, width)
        ordered, order = edge.flatten(1).sort(dim=1, stable=True)  # (N, HW) each
        dtype = torch.int16 if height * width <= torch.iinfo(torch.int16).max else torch.int32
        ascending = torch.arange(height * width, dtype=dtype, device=edge.device).expand(n, -1)  # (N, HW)
        ranks = torch.empty_like(order, dtype=dtype).scatter_(1, order, ascending).view(n, height, width)
        highest = ranks.new_empty(n, len(self.paths), rows, columns)  # (N, P, h, w)
        for p, path in enumerate(self.paths):
            highest[:, p] = self.shifted(ranks, path[0])
            for point in path[1:]:
                torch.maximum(highest[:, p], self.shifted(ranks, point), out=highest[:, p])
        values = ordered.gather(1, highest.flatten(1).long())  # (N, PS)
        return 1 - values.view(n, len(self.paths), rows * columns)  # (N, P, S)

    def feature_affinity(self, features: Tensor) -> Tensor:
        """a(i, j) = exp(-mean over channels of |f_i - f_j|): the affinity of AffinityNet (PSA).

        Args:
            features: (N, D, H, W) float, with gradient.

        Returns:
            (N, P, S) of the dtype of ``features``.
        """
        distances: Tensor = FeatureDistances.apply(features, self)
        return torch.exp(-distances)


class FeatureDistances(torch.autograd.Function):
    """mean_channel |f_source - f_destination|: (N, D, H, W) -> (N, P, S).

    The differences of all pairs would be P times the features, and autograd would keep them. Here they live for one
    image and direction at a time, which fits the cache, and are made again when the gradient is due.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, geometry: PairGeometry) -> Tensor:
        """The mean over channels, without keeping what was averaged."""
        ctx.save_for_backward(features)
        ctx.geometry = geometry
        rows, columns = geometry.source_size(features.shape[2], features.shape[3])
        distances = features.new_empty(len(features), len(geometry.directions), rows, columns)  # (N, P, h, w)
        for image, result in zip(features, distances, strict=True):
            source = geometry.shifted(image, (0, 0))  # (D, h, w)
            for p, direction in enumerate(geometry.directions):
                torch.mean((source - geometry.shifted(image, direction)).abs_(), dim=0, out=result[p])
        return distances.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The sign of each difference: added to the gradient of the source, taken from that of the destination."""
        (features,) = ctx.saved_tensors
        geometry: PairGeometry = ctx.geometry
        size = geometry.source_size(features.shape[2], features.shape[3])
        shares = (gradients[0] / features.shape[1]).unflatten(2, size)  # (N, P, S) -> (N, P, h, w)
        results = torch.zeros_like(features)
        for image, result, share in zip(features, results, shares, strict=True):
            source = geometry.shifted(image, (0, 0))  # (D, h, w)
            for p, direction in enumerate(geometry.directions):
                signed = (source - geometry.shifted(image, direction)).sign_().mul_(share[p])
                geometry.shifted(result, (0, 0)).add_(signed)
                geometry.shifted(result, direction).sub_(signed)
        return results, None
