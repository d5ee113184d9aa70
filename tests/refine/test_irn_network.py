"""IRNet over the levels of a backbone: the network of the text, other backbones, and that it learns boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.config.affinity import IRNConfig
from tag2mask.errors import InputError
from tag2mask.refine.irn import IRNet, edge_map, irn_loss, joined, refine_maps
from tag2mask.refine.pairs import PairGeometry

RESNET = ((64, 256, 512, 1024, 2048), (4, 4, 8, 16, 16))
LITE = ((16, 24, 40, 112, 320), (2, 4, 8, 16, 16))


def levels_of(channels: Sequence[int], strides: Sequence[int], size: tuple[int, int], images: int = 1) -> list[Tensor]:
    """Random levels of photos of ``size``: a side of n pixels has (n - 1) // stride + 1 at a level."""
    return [
        torch.randn(images, c, (size[0] - 1) // s + 1, (size[1] - 1) // s + 1)
        for c, s in zip(channels, strides, strict=True)
    ]


def project(state: dict[str, Tensor], name: str, x: Tensor, groups: int, up: int = 1) -> Tensor:
    x = functional.conv2d(x, state[f"{name}.convolution.weight"])
    x = functional.group_norm(x, groups, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
    if up > 1:
        x = functional.interpolate(x, (x.shape[2] * up, x.shape[3] * up), mode="bilinear", align_corners=False)
    return functional.relu(x)


def resnet50_irn(state: dict[str, Tensor], x: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Step B written out for the five levels of a ResNet50."""
    edges = [project(state, f"edge_levels.{i}", x[i], 4, up) for i, up in enumerate((1, 1, 2, 4, 4))]
    h, w = edges[1].shape[2:]
    edge = torch.cat([e[:, :, :h, :w] for e in edges], dim=1)
    edge = functional.conv2d(edge, state["edge_head.weight"], state["edge_head.bias"])
    d = [
        project(state, f"displacement_levels.{i}", x[i], groups, up)
        for i, (groups, up) in enumerate(((8, 1), (16, 1), (16, 1), (16, 2), (16, 2)))
    ]
    middle = torch.cat([part[:, :, : d[2].shape[2], : d[2].shape[3]] for part in d[2:]], dim=1)
    middle = project(state, "coarse", middle, 16, 2)[:, :, :h, :w]
    joined = project(state, "displacement_head.0", torch.cat([d[0], d[1], middle], dim=1), 16)
    return edge, functional.conv2d(joined, state["displacement_head.1.weight"])


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_the_network_of_the_text_for_a_resnet50(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = IRNet(*RESNET, IRNConfig())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels = levels_of(*RESNET, size, images=2)
    output = network(levels)
    edge, displacement = resnet50_irn(dict(network.state_dict()), levels)
    assert output.edge.shape == (2, 1, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    assert output.displacement is not None
    torch.testing.assert_close(output.edge, edge)
    torch.testing.assert_close(output.displacement, displacement)


def test_levels_that_drop_the_last_odd_row() -> None:
    """ConvNeXt's grids are rounded down: what is brought to the edge grid is then too small."""
    channels, strides = (8, 16, 24), (4, 8, 16)
    network = IRNet(channels, strides, IRNConfig(edge_channels=4, displacement_channels=16))
    for height, width in ((92, 75), (63, 64), (61, 113)):
        levels = [torch.randn(1, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)]
        output = network(levels)
        assert output.edge.shape[2:] == output.displacement.shape[2:] == (height // 4, width // 4)
        assert output.edge.isfinite().all()


def test_parts_of_other_sizes_are_cut_or_stretched() -> None:
    like = torch.zeros(1, 1, 5, 7)
    rows = torch.arange(8.0)[None, None, :, None]
    large, narrow = rows.expand(1, 1, 8, 8), rows[:, :, :5].expand(1, 1, 5, 4)
    low = torch.tensor([0.0, 1.0])[None, None, :, None].expand(1, 1, 2, 7)
    found = joined([large, narrow, low], like)
    assert found.shape == (1, 3, 5, 7)
    for part in found[0, :2]:
        assert torch.equal(part, rows[0, 0, :5].expand(5, 7)), "columns may be stretched, rows stay where they are"
    stretched = found[0, 2, :, 0].tolist()
    assert stretched == sorted(stretched) and stretched[0] == 0 and stretched[2] == pytest.approx(0.5) and stretched[4] == 1


def test_as_many_weights_as_the_text_says() -> None:
    edges = sum(32 * c + 64 for c in RESNET[0]) + 160 + 1
    widths = (64, 128, 256, 256, 256)
    levels = sum(w * c + 2 * w for c, w in zip(RESNET[0], widths, strict=True))
    heads = 768 * 256 + 512 + 448 * 256 + 512 + 2 * 256
    network = IRNet(*RESNET, IRNConfig())
    assert sum(p.numel() for p in network.parameters()) == edges + levels + heads
    network = IRNet(*RESNET, IRNConfig(displacement_channels=0))
    assert sum(p.numel() for p in network.parameters()) == edges


@pytest.mark.parametrize(
    ("channels", "strides", "grid"),
    [
        (*LITE, 4),
        (LITE[0][1:], (4, 8, 16, 16), 4),
        ((40, 112, 320), (8, 16, 32), 8),
        ((384,), (16,), 16),
        ((3, 7), (2, 8), 8),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (75, 101)])
def test_any_backbone_gives_edges_at_its_finest_level_of_stride_4_or_more(
    channels: tuple[int, ...], strides: tuple[int, ...], grid: int, size: tuple[int, int]
) -> None:
    network = IRNet(channels, strides, IRNConfig(edge_channels=20, displacement_channels=36))
    output = network(levels_of(channels, strides, size))
    expected = ((size[0] - 1) // grid + 1, (size[1] - 1) // grid + 1)
    assert network.edge_stride == grid
    assert output.displacement is not None
    assert output.edge.shape == (1, 1, *expected) and output.displacement.shape == (1, 2, *expected)
    (output.edge.sum() + output.displacement.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    alone = IRNet(channels, strides, IRNConfig(displacement_channels=0))(levels_of(channels, strides, size))
    assert alone.displacement is None and alone.edge.shape == (1, 1, *expected)


@pytest.mark.parametrize(
    ("channels", "strides"), [((8, 8), (4,)), ((8, 8), (8, 4)), ((8, 8), (4, 6)), ((8, 8), (1, 2)), ((), ())]
)
def test_levels_that_do_not_fit_are_refused(channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected as many strides"):
        IRNet(channels, strides, IRNConfig())
    network = IRNet(*LITE, IRNConfig())
    with pytest.raises(ValueError, match="4 levels; expected 5"):
        network(levels_of(*LITE, (32, 32))[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"displacement_channels": 3}, "irn.displacement_channels is 3; expected 0"),
        ({"radius": 1}, "irn.radius is 1; expected 2 or more"),
        ({"background": 1.5}, "irn.background is 1.5; expected a share"),
        ({"beta": 0.0}, "irn.beta is 0.0; expected above 0"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IRNConfig(**settings)


def test_the_mean_displacement_is_subtracted_after_training_and_stored_with_the_weights() -> None:
    torch.manual_seed(0)
    network = IRNet(*LITE, IRNConfig()).eval()
    batches = [levels_of(*LITE, (32, 48)), levels_of(*LITE, (64, 32), images=2)]
    plain = [network(levels).displacement for levels in batches]
    for _ in range(2):  # what is stored does not depend on what was stored before
        network.store_mean_displacement(batches)
        shifted = [network(levels).displacement for levels in batches]
        total = sum(d.sum(dim=(0, 2, 3)) for d in shifted)
        pixels = sum(d[:, 0].numel() for d in shifted)
        torch.testing.assert_close(total / pixels, torch.zeros(2), atol=1e-6, rtol=0)
    assert not network.training
    network.train()
    torch.testing.assert_close([network(levels).displacement for levels in batches], plain)
    assert network.state_dict()["mean_displacement"].abs().min() > 0


def test_the_edges_of_both_views_are_averaged_as_logits() -> None:
    logits, mirrored = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    found = edge_map(logits, mirrored)
    assert found.shape == (3, 4) and found.dtype == np.float32
    for y, x in np.ndindex(3, 4):
        mean = float(logits[0, y, x] + mirrored[0, y, 3 - x]) / 2
        assert found[y, x] == pytest.approx(1 / (1 + np.exp(-mean)), rel=1e-5)


def test_a_network_that_saw_objects_finds_their_boundary_and_maps_fill_them() -> None:
    """Levels that differ between object and background; a quarter of the labels is unsure, as after step A."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    labels = torch.zeros(4, 32, 32, dtype=torch.uint8)
    for n in range(4):
        top, left = random.integers(4, 12, 2)
        labels[n, top : top + 14, left : left + 14] = n + 1
    truth = labels.clone()
    inside = functional.avg_pool2d((labels > 0).float()[:, None], 3, 1, 1)
    labels[((inside > 0) & (inside < 1))[:, 0]] = 255
    fine = torch.cat([(truth > 0).float()[:, None], inside], dim=1) + 0.05 * torch.randn(4, 2, 32, 32)
    levels = [fine, functional.avg_pool2d(fine, 2)]
    config = IRNConfig(displacement_channels=8)
    network, geometry = IRNet((2, 2), (4, 8), config), PairGeometry(5)
    optimiser = torch.optim.Adam(network.parameters(), 0.03)
    losses = []
    for _ in range(50):
        loss = irn_loss(network(levels), labels, geometry).affinity.total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]

    output = network.eval()(levels)
    mirrored = network([level.flip(3) for level in levels])
    for n in range(4):
        edge = edge_map(output.edge[n], mirrored.edge[n])
        assert edge[labels[n] == 255].mean() > 2 * edge[labels[n] != 255].mean()
        maps = np.zeros((1, 32, 32))
        places = np.argwhere(truth[n].numpy() > 0)
        maps[0][tuple(places[random.choice(len(places), 8, replace=False)].T)] = 1  # a few bright spots
        walked = refine_maps(maps, edge, config)[0]
        found, true = walked > 0.25 * walked.max(), truth[n].numpy() > 0
        assert (found & true).sum() / (found | true).sum() > 0.8


def test_maps_are_raised_to_the_power_and_weighted_before_the_walk() -> None:
    maps, edge = np.full((1, 5, 6), 0.25), np.random.default_rng(0).random((5, 6))
    found = refine_maps(maps, edge, IRNConfig(power=1.5, steps=0))
    np.testing.assert_allclose(found[0], 0.125 * (1 - edge))
    with pytest.raises(ValueError, match="expected one grid"):
        refine_maps(maps, edge[1:], IRNConfig())
