"""Networks with class maps: image -> features F, class maps M, logits.

``Host`` is all that rectification asks of a network; ``cam.CamHost`` is the classic class activation map over any
timm backbone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class HostOutput(NamedTuple):
    """What a host returns for a batch."""

    features: Tensor
    """F, (N, D, H, W)."""
    maps: Tensor
    """M, (N, C, H, W), before any ReLU."""
    logits: Tensor
    """(N, C), the spatial mean of M."""


class Host(Protocol):
    """A network that can be rectified."""

    def __call__(self, images: Tensor) -> HostOutput:
        """Normalised images (N, 3, H, W) -> features, class maps and logits."""
        ...
