"""Small networks whose class maps rise and fall about 0, and AdvCAM written as loops over views, channels and pixels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tag2mask.config import AdvcamConfig
from tag2mask.hosts import Host
from tag2mask.hosts.cam import CamHost
from tag2mask.presets import PRESETS

CLASSES = 4
KINDS = {
    "bare": {"levels": (), "neck": 0, "side": 0, "freeze": "none"},
    "bare, frozen": {"levels": (), "neck": 0, "side": 0, "freeze": "all"},
    "neck": {"levels": ("blocks.2", "blocks.4"), "neck": 6, "side": 0, "freeze": "all"},
    "side": {"levels": (), "neck": 0, "side": 5, "side_levels": ("blocks.1", "blocks.4"), "freeze": "blocks.2"},
    "neck and side": {"levels": ("blocks.4",), "neck": 6, "side": 5, "side_levels": ("blocks.2",), "freeze": "all"},
}
"""Settings of hosts by name; ``blocks.1`` is finer than the last stage, so the main branch is enlarged there."""


def small_host(kind: str) -> CamHost:
    """A random host in float64 and evaluation mode."""
    torch.manual_seed(3)
    settings = {**KINDS[kind], "backbone": "test_efficientnet", "weights": "none", "dilate": True, "output_stride": 16}
    host = CamHost(replace(PRESETS["paper"].host, **settings), CLASSES).double()  # type: ignore[arg-type]
    host.prepare(host.frozen_part(torch.randn(4, 3, 64, 64).double()))
    for classifier in (host.classifier, host.side_classifier):
        if classifier is not None:
            torch.nn.init.normal_(classifier.weight)
    return host.eval()


class CurvedHost(Host):
    """A host of two convolutions whose class maps are not linear in its features; a pass takes a millisecond."""

    def __init__(self, linear: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, 7, 5, stride=4, padding=2)
        self.second = nn.Conv2d(7, 9, 3, padding=1)
        self.head = nn.Conv2d(9, CLASSES, 1 if linear else 3, padding=0 if linear else 1, bias=False)
        self.double().eval()

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images).tanh()).tanh()
        return features

    def maps(self, features: Tensor) -> Tensor:
        maps: Tensor = self.head(features.square() + features)
        return maps


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A normalised image (1, 3, H, W), smooth enough to look like one."""
    coarse = torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


def mirrored(image: Tensor) -> Tensor:
    return torch.stack([image[..., column] for column in reversed(range(image.shape[-1]))], dim=-1)


def slow_gradcam(views: list[tuple[Tensor, Tensor]], c: int, rule: str) -> list[Tensor]:
    """relu(sum_k w_k F_k) of each view's (F, M), each (1, ..., h, w); gives a list of (h, w)."""
    gradients = [
        torch.autograd.grad(maps[0, c].relu().sum(), features, retain_graph=True)[0][0] for features, maps in views
    ]
    positive = 0
    for gradient in gradients:
        positive += sum(1 for value in gradient.flatten().tolist() if value > 0)
    found = []
    for (features, _), gradient in zip(views, gradients, strict=True):
        total = torch.zeros_like(features[0, 0])
        for k in range(features.shape[1]):
            values = gradient[k].flatten().tolist()
            weight = sum(values) / (len(values) if rule == "mean" else max(1, positive))
            total = total + weight * features[0, k]
        found.append(total.clamp(min=0))
    return found


def slow_climb(host: Host, image: Tensor, c: int, iterations: int, flip: bool, config: AdvcamConfig) -> Tensor:
    """One image, one class, one view after the other; pixels one by one. Gives (h, w)."""
    x, first, total = image.clone(), None, None
    for _ in range(iterations):
        x = x.detach().requires_grad_()
        views = [host.attribution_part(host.frozen_part(view)) for view in ([x, mirrored(x)] if flip else [x])]
        found = slow_gradcam(views, c, config.channel_weights)
        region = found[0] + mirrored(found[1]) if flip else found[0]
        first = region.detach() if first is None else first
        total = region.detach() if total is None else total + region.detach()
        gain = torch.zeros((), dtype=torch.float64)
        for _, maps in views:
            for k in range(maps.shape[1]):
                y = maps[0, k].clamp(min=0).mean()
                gain = gain + (y if k == c else -y)
        peak = float(region.detach().max())
        for row in range(region.shape[0]):
            for column in range(region.shape[1]):
                if float(region.detach()[row, column]) / peak > config.threshold:
                    gain = gain - config.regulariser * (region[row, column] - first[row, column]).abs()
        (g,) = torch.autograd.grad(gain, x)
        low, high, largest = float(x.detach().min()), float(x.detach().max()), float(g.abs().max())
        moved = [
            min(max(value + config.step * slope / largest, low), high)
            for value, slope in zip(x.flatten().tolist(), g.flatten().tolist(), strict=True)
        ]
        x = torch.tensor(moved, dtype=torch.float64).view(x.shape)
    assert total is not None
    return total
