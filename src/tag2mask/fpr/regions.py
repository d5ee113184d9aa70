"""Eq. 3: one feature vector for the region that a class map activates."""

from __future__ import annotations

import torch
from torch import Tensor


def region_features(features: Tensor, activated: Tensor) -> tuple[Tensor, Tensor]:
    """Mean feature of the activated pixels of each class (masked average pooling).

    f_c = sum_i A_c^i F^i / sum_i A_c^i

    Args:
        features: F, shape (N, D, H, W).
        activated: A of Eq. 2, boolean, shape (N, C, H, W).

    Returns:
        ``regions`` (N, C, D), zero where nothing is activated, with gradient to ``features``;
        ``area`` (N, C), the number of activated pixels.
    """
    weights = activated.flatten(2).to(features.dtype)  # (N, C, HW)
    area = weights.sum(dim=2)  # (N, C)
    total = torch.bmm(weights, features.flatten(2).transpose(1, 2))  # (N, C, HW) x (N, HW, D) -> (N, C, D)
    return total / area.clamp(min=1).unsqueeze(2), area
