"""From pictures to tensors: resizing, cropping, mirroring, normalising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from tag2mask.data.order import draws


def to_tensor(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """RGB picture -> normalised float tensor (3, H, W)."""
    pixels = transforms.to_dtype(
        transforms.pil_to_tensor(image), torch.float32, scale=True
    )  # (3, H, W) in [0, 1]
    return transforms.normalize(pixels, list(mean), list(std))


def square(image: Image.Image, size: int) -> Image.Image:
    """The picture resized to ``size`` x ``size``; its aspect ratio is given up."""
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)


def rescaled(image: Image.Image, scale: float) -> Image.Image:
    """The picture at ``scale`` times its size, bicubic, as in the IRN family."""
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)


def random_crop(
    image: Image.Image, size: int, resize_long: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...],
    seed: int, epoch: int, index: int, colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> Tensor:  # fmt: skip
    """The IRN family's training view: long side drawn from ``resize_long``, mirrored half of the time, random crop.

    A side shorter than the crop lies at a random place on a canvas of zeros, which is the mean colour, as padding comes
    after normalising. ``colour_jitter``: of ``jittered``, with draws of their own.

    Returns:
        (3, size, size) float.
    """
    length, mirror, across, down, *changes = draws(seed, epoch, index, 9)
    low, high = resize_long
    long_side = low + int(length * (high - low + 1))
    view = rescaled(image, long_side / max(image.size))
    if mirror < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = to_tensor(jittered(view, colour_jitter, changes), mean, std)  # (3, H, W)
    canvas = torch.zeros(3, size, size)
    source, target = crop_slices(pixels.shape[1:], size, (down, across))
    canvas[:, target[0], target[1]] = pixels[:, source[0], source[1]]
    return canvas


def random_crop_of_both(
    image: Image.Image, label: np.ndarray, size: int, scales: tuple[float, float], mean: tuple[float, ...],
    std: tuple[float, ...], seed: int, epoch: int, index: int, hsv_jitter: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A photo and the labels of its pixels: scale drawn from ``scales``, mirrored half of the time, random crop.

    Hue, saturation and value of the photo move by up to ``hsv_jitter`` of 255 levels each.

    Where the photo is smaller than the crop, the rest is the mean colour and unsure (255).

    Args:
        label: (H, W) uint8, at the photo's size.

    Returns:
        (3, size, size) float and (size, size) uint8.
    """
    if label.shape != (image.height, image.width):
        raise ValueError(f"labels have the shape {label.shape}, the image is {image.height}x{image.width}")
    scale, mirror, across, down, *shifts = draws(seed, epoch, index, 7)
    view = rescaled(image, scales[0] + scale * (scales[1] - scales[0]))
    labels = Image.fromarray(label).resize(view.size, Image.Resampling.NEAREST)
    if mirror < 0.5:
        view, labels = (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (view, labels))
    if hsv_jitter:
        view = hsv_shifted(view, *(round((2 * shift - 1) * hsv_jitter) for shift in shifts))
    pixels = to_tensor(view, mean, std)  # (3, H, W)
    source, target = crop_slices(pixels.shape[1:], size, (down, across))
    photo, pseudo = torch.zeros(3, size, size), torch.full((size, size), 255, dtype=torch.uint8)
    photo[:, target[0], target[1]] = pixels[:, source[0], source[1]]
    pseudo[target[0], target[1]] = torch.from_numpy(np.array(labels))[source[0], source[1]]
    return photo, pseudo


def jittered(
    image: Image.Image, shares: tuple[float, float, float, float], changes: Sequence[float]
) -> Image.Image:
    """The RGB picture with its brightness, contrast, saturation and hue changed, in an order that is drawn as well.

    Args:
        shares: the largest change b of each; the first three are multiplied by 1 - b to 1 + b, and hue is turned by
            -b to b of a whole turn. 0 leaves it as it is.
        changes: five draws from 0 to below 1, the order last.
    """
    adjust = (
        transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation, transforms.adjust_hue
    )  # fmt: skip
    orders = list(permutations(range(4)))
    for number in orders[int(changes[4] * len(orders))]:
        change = shares[number] * (2 * changes[number] - 1)
        if shares[number]:
            image = adjust[number](image, change if number == 3 else 1 + change)
    return image


