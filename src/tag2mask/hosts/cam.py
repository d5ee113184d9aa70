"""The class activation map (section 3.1): features, 1x1 convolution, spatial mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import HostConfig, OptimiserConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages, deep_levels, stage_key
from tag2mask.hosts.host import Host, HostOutput, batch_norms


class Neck(nn.Module):
    """Levels of different stride -> one feature map at the finest of their strides.

    Each level is divided by its root mean square, so that none drowns the others. A 1x1 convolution of the upsampled,
    concatenated levels equals the sum of one 1x1 convolution for each level, upsampled afterwards: that is what is
    computed, as it costs a fraction.
    """

    level_scale: Tensor

    def __init__(self, level_channels: list[int], channels: int, mix: bool) -> None:
        super().__init__()
        self.register_buffer("level_scale", torch.ones(len(level_channels)))
        self.projections = nn.ModuleList(nn.Conv2d(c, channels, 1, bias=False) for c in level_channels)
        for projection in self.projections.parameters():
            nn.init.normal_(projection, std=sum(level_channels) ** -0.5)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.ReLU()]
        if mix:
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def measure(self, levels: list[Tensor]) -> None:
        """Take the levels' scale from a batch, before training."""
        roots = [level.square().mean().sqrt() for level in levels]
        self.level_scale.copy_(torch.stack(roots).clamp(min=torch.finfo(torch.float32).tiny))

    def scaled(self, levels: list[Tensor]) -> list[Tensor]:
        """The levels by their scale, each (N, D, h, w)."""
        return [level / scale for scale, level in zip(self.level_scale, levels, strict=True)]

    def forward(self, scaled: list[Tensor]) -> Tensor:
        """Scaled levels -> features (N, neck, H, W)."""
        size = finest(scaled)
        total: Tensor | None = None
        for projection, level in zip(self.projections, scaled, strict=True):
            part = resized(projection(level), size)  # (N, neck, h, w) -> (N, neck, H, W)
            total = part if total is None else total + part  # (N, neck, H, W) at the finest stride
        return self.layers(total)


def finest(levels: list[Tensor]) -> torch.Size:
    """Height and width of the largest."""
    return max((level.shape[2:] for level in levels), key=lambda size: size[0] * size[1])


def side_by_side(scaled: list[Tensor]) -> Tensor:
    """Scaled levels at the finest stride, one behind the other, (N, D, H, W): what a neck sees, untrained."""
    size = finest(scaled)
    return torch.cat([resized(level, size) for level in scaled], dim=1)


def resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(N, D, h, w) -> (N, D, H, W), bilinear; the same tensor where nothing changes."""
    if maps.shape[2:] == size:
        return maps
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


class CamHost(Host):
    """Class activation maps over a timm backbone, split into a frozen part and a trained part.

    ``forward`` is the whole network. ``frozen_part`` and ``trained_part`` are its halves, so that the output of the
    frozen half may be kept for a whole training.

    The main branch is the classic CAM: levels, perhaps a neck, a 1x1 classifier. A side branch over more local levels
    may join it when the CAM is trained on: it adds to the class maps and starts at zero. Features F come from its
    levels: deep ones say at every pixel what the whole image shows, and there water near a boat lies with boats.

    Args:
        config: backbone, levels, stride, freezing, neck, side branch.
        class_count: C.
        more_levels: chooses further stages, by key, whose outputs a host reads that adds something to this one.

    Attributes:
        mean, std: what inputs in [0, 1] are normalised by, three numbers each.
        side: the side branch's neck, or None.
    """

    feature_scale: Tensor

    def __init__(
        self, config: HostConfig, class_count: int,
        more_levels: Callable[[nn.ModuleDict], tuple[str, ...]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        stages, self.mean, self.std = build_stages(config)
        names = list(stages)
        main = [stage_key(name, stages, "host.levels") for name in config.levels] or names[-1:]
        side = [stage_key(name, stages, "host.side_levels") for name in config.side_levels]
        if config.side == 0:
            side = []
        elif not side:
            side = list(deep_levels(config.backbone, stages))
        self.main_levels = tuple(sorted(main, key=names.index))
        self.side_levels = tuple(sorted(side, key=names.index))
        self.more_levels = more_levels(stages) if more_levels is not None else ()
        self.kept_levels = {*main, *side, *self.more_levels}
        last = max(names.index(name) for name in self.kept_levels)
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
        channels = self._level_channels()
        main_channels = [channels[name] for name in self.main_levels]
        self.neck = Neck(main_channels, config.neck, config.neck_mix) if config.neck else None
        # A bare level is divided by its scale as well, so that one learning rate fits every backbone.
        self.register_buffer("feature_scale", torch.ones(()))
        self.classifier = nn.Conv2d(config.neck or main_channels[-1], class_count, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)
        self.side = self.side_classifier = None
        if self.side_levels:
            self.side = Neck([channels[name] for name in self.side_levels], config.side, mix=False)
            self.side_classifier = nn.Conv2d(config.side, class_count, 1, bias=False)
            nn.init.zeros_(self.side_classifier.weight)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPUs, and what GPUs' tensor cores want

    @torch.no_grad()
    def _level_channels(self) -> dict[str, int]:
        self.eval()
        levels: dict[str, Tensor] = {}
        x = self._run(self.frozen_stages, torch.zeros(1, 3, 64, 64), levels)
        self._run(self.trained_stages, x, levels)
        if any(level.dim() != 4 for level in levels.values()):
            raise InputError(
                "host.backbone gives features that are not maps (N, D, H, W); choose a convolutional one."
            )
        return {name: level.shape[1] for name, level in levels.items()}

    def _run(self, stages: nn.ModuleDict, x: Tensor, levels: dict[str, Tensor]) -> Tensor:
        """Run the stages on ``x`` and put the outputs that are used into ``levels``."""
        for name, stage in stages.items():
            x = stage(x)
            if name in self.kept_levels:
                levels[name] = x
        return x

    def freeze_batch_norm(self, learning: bool) -> None:
        """Use and keep the running statistics of the batch norms of the backbone and the side branch.

        Of the main branch's neck as well unless ``learning``. Affine parameters still learn. Undone by ``train()``.
        """
        for part in (self.trained_stages, self.side, None if learning else self.neck):
            for norm in batch_norms(part) if part is not None else ():
                norm.eval()

    def parameter_groups(self, config: OptimiserConfig, side: bool) -> list[dict[str, Any]]:
        """Backbone stages at their own rate, all else at the classifier's; without ``side`` its branch is left out."""
        new = [*(self.neck.parameters() if self.neck is not None else ()), *self.classifier.parameters()]
        if side and self.side is not None and self.side_classifier is not None:
            new += [*self.side.parameters(), *self.side_classifier.parameters()]
        return [
            {"params": list(self.trained_stages.parameters()), "lr": config.backbone_rate},
            {"params": new, "lr": config.learning_rate},
        ]

    def classifier_parameters(self) -> list[nn.Parameter]:
        """Weights of the 1x1 classifiers."""
        side = [] if self.side_classifier is None else list(self.side_classifier.parameters())
        return [*self.classifier.parameters(), *side]

    @torch.no_grad()
    def prepare(self, frozen: list[Tensor]) -> None:
        """Measure the scale (root mean square) of the levels in one large batch, before training."""
        if self.neck is None and self.side is None:
            return
        self.eval()
        levels = self.levels(frozen)
        if self.neck is None and not len(self.trained_stages):
            self.feature_scale.copy_(levels[self.main_levels[-1]].square().mean().sqrt().clamp(min=1e-12))
        for neck, names in ((self.neck, self.main_levels), (self.side, self.side_levels)):
            if neck is not None:
                neck.measure([levels[name] for name in names])

    @torch.no_grad()
    def finish(self, batches: Iterable[list[Tensor]]) -> None:
        """Give the side branch's batch norms the statistics of a data set, so that it may join from there."""
        if self.side is None:
            return
        norms = [m for m in self.side.modules() if isinstance(m, nn.BatchNorm2d)]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all batches
        self.eval()
        self.side.train()
        for frozen in batches:
            self.trained_part(frozen)
        self.side.eval()
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> frozen levels, and last what the trained stages start from, if any."""
        levels: dict[str, Tensor] = {}
        x = self._run(self.frozen_stages, images.contiguous(memory_format=torch.channels_last), levels)
        return [*levels.values(), x] if len(self.trained_stages) else list(levels.values())

    def trained_part(self, frozen: list[Tensor], side: bool = True, level_features: bool = False) -> HostOutput:
        """The frozen half's output -> features (N, D, H, W), class maps (N, C, H, W), logits (N, C).

        Args:
            side: False leaves the side branch out, as while the classifier is trained.
            level_features: features F are the scaled levels that the side branch sees (the neck, without a side
                branch) in place of what it makes of them; a bare level is the same either way.
        """
        return self.read(self.levels(frozen), side, level_features)

    def read(self, levels: dict[str, Tensor], side: bool = True, level_features: bool = False) -> HostOutput:
        """``trained_part`` from all levels by name, for a host that needs them for more."""
        main = [levels[name] for name in self.main_levels]
        scaled = self.neck.scaled(main) if self.neck is not None else []
        features = self.neck(scaled) if self.neck is not None else main[-1] / self.feature_scale  # (N, D, H, W)
        maps = self.maps(features)  # (N, C, H, W)
        if side and self.side is not None and self.side_classifier is not None:
            scaled = self.side.scaled([levels[name] for name in self.side_levels])
            features = self.side(scaled)  # (N, D, H, W) at the side's stride
            maps = resized(maps, features.shape[2:]) + self.side_classifier(features)  # (N, C, H, W)
        if level_features and scaled:
            features = side_by_side(scaled)
        return HostOutput(features, maps, maps.mean(dim=(2, 3)))  # logits: (N, C)

    def attribution_part(self, frozen: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``frozen_part``'s output -> all features that the class maps are made of (N, D, H, W), these (N, C, H, W).

        With a side branch these are the main branch's features at the side's stride and the side's own behind them. A
        1x1 convolution and bilinear resizing may be exchanged, so the maps are those of ``trained_part``.
        """
        levels = self.levels(frozen)
        main = [levels[name] for name in self.main_levels]
        features = self.neck(self.neck.scaled(main)) if self.neck is not None else main[-1] / self.feature_scale
        weight = self.classifier.weight  # (C, D, 1, 1)
        if self.side is not None and self.side_classifier is not None:
            own = self.side(self.side.scaled([levels[name] for name in self.side_levels]))  # (N, D_side, H, W)
            features = torch.cat([resized(features, own.shape[2:]), own], dim=1)  # (N, D + D_side, H, W)
            weight = torch.cat([weight, self.side_classifier.weight], dim=1)  # (C, D + D_side, 1, 1)
        return features, functional.conv2d(features, weight)  # maps: (N, C, H, W)

    def levels(self, frozen: list[Tensor]) -> dict[str, Tensor]:
        """All levels by name, from the frozen half's output."""
        frozen = [level.contiguous(memory_format=torch.channels_last) for level in frozen]
        names = [name for name in self.frozen_stages if name in self.kept_levels]
        levels = dict(zip(names, frozen, strict=False))
        if len(self.trained_stages):
            self._run(self.trained_stages, frozen[-1], levels)
        return levels

    def maps(self, features: Tensor) -> Tensor:
        """Trained features of the main branch (N, D, H, W) -> class maps (N, C, H, W)."""
        maps: Tensor = self.classifier(features)
        return maps
