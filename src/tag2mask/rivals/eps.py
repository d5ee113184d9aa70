"""EPS: maps of objects and background together have to look like a saliency map.

S. Lee et al., "Railroad is not a Train: Saliency as Pseudo-pixel Supervision for Weakly Supervised Semantic
Segmentation", CVPR 2021.

L = L_BCE + w MSE(S, lambda FG + (1 - lambda)(1 - BG)). The class maps and one map more, of the background, compete in
a softmax over the C + 1 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.shares import mean


class BackgroundMap(nn.Module):
    """The map of the background beside those of the classes: a 1x1 convolution of F without bias, which starts at zero.

    (At zero it is a function of nothing random, so a resumed training begins with the same.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, 1, 1, bias=False)
        nn.init.zeros_(self.classifier.weight)

    def forward(self, features: Tensor) -> Tensor:
        """F (N, D, H, W) -> (N, 1, H, W)."""
        maps: Tensor = self.classifier(features)
        return maps


def foreground_classes(maps: Tensor, saliency: Tensor, present: Tensor, coverage: float) -> Tensor:
    """Which present classes count as foreground: more than ``coverage`` of what their map marks is salient.

    Map and saliency are rounded first. (The release calls it intersection over union; it is the share of the map.)

    Args:
        maps: of classes, (N, C, H, W) in [0, 1]; saliency: (N, H, W) in [0, 1]; present: (N, C) boolean.

    Returns:
        (N, C) boolean. A map that marks no pixel is not foreground.
    """
    marked = maps.detach() > 0.5  # (N, C, H, W)
    salient = (saliency > 0.5)[:, None]  # (N, 1, H, W)
    area = marked.sum(dim=(2, 3))  # (N, C)
    inside = (marked & salient).sum(dim=(2, 3))  # (N, C)
    return present & (inside > coverage * area)


def eps_loss(
    maps: Tensor, background: Tensor, saliency: Tensor, labels: Tensor, mix: float = 0.5, coverage: float = 0.4
) -> Tensor:
    """The squared difference of the saliency map and the one that the maps make.

    FG: sum of the softmax maps of present classes that count as foreground. BG: the background's, and those of present
    classes that do not. Absent and unknown classes are in neither.

    Args:
        maps: M, (N, C, h, w), before any ReLU; background: (N, 1, h, w).
        saliency: S, (N, H, W) in [0, 1]; averaged to h x w.
        labels: (N, C), 1, 0 or -1 (unknown).
        mix: lambda, 0 to 1; coverage: tau, 0 to 1. The release's scripts say .5 and .4.

    Returns:
        The mean over photos and pixels.
    """
    shares = torch.cat([maps, background], dim=1).softmax(dim=1)  # (N, C + 1, h, w)
    height, width = maps.shape[2:]
    saliency = functional.adaptive_avg_pool2d(saliency[:, None], (height, width))[:, 0]  # (N, h, w)
    present = labels > 0  # (N, C)
    classes, rest = shares[:, :-1], shares[:, -1]  # (N, C, h, w), (N, h, w)
    front = foreground_classes(classes, saliency, present, coverage)  # (N, C)
    foreground = (classes * front[:, :, None, None]).sum(dim=1)  # (N, h, w)
    behind = rest + (classes * (present & ~front)[:, :, None, None]).sum(dim=1)  # (N, h, w)
    return mean((mix * foreground + (1 - mix) * (1 - behind) - saliency).square())
