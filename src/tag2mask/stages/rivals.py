"""Rivals that bring more than tags: what each adds to the training on from the class activation map.

The classification loss stays; no term of FPR is there. The losses are in ``tag2mask.rivals``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask import ranks
from tag2mask.config import ClimsConfig, EpsConfig, RunConfig, WoodConfig
from tag2mask.data import open_images
from tag2mask.engine import ExtraLoss
from tag2mask.errors import InputError
from tag2mask.hosts import Host, HostOutput
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.progress import Reporter
from tag2mask.rivals import (
    BackgroundMap,
    ascended,
    class_means,
    clims_loss,
    distance_loss,
    distance_scale,
    eps_loss,
    ood_clusters,
    ood_loss,
)
from tag2mask.stages.clip import LocalClip, load_clip
from tag2mask.stages.network import SeedSetup, data_of_seed
from tag2mask.stages.rival_pictures import Pictures, check_saliency, ood_images, ood_paths, saliency_images
from tag2mask.stages.tags import TrainingTags

AT_ONCE = 8
"""Photos that climb together: the whole network's activations are held for them, frozen or not."""


def check(config: RunConfig) -> None:
    """Look whether all is there that the rivals among the methods need, before anything is trained.

    Raises ``InputError`` with the first thing that is not.
    """
    if "wood" in config.methods:
        ood_paths(config.rivals.wood.folder)
    if "eps" in config.methods:
        images = open_images(data_of_seed(config.data, config.seeds[0]))
        check_saliency(config.rivals.eps.saliency, images)
    if "clims" in config.methods:
        load_clip(config.rivals.clims.clip, torch.device("cpu"))


def extra_loss(
    config: RunConfig, setup: SeedSetup, tags: TrainingTags, method: str, seed: int, report: Reporter
) -> ExtraLoss | None:
    """The loss of a rival, or None; to be called while the host has the weights of the class activation map.

    ``seed``: of the training, whose augmentation is followed. What is computed here is a function of these weights and
    the settings, so that a resumed training has the same.
    """
    if method == "wood":
        if ranks.world() > 1:
            raise InputError("wood draws photos of its own beside each batch, in one process; leave --devices out.")
        return WoodLoss(config.rivals.wood, setup, tags, seed, report)
    if method == "eps":
        return EpsLoss(config.rivals.eps, setup, seed)
    if method == "clims":
        return ClimsLoss(config.rivals.clims, setup, seed)
    return None


@torch.no_grad()
def pooled_features(host: Host, inputs: PhotoInputs) -> Tensor:
    """z of all images without augmentation: the spatial mean of F, (N, D)."""
    host.eval()
    rows = [host.trained_part(inputs.plain(batch)).features.mean((2, 3)) for batch in inputs.plain_batches(32)]
    return torch.cat(rows).float()


class WoodLoss(nn.Module):
    """w_d L_d + w_ood L_ood (``tag2mask.rivals.wood``). Its buffers are the class means and the clusters."""

    means: Tensor
    valid: Tensor
    clusters: Tensor
    unit: Tensor

    def __init__(
        self, config: WoodConfig, setup: SeedSetup, tags: TrainingTags, seed: int, report: Reporter
    ) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        images = ood_images(config.folder, setup.images.classes)
        views, host = setup.inputs.views, setup.host
        self.count = len(images)
        self.pictures = Pictures(images, views, host.mean, host.std, setup.device, recoloured=True)
        features = pooled_features(host, setup.inputs)  # (N, D)
        labels = torch.from_numpy(tags).to(setup.device)  # (N, C)
        means, valid = class_means(features, labels)
        clusters = ood_clusters(
            pooled_features(host, PhotoInputs(host, images, views, setup.device)), config.clusters, seed
        )
        unit = distance_scale(features, labels, means) if config.distance_unit == "spread" else 1.0
        self.register_buffer("means", means)
        self.register_buffer("valid", valid)
        self.register_buffer("clusters", clusters)
        self.register_buffer("unit", torch.tensor(unit, device=setup.device))
        names = setup.images.classes.names
        self.skipped = names.index(config.skip_class) if config.skip_class in names else None
        if config.skip_class and self.skipped is None:
            report.warn(f"wood: the data have no class {config.skip_class!r}, so rivals.wood.skip_class skips nothing.")

    def forward(self, host: Host, output: HostOutput, batch: np.ndarray, labels: Tensor, epoch: int) -> Tensor:
        """A training batch's output -> the weighted sum of both terms."""
        pooled = output.features.mean(dim=(2, 3))  # (N, D)
        near = distance_loss(pooled, labels, self.means, self.valid, self.clusters, self.config.quantile) / self.unit
        total = self.config.distance_weight * near
        if self.config.ood_weight:
            photos = self.pictures.training(self.drawn(batch, epoch), self.seed, epoch)  # (M, 3, S, S)
            if self.config.ascent:
                parts = photos.split(AT_ONCE)
                photos = torch.cat([ascended(part, lambda x: logits_of(host, x), self.config.ascent) for part in parts])
            total = total + self.config.ood_weight * ood_loss(logits_of(host, photos), self.skipped)
        return total

    def drawn(self, batch: np.ndarray, epoch: int) -> np.ndarray:
        """Numbers of as many photos as the step takes, or of all, a function of (seed, epoch, first of the batch)."""
        random = np.random.default_rng((self.seed, epoch, int(batch[0])))
        return random.choice(self.count, min(self.config.batch or len(batch), self.count), replace=False)


