"""The heads of DeepLab-v1 and DeepLab-v2: dilated convolutions on the deepest level of an encoder at stride 8."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 512
"""Channels of DeepLab-v1's head."""


class SummedDilations(nn.Module):
    """The head of DeepLab-v2 (atrous spatial pyramid pooling): sum_r conv3x3_r(x), a convolution for each dilation r.

    L. Chen et al., "DeepLab", TPAMI 2017, section 3.2. There is no image pooling and no 1x1 branch.

    Args:
        channels: D of the level; outputs: C + 1; rates: dilations r, each with padding r.
    """

    def __init__(self, channels: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, outputs, 3, padding=rate, dilation=rate) for rate in rates)
        for branch in self.branches.children():
            initialise(branch)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels, of which the last counts, (N, D, h, w) -> logits (N, C + 1, h, w)."""
        return torch.stack([branch(levels[-1]) for branch in self.branches]).sum(dim=0)


class LargeFieldOfView(nn.Module):
    """The head of DeepLab-v1: one dilated 3x3 convolution with a large field of view, then two 1x1 ones.

    Method.md 2.11: 3x3 at dilation 12 -> 512, batch norm, ReLU, 1x1 -> 512, batch norm, ReLU, dropout 0.5, 1x1.
    """

    def __init__(self, channels: int, outputs: int, rate: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 3, padding=rate, dilation=rate, bias=False),
            nn.BatchNorm2d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN, HIDDEN, 1, bias=False),
            nn.BatchNorm2d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(HIDDEN, outputs, 1),
        )
        initialise(self.layers[-1])

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels, of which the last counts, (N, D, h, w) -> logits (N, C + 1, h, w)."""
        return self.layers(levels[-1])


def initialise(convolution: nn.Module) -> None:
    """Small random weights and no bias, so that all classes start out equally probable."""
    if not isinstance(convolution, nn.Conv2d):
        raise ValueError(f"expected a convolution, not {type(convolution).__name__}")
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