def hsv_shifted(image: Image.Image, hue: int, saturation: int, value: int) -> Image.Image:
    """The RGB picture with its hue turned, and its saturation and value moved, by levels of 255; hue goes round."""
    levels = np.asarray(image.convert("HSV")).astype(np.int16)  # (H, W, 3)
    turned = levels + np.array([hue, saturation, value], np.int16)
    turned[..., 0] %= 256
    return Image.fromarray(turned.clip(0, 255).astype(np.uint8), mode="HSV").convert("RGB")


def crop_slices(
    sides: Sequence[int], size: int, places: tuple[float, float]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a crop of ``size`` is taken from and where it goes, for height and width.

    ``places``: from 0 to below 1, where along each side the crop lies, or the picture on a larger canvas.
    """
    source, target = [], []
    for side, draw in zip(sides, places, strict=True):
        start = int(draw * (abs(side - size) + 1))
        extent = min(side, size)
        source.append(slice(start, start + extent) if side > size else slice(0, extent))
        target.append(slice(0, extent) if side > size else slice(start, start + extent))
    return (source[0], source[1]), (target[0], target[1])


def zoomed(levels: list[Tensor], zoom: float, seed: int, epoch: int, indices: np.ndarray) -> list[Tensor]:
    """Random zoom and shift of a batch, the same for all its levels, with mirrored borders.

    Args:
        levels: tensors (N, D, H, W), of any sizes.
        zoom: the factor is drawn from 1/zoom to zoom; 1 leaves everything as it is.
        indices: (N,) image numbers, whose draws are used.
    """
    if zoom <= 1:
        return levels
    transform = zoom_transforms(zoom, seed, epoch, indices)
    result = []
    for level in levels:
        theta = torch.from_numpy(transform).to(level.device)
        grid = functional.affine_grid(theta, list(level.shape), align_corners=False)  # (N, H, W, 2)
        result.append(
            functional.grid_sample(
                level, grid.to(level.dtype), padding_mode="reflection", align_corners=False
            )
        )
    return result


def zoomed_labels(labels: Tensor, zoom: float, seed: int, epoch: int, indices: np.ndarray) -> Tensor:
    """``zoomed`` for labels (N, H, W) uint8: the same draws, the nearest pixel."""
    if zoom <= 1:
        return labels
    theta = torch.from_numpy(zoom_transforms(zoom, seed, epoch, indices)).to(labels.device)
    grid = functional.affine_grid(theta, [len(labels), 1, *labels.shape[1:]], align_corners=False)  # (N, H, W, 2)
    planes = labels[:, None].float()  # (N, 1, H, W)
    moved = functional.grid_sample(planes, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return moved[:, 0].to(labels.dtype)


def zoom_transforms(zoom: float, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Affine transforms (N, 2, 3) float32 that zoom and shift each image by its draws."""
    numbers = np.stack([draws(seed, epoch, int(i), 4) for i in indices])[:, 1:]  # (N, 3); the first one mirrors
    factor = 1 / (1 / zoom + numbers[:, 0] * (zoom - 1 / zoom))
    limit = np.abs(1 - factor)
    transform = np.zeros((len(indices), 2, 3), dtype=np.float32)
    transform[:, 0, 0] = transform[:, 1, 1] = factor
    transform[:, :, 2] = (2 * numbers[:, 1:] - 1) * limit[:, None]
    return transform


def mirrored_draws(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Which images of a batch are mirrored in this epoch, (N,) bool."""
    return np.array([draws(seed, epoch, int(i), 1)[0] < 0.5 for i in indices])
