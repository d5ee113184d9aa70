"""The feature levels of a frozen backbone, fine to coarse: what a refiner learns on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages, listed_levels

FINEST_STRIDE = 4
"""Finer levels are left out: they are large and hold little that coarser ones do not."""
PROBE_SIDE = 64


class LevelsHost(nn.Module):
    """A backbone that never learns, as ``frozen_part`` alone: the same interface as a host's frozen half.

    The levels are those that timm lists for the backbone, of stride 4 or more, each by the stage that ends it. For a
    ResNet they are the max pooling and layers 1 to 4, as in IRN.

    Attributes:
        mean, std: what inputs in [0, 1] are normalised by, three numbers each.
        channels, strides: of the levels, fine to coarse.
    """

    def __init__(self, config: HostConfig) -> None:
        super().__init__()
        stages, self.mean, self.std = build_stages(config, chain_alone=True)
        ends = level_ends(config.backbone, stages)
        self.frozen_stages = stages
        self.frozen_stages.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.eval()
        self.level_names, self.channels, self.strides = self._measure(ends)
        if not self.level_names:
            raise InputError(f"host.backbone {config.backbone!r} has no level of stride 4 or more to refine maps with.")
        names = list(stages)
        for name in names[names.index(self.level_names[-1]) + 1 :]:
            del self.frozen_stages[name]

    @torch.no_grad()
    def _measure(self, ends: set[str]) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
        found, x = [], torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE)
        for name, stage in self.frozen_stages.items():
            x = stage(x)
            stride = PROBE_SIDE // x.shape[2]
            if name in ends and stride >= FINEST_STRIDE:
                found.append((name, x.shape[1], stride))
        names, channels, strides = zip(*found, strict=True) if found else ((), (), ())
        return names, channels, strides

    def train(self, mode: bool = True) -> LevelsHost:
        """Stays in evaluation mode: its batch norms keep their statistics."""
        return super().train(False)

    @torch.no_grad()
    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> levels (N, D, h, w), fine to coarse."""
        x, levels = images.contiguous(memory_format=torch.channels_last), []
        for name, stage in self.frozen_stages.items():
            x = stage(x)
            if name in self.level_names:
                levels.append(x)
        return levels


def level_ends(backbone: str, stages: nn.ModuleDict) -> set[str]:
    """Keys of the stages that end a feature level in timm's own list, and of a ResNet's max pooling."""
    listed, chain = listed_levels(backbone), list(stages)
    ends = {next((k for k in reversed(chain) if k == name or k.startswith(f"{name}_")), "") for name in listed}
    return (ends | {"maxpool"}) & set(chain)
