"""The rivals' losses in plain loops, written from the papers alone: nothing is fast or comes from the package."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def length(vector: Tensor) -> Tensor:
    total = vector.new_zeros(())
    for number in vector:
        total = total + number * number
    return total.sqrt()


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the two sorted values around ``share``."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def means_of(features: Tensor, labels: Tensor) -> list[Tensor | None]:
    """Mean feature of the photos of each class."""
    found: list[Tensor | None] = []
    for c in range(labels.shape[1]):
        rows = [features[n] for n in range(len(features)) if labels[n, c] == 1]
        found.append(sum(rows[1:], rows[0]) / len(rows) if rows else None)
    return found


def distance(features: Tensor, labels: Tensor, means: list[Tensor | None], clusters: Tensor, share: float) -> Tensor:
    """L_d."""
    images, classes, count = len(features), labels.shape[1], len(clusters)
    near = features.new_zeros(())
    for n in range(images):
        for c, mean in enumerate(means):
            if labels[n, c] == 1 and mean is not None:
                near = near + length(features[n] - mean)
    near = near / (images * classes) * classes / count
    every = [[length(features[n] - clusters[j]) for j in range(count)] for n in range(images)]
    bound = quantile([d.item() for row in every for d in row], share)
    far = features.new_zeros(())
    for row in every:
        for d in row:
            if d.item() < bound:
                far = far + d
    return near - far / (images * count)


def soft_margin_of_nothing(logits: Tensor, skipped: int | None) -> Tensor:
    """L_ood."""
    values = []
    for row in logits:
        if skipped is None or max(range(len(row)), key=lambda c: row[c].item()) != skipped:
            values += [torch.log(1 + torch.exp(number)) for number in row]
    return sum(values[1:], values[0]) / len(values) if values else logits.new_zeros(())


def softmax(column: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(value) for value in column]
    return [power / sum(powers[1:], powers[0]) for power in powers]


def saliency_loss(maps: Tensor, background: Tensor, saliency: Tensor, labels: Tensor, mix: float, coverage: float) -> Tensor:
    """EPS's term; the saliency has the maps' size."""
    images, classes, height, width = maps.shape
    total = maps.new_zeros(())
    for n in range(images):
        shares = {}
        for y in range(height):
            for x in range(width):
                shares[y, x] = softmax([*(maps[n, c, y, x] for c in range(classes)), background[n, 0, y, x]])
        foreground, behind = [], [classes]
        for c in range(classes):
            if labels[n, c] != 1:
                continue
            marked = [place for place, row in shares.items() if row[c].item() > 0.5]
            inside = [place for place in marked if saliency[n][place].item() > 0.5]
            covered = bool(marked) and len(inside) / len(marked) > coverage
            (foreground if covered else behind).append(c)
        for (y, x), row in shares.items():
            front = sum((row[c] for c in foreground), maps.new_zeros(()))
            back = sum((row[c] for c in behind), maps.new_zeros(()))
            estimate = mix * front + (1 - mix) * (1 - back)
            total = total + (estimate - saliency[n, y, x]) ** 2
    return total / (images * height * width)


def between(value: Tensor) -> Tensor:
    return value.clamp(1e-4, 1 - 1e-4)


def clims_terms(
    maps: Tensor, images: Tensor, labels: Tensor, encode: object, texts: Tensor, backgrounds: Tensor, too_similar: float
) -> list[Tensor]:
    """OTM, BTM, CBS and the area, for maps of the images' size."""
    sums, pairs = [maps.new_zeros(()) for _ in range(4)], 0
    for n in range(len(maps)):
        for c in range(maps.shape[1]):
            if labels[n, c] != 1:
                continue
            pairs += 1
            m = 1 / (1 + torch.exp(-maps[n, c]))
            found, left = (encode((part * images[n])[None])[0] for part in (m, 1 - m))  # type: ignore[operator]
            sums[0] = sums[0] - torch.log(between(found @ texts[c]))
            sums[1] = sums[1] - torch.log(1 - between(left @ texts[c]))
            for text in backgrounds:
                if (found @ text).item() > too_similar:
                    sums[2] = sums[2] - torch.log(1 - between(found @ text))
            sums[3] = sums[3] + m.mean()
    return [value / max(pairs, 1) for value in sums]
