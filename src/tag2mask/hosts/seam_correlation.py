"""SEAM's pixel correlation module: every pixel's map becomes the mean over the pixels that look alike (method 2.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tag2mask.hosts.cam import resized
from tag2mask.hosts.seam_losses import EPSILON, strongest

EMBEDDING = 192
"""Channels in which pixels are compared."""
LEVEL_CHANNELS = (64, 128)
"""Channels that each level gives, the last one more than the others."""
VALUES_AT_ONCE = 1 << 26
"""Values of the affinity that are held at a time, of all photos: of one at twice its size it has 140 million."""


class PixelCorrelation(nn.Module):
    """PCM: f = colours and levels through 1x1 convolutions; affinity relu(f^T f), columns of sum 1; map x affinity.

    Its gradients end in its own convolutions: levels and maps come in detached.

    Args:
        level_channels: of the levels, shallow first.
    """

    level_scale: Tensor

    def __init__(self, level_channels: list[int]) -> None:
        super().__init__()
        widths = [LEVEL_CHANNELS[0]] * (len(level_channels) - 1) + [LEVEL_CHANNELS[1]]
        self.register_buffer("level_scale", torch.ones(len(level_channels)))
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False) for channels, width in zip(level_channels, widths, strict=True)
        )
        self.embedding = nn.Conv2d(3 + sum(widths), EMBEDDING, 1, bias=False)
        for convolution in (*self.projections, self.embedding):
            nn.init.kaiming_normal_(convolution.weight)

    def measure(self, levels: list[Tensor]) -> None:
        """Take the levels' scale from a batch, before training, so that no level drowns the colours."""
        roots = [level.square().mean().sqrt() for level in levels]
        self.level_scale.copy_(torch.stack(roots).clamp(min=1e-12))

    def embed(self, picture: Tensor, levels: list[Tensor]) -> Tensor:
        """Picture (N, 3, h, w), levels (N, D, ., .) -> features of length 1, (N, 192, h, w)."""
        size = picture.shape[2:]
        parts = [picture]
        for level, scale, projection in zip(levels, self.level_scale, self.projections, strict=True):
            parts.append(resized(projection(level.detach() / scale).relu(), size))  # (N, D, ., .) -> (N, 64, h, w)
        features: Tensor = self.embedding(torch.cat(parts, dim=1))  # (N, 192, h, w)
        return features / (features.norm(dim=1, keepdim=True) + EPSILON)

    def forward(self, maps: Tensor, picture: Tensor, levels: list[Tensor]) -> Tensor:
        """Class maps (N, C, h, w), as they are -> refined maps (N, C, h, w), from 0 to below 1.

        ``picture``: the normalised photo at the maps' size. Maps are detached by whoever wants them to be.
        """
        features = self.embed(picture, levels).flatten(2)  # (N, 192, h w)
        seeds = strongest(peak_normalised(maps)).flatten(2)  # (N, C, h w)
        return correlated(seeds, features).view_as(maps)  # (N, C, h, w)


def peak_normalised(maps: Tensor) -> Tensor:
    """relu(relu(p) - 1e-5) / (max relu(p) + 1e-5), (N, C, h, w), from 0 to below 1."""
    maps = maps.relu()
    return (maps - EPSILON).relu() / (maps.amax(dim=(2, 3), keepdim=True) + EPSILON)


def correlated(seeds: Tensor, features: Tensor) -> Tensor:
    """Seeds x affinity: what every pixel gets from the pixels that look like it.

    The affinity relu(f_p . f_q) says how much of pixel p goes into pixel q; each column q is divided by its sum + 1e-5.
    A row of ones among the seeds gives these sums, so that it is the few seeds that are divided, not the affinity.

    Args:
        seeds: (N, C, P); features: (N, D, P), of length 1 over D.

    Returns:
        (N, C, P).
    """
    ones = seeds.new_ones(seeds.shape[0], 1, seeds.shape[2])
    rows, parts = torch.cat([seeds, ones], dim=1), []  # (N, C + 1, P)
    at_once = max(1, VALUES_AT_ONCE // max(1, seeds.shape[0] * seeds.shape[2]))
    for columns in features.split(at_once, dim=2):  # (N, D, Q)
        affinity = torch.einsum("ndp,ndq->npq", features, columns).relu()  # (N, P, Q)
        gathered = rows @ affinity  # (N, C + 1, Q)
        parts.append(gathered[:, :-1] / (gathered[:, -1:] + EPSILON))  # (N, C, Q)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)  # (N, C, P)