def logits_of(host: Host, images: Tensor) -> Tensor:
    """Normalised images (M, 3, H, W) -> logits (M, C)."""
    return host.trained_part(host.frozen_part(images)).logits


class EpsLoss(nn.Module):
    """w MSE(S, ...) (``tag2mask.rivals.eps``). It learns the map of the background."""

    def __init__(self, config: EpsConfig, setup: SeedSetup, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        maps = saliency_images(config.saliency, setup.images)
        self.pictures = Pictures(maps, setup.inputs.views, (0.0,) * 3, (1.0,) * 3, setup.device)
        with torch.no_grad():
            channels = setup.host.trained_part(setup.inputs.plain(np.array([0]))).features.shape[1]
        self.background = BackgroundMap(channels).to(setup.device)

    def forward(self, host: Host, output: HostOutput, batch: np.ndarray, labels: Tensor, epoch: int) -> Tensor:
        """A training batch's output -> the weighted loss."""
        saliency = self.pictures.training(batch, self.seed, epoch)[:, 0]  # (N, S, S)
        background = self.background(output.features)  # (N, 1, H, W)
        maps = nn.functional.interpolate(background, output.maps.shape[2:], mode="bilinear", align_corners=False)
        return self.config.weight * eps_loss(
            output.maps, maps, saliency, labels, self.config.mix, self.config.coverage
        )


class ClimsLoss:
    """The four weighted terms of ``tag2mask.rivals.clims``. No module: the CLIP is neither trained nor stored."""

    def __init__(self, config: ClimsConfig, setup: SeedSetup, seed: int) -> None:
        self.config, self.seed = config, seed
        self.clip: LocalClip = load_clip(config.clip, setup.device)
        self.pictures = Pictures(
            setup.images, setup.inputs.views, self.clip.mean, self.clip.std, setup.device, self.clip.size
        )
        self.texts = self.clip.texts([config.prompt.replace("{}", name) for name in setup.images.classes.names])
        self.backgrounds = self.clip.texts([config.prompt.replace("{}", name) for name in config.backgrounds])

    def __call__(self, host: Host, output: HostOutput, batch: np.ndarray, labels: Tensor, epoch: int) -> Tensor:
        """A training batch's output -> the weighted sum of the terms."""
        photos = self.pictures.training(batch, self.seed, epoch)  # (N, 3, S, S)
        size = (self.clip.size, self.clip.size)
        if photos.shape[2:] != size:  # crops keep the training's size, as they are places and not scales
            photos = nn.functional.interpolate(photos, size, mode="bilinear", align_corners=False, antialias=True)
        terms = clims_loss(
            output.maps, photos, labels, self.clip.images, self.texts, self.backgrounds, self.config.too_similar
        )
        config = self.config
        return (
            config.object_weight * terms.object_text
            + config.background_weight * terms.background_text
            + config.suppression_weight * terms.suppression
            + config.area_weight * terms.area
        )
