"""A segmentation network: an encoder as a chain of named stages, and a head on some of their levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import stage_key

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers that normalise."""


@dataclass(frozen=True)
class Encoder:
    """A chain of stages with what its inputs are like."""

    stages: nn.ModuleDict
    """In order; each takes the output of the one before. Their levels may not depend on training mode."""
    mean: tuple[float, ...]
    """What images in [0, 1] are normalised by."""
    std: tuple[float, ...]
    initial_weights: str
    """Which weights these are, in words."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at one rate."""

    name: str
    """encoder, encoder.bias, head or head.bias."""
    learning_rate: float
    """At factor 1 of the schedule."""
    weight_decay: float
    parameters: list[nn.Parameter] = field(repr=False)


class SegmentationNetwork(nn.Module):
    """Images -> logits of background and C classes, split into a frozen half and a trained half as ``CamHost`` is.

    Images are padded at the right and at the bottom with zeros (the mean colour) to a multiple of ``multiple``, so that
    every size is taken and a pixel of the logits is a block of ``stride`` x ``stride`` pixels of the image, exactly.

    Args:
        encoder: the chain of stages.
        level_names: keys of the stages whose outputs the head takes, in order.
        head: list of levels -> logits (N, C + 1, h, w) at ``stride``.
        stride: input pixels for one pixel of the logits.
        multiple: divisor of the padded size; ``stride`` divides it.
        config: freezing, batch norms, rates.

    Attributes:
        mean, std: what inputs in [0, 1] are normalised by, three numbers each.
        initial_weights: which weights the encoder started from, in words, to be stored and printed.
        class_count: C, without background.
    """

    def __init__(
        self, encoder: Encoder, level_names: tuple[str, ...], head: nn.Module, class_count: int, stride: int,
        multiple: int, config: SegmentConfig,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mean, self.std, self.initial_weights = encoder.mean, encoder.std, encoder.initial_weights
        self.level_names, self.class_count, self.stride, self.multiple = level_names, class_count, stride, multiple
        self.config = config
        names = list(encoder.stages)
        last = max(names.index(name) for name in level_names)
        frozen = frozen_count(config.freeze, encoder.stages, last)
        self.frozen_stages = nn.ModuleDict({name: encoder.stages[name] for name in names[:frozen]})
        self.trained_stages = nn.ModuleDict({name: encoder.stages[name] for name in names[frozen : last + 1]})
        self.head = head
        self.frozen_stages.requires_grad_(False)
        if config.batch_norm == "frozen":
            for norm in self._encoder_norms():
                norm.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.train()

    def train(self, mode: bool = True) -> SegmentationNetwork:
        """Training mode, in which the frozen half, and frozen batch norms, stay as they are."""
        super().train(mode)
        self.frozen_stages.eval()
        if self.config.batch_norm == "frozen":
            for norm in self._encoder_norms():
                norm.eval()
        return self

    def _encoder_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.trained_stages.modules() if isinstance(module, NORMS))

    @torch.no_grad()
    def frozen_part(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> frozen levels, and last what the trained stages start from, if any.

        Without frozen stages this is the padded images themselves.
        """
        levels: dict[str, Tensor] = {}
        x = self._run(self.frozen_stages, padded(images, self.multiple), levels)  # (N, 3, H', W')
        return [*levels.values(), x] if len(self.trained_stages) else list(levels.values())

    def trained_part(self, frozen: list[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """The frozen half's output -> logits (N, C + 1, H, W), 0 is the background.

        Args:
            frozen: what ``frozen_part`` gave, or the same from a cache.
            size: (H, W) of the images, to which the logits are brought (bilinear). None leaves them at ``stride``:
                (N, C + 1, H' / stride, W' / stride), where H' and W' are H and W rounded up to ``multiple``.
        """
        frozen = [level.contiguous(memory_format=torch.channels_last) for level in frozen]
        names = [name for name in self.frozen_stages if name in self.level_names]
        levels = dict(zip(names, frozen, strict=False))
        if len(self.trained_stages):
            self._run(self.trained_stages, frozen[-1], levels)
        logits = self.head([levels[name] for name in self.level_names])  # (N, C + 1, h, w)
        return logits if size is None else upsampled(logits, self.stride, size)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) of any size -> logits (N, C + 1, H, W)."""
        height, width = images.shape[2:]
        return self.trained_part(self.frozen_part(images), (height, width))

    def _run(self, stages: nn.ModuleDict, x: Tensor, levels: dict[str, Tensor]) -> Tensor:
        """Run the stages on ``x`` and put the outputs that are used into ``levels``."""
        for name, stage in stages.items():
            x = stage(x)
            if name in self.level_names:
                levels[name] = x
        return x

    def parameter_groups(self) -> list[ParameterGroup]:
        """What learns, at which rate: encoder and head, weights and biases. Empty groups are left out.

        A bias learns ``config.bias_rate`` times faster than a weight; other than 1, it has no weight decay.
        """
        optimiser, own_biases = self.config.optimiser, self.config.bias_rate != 1
        groups = []
        for part, module, rate in (
            ("encoder", self.trained_stages, optimiser.backbone_rate),
            ("head", self.head, optimiser.learning_rate),
        ):
            named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
            biases = [value for name, value in named if own_biases and name.endswith("bias")]
            weights = [value for name, value in named if not (own_biases and name.endswith("bias"))]
            groups.append(ParameterGroup(part, rate, optimiser.weight_decay, weights))
            groups.append(ParameterGroup(f"{part}.bias", rate * self.config.bias_rate, 0.0, biases))
        return [group for group in groups if group.parameters]


def frozen_count(freeze: str, stages: nn.ModuleDict, last: int) -> int:
    """How many stages of the chain are frozen, when the head reads up to the stage of index ``last``."""
    if freeze == "none":
        return 0
    if freeze == "all":
        return last + 1
    count = list(stages).index(stage_key(freeze, stages, "segment.freeze")) + 1
    if count > last + 1:
        raise InputError(f"segment.freeze {freeze!r} stands behind the last level that the head reads; use `all`.")
    return count


def padded(images: Tensor, multiple: int) -> Tensor:
    """Images (N, 3, H, W) with zeros at the right and at the bottom, up to multiples of ``multiple``."""
    down, across = -images.shape[2] % multiple, -images.shape[3] % multiple
    images = functional.pad(images, (0, across, 0, down))  # (N, 3, H', W'); without a branch, for export's sake
    return images.contiguous(memory_format=torch.channels_last)


def upsampled(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Logits (N, C + 1, h, w) of blocks of ``stride`` pixels -> (N, C + 1, H, W), bilinear, without the padding."""
    height, width = logits.shape[2] * stride, logits.shape[3] * stride
    if stride > 1:
        logits = functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return logits[:, :, : size[0], : size[1]]
