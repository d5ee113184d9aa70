"""What a segmentation network learns by: cross-entropy, its balanced form, and both at several scales.

Labels are (N, H, W) integers: 0 background, c + 1 class c, 255 ignored. All losses are computed in float32, also under
``torch.autocast``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.segment.network import SegmentationNetwork, padded
from tag2mask.shares import divided

IGNORE = 255
"""Label of the pixels that count nowhere."""
SCALES = (1.0, 0.75, 0.5)
"""Of the multi-scale loss."""
PixelLoss = Literal["cross_entropy", "balanced"]


def pixel_loss(logits: Tensor, labels: Tensor, form: PixelLoss = "cross_entropy") -> Tensor:
    """L = mean of -log softmax(logits)_label over the labelled pixels, or the balanced form of it.

    ``balanced`` (DSRG, CVPR 2018) is the mean over the foreground pixels plus the mean over the background pixels
    of the batch: a photo is mostly background, and a class must not vanish in it. A part without pixels is 0.

    Args:
        logits: (N, C + 1, H, W), of any float type; labels: (N, H, W) integers on the same grid.

    Returns:
        A scalar, float32; zero, and without effect, when no pixel is labelled.
    """
    if form not in ("cross_entropy", "balanced"):
        raise ValueError(f"form is {form!r}; expected cross_entropy or balanced")
    labels = labels.long()
    losses = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")  # (N, H, W)
    if form == "cross_entropy":
        return divided(losses.sum(), (labels != IGNORE).sum())
    foreground, background = (labels > 0) & (labels != IGNORE), labels == 0
    total = losses.new_zeros(())
    for part in (foreground, background):
        total = total + divided((losses * part).sum(), part.sum())
    return total


def labels_on_grid(labels: Tensor, multiple: int, size: tuple[int, int]) -> Tensor:
    """The label at the centre of each block: (N, H, W) -> (N, h, w).

    The labels are padded with 255 as the network pads its images, and that area is cut into h x w blocks.

    Args:
        multiple: what the network pads images to.
        size: (h, w) of the logits, at any scale.
    """
    height, width = (-(-side // multiple) * multiple for side in labels.shape[1:])
    rows, columns = (
        ((torch.arange(count, device=labels.device) + 0.5) * (side / count)).long()
        for count, side in zip(size, (height, width), strict=True)
    )  # (h,), (w,)
    margin = (0, width - labels.shape[2], 0, height - labels.shape[1])
    whole = functional.pad(labels, margin, value=IGNORE)  # (N, H', W')
    return whole[:, rows[:, None], columns]  # (N, h, w)


def multi_scale_logits(network: SegmentationNetwork, images: Tensor) -> list[Tensor]:
    """Logits of normalised images (N, 3, H, W) at ``SCALES``, each (N, C + 1, h, w) at the stride of its own scale.

    Sizes are whole blocks at every scale, so that all grids cover the same area.
    """
    whole = padded(images, network.multiple)  # (N, 3, H', W')
    found = []
    for scale in SCALES:
        size = [max(1, round(side * scale / network.multiple)) * network.multiple for side in whole.shape[2:]]
        view = whole
        if size != list(whole.shape[2:]):
            view = functional.interpolate(whole, size, mode="bilinear", align_corners=False)
        found.append(network.trained_part(network.frozen_part(view)))
    return found


def multi_scale_loss(logits: list[Tensor], labels: Tensor, multiple: int, form: PixelLoss = "cross_entropy") -> Tensor:
    """L = L(Z_1) + L(Z_.75) + L(Z_.5) + L(max_s Z_s), each against the labels on its own grid.

    Args:
        logits: Z_s, (N, C + 1, h_s, w_s), the finest first; the maximum is taken on its grid, bilinear.
        labels: (N, H, W); multiple: what the network pads images to.
    """
    finest = logits[0].shape[2:]
    same = [functional.interpolate(z.float(), finest, mode="bilinear", align_corners=False) for z in logits]
    highest = torch.stack(same).amax(dim=0)  # (N, C + 1, h, w)
    total = highest.new_zeros(())
    for z in (*logits, highest):
        height, width = z.shape[2:]
        total = total + pixel_loss(z, labels_on_grid(labels, multiple, (height, width)), form)
    return total


def segmentation_loss(network: SegmentationNetwork, levels: list[Tensor], labels: Tensor) -> Tensor:
    """The loss that the network's settings ask for.

    Args:
        levels: what ``network.frozen_part`` gave; where nothing is frozen, that is the padded images alone.
        labels: (N, H, W) of the images.
    """
    config = network.config
    if config.multi_scale_loss:
        return multi_scale_loss(multi_scale_logits(network, levels[-1]), labels, network.multiple, config.loss)
    logits = network.trained_part(levels)  # (N, C + 1, h, w)
    return pixel_loss(logits, labels_on_grid(labels, network.multiple, (logits.shape[2], logits.shape[3])), config.loss)
