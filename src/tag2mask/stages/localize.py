"""Localization maps of every image, for its tagged classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask import ranks
from tag2mask.config import MapsConfig
from tag2mask.fpr import Prototypes
from tag2mask.manifests import Manifest
from tag2mask.maps.advcam import advcam_maps
from tag2mask.maps.attribution import library_maps
from tag2mask.maps.merge import class_activation, localization_maps, map_peaks
from tag2mask.maps.store import quantised, save_maps
from tag2mask.progress import Step
from tag2mask.stages.network import SeedSetup

LOCALIZED_AT_ONCE = 32
"""Images that go through the network together when nothing is stored."""
Sizes = Callable[[int], tuple[int, int]]
"""From the number of an image to its (height, width)."""


@dataclass(frozen=True)
class ImageMaps:
    """What is known of one image."""

    index: int
    classes: np.ndarray
    """(P,), the tagged ones."""
    maps: np.ndarray
    """(P, H, W) uint8."""
    logits: np.ndarray | None
    """(C,)."""
    peaks: np.ndarray
    """(C,) how high every class's map reaches before it is divided by its maximum (``map_peaks``)."""


@torch.no_grad()
def localize(
    setup: SeedSetup, config: MapsConfig, sizes: Sizes, step: Step, prototypes: Prototypes | None = None
) -> Iterator[ImageMaps]:
    """Maps of all images by the host's present weights, at the images' own (height, width); a process does its share.

    ``prototypes``: for rectification without training.
    """
    setup.host.eval()
    for batch in ranks.mine(setup.inputs.plain_batches(LOCALIZED_AT_ONCE)):
        yield from _localize_batch(setup, config, batch, sizes, prototypes)
        step(int(batch[-1]) + 1, len(setup.images))


def _localize_batch(
    setup: SeedSetup, config: MapsConfig, batch: np.ndarray, sizes: Sizes, prototypes: Prototypes | None
) -> Iterator[ImageMaps]:
    maps, logits = class_activation(setup.host, setup.inputs, batch, config.scales, config.flip, prototypes)
    peaks = peaks_of(setup, maps, batch)  # (N, C)
    for row, index in enumerate(batch.tolist()):
        classes = np.flatnonzero(setup.images.labels[index])  # (P,)
        size = sizes(index)
        if len(classes):
            chosen = torch.from_numpy(classes).to(setup.device)
            planes = quantised(localization_maps(maps, row, chosen, size).cpu().numpy())  # (P, H, W)
        else:
            planes = np.zeros((0, *size), np.uint8)
        yield ImageMaps(index, classes, planes, logits[row].cpu().numpy(), peaks[row])


def peaks_of(setup: SeedSetup, maps: list[Tensor], batch: np.ndarray) -> np.ndarray:
    """``map_peaks`` of some images, (N, C); 0, from which no floor follows, where they are no evidence."""
    present = torch.from_numpy(setup.images.labels[batch]).to(setup.device)  # (N, C)
    peaks: np.ndarray = map_peaks(maps, present).cpu().numpy()
    return peaks if setup.host.peaks_are_evidence else np.zeros_like(peaks)


def store_maps(
    setup: SeedSetup, config: MapsConfig, folder: Path, step: Step, indices: list[int] | None = None,
    prototypes: Prototypes | None = None,
) -> None:  # fmt: skip
    """Write the maps of the images that have none in ``folder`` yet: of all, or of those at ``indices``.

    What the folder's manifest does not describe, or of another size, is written again. By ``config.method``;
    ``prototypes``, for rectification without training, go with class activation maps alone.
    """
    setup.host.eval()
    wanted = range(len(setup.images)) if indices is None else indices
    manifest = Manifest(folder, ranks.rank())
    missing = ranks.once(lambda: [i for i in wanted if not manifest.holds(map_path(folder, setup.images.ids[i]))])
    done = len(wanted) - len(missing)
    step(done, len(wanted))
    for number, index in ranks.mine(enumerate(missing, 1)):
        if config.method == "cam":
            (image,) = _localize_batch(setup, config, np.array([index]), setup.images.size_hw, prototypes)
        else:
            image = _attribute(setup, config, index, setup.images.size_hw(index))
        path = map_path(folder, setup.images.ids[index])
        manifest.add(path, save_maps(path, image.classes, image.maps, image.peaks))
        step(done + number, len(wanted))
    ranks.wait_for_all(step, len(wanted))


def _attribute(setup: SeedSetup, config: MapsConfig, index: int, size: tuple[int, int]) -> ImageMaps:
    """Maps of one image by another method than class activation; the peaks are those of its class activation maps."""
    host, inputs, image = setup.host, setup.inputs, np.array([index])
    scales = (config.method == "advcam" and config.advcam.scales) or config.scales
    classes = np.flatnonzero(setup.images.labels[index])  # (P,)
    chosen, everyone = torch.from_numpy(classes).to(setup.device), torch.arange(len(classes), device=setup.device)
    activation, logits = class_activation(host, inputs, image, scales, config.flip)
    maps: list[Tensor] = []  # (1, P, h, w) for each scale
    if len(classes) and config.method == "advcam":
        maps = advcam_maps(host, lambda scale: inputs.pixels(image, scale), chosen, scales, config.flip, config.advcam)
    elif len(classes):
        for scale in scales:
            plain = library_maps(host, inputs.plain(image, False, scale), chosen, config.method)
            if config.flip:
                plain += library_maps(host, inputs.plain(image, True, scale), chosen, config.method).flip(3)
            maps.append(plain)
    planes = np.zeros((0, *size), np.uint8)
    if maps:
        planes = quantised(localization_maps(maps, 0, everyone, size).cpu().numpy())  # (P, H, W)
    return ImageMaps(index, classes, planes, logits[0].cpu().numpy(), peaks_of(setup, activation, image)[0])


def map_path(folder: Path, image_id: str) -> Path:
    """File of an image's maps."""
    return folder / f"{image_id}.npz"
