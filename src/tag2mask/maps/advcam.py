"""AdvCAM: maps of an image and of what it becomes when it climbs its class's score.

J. Lee, E. Kim and S. Yoon, "Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic
Segmentation", CVPR 2021.

A network looks at the parts that suffice to name a class. When the image is changed a little, again and again, so
that the class scores higher, further parts of the object come to count; the maps of all these images, added up, cover
more of it. A regulariser keeps what is found already from growing on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tag2mask.config import AdvcamConfig
from tag2mask.hosts import Host
from tag2mask.maps.gradcam import gradcam

HALF = 0.5
"""The scale that is climbed half as often."""


def advcam_maps(
    host: Host, image_at: Callable[[float], Tensor], classes: Tensor, scales: tuple[float, ...], flip: bool,
    config: AdvcamConfig,
) -> list[Tensor]:  # fmt: skip
    """Attribution maps of one image for some classes, not yet normalised.

    Args:
        host: in evaluation mode.
        image_at: a scale -> the normalised image (1, 3, H, W).
        classes: (P,) int64, at least one.
        flip: climb with the mirror image beside.

    Returns:
        One tensor (1, P, h, w) for each scale, from the smallest on, to be resized and added.
    """
    maps, weight = [], 1
    copies = max(1, config.batch_size // (2 if flip else 1))
    for scale in sorted(scales):
        iterations = max(1, config.iterations // 2) if scale == HALF else config.iterations
        if config.half_scale == "double":
            weight = 2 if scale == HALF else 1
        elif scale == HALF:
            weight = 2  # and so it stays
        image = image_at(scale)
        parts = [climb(host, image, some, iterations, flip, config) for some in classes.split(copies)]
        maps.append(weight * torch.cat(parts)[None])  # (1, P, h, w)
    return maps


@torch.enable_grad()
def climb(host: Host, image: Tensor, classes: Tensor, iterations: int, flip: bool, config: AdvcamConfig) -> Tensor:
    """Grad-CAM of the image and of ``iterations`` - 1 steps from it, added up; every class climbs on its own.

    In a step each copy x of the image, with its mirror image beside, gains

        O = y_c - sum_{k != c} y_k - regulariser * sum(|R - R_0| * [R > threshold * max R])

    where y is the spatial mean of relu(M), added over both, R the Grad-CAM map, added over both, and R_0 that of the
    image itself. Then x becomes x + step * g / max|g| with g = dO/dx, within x's own smallest and largest value. What
    a copy gains does not depend on another one, so the gradient of the sum gives those of all. After the last map no
    step follows: it would not be looked at.

    Args:
        image: (1, 3, H, W), normalised.
        classes: (P,) int64.

    Returns:
        (P, h, w).
    """
    x = image.expand(len(classes), -1, -1, -1).contiguous(memory_format=torch.channels_last)  # (P, 3, H, W)
    views = 2 if flip else 1
    rows, classes_of_rows = torch.arange(views * len(classes), device=x.device), classes.repeat(views)
    first = total = torch.zeros(())
    for iteration in range(iterations):
        x = x.detach().requires_grad_()
        features, maps = host.attribution_part(host.frozen_part(torch.cat([x, x.flip(3)]) if flip else x))
        scores = maps.relu()  # Y, (V * P, C, h, w)
        found = gradcam(features, scores, classes, views, config.channel_weights)  # (V, P, h, w)
        found = found[0] + found[1].flip(2) if flip else found[0]  # R, (P, h, w)
        if iteration == 0:
            first = total = found.detach()
        else:
            total = total + found.detach()
        if iteration == iterations - 1:
            break
        held = found.detach() > config.threshold * found.detach().amax(dim=(1, 2), keepdim=True)  # (P, h, w)
        y = scores.mean(dim=(2, 3))  # (V * P, C)
        gain = 2 * y[rows, classes_of_rows].sum() - y.sum() - config.regulariser * ((found - first).abs() * held).sum()
        (gradient,) = torch.autograd.grad(gain, x)
        x = step_up(x.detach(), gradient, config.step)
    return total


def step_up(x: Tensor, gradient: Tensor, step: float) -> Tensor:
    """Images (P, 3, H, W) a step along their gradients, each at most ``step`` in a pixel and within its own range."""
    per_image = (1, 2, 3)
    largest = gradient.abs().amax(dim=per_image, keepdim=True)  # (P, 1, 1, 1)
    moved = x + step * gradient / largest.clamp(min=torch.finfo(x.dtype).tiny)
    return moved.clamp(x.amin(dim=per_image, keepdim=True), x.amax(dim=per_image, keepdim=True))
