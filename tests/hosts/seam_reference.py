"""SEAM in plain loops, written from the method's section 2.5: every class and pixel is walked, also the absent ones.

Letters: N photos, C classes, H W pixels of a view, h w of the smaller one. Maps are lists of lists of floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Plane = list[list[float]]
EPSILON = 1e-5


@dataclass
class PhotoView:
    """What the losses read of one photo in one view; ``size``: where its maps are compared."""

    logits: list[float]
    maps: list[Plane]
    refined: list[Plane]
    size: tuple[int, int]


def values_of(plane: Plane) -> list[float]:
    return [value for row in plane for value in row]


def brought_to(plane: Plane, size: tuple[int, int]) -> Plane:
    """Bilinear, pixel centres at halves, the border continued."""
    height, width = len(plane), len(plane[0])
    result = []
    for y in range(size[0]):
        row = []
        for x in range(size[1]):
            v = max(0.0, (y + 0.5) * height / size[0] - 0.5)
            u = max(0.0, (x + 0.5) * width / size[1] - 0.5)
            top, left = min(int(v), height - 1), min(int(u), width - 1)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = v - top, u - left
            row.append(
                (1 - a) * ((1 - b) * plane[top][left] + b * plane[top][right])
                + a * ((1 - b) * plane[below][left] + b * plane[below][right])
            )
        result.append(row)
    return result


def max_norm(plane: Plane) -> Plane:
    """relu(relu(p) - min - 1e-5) / (max - min + 1e-5)."""
    positive = [[max(0.0, value) for value in row] for row in plane]
    low, high = min(values_of(positive)), max(values_of(positive))
    return [[max(0.0, value - low - EPSILON) / (high - low + EPSILON) for value in row] for row in positive]


def soft_margin(logits: list[list[float]], labels: list[list[int]]) -> float:
    """Mean over the known tags of all photos."""
    total, count = 0.0, 0
    for row, tags in zip(logits, labels, strict=True):
        for logit, tag in zip(row, tags, strict=True):
            if tag == -1:
                continue
            total -= -math.log1p(math.exp(-logit)) if tag == 1 else -math.log1p(math.exp(logit))
            count += 1
    return total / count if count else 0.0


def min_pool(views: list[PhotoView], labels: list[list[int]], share: float) -> float:
    """Mean of the lowest share of the pixels of max_c(refined * label), over the photos."""
    total, count = 0.0, 0
    for view, tags in zip(views, labels, strict=True):
        planes = [brought_to(plane, view.size) for plane in view.refined]
        pixels = []
        for y in range(view.size[0]):
            for x in range(view.size[1]):
                pixels.append(max(plane[y][x] * (tag == 1) for plane, tag in zip(planes, tags, strict=True)))
        lowest = sorted(pixels)[: max(1, int(share * len(pixels)))]
        total += sum(max(0.0, value) for value in lowest)
        count += len(lowest)
    return total / count


def compared(planes: list[Plane], tags: list[int], size: tuple[int, int], small: tuple[int, int]) -> list[Plane]:
    """Normalised at the view's size, brought to the smaller view's, times the label; unknown classes left out."""
    result = []
    for plane, tag in zip(planes, tags, strict=True):
        if tag != -1:
            normed = brought_to(max_norm(brought_to(plane, size)), small)
            result.append([[value * tag for value in row] for row in normed])
    return result


def equivariance(ones: list[PhotoView], twos: list[PhotoView], labels: list[list[int]]) -> float:
    """Mean |down(norm cam 1) - norm cam 2| over known classes and pixels."""
    total, count = 0.0, 0
    for one, two, tags in zip(ones, twos, labels, strict=True):
        first, second = compared(one.maps, tags, one.size, two.size), compared(two.maps, tags, two.size, two.size)
        for a, b in zip(first, second, strict=True):
            for u, v in zip(values_of(a), values_of(b), strict=True):
                total += abs(u - v)
            count += two.size[0] * two.size[1]
    return total / count if count else 0.0


def background(planes: list[Plane], y: int, x: int) -> float:
    return 1 - max((plane[y][x] for plane in planes), default=0.0)


def cross(sources: list[PhotoView], others: list[PhotoView], labels: list[list[int]], small: tuple[int, int], share: float) -> float:
    """Mean of the top share of |strongest(norm cam) - norm refined| over background, known classes and pixels."""
    total, count = 0.0, 0
    for source, other, tags in zip(sources, others, labels, strict=True):
        maps = compared(source.maps, tags, source.size, small)
        refined = compared(other.refined, tags, other.size, small)
        apart = []
        for y in range(small[0]):
            for x in range(small[1]):
                apart.append(abs(background(maps, y, x) - background(refined, y, x)))
                best = max((plane[y][x] for plane in maps), default=0.0)
                for a, b in zip(maps, refined, strict=True):
                    kept = a[y][x] if a[y][x] == best else 0.0
                    apart.append(abs(kept - b[y][x]))
        top = sorted(apart, reverse=True)[: max(1, int(share * len(apart)))]
        total += sum(top)
        count += len(top)
    return total / count


def total(ones: list[PhotoView], twos: list[PhotoView], labels: list[list[int]], min_share: float = 0.25, top_share: float = 0.2) -> dict[str, float]:
    """1/2 (cls 1 + cls 2) + 1/2 (min-pool 1 + min-pool 2) + ER + ECR, and the terms."""
    small = twos[0].size
    terms = {
        "classification": (soft_margin([v.logits for v in ones], labels) + soft_margin([v.logits for v in twos], labels)) / 2,
        "min_pool": min_pool(ones, labels, min_share) + min_pool(twos, labels, min_share),
        "equivariance": equivariance(ones, twos, labels),
        "cross": cross(twos, ones, labels, small, top_share) + cross(ones, twos, labels, small, top_share),
    }
    whole = terms["classification"] + terms["min_pool"] / 2 + terms["equivariance"] + terms["cross"]
    return {**terms, "total": whole}


def refined(maps: list[Plane], features: list[Plane]) -> list[Plane]:
    """Pixel correlation of one photo: ``maps`` (C, h, w), ``features`` (D, h, w) of any length."""
    height, width = len(maps[0]), len(maps[0][0])
    places = [(y, x) for y in range(height) for x in range(width)]
    seeds = []
    for plane in maps:
        positive = [[max(0.0, value) for value in row] for row in plane]
        highest = max(values_of(positive))
        seeds.append([[max(0.0, value - EPSILON) / (highest + EPSILON) for value in row] for row in positive])
    for y, x in places:
        best = max(seed[y][x] for seed in seeds)
        for seed in seeds:
            if seed[y][x] != best:
                seed[y][x] = 0.0
    unit = {}
    for y, x in places:
        vector = [plane[y][x] for plane in features]
        length = math.sqrt(sum(value * value for value in vector)) + EPSILON
        unit[y, x] = [value / length for value in vector]
    result = [[[0.0] * width for _ in range(height)] for _ in maps]
    for q in places:
        column = {p: max(0.0, sum(a * b for a, b in zip(unit[p], unit[q], strict=True))) for p in places}
        whole = sum(column.values()) + EPSILON
        for seed, plane in zip(seeds, result, strict=True):
            plane[q[0]][q[1]] = sum(seed[p[0]][p[1]] * column[p] for p in places) / whole
    return result
