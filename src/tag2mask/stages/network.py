"""Everything that the stages of one seed share: images, network, and what the network reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tag2mask.config import DataConfig, RunConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.errors import InputError
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import (
    CachedInputs,
    PhotoInputs,
    build_cache,
    cache_bytes,
    cache_key,
    frozen_fingerprint,
)
from tag2mask.progress import Reporter
from tag2mask.runs import locked


@dataclass(frozen=True)
class SeedSetup:
    """Images, network and inputs of one seed."""

    seed: int
    data: DataConfig
    images: TaggedImages
    host: CamHost
    inputs: PhotoInputs
    device: torch.device

    @property
    def superclasses(self) -> tuple[int, ...] | None:
        """A number for each class, or None where the data has no super-classes."""
        return self.images.classes.superclass_ids()


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
    host = CamHost(config.host, len(images.classes)).to(device)
    return SeedSetup(
        seed, data, images, host, open_inputs(config, data, run, host, images, device, report), device
    )


def other_split(data: DataConfig, split: str) -> DataConfig:
    """The same data set's images that were not trained on."""
    if data.kind == "cooccur":
        if split != "val":
            raise InputError(f"--split {split!r}: the built-in scenes have `train` and `val`.")
        return replace(data, split=split, cooccur=replace(data.cooccur, seed=data.cooccur.seed + 10_000))
    return replace(data, split=split)


def open_inputs(
    config: RunConfig, data: DataConfig, run: Path, host: CamHost, images: TaggedImages, device: torch.device,
    report: Reporter,
) -> PhotoInputs:  # fmt: skip
    """Cached features where stages are frozen, views are squares and the disk bound allows it; else photos.

    Args:
        data: where ``images`` come from, the seed's scenes and split, which need not be those of ``config``.
    """
    if config.views.kind != "square" or not len(host.frozen_stages) or config.cache_gigabytes == 0:
        return PhotoInputs(host, images, config.views, device)
    size = cache_bytes(host.eval(), images, config.views)
    if size > config.cache_gigabytes * 1e9:
        report.say(
            f"frozen features would take {size / 1e9:.1f} GB, more than cache_gigabytes = {config.cache_gigabytes:g}: "
            "they are computed anew in every epoch."
        )
        return PhotoInputs(host, images, config.views, device)
    # Scenes have the same ids whatever their seed, and photos of two folders may have the same names.
    source = str(data) if data.kind == "cooccur" else str(Path(data.root).resolve())
    key = cache_key(config.host, config.views, images, source + frozen_fingerprint(host))
    folder = run / "cache" / key
    if not (folder / "manifest.json").is_file():
        run.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run).free
        if size > free:  # writing to mapped memory on a full disk kills the process
            report.warn(
                f"frozen features would take {size / 1e9:.1f} GB and the disk of {run} has {free / 1e9:.1f} GB left: "
                "they are computed anew in every epoch."
            )
            return PhotoInputs(host, images, config.views, device)
        with locked(folder.parent), report.task(f"frozen features of {len(images)} images") as step:
            build_cache(host, images, config.views, device, folder, lambda done, total: step(done, total))
    return CachedInputs(host, images, config.views, device, folder)
