"""WResNet-38, model A1: the wide pre-activation ResNet of DeepLab-v1, SEAM and PSA, at stride 8.

Z. Wu et al., "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What images in [0, 1] are normalised by, of ImageNet."""
LEVELS = {"conv4": "stage5_block0", "conv5": "stage6_block0", "conv6": "final"}
"""What SEAM and PSA read, of 512, 1024 and 4096 channels, all at stride 8: the activation with which a block begins,
and the output of the last stage."""


class Block(nn.Module):
    """Two 3x3 convolutions with the activation in front: a = relu(bn(x)); y = conv(relu(bn(conv(a)))) + shortcut.

    The shortcut is x itself, or a 1x1 convolution of a where channels or stride change.

    Args:
        dilation: of the first and of the second convolution.
    """

    def __init__(
        self, channels: int, middle: int, outputs: int, stride: int = 1, dilation: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        first, second = dilation
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, middle, 3, stride, padding=first, dilation=first, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=second, dilation=second, bias=False)
        same = channels == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, outputs, 1, stride, bias=False)

    def preactivation(self, x: Tensor) -> Tensor:
        """relu(bn(x)), (N, D, h, w): what SEAM and PSA take as a level."""
        return torch.relu(self.norm1(x))

    def forward(self, x: Tensor) -> Tensor:
        active = self.preactivation(x)
        straight = x if self.shortcut is None else self.shortcut(active)
        return straight + self.conv2(torch.relu(self.norm2(self.conv1(active))))


class Bottleneck(nn.Module):
    """1x1, dilated 3x3, 1x1 with the activation in front of each, dropout in front of the last two; 1x1 shortcut."""

    def __init__(self, channels: int, quarter: int, half: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, quarter, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(quarter)
        self.conv2 = nn.Conv2d(quarter, half, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm3 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, outputs, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, outputs, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def preactivation(self, x: Tensor) -> Tensor:
        """relu(bn(x)), (N, D, h, w): what SEAM and PSA take as a level."""
        return torch.relu(self.norm1(x))

    def forward(self, x: Tensor) -> Tensor:
        active = self.preactivation(x)
        inner = self.dropout(torch.relu(self.norm2(self.conv1(active))))
        inner = self.dropout(torch.relu(self.norm3(self.conv2(inner))))
        return self.shortcut(active) + self.conv3(inner)


def wresnet38_stages() -> nn.ModuleDict:
    """The chain of stages, randomly initialised: images (N, 3, H, W) -> (N, 4096, H / 8, W / 8), after BN and ReLU.

    ``stem``, ``stage2_block0`` to ``stage5_block2``, ``stage6_block0``, ``stage7_block0``, ``final``. Stages 2, 3 and 4
    halve in their first block; the later ones dilate instead.
    """
    stages: dict[str, nn.Module] = {"stem": nn.Conv2d(3, 64, 3, padding=1, bias=False)}
    channels = 64
    for number, (width, depth) in enumerate([(128, 3), (256, 3), (512, 6)], start=2):
        for block in range(depth):
            stages[f"stage{number}_block{block}"] = Block(channels, width, width, stride=2 if block == 0 else 1)
            channels = width
    for block in range(3):
        dilation = (1, 2) if block == 0 else (2, 2)
        stages[f"stage5_block{block}"] = Block(channels, 512, 1024, dilation=dilation)
        channels = 1024
    stages["stage6_block0"] = Bottleneck(1024, 512, 1024, 2048, dilation=4, dropout=0.3)
    stages["stage7_block0"] = Bottleneck(2048, 1024, 2048, 4096, dilation=4, dropout=0.5)
    stages["final"] = nn.Sequential(nn.BatchNorm2d(4096), nn.ReLU())
    for stage in stages.values():
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return nn.ModuleDict(stages)


def wresnet38_levels(stages: nn.ModuleDict, images: Tensor) -> dict[str, Tensor]:
    """``LEVELS`` of normalised images (N, 3, H, W): conv4 (N, 512, h, w), conv5 (N, 1024, h, w), conv6 (N, 4096, h, w).

    The size is that of the images over 8, rounded up.
    """
    found, x = {}, images
    for key, stage in stages.items():
        if isinstance(stage, Block | Bottleneck):
            found.update({level: stage.preactivation(x) for level, name in LEVELS.items() if name == key})
        x = stage(x)
    return {**found, "conv6": x}


def wresnet38_chain(stages: nn.ModuleDict) -> nn.ModuleDict:
    """The same stages, with the weights that they have, as a chain in which every one of ``LEVELS`` ends a stage.

    conv4 and conv5 are activations inside a block. Both blocks use nothing but that activation, as their shortcuts are
    convolutions; so it becomes a stage of its own, and the block's own activation does nothing more. The stages given
    are taken apart.
    """
    inside = {name: level for level, name in LEVELS.items()}
    chain: dict[str, nn.Module] = {}
    for key, stage in stages.items():
        if isinstance(stage, Block | Bottleneck) and key in inside:
            chain[inside[key]] = nn.Sequential(stage.norm1, nn.ReLU())
            stage.norm1 = nn.Identity()
            chain[key] = stage
        else:
            chain[inside.get(key, key)] = stage
    return nn.ModuleDict(chain)
