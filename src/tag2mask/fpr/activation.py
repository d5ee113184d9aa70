"""Eq. 2: which pixels a class map activates."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_activation(maps: Tensor, epsilon: float = 0.0) -> Tensor:
    """Class maps relative to their own maximum, the fraction inside Eq. 2.

    Args:
        maps: class maps M, shape (N, C, H, W), any range.
        epsilon: added to the maximum, as the release does. A map without a positive pixel is zero with any.

    Returns:
        relu(M) / (max relu(M) + epsilon), shape (N, C, H, W), range [0, 1].
    """
    positive = maps.relu()
    maximum = positive.amax(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    return positive / (maximum + epsilon).clamp(min=torch.finfo(maps.dtype).tiny)


def activated_pixels(maps: Tensor, theta: float = 0.1, epsilon: float = 0.0) -> Tensor:
    """A_c of Eq. 2: the pixels whose relative activation is above ``theta``.

    Args:
        maps: class maps M, shape (N, C, H, W).
        theta: threshold in [0, 1).
        epsilon: see ``relative_activation``.

    Returns:
        Boolean tensor (N, C, H, W); no gradient. All False for a map without a positive pixel.
    """
    return relative_activation(maps.detach(), epsilon) > theta
