"""Pixel pairs, their losses and the random walk in plain loops, written from the text of the methods.

Nothing here is fast or comes from the package. What carries a gradient is a tensor without axes, so that autograd
differentiates the loops.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

Pixel = tuple[int, int]


def directions(radius: int) -> list[Pixel]:
    """Half of the disc: (0, x) to the right, then row by row downwards."""
    found = []
    for y in range(radius):
        for x in range(-radius, radius + 1):
            if math.hypot(y, x) < radius and (y > 0 or x > 0) and abs(x) < radius:
                found.append((y, x))
    return found


def path(direction: Pixel) -> list[Pixel]:
    """Pixels between (0, 0) and ``direction`` whose distance to the line through both is below 1."""
    dy, dx = direction
    found = []
    for y in range(0, dy + 1):
        for x in range(min(0, dx), max(0, dx) + 1):
            if abs(dy * x - dx * y) / math.hypot(dy, dx) < 1 - 1e-12:
                found.append((y, x))
    return found


def sources(height: int, width: int, radius: int) -> list[Pixel]:
    """The grid less r - 1 pixels at the left, right and lower border."""
    return [(y, x) for y in range(height) for x in range(width) if y <= height - radius and radius - 1 <= x <= width - radius]


def path_affinity(edge: Tensor, radius: int) -> Tensor:
    """1 - the highest edge probability on the path: (N, 1, H, W) -> (N, P, S)."""
    n, _, height, width = edge.shape
    rows = []
    for image in range(n):
        for dy, dx in directions(radius):
            for y, x in sources(height, width, radius):
                highest = None
                for py, px in path((dy, dx)):
                    value = edge[image, 0, y + py, x + px]
                    if highest is None or value > highest:
                        highest = value
                assert highest is not None
                rows.append(1 - highest)
    return torch.stack(rows).view(n, len(directions(radius)), -1)


def feature_affinity(features: Tensor, radius: int) -> Tensor:
    """exp(-mean |difference|): (N, D, H, W) -> (N, P, S)."""
    n, channels, height, width = features.shape
    rows = []
    for image in range(n):
        for dy, dx in directions(radius):
            for y, x in sources(height, width, radius):
                distance = features.new_zeros(())
                for d in range(channels):
                    distance = distance + abs(features[image, d, y, x] - features[image, d, y + dy, x + dx])
                rows.append(torch.exp(-distance / channels))
    return torch.stack(rows).view(n, len(directions(radius)), -1)


def affinity_terms(affinity: Tensor, labels: Tensor, radius: int) -> dict[str, Tensor]:
    """The three cross-entropies over all pairs whose labels are known, one pair after the other."""
    sums = {name: affinity.new_zeros(()) for name in ("background", "foreground", "different")}
    counts = dict.fromkeys(sums, 0)
    n, height, width = labels.shape
    for image in range(n):
        for p, (dy, dx) in enumerate(directions(radius)):
            for s, (y, x) in enumerate(sources(height, width, radius)):
                a, b = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
                if a == 255 or b == 255:
                    continue
                name = "different" if a != b else "background" if a == 0 else "foreground"
                value = affinity[image, p, s]
                loss = -torch.log(1 + 1e-5 - value) if a != b else -torch.log(value + 1e-5)
                sums[name] = sums[name] + loss
                counts[name] += 1
    return {name: sums[name] / (counts[name] + 1e-5) for name in sums}


def displacement_terms(displacement: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Foreground and background: sums of |D - way| and |D| over both coordinates / (2 n + 1e-5)."""
    sums = [displacement.new_zeros(()), displacement.new_zeros(())]
    counts = [0, 0]
    n, height, width = labels.shape
    for image in range(n):
        for direction in directions(radius):
            for y, x in sources(height, width, radius):
                there = (y + direction[0], x + direction[1])
                a, b = int(labels[image, y, x]), int(labels[(image, *there)])
                if a != b or a == 255:
                    continue
                kind = 0 if a > 0 else 1
                counts[kind] += 1
                for axis in range(2):
                    difference = displacement[image, axis, y, x] - displacement[(image, axis, *there)]
                    sums[kind] = sums[kind] + abs(difference - (direction[axis] if kind == 0 else 0))
    return sums[0] / (2 * counts[0] + 1e-5), sums[1] / (2 * counts[1] + 1e-5)


def irn_total(edge_logits: Tensor, displacement: Tensor, labels: Tensor, radius: int) -> Tensor:
    """1/2 [bg / 2 + fg / 2 + different] + 1/2 [displacement fg + displacement bg]."""
    affinity = path_affinity(1 / (1 + torch.exp(-edge_logits)), radius)
    terms = affinity_terms(affinity, labels, radius)
    alike = 0.5 * terms["background"] + 0.5 * terms["foreground"]
    foreground, background = displacement_terms(displacement, labels, radius)
    return 0.5 * (alike + terms["different"]) + 0.5 * (foreground + background)


def dense_transition(affinity: dict[tuple[Pixel, Pixel], float], height: int, width: int, beta: float) -> np.ndarray:
    """S symmetric with unit diagonal, to the power beta, columns divided by their sums; dense."""
    matrix = np.zeros((height * width, height * width))
    for y in range(height):
        for x in range(width):
            matrix[y * width + x, y * width + x] = 1
    for ((y, x), (v, u)), value in affinity.items():
        if 0 <= v < height and 0 <= u < width:
            matrix[y * width + x, v * width + u] = value**beta
            matrix[v * width + u, y * width + x] = value**beta
    for column in range(height * width):
        matrix[:, column] /= matrix[:, column].sum()
    return matrix


def walk_of_edges(maps: np.ndarray, edge: np.ndarray, beta: float, doublings: int, radius: int = 5) -> np.ndarray:
    """Step E as the text has it: pad by r with 1, pairs of the padded grid, remove the padding, square, multiply."""
    height, width = edge.shape
    padded = np.ones((height + radius, width + 2 * radius))
    padded[:height, radius : radius + width] = edge
    affinity = {}
    for y, x in sources(*padded.shape, radius):
        if y < height and radius <= x < radius + width:
            for dy, dx in directions(radius):
                highest = max(padded[y + py, x + px] for py, px in path((dy, dx)))
                affinity[((y, x - radius), (y + dy, x - radius + dx))] = 1 - highest
    transition = dense_transition(affinity, height, width, beta)
    for _ in range(doublings):
        transition = transition @ transition
    return (maps.reshape(len(maps), -1) @ transition).reshape(maps.shape)


def follow(displacement: np.ndarray, y: float, x: float, steps: int) -> tuple[float, float]:
    """Where a pixel comes to; displacements are looked up bilinearly, and the grid is not left."""
    _, height, width = displacement.shape
    for _ in range(steps):
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        down, right = y - top, x - left
        move = []
        for axis in range(2):
            d = displacement[axis]
            upper = d[top, left] * (1 - right) + d[top, left + 1] * right
            lower = d[top + 1, left] * (1 - right) + d[top + 1, left + 1] * right
            move.append(upper * (1 - down) + lower * down)
        y, x = min(max(y + move[0], 0), height - 1), min(max(x + move[1], 0), width - 1)
    return y, x
