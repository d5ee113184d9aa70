"""What is known about pairs of pixels, and the affinity loss that learns from it (PSA, IRN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tag2mask.refine.labels import UNSURE
from tag2mask.refine.pairs import PairGeometry
from tag2mask.shares import whole

EPSILON = 1e-5
"""Added to affinities in the logarithm, and to counts."""


@dataclass(frozen=True)
class PairKinds:
    """What each pair is, three masks (N, P, S) boolean; a pair with an unsure pixel is in none of them."""

    background: Tensor
    """Both background."""
    foreground: Tensor
    """Both of the same class."""
    different: Tensor
    """Of two classes, or background and a class."""


def pair_kinds(labels: Tensor, geometry: PairGeometry) -> PairKinds:
    """The kind of every pair of a batch of label maps, (N, H, W) uint8 with 255 for unsure."""
    source, destination = geometry.sources(labels).unsqueeze(1), geometry.destinations(labels)  # (N, 1, S), (N, P, S)
    equal = source == destination  # (N, P, S)
    known = (source != UNSURE) & (destination != UNSURE)
    return PairKinds(equal & (source == 0), equal & (source > 0) & (source != UNSURE), known & ~equal)


@dataclass(frozen=True)
class AffinityTerms:
    """Scalars with gradient: mean cross-entropy of each kind of pairs; 0 where there is no pair of the kind."""

    background: Tensor
    foreground: Tensor
    different: Tensor

    @property
    def total(self) -> Tensor:
        """bg / 4 + fg / 4 + different / 2, so that alike and different weigh the same, however many there are."""
        return (self.background + self.foreground) / 4 + self.different / 2


def affinity_loss(affinity: Tensor, kinds: PairKinds) -> AffinityTerms:
    """Alike pairs are pulled to affinity 1, different ones to 0; IRN and AffinityNet share it.

    bg, fg: mean of -log(a + 1e-5); different: mean of -log(1 + 1e-5 - a); a mean is sum / (count + 1e-5).

    Args:
        affinity: (N, P, S) from 0 to 1, with gradient; kinds: of the same pairs.
    """
    totals = [affinity.new_zeros(()) for _ in range(3)]
    pairs = (affinity, kinds.background, kinds.foreground, kinds.different)
    for a, *masks in zip(*(tensor.unbind(1) for tensor in pairs), strict=True):  # (N, S) each; these stay in the cache
        gains = (torch.where(masks[2], 1 - a, a) + EPSILON).log()  # of the probability of what the pair is
        totals = [total - torch.where(mask, gains, 0).sum() for total, mask in zip(totals, masks, strict=True)]
    return AffinityTerms(*(t / (whole(kind.sum()) + EPSILON) for t, kind in zip(totals, pairs[1:], strict=True)))
