from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import InputError
from tag2mask.hosts.wresnet38 import LEVELS, Block, Bottleneck, wresnet38_levels, wresnet38_stages
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.deeplab import LargeFieldOfView, SummedDilations


def test_deeplab_v2_head_is_the_sum_of_its_convolutions() -> None:
    torch.manual_seed(0)
    head, level = SummedDilations(7, 5, (1, 2, 4)), torch.rand(2, 7, 9, 13)
    for branch in head.branches:
        nn.init.normal_(branch.bias)  # type: ignore[arg-type]
    expected = torch.zeros(2, 5, 9, 13)
    for rate, branch in zip((1, 2, 4), head.branches, strict=True):
        around = functional.pad(level, [rate] * 4)
        expected += branch.bias[:, None, None]  # type: ignore[index,union-attr]
        for down in range(3):
            for across in range(3):
                moved = around[:, :, down * rate : down * rate + 9, across * rate : across * rate + 13]
                expected += torch.einsum("nchw,kc->nkhw", moved, branch.weight[:, :, down, across])  # type: ignore[index]
    torch.testing.assert_close(head([torch.rand(2, 3, 18, 26), level]), expected, atol=1e-5, rtol=1e-4)


def test_deeplab_v1_head_sees_a_window_of_25_cells() -> None:
    head = LargeFieldOfView(6, 5, 12).eval()
    level = torch.zeros(1, 6, 31, 31, requires_grad=True)
    nn.init.normal_(head.layers[-1].weight)  # type: ignore[arg-type]
    head([level + 1])[0, :, 15, 15].sum().backward()
    assert level.grad is not None
    rows = level.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert rows == [3, 15, 27]
    assert [tuple(p.shape) for p in head.parameters() if p.dim() == 4] == [
        (512, 6, 3, 3),
        (512, 512, 1, 1),
        (5, 512, 1, 1),
    ]


def published_shapes() -> list[tuple[int, ...]]:
    """Kernels of model A1 as they were published: stem, basic blocks, the dilated stage, two bottlenecks."""
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3)]
    channels = 64
    for width, depth in ((128, 3), (256, 3), (512, 6)):
        for number in range(depth):
            shapes += [(width, channels, 3, 3), (width, width, 3, 3)]
            shapes += [(width, channels, 1, 1)] if number == 0 else []
            channels = width
    shapes += [(512, 512, 3, 3), (1024, 512, 3, 3), (1024, 512, 1, 1)]
    shapes += [(512, 1024, 3, 3), (1024, 512, 3, 3)] * 2
    shapes += [(512, 1024, 1, 1), (1024, 512, 3, 3), (2048, 1024, 1, 1), (2048, 1024, 1, 1)]
    return [*shapes, (1024, 2048, 1, 1), (2048, 1024, 3, 3), (4096, 2048, 1, 1), (4096, 2048, 1, 1)]


def meta_stages() -> nn.ModuleDict:
    with torch.device("meta"):
        return wresnet38_stages()


def test_wresnet38_has_the_published_parameters() -> None:
    stages = meta_stages()
    kernels = [m for m in stages.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in kernels] == published_shapes()
    assert all(m.bias is None for m in kernels)
    assert sum(p.numel() for p in stages.parameters()) == 105_070_912
    in_depth = [m for m in kernels if m.kernel_size == (3, 3)]
    assert [m.dilation[0] for m in in_depth] == [1] * 25 + [1, 2, 2, 2, 2, 2] + [4, 4]
    assert [m.dropout.p for m in stages.modules() if isinstance(m, Bottleneck)] == [0.3, 0.5]


def test_wresnet38_levels_are_at_stride_8() -> None:
    images = torch.empty(2, 3, 65, 97, device="meta")
    shapes = {name: tuple(level.shape) for name, level in wresnet38_levels(meta_stages(), images).items()}
    assert shapes == {"conv4": (2, 512, 9, 13), "conv5": (2, 1024, 9, 13), "conv6": (2, 4096, 9, 13)}
    assert set(LEVELS) == set(shapes)


@pytest.mark.parametrize(("channels", "stride"), [(6, 1), (4, 2)])
def test_a_block_activates_before_it_convolves(channels: int, stride: int) -> None:
    torch.manual_seed(1)
    block, x = Block(channels, 5, 6, stride=stride).eval(), torch.randn(2, channels, 8, 8)
    active = functional.relu(functional.batch_norm(x, torch.zeros(channels), torch.ones(channels)))
    inner = functional.conv2d(active, block.conv1.weight, stride=stride, padding=1)
    inner = functional.relu(functional.batch_norm(inner, torch.zeros(5), torch.ones(5)))
    straight = x if block.shortcut is None else functional.conv2d(active, block.shortcut.weight, stride=stride)
    assert (block.shortcut is None) == (channels == 6)
    expected = straight + functional.conv2d(inner, block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-4)


def test_deeplab_v1_learns_its_batch_norms_slowly_and_has_stride_8() -> None:
    config = SegmentConfig(
        network="deeplab_v1", weights="none", output_stride=8, rates=(12,), freeze="stage2", batch_norm="trained"
    )
    with torch.device("meta"):
        network = build_segmenter(config, 20).eval()
        logits = network.trained_part(network.frozen_part(torch.empty(1, 3, 65, 97)))
    assert logits.shape == (1, 21, 9, 13)
    assert list(network.frozen_stages) == ["stem", "stage2_block0", "stage2_block1", "stage2_block2"]
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {3e-4}
    assert network.initial_weights == "random"


@pytest.mark.parametrize("weights", ["timm", "nowhere.pth"])
def test_wresnet38_without_a_file_of_its_weights_is_refused(weights: str) -> None:
    config = SegmentConfig(network="deeplab_v1", weights=weights, output_stride=8, rates=(12,))
    with torch.device("meta"), pytest.raises(InputError, match="segment.weights.*\\.pth file"):
        build_segmenter(config, 20)
