"""What the trained half of a host reads: photos run through the frozen half, or that half's output from a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask.atomic import read_back
from tag2mask.config import HostConfig, ViewsConfig
from tag2mask.data.fingerprint import photos_fingerprint
from tag2mask.data.images import TaggedImages
from tag2mask.data.views import mirrored_draws, random_crop, rescaled, square, to_tensor, zoomed
from tag2mask.hosts.row_file import RowReader, RowWriter, create_rows

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class FrozenHalf(Protocol):
    """A network's half that never learns: all that is needed to prepare what the other half reads."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    frozen_stages: nn.ModuleDict
    training: bool

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> levels (N, D, h, w)."""
        ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...


class PhotoInputs:
    """Photos, decoded and run through the frozen half at each use. Works for every kind of view, size and scale."""

    def __init__(self, host: FrozenHalf, images: TaggedImages, views: ViewsConfig, device: torch.device) -> None:
        self.host, self.images, self.views, self.device = host, images, views, device
        self._last: tuple[tuple[float, bytes], Tensor] | None = None

    def training(self, indices: np.ndarray, seed: int, epoch: int) -> list[Tensor]:
        """Augmented input of ``Host.trained_part`` for a batch, a function of (seed, epoch, index)."""
        views, host = self.views, self.host
        if views.kind == "crop":
            crops = [
                random_crop(
                    self.images.image(i),
                    views.size,
                    views.resize_long,
                    host.mean,
                    host.std,
                    seed,
                    epoch,
                    int(i),
                    views.colour_jitter,
                )
                for i in indices
            ]
            return host.frozen_part(torch.stack(crops).to(self.device))
        pixels = self.pixels(indices, 1.0)  # (N, 3, S, S)
        mirrored = torch.from_numpy(mirrored_draws(seed, epoch, indices)).to(self.device)
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return host.frozen_part(zoomed([pixels], views.zoom, seed, epoch, indices)[0])

    def plain(self, indices: np.ndarray, mirrored: bool = False, scale: float = 1.0) -> list[Tensor]:
        """Input of ``Host.trained_part`` without augmentation. In ``crop`` views one image at a time."""
        pixels = self.pixels(indices, scale)
        return self.host.frozen_part(pixels.flip(3) if mirrored else pixels)

    def plain_batches(self, batch_size: int, numbers: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Index batches that ``plain`` can read: one image each where photos keep their own size.

        ``numbers``: of the images, all if None.
        """
        step = 1 if self.views.kind == "crop" else batch_size
        numbers = np.arange(len(self.images)) if numbers is None else numbers
        for start in range(0, len(numbers), step):
            yield numbers[start : start + step]

    def pixels(self, indices: np.ndarray, scale: float) -> Tensor:
        """Normalised photos (N, 3, H, W) at a scale of the view's size, on the device.

        The last ones are kept: the mirrored view of a batch comes after the plain one, and photos take longer.
        """
        key = scale, np.asarray(indices).tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._read_pixels(indices, scale)
        return self._last[1]

    def _read_pixels(self, indices: np.ndarray, scale: float) -> Tensor:
        photos = [self.images.image(int(i)) for i in indices]
        if self.views.kind == "square":
            photos = [square(photo, max(1, round(self.views.size * scale))) for photo in photos]
        else:
            photos = [rescaled(photo, scale) for photo in photos]
        return torch.stack([to_tensor(p, self.host.mean, self.host.std) for p in photos]).to(
            self.device
        )  # (N, 3, H, W)


class CachedInputs(PhotoInputs):
    """The frozen half's output for every photo and its mirror image, float16, in files; what is needed is read.

    An epoch then costs the trained half alone. Only for ``square`` views; zoom acts on the cached levels.
    """

    def __init__(
        self, host: FrozenHalf, images: TaggedImages, views: ViewsConfig, device: torch.device, folder: Path
    ) -> None:
        super().__init__(host, images, views, device)
        manifest = json.loads((folder / "manifest.json").read_text())
        self.levels = [RowReader(folder / name) for name in manifest["files"]]

    def training(self, indices: np.ndarray, seed: int, epoch: int) -> list[Tensor]:
        mirrored = mirrored_draws(seed, epoch, indices).astype(int)
        return zoomed(self._read(indices, mirrored), self.views.zoom, seed, epoch, indices)

    def plain(self, indices: np.ndarray, mirrored: bool = False, scale: float = 1.0) -> list[Tensor]:
        if scale != 1.0:
            return super().plain(indices, mirrored, scale)
        return self._read(indices, np.full(len(indices), int(mirrored)))

    def _read(self, indices: np.ndarray, mirrored: np.ndarray) -> list[Tensor]:
        """Levels (N, D, H, W) of photos, of their mirror images where ``mirrored`` is 1."""
        return [torch.from_numpy(level.rows(indices, mirrored)).to(self.device).float() for level in self.levels]


