"""SEAM: class activation maps that agree between a photo and its smaller copy, refined by pixel correlation.

Y. Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic Segmentation",
CVPR 2020. False Positive Rectification acts on the maps of the photo, branch 1.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import HostConfig, OptimiserConfig
from tag2mask.hosts.backbone import deep_levels, stage_key
from tag2mask.hosts.cam import CamHost, resized
from tag2mask.hosts.host import HostOutput, batch_norms, soft_margin
from tag2mask.hosts.seam_correlation import PixelCorrelation
from tag2mask.hosts.seam_losses import EPSILON, View, seam_terms

PROBE_SIDE = 64
"""Side of the image by which the maps' stride is measured."""
BIAS_RATE = 2.0
"""Published factor of the learning rate of the backbone's biases, which have no weight decay."""


class SeamHost(CamHost):
    """A class activation map with pixel correlation, trained on two scales of each photo.

    ``frozen_part`` gives the levels of the photo, those of its smaller copy, and both as small pictures, so that a
    cache of the frozen half holds all that training reads.

    Attributes:
        correlation: the pixel correlation module.
        stride: pixels of a photo for one pixel of its maps.
    """

    def __init__(self, config: HostConfig, class_count: int) -> None:
        super().__init__(config, class_count, partial(correlation_levels, config))
        self.settings, self.refined_for_fpr = config.seam, config.rectified_maps == "refined"
        if config.seam.fixed_norms:
            for norm in batch_norms(self.trained_stages):
                norm.requires_grad_(False)
        self.level_count = sum(name in self.kept_levels for name in self.frozen_stages) + bool(len(self.trained_stages))
        self.stride, channels = self._probe()
        self.correlation = PixelCorrelation([channels[name] for name in self.more_levels])
        self.dropout = nn.Dropout2d(config.seam.dropout)
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _probe(self) -> tuple[int, dict[str, int]]:
        self.eval()
        frozen = CamHost.frozen_part(self, torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE))
        levels = self.levels(frozen)
        names = {*self.main_levels, *self.side_levels}
        side = max(level.shape[2] for name, level in levels.items() if name in names)  # of the finest level
        return PROBE_SIDE // side, {name: level.shape[1] for name, level in levels.items()}

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> what the trained half reads.

        Returns:
            The frozen levels of the images, those of the images at ``small_scale``, and both kinds of images at the
            size of their maps, (N, 3, h, w).
        """
        small = pixels_at(images, scaled_size(images.shape[2:], self.settings.small_scale))  # (N, 3, H', W')
        pictures = [pixels_at(view, self._map_size(view)) for view in (images, small)]  # (N, 3, h, w) each
        return [*super().frozen_part(images), *super().frozen_part(small), *pictures]

    def levels(self, frozen: list[Tensor]) -> dict[str, Tensor]:
        """All levels of the images by name, from the frozen half's output."""
        return super().levels(frozen[: self.level_count])

    def maps(self, features: Tensor) -> Tensor:
        """Features (N, D, H, W) -> class maps (N, C, H, W); in training some of the channels are left out."""
        return super().maps(self.dropout(features))

    def trained_part(self, frozen: list[Tensor], side: bool = True, level_features: bool = False) -> HostOutput:
        """As a class activation map's; with ``rectified_maps`` refined the maps are the refined ones.

        Logits are the classifier's own either way.
        """
        output, levels = self._read(frozen, side, level_features)
        return self._as_rectified(output, levels, frozen[-2])

    def training_part(
        self, frozen: list[Tensor], labels: Tensor, side: bool = True, level_features: bool = False
    ) -> tuple[HostOutput, Tensor]:
        """Branch 1's output, and what is missing from its classification loss to the published total.

        The training loop adds BCE(logits of branch 1), which has the weight 1/2 in SEAM. So the loss here is the total
        of ``seam_terms`` minus that BCE, and the sum is the published total. It may be negative.
        """
        count = self.level_count
        output, levels = self._read(frozen, side, level_features)
        small, small_levels = self._read(frozen[count:], side)
        with torch.autocast(output.maps.device.type, enabled=False):
            one = self._view(output, levels, frozen[-2])
            two = self._view(small, small_levels, frozen[-1])
            if self.settings.loss_grid == "input":
                size = scaled_size(frozen[-2].shape[2:], self.stride)
                one = one._replace(size=size)
                two = two._replace(size=scaled_size(size, self.settings.small_scale))
            own = seam_terms(one, two, labels, self.settings).total - soft_margin(one.logits, labels)
        return self._as_rectified(output, levels, frozen[-2]), own

    def localization_part(self, frozen: list[Tensor], level_features: bool = False) -> HostOutput:
        """The refined maps, (N, C, h, w), in the unit of the classifier's own; above their minimum if ``from_minimum``.

        SEAM normalises between minimum and maximum after all views are added up; here each view gives its minimum.
        """
        output, levels = self._read(frozen, True, level_features)
        refined = self._refined(output.maps, levels, frozen[-2])
        if self.settings.from_minimum:
            refined = refined - refined.amin(dim=(2, 3), keepdim=True)
        return output._replace(maps=with_peaks_of(output.maps, refined))

    def parameter_groups(self, config: OptimiserConfig, side: bool) -> list[dict[str, Any]]:
        """Backbone at its own rate, its biases at twice that without decay, all else at the classifier's rate."""
        _, new = super().parameter_groups(config, side)
        learning = [parameter for parameter in self.trained_stages.parameters() if parameter.requires_grad]
        biases = [parameter for parameter in learning if parameter.dim() == 1]
        groups = [
            {"params": [parameter for parameter in learning if parameter.dim() > 1], "lr": config.backbone_rate},
            {**new, "params": [*new["params"], *self.correlation.parameters()]},
        ]
        bias_group = {"params": biases, "lr": BIAS_RATE * config.backbone_rate, "weight_decay": 0.0}
        return [bias_group, *groups] if biases else groups

    @torch.no_grad()
    def prepare(self, frozen: list[Tensor]) -> None:
        """Measure the scale of the levels, of those that the correlation reads where all of them stand still."""
        super().prepare(frozen)
        if not len(self.trained_stages):
            levels = self.levels(frozen)
            self.correlation.measure([levels[name] for name in self.more_levels])

    def _read(
        self, frozen: list[Tensor], side: bool, level_features: bool = False
    ) -> tuple[HostOutput, dict[str, Tensor]]:
        levels = self.levels(frozen)
        return self.read(levels, side, level_features), levels

    def _refined(self, maps: Tensor, levels: dict[str, Tensor], picture: Tensor) -> Tensor:
        """Maps (N, C, h, w) by pixel correlation, (N, C, h, w), from 0 to below 1."""
        small = resized(picture, maps.shape[2:])  # (N, 3, h, w)
        refined: Tensor = self.correlation(maps, small, [levels[name] for name in self.more_levels])
        return refined

    def _as_rectified(self, output: HostOutput, levels: dict[str, Tensor], picture: Tensor) -> HostOutput:
        """The output with the maps that FPR looks at. Refined ones carry gradients to the classifier here."""
        if not self.refined_for_fpr:
            return output
        return output._replace(maps=with_peaks_of(output.maps, self._refined(output.maps, levels, picture)))

    def _view(self, output: HostOutput, levels: dict[str, Tensor], picture: Tensor) -> View:
        maps, float_levels = output.maps.float(), {name: level.float() for name, level in levels.items()}
        refined = self._refined(maps.detach(), float_levels, picture.float())
        height, width = maps.shape[2:]
        return View(output.logits.float(), maps, refined, (height, width))

    def _map_size(self, images: Tensor) -> tuple[int, int]:
        height, width = (math.ceil(side / self.stride) for side in images.shape[2:])
        return height, width


def correlation_levels(config: HostConfig, stages: nn.ModuleDict) -> tuple[str, ...]:
    """The stages that pixels are compared in: those named, or conv4 and conv5, or a timm backbone's last two levels."""
    if config.seam.levels:
        return tuple(stage_key(name, stages, "host.seam.levels") for name in config.seam.levels)
    return ("conv4", "conv5") if config.backbone == "wresnet38" else deep_levels(config.backbone, stages)


def scaled_size(size: tuple[int, ...] | torch.Size, factor: float) -> tuple[int, int]:
    """(H, W) times a factor, rounded, at least 1."""
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def pixels_at(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, 3, H, W) -> (N, 3, *size), bilinear."""
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)


def with_peaks_of(maps: Tensor, refined: Tensor) -> Tensor:
    """Refined maps (N, C, h, w), each with the maximum that relu(M) has; the factors are constants.

    So views are weighed, and absent classes looked at, as those of the classifier's own maps are.
    """
    own, reached = (of.detach().relu().amax(dim=(2, 3), keepdim=True) for of in (maps, refined))  # (N, C, 1, 1)
    return refined * (own / (reached + EPSILON))
