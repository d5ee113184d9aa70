from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tag2mask.segment.losses import (
    IGNORE,
    labels_on_grid,
    multi_scale_logits,
    multi_scale_loss,
    pixel_loss,
    segmentation_loss,
)
from tag2mask.segment.network import SegmentationNetwork

Build = Callable[..., SegmentationNetwork]


def slow_loss(logits: Tensor, labels: Tensor, form: str) -> Tensor:
    """Pixel by pixel: -log of the label's share of the exponentials."""
    sums: dict[str, list[Tensor]] = {"foreground": [], "background": []}
    for n in range(len(labels)):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[n, y, x])
                if label != IGNORE:
                    z = logits[n, :, y, x]
                    part = "foreground" if label else "background"
                    sums[part].append(-(z[label].exp() / z.exp().sum()).log())
    zero = logits.sum() * 0
    if form == "balanced":
        return zero + sum(torch.stack(losses).mean() for losses in sums.values() if losses)
    both = sums["foreground"] + sums["background"]
    return torch.stack(both).mean() if both else zero


def slow_grid(labels: Tensor, multiple: int, size: tuple[int, int]) -> Tensor:
    """Each block's centre; 255 where it lies outside."""
    n, height, width = labels.shape
    high, wide = math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple
    found = torch.full((n, *size), IGNORE, dtype=labels.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = int((row + 0.5) * high / size[0]), int((column + 0.5) * wide / size[1])
            if y < height and x < width:
                found[:, row, column] = labels[:, y, x]
    return found


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[float, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad


def random_batch(seed: int, values: tuple[int, ...] = (0, 1, 2, 3, IGNORE)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(values), (2, 5, 6), generator=generator)
    return torch.randn(2, 4, 5, 6, generator=generator) * 3, torch.tensor(values, dtype=torch.uint8)[chosen]


@pytest.mark.parametrize("form", ["cross_entropy", "balanced"])
@pytest.mark.parametrize("values", [(0, 1, 2, 3, IGNORE), (0,), (1, 3), (0, IGNORE), (IGNORE,)])
def test_pixel_losses_against_loops(form: str, values: tuple[int, ...]) -> None:
    logits, labels = random_batch(1, values)
    value, gradient = value_and_gradient(lambda z: pixel_loss(z, labels, form), logits)  # type: ignore[arg-type]
    expected, slope = value_and_gradient(lambda z: slow_loss(z, labels, form), logits)
    assert value == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-4)
    assert not gradient.movedim(1, 3)[labels == IGNORE].any()


def test_balanced_loss_does_not_care_how_much_background_there_is() -> None:
    logits, labels = torch.randn(1, 3, 1, 8), torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 2]]])
    fewer = torch.cat([labels[..., :1], labels[..., 6:]], dim=2)
    same = logits[..., :1].expand(1, 3, 1, 6)
    wide, narrow = (torch.cat([same[..., :count], logits[..., 6:]], dim=3) for count in (6, 1))
    assert pixel_loss(wide, labels, "balanced").item() == pytest.approx(pixel_loss(narrow, fewer, "balanced").item())
    assert pixel_loss(wide, labels).item() != pytest.approx(pixel_loss(narrow, fewer).item(), rel=1e-3)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([4, 8, 16]),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_labels_of_a_grid_are_those_at_the_centres(hw: tuple[int, int], multiple: int, size: tuple[int, int]) -> None:
    labels = torch.arange(2 * hw[0] * hw[1]).view(2, *hw) % 200
    assert torch.equal(labels_on_grid(labels, multiple, size), slow_grid(labels, multiple, size))


def test_multi_scale_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 4, (2, 30, 41), generator=generator)
    sizes = [(4, 6), (3, 5), (2, 3)]
    whole = [torch.randn(2, 4, *size, generator=generator) for size in sizes]

    def slow(scaled: list[Tensor]) -> Tensor:
        total = torch.zeros(())
        for z in scaled:
            total = total + slow_loss(z, slow_grid(labels, 8, tuple(z.shape[2:])), "balanced")  # type: ignore[arg-type]
        coarse = [functional.interpolate(z, (4, 6), mode="bilinear") for z in scaled[1:]]
        highest = torch.maximum(torch.maximum(scaled[0], coarse[0]), coarse[1])
        return total + slow_loss(highest, slow_grid(labels, 8, (4, 6)), "balanced")

    ours, theirs = ([z.clone().requires_grad_() for z in whole] for _ in range(2))
    value, expected = multi_scale_loss(ours, labels, 8, "balanced"), slow(theirs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_scales_are_whole_blocks_and_the_first_is_the_image_itself(build: Build) -> None:
    network = build("deeplab_v2")
    images = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        logits = multi_scale_logits(network, images)
        assert torch.equal(logits[0], network.trained_part(network.frozen_part(images)))
    assert [tuple(z.shape[2:]) for z in logits] == [(9, 13), (7, 10), (4, 6)]


@pytest.mark.parametrize("multi_scale", [False, True])
def test_the_loss_of_the_settings_falls(build: Build, multi_scale: bool) -> None:
    network = build("deeplab_v2", multi_scale_loss=multi_scale, loss="balanced").train()
    images, labels = torch.rand(2, 3, 48, 40), torch.zeros(2, 48, 40, dtype=torch.uint8)
    labels[:, 10:30, 10:30] = 2
    optimiser = torch.optim.SGD([p for group in network.parameter_groups() for p in group.parameters], lr=0.02)
    values = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = segmentation_loss(network, network.frozen_part(images), labels)
        assert loss.dtype == torch.float32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_an_unknown_form_is_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="focal"):
        pixel_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1), "focal")  # type: ignore[arg-type]
