"""The losses of IRN equal the loops, with their gradients, also where a kind of pairs is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.refine.irn import IRNOutput, irn_loss
from tag2mask.refine.pairs import PairGeometry
from tests.refine import affinity_reference as reference


def random_case(seed: int, radius: int) -> tuple[IRNOutput, torch.Tensor]:
    """Random outputs of two images, and labels with some classes, or none, or nothing known at all."""
    random = np.random.default_rng(seed)
    size = (radius + 2, 2 * radius + 2)
    torch.manual_seed(seed)
    edge = (3 * torch.randn(2, 1, *size, dtype=torch.float64)).requires_grad_()
    displacement = (2 * torch.randn(2, 2, *size, dtype=torch.float64)).requires_grad_()
    values = random.choice([0, 1, 79, 255], p=random.dirichlet([1, 1, 1, 1]), size=(2, *size)).astype(np.uint8)
    return IRNOutput(edge, displacement), torch.from_numpy(values)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.integers(2, 3))
def test_total_and_gradients_equal_the_loops(seed: int, radius: int) -> None:
    output, labels = random_case(seed, radius)
    assert output.displacement is not None
    inputs = (output.edge, output.displacement)
    found, expected = irn_loss(output, labels, PairGeometry(radius)).total, reference.irn_total(*inputs, labels, radius)
    torch.testing.assert_close(found, expected)
    expected = expected + 0 * (output.edge.sum() + output.displacement.sum())  # the loops may touch no pixel
    gradients = [torch.autograd.grad(total, inputs) for total in (found, expected)]
    torch.testing.assert_close(*gradients)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_term_equals_the_loops(seed: int) -> None:
    output, labels = random_case(seed, 3)
    assert output.displacement is not None
    terms = irn_loss(output, labels, PairGeometry(3))
    expected = reference.affinity_terms(reference.path_affinity(output.edge.sigmoid(), 3), labels, 3)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(terms.affinity, name), value)
    found = (terms.displacement_foreground, terms.displacement_background)
    torch.testing.assert_close(found, reference.displacement_terms(output.displacement, labels, 3))


@pytest.mark.parametrize("value", [0, 7, 255])
def test_images_of_one_label_alone(value: int) -> None:
    output, labels = random_case(1, 3)
    assert output.displacement is not None
    terms = irn_loss(output, torch.full_like(labels, value), PairGeometry(3))
    terms.total.backward()
    assert output.edge.grad is not None and output.displacement.grad is not None
    assert output.edge.grad.isfinite().all() and output.displacement.grad.isfinite().all()
    present = {"background": value == 0, "foreground": value == 7, "different": False}
    for name, expected in present.items():
        assert (getattr(terms.affinity, name) > 0) == expected
    assert (terms.displacement_foreground > 0, terms.displacement_background > 0) == (value == 7, value == 0)
    assert (terms.total > 0) == (value != 255)


def test_displacements_to_the_centre_of_one_object_and_none_in_the_background_cost_nothing() -> None:
    labels = torch.zeros(1, 24, 40, dtype=torch.uint8)
    labels[0, 2:22, 6:30] = 5
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    displacement = torch.stack([12.0 - rows, 18.0 - columns]) * (labels > 0)  # (2, H, W) x (1, H, W)
    edge = torch.zeros(1, 1, 24, 40)
    terms = irn_loss(IRNOutput(edge, displacement[None]), labels, PairGeometry(5))
    assert terms.displacement_foreground == 0 and terms.displacement_background == 0
    mirrored = irn_loss(IRNOutput(edge, -displacement[None]), labels, PairGeometry(5))
    assert mirrored.displacement_foreground > 1


def test_without_displacements_the_affinity_alone_counts() -> None:
    output, labels = random_case(3, 3)
    both, alone = (irn_loss(o, labels, PairGeometry(3)) for o in (output, IRNOutput(output.edge, None)))
    assert alone.total == both.affinity.total < both.total


def test_labels_of_another_grid_are_refused() -> None:
    output, labels = random_case(0, 3)
    with pytest.raises(ValueError, match=r"labels of \(2, 5, 7\) for edges of \(2, 5, 8\)"):
        irn_loss(output, labels[:, :, 1:], PairGeometry(3))
