"""Multi-scale and mirrored views, merged into one output or one set of localization maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.fpr import Prototypes, training_free_rectification
from tag2mask.hosts import Host, HostOutput
from tag2mask.hosts.inputs import PhotoInputs

EPSILON = 1e-5
"""Added to a map's maximum when it is normalised."""
CLAIMED = 0.25
"""Share of its maximum above which a tagged class's map claims a pixel as its own."""


@torch.no_grad()
def merged_output(
    host: Host,
    inputs: PhotoInputs,
    batch: np.ndarray,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    level_features: bool = False,
) -> HostOutput:
    """Features and class maps averaged over views on the grid of scale 1, as the prototype pass needs them.

    ``level_features`` as in ``Host.trained_part``.

    Returns:
        features (N, D, H, W), maps (N, C, H, W), logits (N, C) = spatial mean of the averaged maps.
    """
    size = None
    features: list[Tensor] = []
    maps: list[Tensor] = []
    for scale in sorted(scales, key=lambda s: s != 1.0):  # scale 1 first, it gives the grid
        for mirrored in (False, True) if flip else (False,):
            output = host.trained_part(inputs.plain(batch, mirrored, scale), level_features=level_features)
            for tensor, parts in ((output.features, features), (output.maps, maps)):
                view = tensor.flip(3) if mirrored else tensor
                size = size or view.shape[2:]
                if view.shape[2:] != size:
                    view = functional.interpolate(view, size, mode="bilinear", align_corners=True)
                parts.append(view)
    mean_features = features[0] if len(features) == 1 else torch.stack(features).mean(0)
    mean_maps = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
    return HostOutput(mean_features, mean_maps, mean_maps.mean(dim=(2, 3)))


@torch.no_grad()
def class_activation(
    host: Host, inputs: PhotoInputs, batch: np.ndarray, scales: tuple[float, ...], flip: bool,
    prototypes: Prototypes | None = None,
) -> tuple[list[Tensor], Tensor]:  # fmt: skip
    """relu(M) of every scale, plain plus mirrored-back, and the mean logits at scale 1 (or the first one).

    With ``prototypes``, of level features, every view is rectified without training.

    Returns:
        One tensor (N, C, H_s, W_s) for each scale; logits (N, C).
    """
    maps: list[Tensor] = []
    logits: list[Tensor] = []
    for scale in scales:
        views = []
        for mirrored in (False, True) if flip else (False,):
            output = host.localization_part(inputs.plain(batch, mirrored, scale), prototypes is not None)
            view = output.maps.relu()
            if prototypes is not None:
                view = training_free_rectification(output.features, output.maps, prototypes)
            views.append(view.flip(3) if mirrored else view)
            if scale == (1.0 if 1.0 in scales else scales[0]):
                logits.append(output.logits)
        maps.append(torch.stack(views).sum(0))
    return maps, torch.stack(logits).mean(0)


def map_peaks(maps: list[Tensor], present: Tensor) -> Tensor:
    """How high the map of each class reaches before it is divided by its maximum: scales added on the largest grid.

    That of a tagged class reaches its maximum. Where another class's map is high on a tagged object, two classes are
    confused, which says nothing about the background; so the pixels that a tagged class claims are left out there.

    Args:
        maps: from ``class_activation``.
        present: (N, C) boolean, the tagged classes.

    Returns:
        (N, C), 0 or more; NaN for an absent class where the tagged ones claim every pixel, as nothing is known there.
    """
    size = max((scale.shape[2:] for scale in maps), key=lambda s: s[0] * s[1])
    resized = [functional.interpolate(scale, size, mode="bilinear", align_corners=False) for scale in maps]
    total = torch.stack(resized).sum(0)  # (N, C, h, w)
    highest = total.amax(dim=(2, 3))  # (N, C)
    claimed = total > CLAIMED * (highest + EPSILON)[:, :, None, None]
    free = ~(claimed & present[:, :, None, None]).any(dim=1, keepdim=True)  # (N, 1, h, w)
    reached = total.masked_fill(~free, 0).amax(dim=(2, 3))  # (N, C)
    reached = reached.masked_fill(~free.flatten(1).any(dim=1, keepdim=True), torch.nan)
    return torch.where(present, highest, reached)


def localization_maps(maps: list[Tensor], index: int, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Localization maps of the present classes of one image.

    Each scale is resized to the image (bilinear, align_corners=False), the scales are added, and each class is divided
    by its own maximum.

    Args:
        maps: from ``class_activation``; index: of the image in the batch.
        classes: (P,) int64, the present classes.
        size: (height, width) of the image.

    Returns:
        (P, height, width) float, range [0, 1).
    """
    resized = [
        functional.interpolate(scale[index : index + 1, classes], size, mode="bilinear", align_corners=False)[
            0
        ]
        for scale in maps
    ]
    total = torch.stack(resized).sum(0) if len(resized) > 1 else resized[0]  # (P, height, width)
    return total / (total.amax(dim=(1, 2), keepdim=True) + EPSILON)
