"""False Positive Rectification in plain loops, written from the paper and from what its release is known to compute.

Nothing here is fast or comes from the package: images, classes, pixels and channels are walked one by one. What carries
a gradient is a tensor without axes, so that autograd differentiates the loops; what does not is a float.
Letters: N images, C classes, D channels, H W pixels, K prototypes; F features, M class maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

Pixel = tuple[int, int]
Place = tuple[int, int, int, int]
"""Image, class, row and column of a class map's pixel."""
RowOrder = Callable[[int, int], float]
"""Image number and class -> sort key of the row that goes into k-means."""
SMALLEST_EXPONENT = 1e-3
"""log(1 - exp(-e)) is minus infinity at e = 0. The paper does not say what then; the package holds e at 1e-3."""


@dataclass
class Bank:
    """Prototypes of each class as lists; a class may have any number of them, also none."""

    positive: list[list[list[float]]]
    share: list[list[float]]
    negative: list[list[list[float]]]
    negative_source: list[list[int]]
    trimmed: list[list[list[float]]]
    trimmed_source: list[list[int]]
    spread: float


@dataclass
class Image:
    """What the network gives for one image, and the image's tags."""

    features: Tensor  # (D, H, W)
    maps: Tensor  # (C, H, W)
    logits: Tensor  # (C,)
    labels: Tensor  # (C,)
    number: int


# Equations 1 and 10


def binary_cross_entropy(logits: Tensor, labels: Tensor, focal_gamma: float = 0.0) -> Tensor:
    """Eq. 1 averaged over the images; Eq. 10 where ``focal_gamma`` is above 0."""
    images, classes = logits.shape
    total = logits.new_zeros(())
    for n in range(images):
        image_loss = logits.new_zeros(())
        for c in range(classes):
            probability = 1 / (1 + torch.exp(-logits[n, c]))
            if labels[n, c] == 1:
                image_loss = image_loss + torch.log(probability)
            else:
                image_loss = image_loss + probability**focal_gamma * torch.log(1 - probability)
        total = total - image_loss / classes
    return total / images


# Equation 2


def highest(class_map: Tensor) -> float:
    """max RELU(M_c) of one class map (H, W)."""
    best = 0.0
    for row in class_map.tolist():
        for value in row:
            best = max(best, value)
    return best


def activated(class_map: Tensor, theta: float, epsilon: float) -> list[Pixel]:
    """A_c of one class map (H, W), as a list of pixels; the paper's epsilon is 0. Empty where no pixel is positive."""
    peak = highest(class_map)
    pixels = []
    for y, row in enumerate(class_map.tolist()):
        for x, value in enumerate(row):
            if peak > 0 and max(value, 0.0) / (peak + epsilon) > theta:
                pixels.append((y, x))
    return pixels


# Equation 3


def region(features: Tensor, pixels: Sequence[Pixel]) -> list[Tensor]:
    """f_c of one image (D, H, W): for each channel, the mean over the pixels."""
    means = []
    for d in range(features.shape[0]):
        total = features.new_zeros(())
        for y, x in pixels:
            total = total + features[d, y, x]
        means.append(total / len(pixels))
    return means


# Section 3.2.1


