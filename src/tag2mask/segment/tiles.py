"""Logits of a picture that is larger than what fits at once: overlapping tiles, blended."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.segment.network import SegmentationNetwork

Pixels = npt.NDArray[np.uint8]


def tile_starts(side: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin along a side, multiples of ``multiple``; [0] where one tile is enough.

    ``side``, ``tile`` and ``overlap`` are multiples of it as well. Neighbours share at least ``overlap``.
    """
    if side <= tile:
        return [0]
    count = -(-(side - overlap) // (tile - overlap))  # rounded up
    last = (side - tile) // multiple
    return [round(number * last / (count - 1)) * multiple for number in range(count)]


def ramp(length: int, before: int, behind: int) -> Tensor:
    """Weights (length,) that rise from 0 to 1 over the first ``before`` and fall over the last ``behind`` places."""
    place = torch.arange(length) + 0.5
    rise = place / before if before else torch.ones(length)
    fall = (length - place) / behind if behind else torch.ones(length)
    return torch.minimum(rise, fall).clamp(max=1)


def weights_of(starts: list[int], tile: int) -> list[Tensor]:
    """The ramp of each tile along a side: it rises and falls over what it shares with its neighbours.

    The rise of a tile and the fall of the one before add up to 1 where no third tile reaches.
    """
    ends = [start + tile for start in starts]
    found = []
    for number, start in enumerate(starts):
        before = ends[number - 1] - start if number else 0
        behind = ends[number] - starts[number + 1] if number + 1 < len(starts) else 0
        found.append(ramp(tile, before, behind))
    return found


def picture_tensor(
    pixels: Pixels, network: SegmentationNetwork, height: int, width: int, device: torch.device
) -> Tensor:
    """(H, W, 3) uint8 -> normalised (1, 3, height, width), zeros (the mean colour) where the picture has ended."""
    image = torch.from_numpy(np.array(pixels)).to(device)  # (H, W, 3); a copy, as a photo's own memory is read-only
    image = image.permute(2, 0, 1)[None]  # (1, 3, H, W), channels last in memory
    shape = (1, 3, 1, 1)
    mean = torch.tensor(network.mean, device=device).view(shape) * 255
    scale = 1 / (torch.tensor(network.std, device=device).view(shape) * 255)
    image = (image.float() - mean).mul_(scale)
    margin = (0, width - image.shape[3], 0, height - image.shape[2])
    return functional.pad(image, margin) if any(margin) else image


def tiled_logits(
    network: SegmentationNetwork, pixels: Pixels, tile: int, overlap: int, mirrored: bool, device: torch.device
) -> Tensor:
    """Logits of a picture of any size, at the network's stride; the network sees at most ``tile`` x ``tile`` pixels.

    Tiles are blended by weights that run from 0 to 1 over what neighbours share, so that there is no seam. Where one
    tile is enough, these are the logits of the whole picture.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        tile, overlap: in pixels; rounded up to multiples of ``network.multiple``.
        mirrored: look at the mirror image; the logits are turned back.

    Returns:
        (C + 1, h, w) float32 on the CPU, blocks of stride x stride pixels of the padded picture.
    """
    tile, overlap, height, width = (
        -(-side // network.multiple) * network.multiple for side in (tile, overlap, *pixels.shape[:2])
    )
    high, wide = min(tile, height), min(tile, width)
    rows = tile_starts(height, tile, overlap, network.multiple)
    columns = tile_starts(width, tile, overlap, network.multiple)
    places = [(top, left) for top in rows for left in columns]
    if len(places) == 1:
        return logits_of(network, picture_tensor(pixels, network, high, wide, device), mirrored)
    down, across = (
        weights_of([start // network.stride for start in starts], side // network.stride)
        for starts, side in ((rows, high), (columns, wide))
    )
    windows = [vertical[:, None] * horizontal for vertical in down for horizontal in across]  # (h, w) each
    whole = torch.zeros(network.class_count + 1, height // network.stride, width // network.stride)
    total = torch.zeros(whole.shape[1:])
    for (top, left), window in zip(places, windows, strict=True):
        part = picture_tensor(pixels[top : top + high, left : left + wide], network, high, wide, device)
        y, x = top // network.stride, left // network.stride
        area = (slice(y, y + len(window)), slice(x, x + window.shape[1]))
        whole[:, *area] += logits_of(network, part, mirrored) * window
        total[area] += window
    return whole.div_(total)


def logits_of(network: SegmentationNetwork, view: Tensor, mirrored: bool) -> Tensor:
    """Logits (C + 1, h, w), float32 on the CPU, of one normalised view (1, 3, H, W), perhaps of its mirror image."""
    if mirrored:
        view = view.flip(3)
    logits = network.trained_part(network.frozen_part(view))[0].float().cpu()  # (C + 1, h, w)
    return logits.flip(2) if mirrored else logits
