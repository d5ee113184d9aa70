"""Everything that the stages of one seed share: images, network, and what the network reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from tag2mask.config import DataConfig, RunConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.fingerprint import photos_fingerprint
from tag2mask.data.readers import with_split
from tag2mask.errors import InputError
from tag2mask.hosts import Host
from tag2mask.hosts.inputs import PhotoInputs, frozen_fingerprint, frozen_settings
from tag2mask.hosts.table import build_host
from tag2mask.progress import Reporter
from tag2mask.stages.inputs import open_inputs


@dataclass(frozen=True)
class SeedSetup:
    """Images, network and inputs of one seed."""

    seed: int
    data: DataConfig
    images: TaggedImages
    host: Host
    inputs: PhotoInputs
    device: torch.device

    @property
    def superclasses(self) -> tuple[int, ...] | None:
        """A number for each class, or None where the data has no super-classes."""
        return self.images.classes.superclass_ids()

    @cached_property
    def backbone(self) -> str:
        """Hash of the frozen half's weights, which are not stored with those that are trained."""
        return frozen_fingerprint(self.host)[:16]

    @cached_property
    def photos(self) -> str:
        """Changes when a photo is replaced, or one is added or taken away."""
        return photos_fingerprint(self.images)


def data_of_seed(data: DataConfig, seed: int) -> DataConfig:
    """Built-in scenes change with the seed, so that a deviation over seeds is one over data, too."""
    if data.kind != "cooccur":
        return data
    return replace(data, cooccur=replace(data.cooccur, seed=data.cooccur.seed + seed))


def set_up_seed(
    config: RunConfig, run: Path, seed: int, device: torch.device, report: Reporter, split: str = ""
) -> SeedSetup:
    """Open the images, build the network from its seed, and fill the cache of frozen features where it pays.

    Args:
        split: another split than the one that is trained on, for localizing and evaluating.
    """
    data = data_of_seed(config.data, seed)
    if split and split != data.split:
        data = other_split(data, split)
    images = open_images(data)
    torch.manual_seed(seed)
    host = build_host(config.host, len(images.classes)).to(device)
    inputs = open_inputs(
        host, frozen_settings(config.host), config.views, config.cache_gigabytes, data, run, images, device, report
    )
    return SeedSetup(seed, data, images, host, inputs, device)


def other_split(data: DataConfig, split: str) -> DataConfig:
    """The same data set's images that were not trained on."""
    if data.kind == "cooccur":
        if split != "val":
            raise InputError(f"--split {split!r}: the built-in scenes have `train` and `val`.")
        return replace(data, split=split, cooccur=replace(data.cooccur, seed=data.cooccur.seed + 10_000))
    return with_split(data, split)