def collect(
    images: Sequence[Image],
    *,
    theta: float,
    epsilon: float,
    count: int,
    superclasses: Sequence[int] | None,
    singleton: str,
    restarts: int,
    order: RowOrder,
    positive_theta: float | None = None,
    tagged_theta: float = 1.0,
    negatives: int | None = None,
    refill: int = 1,
    rank_by: str = "logit",
    seed: int = 0,
) -> Bank:
    """Pools of all images, then prototypes: k-means centroids of the positives, the most confident negatives.

    k-means depends on the order of its rows, which the paper leaves open: they are sorted by ``order(number, class)``.
    Scores are compared in single precision; ties go to the smaller image number. In the paper the positives have the
    same theta as the negatives, there are as many of them, and negatives keep the pixels of tagged classes.
    """
    positive_theta = theta if positive_theta is None else positive_theta
    kept_negatives = count if negatives is None else negatives
    classes = len(images[0].labels)
    positive_pool: list[list[tuple[int, list[float]]]] = [[] for _ in range(classes)]
    negative_pool: list[list[tuple[float, int, list[float], list[bool]]]] = [[] for _ in range(classes)]
    for image in images:
        tags = [bool(tag) for tag in image.labels]
        claimed = {
            pixel for c in range(classes) if tags[c] for pixel in activated(image.maps[c], tagged_theta, epsilon)
        }
        for c in range(classes):
            pixels = activated(image.maps[c], positive_theta if tags[c] else theta, epsilon)
            if not tags[c]:
                pixels = [pixel for pixel in pixels if pixel not in claimed]
            if not pixels:
                continue
            row = [float(value) for value in region(image.features, pixels)]
            if tags[c]:
                positive_pool[c].append((image.number, row))
            else:
                score = float(np.float32(float(image.logits[c]) if rank_by == "logit" else highest(image.maps[c])))
                negative_pool[c].append((score, image.number, row, tags))
    bank = Bank([], [], [], [], [], [], 0.0)
    spreads = []
    for c in range(classes):
        rows = [row for _, row in sorted(positive_pool[c], key=lambda entry, c=c: (order(entry[0], c), entry[0]))]
        centroids, share = cluster(rows, count, restarts, seed + c)
        bank.positive.append(centroids)
        bank.share.append(share)
        if rows:
            middle = centre(rows, [1 / len(rows)] * len(rows))
            spreads.append(sum(math.dist(row, middle) for row in rows) / len(rows))
        candidates = sorted(negative_pool[c], key=lambda entry: (-entry[0], entry[1]))[: refill * kept_negatives]
        bank.negative.append([row for _, _, row, _ in candidates[:kept_negatives]])
        bank.negative_source.append([number for _, number, _, _ in candidates[:kept_negatives]])
        kept = [entry for entry in candidates if survives(c, entry[3], superclasses, singleton)][:kept_negatives]
        bank.trimmed.append([row for _, _, row, _ in kept])
        bank.trimmed_source.append([number for _, number, _, _ in kept])
    bank.spread = sum(spreads) / len(spreads) if spreads else 0.0
    return bank


def cluster(
    rows: list[list[float]], count: int, restarts: int, random_state: int
) -> tuple[list[list[float]], list[float]]:
    """Centroids and cluster shares by scikit-learn's k-means, ten iterations, on rows rounded to single precision."""
    if not rows:
        return [], []
    matrix = np.array(rows, dtype=np.float32).astype(np.float64)
    distinct = len({tuple(row) for row in matrix.tolist()})
    means = KMeans(min(count, distinct), n_init=restarts, max_iter=10, random_state=random_state).fit(matrix)
    sizes = [0] * len(means.cluster_centers_)
    for label in means.labels_:
        sizes[label] += 1
    return means.cluster_centers_.tolist(), [size / len(rows) for size in sizes]


def survives(class_index: int, source_tags: Sequence[bool], superclasses: Sequence[int] | None, singleton: str) -> bool:
    """Section 3.2.2: whether a negative stays when no class of its source image shares the super-class of c."""
    if superclasses is None:
        return True
    own = superclasses[class_index]
    if singleton == "skip" and list(superclasses).count(own) == 1:
        return False
    return all(not (tag and superclasses[c] == own) for c, tag in enumerate(source_tags))


# Equations 4 and 5


def distance(first: Sequence[Tensor | float], second: Sequence[float], kind: str) -> Tensor:
    """l2, the release's rms, or the L2 distance of unit vectors, channel by channel."""
    one = [torch.as_tensor(value, dtype=torch.float64) for value in first]
    two = [torch.as_tensor(value, dtype=torch.float64) for value in second]
    if kind == "cosine":
        one, two = unit(one), unit(two)
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(one, two, strict=True):
        total = total + (a - b) ** 2 + (1e-4 if kind == "rms" else 0.0)
    return torch.sqrt(total / len(one)) if kind == "rms" else torch.sqrt(total)


