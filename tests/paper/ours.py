"""What is ours and not the paper's, in plain loops: pixels to lift, their term, and the controls without prototypes.

As in ``reference``, nothing here is fast or comes from the package.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tests.paper.reference import Bank, Place, activated, highest, mean_peak, peaks, plain_distance


def lifted(
    features: Tensor, maps: Tensor, labels: Tensor, bank: Bank, *, margin: float = 1.0, kind: str = "l2",
    reach: Sequence[float] | None = None,
) -> set[Place]:  # fmt: skip
    """Psi, the counterpart of Phi: positive pixels of present classes that lie nearer to a positive prototype.

    ``reach`` multiplies the margin of each class. Nothing for a class without positives or trimmed negatives.
    """
    features, maps = features.detach(), maps.detach()
    places = set()
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            if labels[n, c] != 1 or not bank.positive[c] or not bank.trimmed[c]:
                continue
            for y in range(maps.shape[2]):
                for x in range(maps.shape[3]):
                    if float(maps[n, c, y, x]) <= 0:
                        continue
                    pixel = [float(features[n, d, y, x]) for d in range(features.shape[1])]
                    to_negative = min(plain_distance(pixel, prototype, kind) for prototype in bank.trimmed[c])
                    to_positive = min(plain_distance(pixel, prototype, kind) for prototype in bank.positive[c])
                    if to_positive < margin * (reach[c] if reach else 1) * to_negative:
                        places.add((n, c, y, x))
    return places


def pixel_lift(maps: Tensor, labels: Tensor, places: set[Place], height: Sequence[float] | None = None) -> Tensor:
    """How far the lifted pixels are below their map's maximum, as a share of it, times the batch's mean maximum.

    ``height``: the share of the maximum up to which each class is lifted.
    """
    maxima = peaks(maps, labels)
    total = maps.new_zeros(())
    for n, c, y, x in sorted(places):
        below = (height[c] if height else 1) - maps[n, c, y, x] / maxima[n, c]
        if float(below.detach()) > 0:
            total = total + below
    return total / len(places) * mean_peak(maxima) if places else total


def halo(maps: Tensor, labels: Tensor, *, theta: float, below: float, epsilon: float) -> set[Place]:
    """The control without prototypes: pixels with theta < M / max M < below of present classes."""
    maps = maps.detach()
    places = set()
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            if labels[n, c] != 1:
                continue
            peak = highest(maps[n, c])
            for y, x in activated(maps[n, c], theta, epsilon):
                if float(maps[n, c, y, x]) / (peak + epsilon) < below:
                    places.add((n, c, y, x))
    return places


def above_halo(maps: Tensor, labels: Tensor, *, below: float, epsilon: float) -> set[Place]:
    """What the control ``sharpen`` lifts: pixels with M / max M > below of present classes."""
    places = set()
    for n in range(len(labels)):
        for c in range(labels.shape[1]):
            if labels[n, c] == 1:
                places |= {(n, c, y, x) for y, x in activated(maps[n, c], below, epsilon)}
    return places
