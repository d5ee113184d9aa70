"""What a segmentation network says about a photo of any size: probabilities and labels of every pixel.

The photo is seen at each of ``test_scales``, plain and mirrored; logits are brought to its size, their softmax is
averaged. Beside the result itself and the photo, memory holds logits at the network's stride and a strip of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tag2mask.config.crf import CRF_PRESETS
from tag2mask.config.segment import SegmentConfig
from tag2mask.data.images import upright_rgb
from tag2mask.data.views import rescaled
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.tiles import Pixels, tiled_logits

Probabilities = npt.NDArray[np.float32]
STRIP_BYTES = 1 << 24
"""About what a strip of upsampled logits takes."""


@dataclass(frozen=True)
class Seen:
    """Logits of one look at the photo."""

    logits: Tensor
    """(C + 1, h, w) float32; the grid begins at the photo's upper left corner."""
    area: tuple[float, float]
    """Height and width of the grid, in pixels of the photo; padding makes it larger than the photo."""


def predict_probabilities(
    network: SegmentationNetwork, image: Image.Image | Pixels, config: SegmentConfig, device: torch.device
) -> Probabilities:
    """Class probabilities of every pixel.

    Args:
        network: on ``device``; it is put into evaluation mode.
        image: picture, which is turned upright (EXIF) and made RGB as files are; or (H, W, 3) uint8, RGB.
        config: ``view``, ``size``, ``test_scales``, ``flip``, ``tile``, ``overlap``, ``crf``. With ``square`` views the
            photo is squared as in training; with ``crop`` it keeps its shape and is cut into tiles where it is large.

    Returns:
        (C + 1, H, W) float32, summing to 1 at every pixel; 0 is the background.
    """
    picture = rgb(image)
    looks = look(network, picture, config, device)
    found = np.empty((len(looks[0].logits), picture.height, picture.width), np.float32)
    for rows, strip in averaged_strips(looks, picture.height, picture.width):
        found[:, rows] = strip.numpy()
    return refined(found, picture, config.crf) if config.crf else found


def predict_labels(
    network: SegmentationNetwork, image: Image.Image | Pixels, config: SegmentConfig, device: torch.device
) -> Pixels:
    """The most probable label of every pixel, (H, W) uint8: 0 background, c + 1 class c; see ``predict_probabilities``.

    Without CRF the probabilities of a whole photo are never in memory.
    """
    if config.crf:
        return predict_probabilities(network, image, config, device).argmax(axis=0).astype(np.uint8)
    picture = rgb(image)
    looks = look(network, picture, config, device)
    found = np.empty((picture.height, picture.width), np.uint8)
    for rows, strip in averaged_strips(looks, picture.height, picture.width, normalise=len(looks) > 1):
        found[rows] = strip.max(dim=0).indices.numpy()  # (r, W); max is faster than argmax
    return found


def rgb(image: Image.Image | Pixels) -> Image.Image:
    """The picture, upright and in three channels of 8 bits, as files are read."""
    if isinstance(image, Image.Image):
        return upright_rgb(image, "the image")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image is {image.dtype} of shape {image.shape}; expected (H, W, 3) uint8")
    return Image.fromarray(image)


@torch.no_grad()
def look(network: SegmentationNetwork, picture: Image.Image, config: SegmentConfig, device: torch.device) -> list[Seen]:
    """The network's logits at every test scale, plain and, if wanted, mirrored."""
    network.eval()
    found = []
    for scale in config.test_scales:
        if config.view == "square":
            side = max(1, round(config.size * scale / network.multiple)) * network.multiple
            view = picture.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
            tile = side
        else:
            view, tile = rescaled(picture, scale), config.tile
        pixels = np.array(view)  # (H, W, 3)
        for mirrored in (False, True)[: 1 + config.flip]:
            logits = tiled_logits(network, pixels, tile, config.overlap, mirrored, device)  # (C + 1, h, w)
            area = (
                logits.shape[1] * network.stride * picture.height / view.height,
                logits.shape[2] * network.stride * picture.width / view.width,
            )
            found.append(Seen(logits, area))
    return found


def averaged_strips(
    looks: list[Seen], height: int, width: int, normalise: bool = True
) -> Iterator[tuple[slice, Tensor]]:
    """The mean of the looks' probabilities, strip by strip: rows of the photo, and (C + 1, r, W).

    Without ``normalise``, for a single look, the logits themselves.
    """
    step = max(1, STRIP_BYTES // (4 * width * len(looks[0].logits)))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        total: Tensor | None = None
        for seen in looks:
            strip = upsampled_rows(seen, rows, width)  # (C + 1, r, W)
            strip = strip.softmax(dim=0) if normalise else strip
            total = strip if total is None else total.add_(strip)
        if total is None:
            raise ValueError("no look at the photo")
        yield rows, total.div_(len(looks)) if len(looks) > 1 else total


def upsampled_rows(seen: Seen, rows: slice, width: int) -> Tensor:
    """Some rows of the logits at the photo's size, (C + 1, r, W): bilinear, as if the whole were upsampled at once."""
    count = seen.logits.shape[1]
    place = (torch.arange(rows.start, rows.stop) + 0.5) * (count / seen.area[0]) - 0.5  # (r,) rows of the grid
    place = place.clamp(0, count - 1)
    above = place.long().clamp(max=max(0, count - 2))
    below = (above + 1).clamp(max=count - 1)
    share = (place - above)[:, None]  # (r, 1)
    mixed = torch.lerp(seen.logits[:, above], seen.logits[:, below], share)  # (C + 1, r, w)
    mixed = mixed[None].contiguous(memory_format=torch.channels_last)  # three times as fast to upsample
    size = (len(place), max(width, round(seen.area[1])))
    return functional.interpolate(mixed, size, mode="bilinear", align_corners=False)[0, :, :, :width]


def refined(probabilities: Probabilities, picture: Image.Image, preset: str) -> Probabilities:
    """Probabilities (C + 1, H, W) after a dense CRF over the photo, by one of its presets."""
    from tag2mask.refine.crf import DenseCRF, soft_energies

    result = DenseCRF(np.asarray(picture), CRF_PRESETS[preset]).infer(soft_energies(probabilities))
    return np.ascontiguousarray(result, np.float32)
