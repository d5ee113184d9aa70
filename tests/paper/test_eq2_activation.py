"""Eq. 2: the activation mask equals the loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import PAPER, activated_pixels, fpr_loss, relative_activation
from tests.paper import cases, reference


def loop_mask(maps: torch.Tensor, theta: float, epsilon: float) -> torch.Tensor:
    mask = torch.zeros_like(maps, dtype=torch.bool)
    for n in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            for y, x in reference.activated(maps[n, c], theta, epsilon):
                mask[n, c, y, x] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 0.99),
    st.sampled_from([0.0, 1e-5, 1e-4, 1e-3]),
    st.sampled_from([1e-4, 1.0, 50.0]),
)
def test_equals_the_loops(seed: int, height: int, width: int, theta: float, epsilon: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = scale * torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    assert torch.equal(activated_pixels(maps, theta, epsilon), loop_mask(maps, theta, epsilon))


def test_the_threshold_itself_is_not_above_it() -> None:
    maps = torch.tensor([[[[4.0, 1.0, 1.5]]]])  # 1 / 4 is exactly theta
    assert activated_pixels(maps, theta=0.25, epsilon=0.0).tolist() == [[[[True, False, True]]]]


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_without_a_positive_pixel_activates_nothing(value: float, epsilon: float) -> None:
    maps = torch.full((1, 2, 2, 2), value)
    assert not activated_pixels(maps, 0.0, epsilon).any()
    assert torch.equal(relative_activation(maps, epsilon), torch.zeros_like(maps))


def test_one_map_does_not_change_another() -> None:
    maps = torch.tensor([[[[1.0, 0.2]], [[100.0, 5.0]]]])
    assert activated_pixels(maps, 0.1).tolist() == [[[[True, True]], [[True, False]]]]


def test_the_mask_has_no_gradient() -> None:
    batch = cases.batch(0)
    assert not activated_pixels(batch.maps()).requires_grad


def test_the_paper_has_no_epsilon() -> None:
    """Eq. 2 compares M / max M with theta whatever the size of M: of these pixels all but one are above .1."""
    maps = 1e-3 * torch.tensor([[[[1.0, 0.105], [0.11, 0.09]]]], dtype=torch.float64)
    features = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    lists = reference.Bank([[[5.0, 5.0]]], [[1.0]], [[[1.0, 1.0]]], [[0]], [[[1.0, 1.0]]], [[0]], 1.0)
    labels = torch.ones(1, 1, dtype=torch.float64)
    prototypes = cases.padded(lists, count=1, channels=2)
    terms = fpr_loss(features, maps, maps.mean(dim=(2, 3)), labels, prototypes, PAPER, steps=1)
    assert terms.pixel.item() == pytest.approx(1e-3 * (1 + 0.105 + 0.11) / 3)
