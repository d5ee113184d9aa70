"""EPS's loss equals the loops; which class is foreground is the share of its map that is salient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tag2mask.rivals import BackgroundMap, eps_loss
from tag2mask.rivals.eps import foreground_classes
from tests.rivals import reference
from tests.rivals.test_wood import random, same


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([0.0, 0.4, 0.5, 1.0]),
)  # fmt: skip
def test_equals_the_loops(seed: int, images: int, classes: int, mix: float, coverage: float) -> None:
    maps = (4 * random(seed, images, classes, 3, 4)).requires_grad_()
    background = random(seed + 1, images, 1, 3, 4)
    saliency = torch.rand(images, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.randint(-1, 2, (images, classes), generator=torch.Generator().manual_seed(seed))
    loops = reference.saliency_loss(maps, background, saliency, labels, mix, coverage)
    same(eps_loss(maps, background, saliency, labels, mix, coverage), loops, maps)


def test_saliency_is_averaged_to_the_size_of_the_maps() -> None:
    maps, background = random(0, 1, 2, 2, 2), random(1, 1, 1, 2, 2)
    coarse = torch.rand(1, 2, 2, dtype=torch.float64)
    fine = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    labels = torch.ones(1, 2)
    torch.testing.assert_close(
        eps_loss(maps, background, fine, labels), eps_loss(maps, background, coarse, labels)
    )


def marked(*pixels: int) -> Tensor:
    row = torch.zeros(10)
    row[list(pixels)] = 0.9
    return row.view(1, 1, 1, 10)


@pytest.mark.parametrize(("inside", "front"), [(4, False), (5, True), (0, False), (10, True)])
def test_coverage_has_to_exceed_the_bound(inside: int, front: bool) -> None:
    saliency = torch.zeros(1, 1, 10)
    saliency[..., :inside] = 1
    found = foreground_classes(marked(*range(10)), saliency, torch.tensor([[True]]), 0.4)
    assert found.item() is front


def test_a_map_that_marks_nothing_and_an_absent_class_are_no_foreground() -> None:
    saliency = torch.ones(1, 1, 10)
    assert not foreground_classes(0 * marked(1), saliency, torch.tensor([[True]]), 0.0).item()
    assert not foreground_classes(marked(1), saliency, torch.tensor([[False]]), 0.0).item()


def test_without_any_tag_the_background_alone_is_compared() -> None:
    maps, background, saliency = random(0, 2, 3, 2, 2), random(1, 2, 1, 2, 2), torch.rand(2, 2, 2).double()
    labels = torch.tensor([[0, -1, 0], [0, 0, -1]])
    behind = torch.cat([maps, background], 1).softmax(1)[:, -1]
    expected = (0.5 * (1 - behind) - saliency).square().mean()
    torch.testing.assert_close(eps_loss(maps, background, saliency, labels), expected)


def test_the_background_learns_from_zero() -> None:
    module, features = BackgroundMap(4), torch.rand(2, 4, 3, 3)
    assert not module(features).any() and module(features).shape == (2, 1, 3, 3)
    saliency = torch.zeros(2, 3, 3)
    eps_loss(torch.zeros(2, 2, 3, 3), module(features), saliency, torch.tensor([[1, 0], [0, 0]])).backward()
    weight = next(module.parameters())
    assert weight.grad is not None and weight.grad.abs().sum() > 0
