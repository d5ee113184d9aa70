"""Eq. 4-5: the region contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.fpr.prototypes import Prototypes
from tag2mask.shares import divided, mean

SMALLEST_EXPONENT = 1e-3
"""Floor of d / T inside log(1 - exp(-d / T)), where the logarithm would run to minus infinity."""


def paired_distance(first: Tensor, second: Tensor, kind: str = "l2") -> Tensor:
    """Distance along the last axis, broadcast over the others.

    ``l2``: ||a - b||. ``rms``: sqrt(mean_d[(a - b)^2 + 1e-4]), as in the authors' release. ``cosine``: the L2
    distance of the unit vectors.
    """
    if kind == "rms":
        return ((first - second).square() + 1e-4).mean(dim=-1).sqrt()
    if kind == "cosine":
        first, second = functional.normalize(first, dim=-1), functional.normalize(second, dim=-1)
    # The square root has no gradient at 0: a region that equals its prototype gets gradient 0 instead of NaN.
    squared = (first - second).square().sum(dim=-1)
    return torch.where(squared > 0, squared.clamp(min=1e-24).sqrt(), squared)


def region_contrast(
    regions: Tensor,
    present: Tensor,
    prototypes: Prototypes,
    temperature: float,
    distance: str = "l2",
    offset: float = 0.0,
    centre: str = "mean",
    average: str = "pairs",
) -> Tensor:
    """L_RC = - 1/sum(y) sum_{c present} [log S_pos + log(1 - S_neg)].

    S_pos = exp(-||f_c - mean_k P_pos||/T), S_neg = exp(-min_k ||f_c - P_neg||/T); the negatives are not trimmed.

    Args:
        regions: f of Eq. 3, (N, C, D), with gradient.
        present: (N, C) boolean: tagged, and with an activated pixel.
        prototypes: of all classes; a class without positives or without negatives is left out.
        temperature: T, in units of the distance.
        distance: see ``paired_distance``.
        offset: added to distance / T; 0.1 in the release, which bounds the push.
        centre: ``mean`` of the centroids, or ``weighted`` by cluster size.
        average: ``pairs`` (mean over all image-class pairs) or ``image`` (Eq. 4, then the mean over images).

    Returns:
        A scalar; zero, and without effect, when nothing is left.
    """
    usable = prototypes.positive_valid.any(1) & prototypes.negative_valid.any(1)  # (C,)
    image, c = (present & usable).nonzero(as_tuple=True)  # P pairs
    region = regions[image, c]  # (P, D)
    positive, negative = prototypes.positive.to(regions), prototypes.negative.to(regions)  # (C, K, D) each
    valid = prototypes.positive_valid.to(regions.dtype)
    share = prototypes.positive_weight if centre == "weighted" else valid / valid.sum(1, keepdim=True).clamp(min=1)
    centres = torch.einsum("ck,ckd->cd", share.to(regions.dtype), positive)  # (C, D)
    to_centre = paired_distance(region, centres[c], distance)  # (P,)
    to_negatives = paired_distance(region.unsqueeze(1), negative[c], distance)  # (P, K)
    to_negative = to_negatives.masked_fill(~prototypes.negative_valid[c], torch.inf).amin(dim=1)  # (P,)
    pull = to_centre / temperature + offset  # -log S_pos
    push = -torch.log(-torch.expm1(-(to_negative / temperature + offset).clamp(min=SMALLEST_EXPONENT)))
    if average == "pairs":
        return mean(pull + push)
    tags = (present & usable).sum(dim=1).to(regions.dtype)  # (N,): sum(y) over what is not left out
    return divided(((pull + push) / tags[image]).sum(), tags.new_tensor(len(regions)))
