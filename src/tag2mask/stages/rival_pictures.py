"""What rivals look at beside the photos that are trained on: photos without any class, saliency maps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tag2mask.config import ViewsConfig
from tag2mask.data import TaggedImages
from tag2mask.data.classes import Classes
from tag2mask.data.files import Folder, fault
from tag2mask.data.images import image_paths, opened, read_path, verify_header
from tag2mask.errors import InputError
from tag2mask.hosts.inputs import PhotoInputs

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files that are taken for photos in a folder."""
TURNED = (5, 6, 7, 8)
"""Values of the EXIF tag Orientation with which width and height change places."""
ORIENTATION = 0x0112


def ood_paths(folder: str) -> tuple[Path, ...]:
    """The photos of ``rivals.wood.folder``, sorted. Raises ``InputError``: no folder, no photo, a damaged one."""
    if not folder:
        raise InputError(
            "the method wood needs photos that show no class, but what goes with the classes; name their folder by "
            "--rivals.wood.folder."
        )
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"rivals.wood.folder: there is no folder {folder}; give one of photos that show no class.")
    paths = tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()))
    if not paths:
        raise InputError(f"rivals.wood.folder: no photo lies in {folder} ({', '.join(SUFFIXES)}).")
    for path in paths:
        verify_header(path)
    return paths


def ood_images(folder: str, classes: Classes) -> TaggedImages:
    """The photos of ``ood_paths``, without any tag."""
    paths = ood_paths(folder)
    labels = np.zeros((len(paths), len(classes)), dtype=bool)
    names = tuple(map(str, paths))
    return TaggedImages(classes, names, labels, partial(read_path, names))


def saliency_images(folder: str, images: TaggedImages) -> TaggedImages:
    """The same images with their saliency maps, ``ID.png``, in place of their pictures (RGB of three equal channels).

    Raises ``InputError`` as ``saliency_paths`` does.
    """
    return replace(images, reader=partial(read_saliency, saliency_paths(folder, images)))


def saliency_paths(folder: str, images: TaggedImages) -> tuple[Path, ...]:
    """The file of the saliency map of every image.

    Raises:
        InputError: no folder, or the first image without a map and how many have none.
    """
    if not folder:
        raise InputError(
            "the method eps needs a saliency map for each training photo; name the folder of the PNG files by "
            "--rivals.eps.saliency."
        )
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"rivals.eps.saliency: there is no folder {folder}; give one of saliency maps, ID.png.")
    finder = Folder(root)
    found = [finder.find(f"{name}.png") for name in images.ids]
    missing = [name for name, path in zip(images.ids, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"{root / f'{missing[0]}.png'}: there is no saliency map for this photo, as for {len(missing)} of "
            f"{len(images)}; make the missing ones, or take the photos out."
        )
    return tuple(path for path in found if path is not None)


def read_saliency(paths: tuple[Path, ...], index: int) -> Image.Image:
    """A saliency map as a picture. Raises ``InputError`` unless it is grey with 8 bits."""
    with opened(paths[index]) as picture:
        check_grey(picture, paths[index])
        return picture.convert("RGB")


def check_grey(picture: Image.Image, path: Path) -> None:
    """Raise ``InputError`` unless a picture is grey with 8 bits."""
    if picture.mode != "L":
        raise fault(path, f"this is no grey picture of 8 bits (its mode is {picture.mode})", "save it as one")


def check_saliency(folder: str, images: TaggedImages) -> None:
    """Look at the headers of all saliency maps: grey, 8 bits, of the size of the upright photo, where that is a file.

    Raises ``InputError`` with the first that is not, or is missing.
    """
    photos = image_paths(images)
    for number, path in enumerate(saliency_paths(folder, images)):
        with opened(path) as picture:
            check_grey(picture, path)
            size = picture.size
        if photos is None:
            continue
        with opened(photos[number]) as photo:
            turned = photo.getexif().get(ORIENTATION, 1) in TURNED
            expected = photo.size[::-1] if turned else photo.size
        if size != expected:
            what = f"the map has {size[0]}x{size[1]} pixels, its photo {expected[0]}x{expected[1]}"
            raise fault(path, what, "make it of the size of the photo")


class Untouched:
    """In the place of a network's frozen half: the normalised pictures themselves, so that views can be had of them."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = mean, std
        self.frozen_stages = nn.ModuleDict()
        self.training = False

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) as they are."""
        return [images]

    def train(self, mode: bool = True) -> Any:
        return self

    def eval(self) -> Any:
        return self


class Pictures:
    """Training views of pictures: mirrored, zoomed or cropped as ``PhotoInputs`` does it to the photo of that number.

    Args:
        images: the pictures; mean, std: what they are normalised by.
        views: of the training; size: of square views alone, where not that of the training.
        recoloured: with the changes of colour that the views may have.
    """

    def __init__(
        self, images: TaggedImages, views: ViewsConfig, mean: tuple[float, ...], std: tuple[float, ...],
        device: torch.device, size: int = 0, recoloured: bool = False,
    ) -> None:  # fmt: skip
        if not recoloured:
            views = replace(views, colour_jitter=(0.0, 0.0, 0.0, 0.0))
        if size and views.kind == "square":
            views = replace(views, size=max(size, 32))
        self.inputs = PhotoInputs(Untouched(mean, std), images, views, device)

    def training(self, indices: np.ndarray, seed: int, epoch: int) -> Tensor:
        """(N, 3, S, S), a function of (seed, epoch, index)."""
        return self.inputs.training(indices, seed, epoch)[0]
