"""AffinityNet of PSA: features whose likeness says which pixels belong together, and maps refined by it.

J. Ahn and S. Kwak, "Learning pixel-level semantic affinity with image-level supervision for weakly supervised semantic
segmentation", CVPR 2018. As in IRN, the backbone is frozen and its levels come in. The walk is that
of IRN; what differs is the affinity, and that a background plane walks along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config.affinity import PSAConfig
from tag2mask.refine.labels import UNSURE, Labels
from tag2mask.refine.pair_labels import AffinityTerms, affinity_loss, pair_kinds
from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.walk import Floats, bordered, pair_transition, random_walk, upsampled_scores


class AffinityNet(nn.Module):
    """Three levels of a frozen backbone, each through a 1x1 convolution and ELU, joined and mixed by another.

    64, 128 and 256 channels, so features of 448. All convolutions are without bias.
    """

    def __init__(self, channels: Sequence[int], config: PSAConfig) -> None:
        """``channels``: of the three levels; for a WResNet38 512, 1024 and 4096."""
        super().__init__()
        if len(channels) != len(config.channels):
            raise ValueError(f"levels of {list(channels)} channels; expected {len(config.channels)} levels")
        self.projections = nn.ModuleList(
            nn.Conv2d(given, width, 1, bias=False) for given, width in zip(channels, config.channels, strict=True)
        )
        self.mix = nn.Conv2d(sum(config.channels), sum(config.channels), 1, bias=False)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (N, D_l, H_l, W_l) -> features (N, 448, H, W) at the grid of the first; others are resized to it."""
        parts = [functional.elu(project(level)) for project, level in zip(self.projections, levels, strict=True)]
        size = parts[0].shape[2:]
        parts = [
            part if part.shape[2:] == size else functional.interpolate(part, size, mode="bilinear", align_corners=False)
            for part in parts
        ]
        features: Tensor = functional.elu(self.mix(torch.cat(parts, dim=1)))
        return features


def psa_loss(features: Tensor, labels: Tensor, geometry: PairGeometry) -> AffinityTerms:
    """The affinity loss with a = exp(-mean_channel |f_i - f_j|); its ``total`` is bg / 4 + fg / 4 + different / 2.

    Args:
        features: (N, D, H, W), with gradient; labels: (N, H, W) at the same grid, 0 background, 255 unsure.
        geometry: of radius 5 in the family.

    Raises:
        ValueError: labels of another grid than the features.
    """
    if labels.shape != features[:, 0].shape:
        raise ValueError(f"labels of {tuple(labels.shape)} for features of {tuple(features.shape)}")
    return affinity_loss(geometry.feature_affinity(features), pair_kinds(labels, geometry))


def with_background(maps: Floats, power: float) -> Floats:
    """Maps behind a background plane (1 - max over classes)^power: (C, H, W) from 0 to 1 -> (1 + C, H, W)."""
    highest = maps.max(axis=0, initial=0)  # (H, W)
    return np.concatenate([((1 - highest) ** power)[None], maps])


def affinity_labels(much_background: Floats, little_background: Floats) -> Labels:
    """Labels for pairs out of two CRFs that see the same maps behind a stronger and a weaker background plane.

    Foreground that holds against the stronger plane is certain, background that holds against the weaker one is
    certain. A pixel that is neither, or both, is 255.

    Args:
        much_background: (1 + C, H, W) scores by a CRF on ``with_background`` at a low power (config's 4).
        little_background: the same at a high power (config's 32).

    Returns:
        (H, W) uint8: 0 background, 1..C the maps in their order, 255 unsure.

    Raises:
        ValueError: the two differ in shape.
    """
    if much_background.shape != little_background.shape:
        raise ValueError(f"scores of {much_background.shape} and {little_background.shape}; expected one shape")
    foreground, background = much_background.argmax(axis=0), little_background.argmax(axis=0) == 0  # (H, W) each
    labels = np.full(foreground.shape, UNSURE, np.uint8)
    certain = (foreground > 0) & ~background
    labels[certain] = foreground[certain]
    labels[(foreground == 0) & background] = 0
    return labels


def pooled(scores: Floats, stride: int) -> npt.NDArray[np.float32]:
    """Means over squares of ``stride`` pixels, at the right and lower border of what there is of them.

    (C, H, W) -> (C, (H - 1) // stride + 1, (W - 1) // stride + 1) float32.
    """
    field = torch.from_numpy(np.ascontiguousarray(scores, np.float32))[None]  # (1, C, H, W)
    result: npt.NDArray[np.float32] = functional.avg_pool2d(field, stride, ceil_mode=True)[0].numpy()
    return result


def refine_scores(scores: Floats, features: Tensor, config: PSAConfig) -> npt.NDArray[np.float64]:
    """Scores, background among them, walk over the likeness of the features.

    Args:
        scores: (1 + C, h, w) at the feature grid: ``pooled(with_background(maps, config.background), stride)``.
        features: (1, D, h, w) of the photo.

    Returns:
        (1 + C, h, w) float64.
    """
    size = (int(features.shape[2]), int(features.shape[3]))
    if scores.shape[1:] != size:
        raise ValueError(f"scores of {scores.shape[1:]} for features of {size}; expected one grid")
    geometry = PairGeometry(config.radius)
    with torch.no_grad():
        affinity = geometry.feature_affinity(bordered(features, config.radius, 0.0))[0]  # (P, hw)
    transition = pair_transition(affinity.double().cpu().numpy(), size, geometry, config.beta)
    return random_walk(scores, transition, config.steps)


def affinity_mask(
    walked: Floats, class_ids: npt.NDArray[np.integer[Any]], size: tuple[int, int], stride: int
) -> npt.NDArray[np.uint8]:
    """The plane with the highest score at each pixel of the photo.

    Args:
        walked: (1 + C, h, w), the first one background; class_ids: (C,), counted from 0.
        size: H, W of the photo; stride: of the feature grid.

    Returns:
        (H, W) uint8, 0 background, class + 1.
    """
    best = upsampled_scores(walked, size, stride).argmax(axis=0)  # (1 + C, H, W) -> (H, W)
    return np.concatenate([[0], class_ids + 1]).astype(np.uint8)[best]
