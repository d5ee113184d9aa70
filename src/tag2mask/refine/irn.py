"""IRN: a network for class boundaries and displacements to centres, its losses, and refined maps.

J. Ahn, S. Cho and S. Kwak, "Weakly supervised learning of instance segmentation with inter-pixel relations", CVPR 2019.
The backbone is frozen and stays outside: its levels come in, so they can be cached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config.affinity import IRNConfig
from tag2mask.refine.pair_labels import EPSILON, AffinityTerms, PairKinds, affinity_loss, pair_kinds
from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.walk import Floats, edge_transition, random_walk
from tag2mask.shares import whole

FINEST_EDGE = 4
"""Edges are found at the finest level of at least this stride."""


@dataclass(frozen=True)
class IRNOutput:
    """What the network says of each pixel of the edge grid."""

    edge: Tensor
    """Logits of a class boundary, (N, 1, H, W)."""
    displacement: Tensor | None
    """Rows and columns from a pixel to the centre of its object, in pixels of the grid, (N, 2, H, W); or no branch."""


class Projection(nn.Module):
    """1x1 convolution without bias, group norm, change of grid, ReLU."""

    def __init__(self, channels: int, width: int, grid_ratio: float = 1.0) -> None:
        """``grid_ratio``: stride of the input / stride of the output; above 1 bilinear, below 1 mean over squares."""
        super().__init__()
        self.grid_ratio = grid_ratio
        self.convolution = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.GroupNorm(math.gcd(width, min(16, max(1, width // 8))), width)  # 4, 8, 16, 16 for 32 ... 256

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, width, about H * grid_ratio, about W * grid_ratio)."""
        x = self.norm(self.convolution(x))
        if self.grid_ratio > 1:
            x = functional.interpolate(x, scale_factor=self.grid_ratio, mode="bilinear", align_corners=False)
        elif self.grid_ratio < 1:
            x = functional.avg_pool2d(x, round(1 / self.grid_ratio), ceil_mode=True)
        return functional.relu(x)


def joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Parts of one grid at the size of ``like``, by channel.

    Up-sampled ones may be some pixels larger, which are cut off, or smaller, where a backbone drops the last odd row or
    column of a level; these are stretched.
    """
    size = like.shape[2:]
    cut = (part[:, :, : size[0], : size[1]] for part in parts)
    same = [
        part if part.shape[2:] == size else functional.interpolate(part, size, mode="bilinear", align_corners=False)
        for part in cut
    ]
    return torch.cat(same, dim=1)


class IRNet(nn.Module):
    """Edge and displacement branches over the levels of a frozen backbone.

    Edge: every level to 32 channels at the edge grid, 160 for a ResNet; 1x1 to the logit. Displacement: the level of
    the edge grid gives 128 channels, a finer or equally fine one before it 64; coarser ones 256 each at the grid of
    the finest of them, merged to 256 and brought to the edge grid; all merged to 256, then to two numbers. The edge
    grid is the finest level of stride 4 or more: for a ResNet50 (levels of 64, 256, 512, 1024, 2048 channels at
    strides 4, 4, 8, 16, 16) that is the last one of stride 4.
    """

    mean_displacement: Tensor

    def __init__(self, channels: Sequence[int], strides: Sequence[int], config: IRNConfig) -> None:
        """Channels and strides of the levels, from fine to coarse.

        Raises:
            ValueError: the two differ in length, strides fall or are no multiples of each other, or none is at least 4.
        """
        super().__init__()
        steps_up = all(b % a == 0 for a, b in pairwise(strides))
        if len(channels) != len(strides) or not steps_up or max(strides, default=0) < FINEST_EDGE:
            raise ValueError(
                f"levels of {list(channels)} channels at strides {list(strides)}; expected as many strides, from fine "
                f"to coarse, each a multiple of the one before, the last at least {FINEST_EDGE}"
            )
        self.levels = len(channels)
        self.edge_stride = min(stride for stride in strides if stride >= FINEST_EDGE)
        self.fine = sum(stride <= self.edge_stride for stride in strides)
        self.edge_levels = nn.ModuleList(
            Projection(c, config.edge_channels, s / self.edge_stride) for c, s in zip(channels, strides, strict=True)
        )
        self.edge_head = nn.Conv2d(config.edge_channels * self.levels, 1, 1)
        self.register_buffer("mean_displacement", torch.zeros(2))
        width = config.displacement_channels
        self.has_displacement = width > 0
        if not self.has_displacement:
            return
        widths = [width // 4] * (self.fine - 1) + [width // 2] + [width] * (self.levels - self.fine)
        coarse_stride = strides[self.fine] if self.levels > self.fine else self.edge_stride
        self.displacement_levels = nn.ModuleList(
            Projection(c, w, s / (self.edge_stride if number < self.fine else coarse_stride))
            for number, (c, s, w) in enumerate(zip(channels, strides, widths, strict=True))
        )
        merged = sum(widths[: self.fine])
        if self.levels > self.fine:
            self.coarse = Projection(sum(widths[self.fine :]), width, coarse_stride / self.edge_stride)
            merged += width
        self.displacement_head = nn.Sequential(Projection(merged, width), nn.Conv2d(width, 2, 1, bias=False))

    def forward(self, levels: Sequence[Tensor]) -> IRNOutput:
        """Levels (N, D_l, H_l, W_l) of the backbone -> logits and displacements at the edge grid.

        In evaluation mode the mean displacement of the data set is subtracted, while training it is not.
        """
        if len(levels) != self.levels:
            raise ValueError(f"{len(levels)} levels; expected {self.levels}")
        finest = levels[self.fine - 1]  # the level of the edge grid
        parts = [project(level) for project, level in zip(self.edge_levels, levels, strict=True)]
        edge = self.edge_head(joined(parts, finest))  # (N, 1, H, W)
        if not self.has_displacement:
            return IRNOutput(edge, None)
        parts = [project(level) for project, level in zip(self.displacement_levels, levels, strict=True)]
        if self.levels > self.fine:
            parts = [*parts[: self.fine], self.coarse(joined(parts[self.fine :], levels[self.fine]))]
        displacement = self.displacement_head(joined(parts, finest))  # (N, 2, H, W)
        if not self.training:
            displacement = displacement - self.mean_displacement[:, None, None]
        return IRNOutput(edge, displacement)

    @torch.no_grad()
    def store_mean_displacement(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """After training: the mean displacement over the levels of a data set becomes what is subtracted.

        Objects lie around their centres, so displacements should be zero on average; pairs fix them up to a constant.
        """
        was_training = self.training
        self.train()  # nothing here behaves otherwise in training, but that nothing is subtracted
        total, pixels = torch.zeros(2, dtype=torch.float64), 0
        for levels in batches:
            displacement = self(levels).displacement  # (N, 2, H, W)
            total += displacement.double().sum(dim=(0, 2, 3)).cpu()
            pixels += displacement[:, 0].numel()
        self.mean_displacement.copy_(total / max(pixels, 1))
        self.train(was_training)


@dataclass(frozen=True)
class IRNTerms:
    """Scalars with gradient; a kind of pairs that does not occur has loss 0."""

    affinity: AffinityTerms
    displacement_foreground: Tensor
    displacement_background: Tensor

    @property
    def total(self) -> Tensor:
        """L_aff + L_dp, L_dp = (fg + bg) / 2."""
        return self.affinity.total + (self.displacement_foreground + self.displacement_background) / 2


def irn_loss(output: IRNOutput, labels: Tensor, geometry: PairGeometry) -> IRNTerms:
    """Step D: L = bg / 4 + fg / 4 + different / 2 + (displacement fg + displacement bg) / 2.

    The first three are those of ``affinity_loss`` with a = 1 - max of sigmoid(edge) over the path, the last two those
    of ``displacement_losses``.

    Args:
        output: of a batch; labels: (N, H, W) at the edge grid, 0 background, 255 unsure.
        geometry: of radius 10 in the family.

    Raises:
        ValueError: labels of another grid than the edges.
    """
    if labels.shape != output.edge[:, 0].shape:
        raise ValueError(f"labels of {tuple(labels.shape)} for edges of {tuple(output.edge[:, 0].shape)}")
    kinds = pair_kinds(labels, geometry)
    affinity = affinity_loss(geometry.path_affinity(output.edge.sigmoid()), kinds)
    if output.displacement is None:
        none = output.edge.sum() * 0
        return IRNTerms(affinity, none, none)
    return IRNTerms(affinity, *displacement_losses(output.displacement, kinds, geometry))


def displacement_losses(displacement: Tensor, kinds: PairKinds, geometry: PairGeometry) -> tuple[Tensor, Tensor]:
    """Foreground: sum |D - (dy, dx)| / (2 n + 1e-5); background: sum |D| / (2 n + 1e-5).

    D = d(source) - d(destination). Two pixels of one object differ in displacement by the way between them, two of the
    background not at all.

    Args:
        displacement: d, (N, 2, H, W), with gradient; kinds: of the same pairs.
    """
    source = geometry.shifted(displacement, (0, 0))  # (N, 2, h, w)
    foreground, background = displacement.new_zeros(()), displacement.new_zeros(())
    both_alike = (kind.unflatten(2, source.shape[2:]) for kind in (kinds.foreground, kinds.background))  # (N, P, h, w)
    for direction, same, still in zip(geometry.directions, *(kind.split(1, 1) for kind in both_alike), strict=True):
        difference = source - geometry.shifted(displacement, direction)  # (N, 2, h, w)
        way = difference.new_tensor(direction)[:, None, None]  # (2, 1, 1)
        foreground = foreground + torch.where(same, (difference - way).abs(), 0).sum()
        background = background + torch.where(still, difference.abs(), 0).sum()
    foreground = foreground / (2 * whole(kinds.foreground.sum()) + EPSILON)
    return foreground, background / (2 * whole(kinds.background.sum()) + EPSILON)


def edge_map(logits: Tensor, mirrored: Tensor) -> npt.NDArray[np.float32]:
    """sigmoid of the mean of both views' logits, the second mirrored back.

    Args:
        logits: (1, H, W) of a photo; mirrored: (1, H, W) of the mirrored photo.

    Returns:
        (H, W) float32, the probability of a class boundary.
    """
    both = (logits + mirrored.flip(-1)) / 2
    return both[0].float().sigmoid().detach().cpu().numpy()


def refine_maps(maps: Floats, edge: Floats, config: IRNConfig) -> npt.NDArray[np.float64]:
    """Step E: maps^power * (1 - edge) walk until they fill what boundaries enclose.

    Args:
        maps: (C, h, w) of the image's classes at the edge grid, not negative; edge: (h, w), from 0 to 1.

    Returns:
        (C, h, w) float64, of no particular scale; ``walk.upsampled_scores`` makes shares of it.
    """
    if maps.shape[1:] != edge.shape:
        raise ValueError(f"maps of {maps.shape[1:]} for edges of {edge.shape}; expected one grid")
    transition = edge_transition(edge, PairGeometry(config.radius), config.beta)
    return random_walk(np.asarray(maps, np.float64) ** config.power * (1 - edge), transition, config.steps)
