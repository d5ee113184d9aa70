"""Prototypes at inference: what negatives explain is taken off a map without any training."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.fpr.prototypes import Prototypes
from tag2mask.fpr.rectification import nearest_squared

STEEPNESS = 20.0
"""k below; from 10 to 20 hardly differ, and infinity is the hard choice of the nearer side."""


@torch.no_grad()
def training_free_rectification(
    features: Tensor, maps: Tensor, prototypes: Prototypes, steepness: float = STEEPNESS
) -> Tensor:
    """Each map times the weight of its positives against its negatives.

    M_c' = relu(M_c) d_neg^k / (d_neg^k + d_pos^k), with d the L2 distance to the nearest prototype of a side.

    Args:
        features: F, (N, D, H, W), in the space of the prototypes.
        maps: M, (N, C, H, W).
        prototypes: a class without positives or without trimmed negatives keeps its map.
        steepness: k.

    Returns:
        (N, C, H, W), 0 or more.
    """
    n, _, height, width = maps.shape
    pixels = features.permute(0, 2, 3, 1).reshape(n * height * width, -1)  # (NHW, D)
    weight = torch.ones_like(maps)
    for c in (prototypes.positive_valid.any(1) & prototypes.trimmed_valid.any(1)).nonzero().flatten().tolist():
        sides = []
        for rows, valid, factor in (
            (prototypes.positive, prototypes.positive_valid, None),
            (prototypes.trimmed, prototypes.trimmed_valid, prototypes.trimmed_factor),
        ):
            weights = None if factor is None else factor[c, valid[c]].to(features)  # (Kn,)
            squared = nearest_squared(pixels, rows[c, valid[c]].to(features), weights)  # (NHW,)
            sides.append(squared.clamp(min=torch.finfo(maps.dtype).tiny).log())
        of_class = torch.sigmoid(steepness / 2 * (sides[1] - sides[0]))  # log d^2 = 2 log d
        weight[:, c] = of_class.view(n, height, width)
    return maps.relu() * weight