def unit(vector: list[Tensor]) -> list[Tensor]:
    """The vector divided by its L2 norm."""
    norm = torch.sqrt(sum(value**2 for value in vector))
    return [value / norm for value in vector]


def centre(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Weighted sum of rows, channel by channel."""
    return [sum(weight * row[d] for row, weight in zip(rows, weights, strict=True)) for d in range(len(rows[0]))]


def region_contrast(
    features: Tensor,
    maps: Tensor,
    labels: Tensor,
    bank: Bank,
    *,
    theta: float,
    epsilon: float,
    temperature: float,
    kind: str,
    offset: float,
    average: str,
    weighted: bool = False,
) -> Tensor:
    """Eq. 4, with the push away from the nearest negative, which is not trimmed.

    A pair of an image and a present class without activated pixels, without positives or without negatives is left
    out. ``average`` is "pairs" (mean over the pairs of the batch) or "image" (Eq. 4 for each image; the mean over the
    images of the batch, as for Eq. 1).
    """
    pairs: list[list[Tensor]] = [[] for _ in range(len(labels))]
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            pixels = activated(maps[n, c], theta, epsilon)
            if labels[n, c] != 1 or not pixels or not bank.positive[c] or not bank.negative[c]:
                continue
            f = region(features[n], pixels)
            equal = [1 / len(bank.positive[c])] * len(bank.positive[c])
            middle = centre(bank.positive[c], bank.share[c] if weighted else equal)
            to_positive = distance(f, middle, kind)
            to_negative = distance(f, bank.negative[c][0], kind)
            for prototype in bank.negative[c][1:]:
                other = distance(f, prototype, kind)
                to_negative = other if other < to_negative else to_negative
            exponent = to_negative / temperature + offset
            if exponent < SMALLEST_EXPONENT:
                exponent = torch.full((), SMALLEST_EXPONENT, dtype=torch.float64)
            positive_similarity = torch.exp(-(to_positive / temperature + offset))
            negative_similarity = torch.exp(-exponent)
            pairs[n].append(-(torch.log(positive_similarity) + torch.log(1 - negative_similarity)))
    return average_of(pairs, average, features)


def average_of(terms: list[list[Tensor]], average: str, like: Tensor) -> Tensor:
    """Mean of all terms of a batch, or of each image's mean; an image without a term counts as 0."""
    zero = like.new_zeros(())
    if average == "image":
        total = zero
        for of_image in terms:
            total = total + (sum(of_image, zero) / len(of_image) if of_image else zero)
        return total / len(terms)
    flat = [term for of_image in terms for term in of_image]
    return sum(flat, zero) / len(flat) if flat else zero


# Equations 6 to 8


def suppressed(
    features: Tensor,
    maps: Tensor,
    labels: Tensor,
    bank: Bank,
    *,
    theta: float,
    epsilon: float,
    margin: float = 1.0,
    kind: str = "l2",
) -> set[Place]:
    """Phi of Eq. 8 for all images and present classes; nothing for a class without positives or trimmed negatives."""
    features, maps = features.detach(), maps.detach()
    places = set()
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            if labels[n, c] != 1 or not bank.positive[c] or not bank.trimmed[c]:
                continue
            for y, x in activated(maps[n, c], theta, epsilon):
                pixel = [float(features[n, d, y, x]) for d in range(features.shape[1])]
                to_negative = min(plain_distance(pixel, prototype, kind) for prototype in bank.trimmed[c])
                to_positive = min(plain_distance(pixel, prototype, kind) for prototype in bank.positive[c])
                if to_negative < margin * to_positive:
                    places.add((n, c, y, x))
    return places


def plain_distance(first: Sequence[float], second: Sequence[float], kind: str) -> float:
    """The L2 distance of two vectors, or of their unit vectors, without gradient."""
    if kind == "cosine":
        first_norm, second_norm = math.hypot(*first), math.hypot(*second)
        first = [value / first_norm for value in first]
        second = [value / second_norm for value in second]
    return math.dist(first, second)


def pixel_rectification(maps: Tensor, labels: Tensor, places: set[Place], *, form: str, average: str) -> Tensor:
    """Eq. 7 over the suppressed pixels, or with a pixel's value through softplus, or relative to its map's maximum."""
    values: list[list[Tensor]] = [[] for _ in range(len(maps))]
    maxima = peaks(maps, labels)
    for n, c, y, x in sorted(places):
        value = maps[n, c, y, x]
        if form == "softplus":
            value = torch.log(1 + torch.exp(value))
        elif form == "ratio":
            value = value / maxima[n, c]
        values[n].append(value)
    term = average_of(values, average, maps)
    return term * mean_peak(maxima) if form == "ratio" and maxima else term


def peaks(maps: Tensor, labels: Tensor) -> dict[tuple[int, int], Tensor]:
    """max M of each image and present class whose map has a positive pixel, with gradient."""
    maxima = {}
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            best = maps[n, c, 0, 0]
            for y in range(maps.shape[2]):
                for x in range(maps.shape[3]):
                    best = maps[n, c, y, x] if maps[n, c, y, x] > best else best
            if labels[n, c] == 1 and best > 0:
                maxima[n, c] = best
    return maxima


def mean_peak(maxima: dict[tuple[int, int], Tensor]) -> float:
    """The mean of the maxima, without gradient."""
    return sum(maximum.item() for maximum in maxima.values()) / len(maxima)


# Equation 9, and all of it with every number as it is published


def pixel_weight(weight: float, unit: str, classes: int, steps: int) -> float:
    """lambda 2 itself, or so that its sum over classes and steps is ten times ``weight`` (about the paper's)."""
    return weight if unit == "literal" else 10 * weight / classes / steps


def paper_loss(features: Tensor, maps: Tensor, logits: Tensor, labels: Tensor, bank: Bank) -> Tensor:
    """Equations 1 to 9 with section 4.1's numbers; the mean over the images of a batch."""
    contrast = region_contrast(
        features, maps, labels, bank,
        theta=0.1, epsilon=0.0, temperature=13.0, kind="l2", offset=0.0, average="image",
    )  # fmt: skip
    places = suppressed(features, maps, labels, bank, theta=0.1, epsilon=0.0)
    pixels = pixel_rectification(maps, labels, places, form="mean", average="image")
    return binary_cross_entropy(logits, labels) + 12e-2 * contrast + 15e-5 * pixels


def authors_loss(features: Tensor, maps: Tensor, logits: Tensor, labels: Tensor, bank: Bank) -> Tensor:
    """What the release computes: RMS distances with an offset, means over the batch, its two epsilons."""
    contrast = region_contrast(
        features, maps, labels, bank,
        theta=0.1, epsilon=1e-4, temperature=13.0, kind="rms", offset=0.1, average="pairs",
    )  # fmt: skip
    places = suppressed(features, maps, labels, bank, theta=0.1, epsilon=1e-3)
    pixels = pixel_rectification(maps, labels, places, form="mean", average="batch")
    return binary_cross_entropy(logits, labels) + 0.12 * contrast + 1.5e-4 * pixels


def paper_bank(images: Sequence[Image], superclasses: Sequence[int] | None, seed: int, order: RowOrder) -> Bank:
    """Section 3.2.1 and the trimming as worded: a class alone in its super-class keeps its negatives."""
    return collect(
        images, theta=0.1, epsilon=0.0, count=10, superclasses=superclasses, singleton="keep", restarts=10, seed=seed,
        order=order,
    )  # fmt: skip


def authors_bank(images: Sequence[Image], superclasses: Sequence[int] | None, seed: int, order: RowOrder) -> Bank:
    """The release's: its own epsilon in this pass, and no trimmed negative for a class alone in its super-class."""
    return collect(
        images, theta=0.1, epsilon=1e-5, count=10, superclasses=superclasses, singleton="skip", restarts=10, seed=seed,
        order=order,
    )  # fmt: skip
