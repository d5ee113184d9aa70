"""Eq. 1 (binary cross-entropy) and Eq. 10 (its focal form) equal the loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tag2mask.fpr import binary_cross_entropy
from tests.paper import cases, reference


def tags(seed: int, images: int = 3, classes: int = 4, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (torch.rand(images, classes, generator=generator) < 0.4).double()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
def test_equals_the_loops(seed: int, images: int, classes: int, gamma: float) -> None:
    logits, labels = tags(seed, images, classes)
    expected = reference.binary_cross_entropy(logits, labels, gamma)
    cases.assert_same(binary_cross_entropy(logits, labels, gamma), expected, [logits])


def test_numbers_by_hand() -> None:
    """Probability .75 for a present class and .25 for an absent one; Eq. 10 takes .25 ** 2 of the second."""
    logits = torch.tensor([[math.log(3), -math.log(3)]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert binary_cross_entropy(logits, labels).item() == pytest.approx(-math.log(0.75))
    focal = -(math.log(0.75) + 0.0625 * math.log(0.75)) / 2
    assert binary_cross_entropy(logits, labels, 2.0).item() == pytest.approx(focal)


@given(st.integers(0, 10**6))
def test_focal_with_gamma_0_is_eq_1(seed: int) -> None:
    logits, labels = tags(seed)
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    cases.assert_same(binary_cross_entropy(logits, labels, 0.0), expected, [logits])


@given(st.integers(0, 10**6), st.floats(0.1, 5))
def test_focal_leaves_the_positive_term_alone(seed: int, gamma: float) -> None:
    logits, _ = tags(seed)
    all_present, all_absent = torch.ones_like(logits), torch.zeros_like(logits)
    cases.assert_same(
        binary_cross_entropy(logits, all_present, gamma), binary_cross_entropy(logits, all_present), [logits]
    )
    assert binary_cross_entropy(logits, all_absent, gamma) < binary_cross_entropy(logits, all_absent)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], dtype=dtype, requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[0.0, 1.0, 1.0, 0.0]], dtype=dtype), gamma)
    assert loss.item() == pytest.approx(100)  # two of four right, two wrong by 200
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, -0.25, 0.25]], dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_tags_of_any_type(dtype: torch.dtype) -> None:
    """Tags are 0 or 1, also as booleans, which is how a reader keeps them."""
    logits, labels = tags(1)
    expected = binary_cross_entropy(logits, labels, 2.0)
    torch.testing.assert_close(binary_cross_entropy(logits, labels.to(dtype), 2.0), expected)
