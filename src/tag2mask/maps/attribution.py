"""Maps by the attribution methods of torchcam, a kept library of class activation methods, where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from tag2mask.errors import InputError
from tag2mask.hosts import Host

EXTRACTORS = {"gradcam": "GradCAM", "gradcam++": "GradCAMpp", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}
"""``maps.method`` -> the class of torchcam. Of its others, those that hide parts of the input would have to do so on
frozen features that are kept, and plain class activation maps are what hosts give by themselves."""


def extractor_of(method: str) -> Any:
    """The class of torchcam that a method is, or an error that says how to get it."""
    try:
        library = importlib.import_module("torchcam.methods")
    except ImportError:
        raise InputError(
            f"maps.method {method!r} needs torchcam, which is not installed; run `pip install 'tag2mask[attribution]'`."
        ) from None
    return getattr(library, EXTRACTORS[method])


class ScoredHost(nn.Module):
    """A host's trained half as such libraries want a network: a tensor in, scores out, and a layer to look at.

    Attributes:
        layer: does nothing, but its output is the features that the scores are computed from.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host, self.layer = host, nn.Identity()

    def forward(self, frozen: list[Tensor]) -> Tensor:
        """``Host.frozen_part``'s output -> scores (N, C), spatial means of the class maps."""
        features, maps = self.host.attribution_part(frozen)
        self.layer(features)
        return maps.mean(dim=(2, 3))  # (N, C)


@torch.enable_grad()
def library_maps(host: Host, frozen: list[Tensor], classes: Tensor, method: str) -> Tensor:
    """Attribution maps of some classes, not normalised.

    Args:
        host: in evaluation mode.
        frozen: ``Host.frozen_part``'s output for N images.
        classes: (P,) int64.
        method: one of ``EXTRACTORS``.

    Returns:
        (N, P, h, w), 0 or more.
    """
    leaves = [level.detach().requires_grad_() for level in frozen]  # so that untrained features have gradients, too
    model = ScoredHost(host)
    with extractor_of(method)(model, model.layer) as extractor:
        scores = model(leaves)
        maps = [
            extractor(class_idx=c, scores=scores, normalized=False, retain_graph=True)[0]  # (N, h, w)
            for c in classes.tolist()
        ]
    return torch.stack(maps, dim=1)  # (N, P, h, w)
