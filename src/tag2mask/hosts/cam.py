"""The class activation map (section 3.1): features, 1x1 convolution, spatial mean."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts import HostOutput
from tag2mask.hosts.backbone import build_stages, stage_key


class Neck(nn.Module):
    """Levels of different stride -> one feature map at the finest of their strides.

    Each level is standardised by channel, so that none drowns the others. A 1x1 convolution of the upsampled,
    concatenated levels equals the sum of one 1x1 convolution for each level, upsampled afterwards: that is what is
    computed, as it costs a fraction.
    """

    def __init__(self, level_channels: list[int], channels: int, mix: bool) -> None:
        super().__init__()
        self.standardise = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c in level_channels)
        self.projections = nn.ModuleList(nn.Conv2d(c, channels, 1, bias=False) for c in level_channels)
        for projection in self.projections.parameters():
            nn.init.normal_(projection, std=sum(level_channels) ** -0.5)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.ReLU()]
        if mix:
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, levels: list[Tensor]) -> Tensor:
        size = max((level.shape[2:] for level in levels), key=lambda s: s[0] * s[1])
        total: Tensor | None = None
        for standardise, projection, level in zip(self.standardise, self.projections, levels, strict=True):
            part = projection(standardise(level))  # (N, neck, h, w) at the level's stride
            if part.shape[2:] != size:
                part = functional.interpolate(part, size, mode="bilinear", align_corners=False)
            total = part if total is None else total + part  # (N, neck, H, W) at the finest stride
        return self.layers(total)


class CamHost(nn.Module):
    """Class activation maps over a timm backbone, split into a frozen part and a trained part.

    ``forward`` is the whole network. ``frozen_part`` and ``trained_part`` are its halves, so that the output of the
    frozen half may be kept for a whole training.

    Args:
        config: backbone, levels, stride, freezing, neck.
        class_count: C.

    Attributes:
        mean, std: what inputs in [0, 1] are normalised by, three numbers each.
        channels: D of the features F.
    """

    def __init__(self, config: HostConfig, class_count: int) -> None:
        super().__init__()
        stages, self.mean, self.std = build_stages(config)
        names = list(stages)
        wanted = [stage_key(name, stages, "host.levels") for name in config.levels] or names[-1:]
        self.levels = tuple(sorted(wanted, key=names.index))
        last = names.index(self.levels[-1])
        if config.freeze == "none":
            frozen = 0
        elif config.freeze == "all":
            frozen = last + 1
        else:
            frozen = names.index(stage_key(config.freeze, stages, "host.freeze")) + 1
            if frozen > last + 1:
                raise InputError(f"host.freeze {config.freeze!r} stands behind the last level; use `all`.")
        self.frozen_stages = nn.ModuleDict({name: stages[name] for name in names[:frozen]})
        self.trained_stages = nn.ModuleDict({name: stages[name] for name in names[frozen : last + 1]})
        self.frozen_stages.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPUs, and what GPUs' tensor cores want
        channels = self._level_channels()
        self.neck = Neck(channels, config.neck, config.neck_mix) if config.neck else None
        self.channels = config.neck or channels[-1]
        self.classifier = nn.Conv2d(self.channels, class_count, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)

    @torch.no_grad()
    def _level_channels(self) -> list[int]:
        self.eval()
        x, levels = self._run(self.frozen_stages, torch.zeros(1, 3, 64, 64), [])
        _, levels = self._run(self.trained_stages, x, levels)
        if any(level.dim() != 4 for level in levels):
            raise InputError(
                "host.backbone gives features that are not maps (N, D, H, W); choose a convolutional one."
            )
        return [level.shape[1] for level in levels]

    def _run(self, stages: nn.ModuleDict, x: Tensor, levels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        for name, stage in stages.items():
            x = stage(x)
            if name in self.levels:
                levels = [*levels, x]
        return x, levels

    def train(self, mode: bool = True) -> CamHost:
        """Training mode, in which the frozen half stays as it is: its batch norms keep their statistics."""
        super().train(mode)
        self.frozen_stages.eval()
        return self

    def freeze_batch_norm(self, neck: bool) -> None:
        """Use and keep the running statistics of the backbone's batch norms, and of the neck's if ``neck``.

        Their affine parameters still learn. Undone by ``train()``.
        """
        for part in (self.trained_stages, self.neck if neck else None):
            for module in part.modules() if part is not None else ():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def above_classifier(self) -> Iterator[nn.Parameter]:
        """Trained parameters of the backbone (the neck is new, and learns at the classifier's rate)."""
        return self.trained_stages.parameters()

    @torch.no_grad()
    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> frozen levels, and last what the trained stages start from, if any."""
        x, levels = self._run(self.frozen_stages, images.contiguous(memory_format=torch.channels_last), [])
        return [*levels, x] if len(self.trained_stages) else levels

    def trained_part(self, frozen: list[Tensor]) -> HostOutput:
        """The frozen half's output -> features (N, D, H, W), class maps (N, C, H, W), logits (N, C)."""
        frozen = [level.contiguous(memory_format=torch.channels_last) for level in frozen]
        if len(self.trained_stages):
            *levels, x = frozen
            _, levels = self._run(self.trained_stages, x, levels)
        else:
            levels = frozen
        features = self.neck(levels) if self.neck is not None else levels[-1]  # (N, D, H, W)
        maps = self.classifier(features)  # (N, C, H, W)
        return HostOutput(features, maps, maps.mean(dim=(2, 3)))  # logits: (N, C)

    def forward(self, images: Tensor) -> HostOutput:
        return self.trained_part(self.frozen_part(images))