def cache_key(frozen: dict[str, Any], views: ViewsConfig, images: TaggedImages, version: str) -> str:
    """Name of the cache of these images under this frozen half; anything that changes its content changes the name.

    ``frozen``: the settings that decide what the frozen half computes.
    """
    content = json.dumps([frozen, views.size, list(images.ids), version], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def level_settings(config: HostConfig, levels: tuple[str, ...]) -> dict[str, Any]:
    """The same for named levels of a wholly frozen backbone; what reads the same ones shares a cache."""
    names = ("backbone", "weights", "output_stride", "dilate")
    return {"levels": levels, **{name: getattr(config, name) for name in names}}


def frozen_settings(config: HostConfig) -> dict[str, Any]:
    """What decides the output of a host's frozen half."""
    elsewhere = ("neck", "neck_mix", "rectified_maps", "seam", "mctformer")
    settings = {k: v for k, v in asdict(config).items() if k not in elsewhere}
    settings["side"] = bool(config.side)
    if config.kind == "seam":
        settings["seam"] = (config.seam.levels, config.seam.small_scale)
    return settings


def frozen_fingerprint(host: FrozenHalf) -> str:
    """Hash of the frozen half's weights: random ones differ by seed, and a weights file may change under its name."""
    content = hashlib.sha256()
    for tensor in host.frozen_stages.state_dict().values():
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def cache_bytes(host: FrozenHalf, images: TaggedImages, views: ViewsConfig) -> int:
    """Bytes that the cache of these images would take."""
    return sum(level.numel() for level in frozen_levels(host, views)) * 2 * 2 * len(images)


def frozen_levels(host: FrozenHalf, views: ViewsConfig) -> list[Tensor]:
    """The frozen half's output for one empty image, for its shapes."""
    return host.frozen_part(torch.zeros(1, 3, views.size, views.size, device=device_of(host)))


def device_of(host: FrozenHalf) -> torch.device:
    """Where the frozen half's weights are."""
    return next(host.frozen_stages.parameters()).device


def cache_fault(folder: Path, images: TaggedImages) -> str:
    """Why a cache cannot be used, for a message; empty when it can: it is whole, and its photos are these still."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["photos"] != photos_fingerprint(images):
            return "photos have changed"
        wrong = [name for name, (size, _) in manifest["files"].items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "its manifest is missing or damaged"
    return f"{wrong[0]} is cut off" if wrong else ""


def build_cache(
    host: FrozenHalf, images: TaggedImages, views: ViewsConfig, device: torch.device, folder: Path, progress: Progress,
    batch_size: int = 4, part: tuple[int, int] = (0, 1), wait: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Fill ``folder`` with the frozen half's output; the folder appears only when it is complete.

    Its ``manifest.json`` has the size and sha256 of every array, and the fingerprint of the photos.

    Args:
        part: number of this process among those that fill it together, and how many they are; one that is not below
            how many they are only waits.
        wait: returns when all of them have called it. Whoever gives it has looked whether there is a cache already:
            all must do the same.
    """
    if wait is None and not cache_fault(folder, images):
        return
    wait = wait or (lambda: None)
    photos = photos_fingerprint(images)  # before any is read
    partial = folder.with_name(folder.name + ".partial")
    first = part[0] == 0
    try:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            create_cache(host, images, views, partial)
        wait()
        if part[0] < part[1]:
            fill_cache(host, images, views, device, partial, progress, batch_size, part)
        wait()
        if first:
            files = {path.name: read_back(path) for path in sorted(partial.glob("*.npy"))}
            content = {"files": files, "images": len(images), "photos": photos}
            (partial / "manifest.json").write_text(json.dumps(content))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        wait()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # it may be most of a disk
        raise


def create_cache(host: FrozenHalf, images: TaggedImages, views: ViewsConfig, partial: Path) -> None:
    """Take the room for all arrays, before anything is computed."""
    for number, level in enumerate(frozen_levels(host.eval(), views)):
        create_rows(level_path(partial, number), (len(images), 2, *level.shape[1:]))


def level_path(folder: Path, number: int) -> Path:
    """File of a level."""
    return folder / f"level{number}.npy"


def fill_cache(
    host: FrozenHalf, images: TaggedImages, views: ViewsConfig, device: torch.device, partial: Path, progress: Progress,
    batch_size: int, part: tuple[int, int],
) -> None:  # fmt: skip
    """Write this process's share of the frozen half's output."""
    reader, host_mode = PhotoInputs(host, images, views, device), host.training
    host.eval()
    files = [RowWriter(level_path(partial, number)) for number in range(len(frozen_levels(host, views)))]
    for batch in islice(reader.plain_batches(batch_size), part[0], None, part[1]):
        pixels = reader.pixels(batch, 1.0)
        both = [host.frozen_part(x) for x in (pixels, pixels.flip(3))]
        for file, plain, mirrored in zip(files, *both, strict=True):
            pairs = torch.stack([plain, mirrored], dim=1)  # (n, 2, D, H, W), a photo and its mirror image
            file.write(int(batch[0]), pairs.half().cpu().numpy())
        progress(int(batch[-1]) + 1, len(images))
    for file in files:
        file.close()
    host.train(host_mode)
