"""Pairs of pixels: golden counts, paths and affinities against loops, and what each pair is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.refine.labels import pair_labels
from tag2mask.refine.pair_labels import affinity_loss, pair_kinds
from tag2mask.refine.pairs import PairGeometry
from tests.refine import affinity_reference as reference

LENGTHS_5 = {2: 2, 3: 2, 4: 4, 5: 2, 6: 4, 7: 2, 8: 8, 10: 6, 11: 4}
LENGTHS_10 = {
    2: 2, 3: 2, 4: 4, 5: 2, 6: 6, 7: 4, 8: 10, 9: 2, 10: 12, 11: 4, 12: 12, 13: 2, 14: 8, 15: 8, 16: 22, 18: 16, 19: 6,
    20: 20, 21: 4, 22: 6,
}  # fmt: skip


@pytest.mark.parametrize(("radius", "count", "lengths"), [(5, 34, LENGTHS_5), (10, 152, LENGTHS_10)])
def test_as_many_directions_and_paths_as_in_irn(radius: int, count: int, lengths: dict[int, int]) -> None:
    geometry = PairGeometry(radius)
    assert len(geometry.directions) == len(geometry.paths) == count
    assert Counter(len(path) for path in geometry.paths) == lengths


@pytest.mark.parametrize("radius", [2, 3, 5, 8, 10])
def test_paths_equal_the_loops(radius: int) -> None:
    geometry = PairGeometry(radius)
    assert list(geometry.directions) == reference.directions(radius)
    for direction, path in zip(geometry.directions, geometry.paths, strict=True):
        assert sorted(path) == sorted(reference.path(direction))
        assert path[0] == direction and path[-1] == (0, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.integers(2, 4), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_path_affinity_and_its_gradient_equal_the_loops(seed: int, radius: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (2, 1, rows + radius - 1, columns + 2 * (radius - 1))
    edge = torch.rand(size, generator=generator, dtype=torch.float64, requires_grad=True)
    geometry = PairGeometry(radius)
    found, expected = geometry.path_affinity(edge), reference.path_affinity(edge, radius)
    assert torch.equal(found, expected)
    assert found.shape == (2, len(geometry.directions), rows * columns)
    weights = torch.rand(found.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((a * weights).sum(), edge)[0] for a in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_one_boundary_pixel_cuts_every_pair_across_it_and_no_other() -> None:
    geometry = PairGeometry(5)
    edge = torch.zeros(1, 1, 30, 40)
    edge[:, :, :, 20] = 1
    affinity = geometry.path_affinity(edge)[0].unflatten(1, geometry.source_size(30, 40))  # (P, h, w)
    for p, (_, dx) in enumerate(geometry.directions):
        left, right = min(0, dx), max(0, dx)
        for column in range(affinity.shape[2]):
            touches = column + 4 + left <= 20 <= column + 4 + right
            assert bool((affinity[p, :, column] == (0 if touches else 1)).all())


def test_of_equally_high_pixels_one_takes_the_whole_gradient() -> None:
    edge = torch.full((1, 1, 2, 3), 0.5, requires_grad=True)
    PairGeometry(2).path_affinity(edge).sum().backward()
    assert edge.grad is not None
    assert edge.grad.sum() == -len(PairGeometry(2).directions)
    assert torch.equal(edge.grad, edge.grad.round())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.integers(2, 3), channels=st.integers(1, 4))
def test_feature_affinity_and_its_gradient_equal_the_loops(seed: int, radius: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, radius + 1, 2 * radius, generator=generator, dtype=torch.float64).requires_grad_()
    found = PairGeometry(radius).feature_affinity(features)
    expected = reference.feature_affinity(features, radius)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(found.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((a * weights).sum(), features)[0] for a in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_grid_beyond_16_bit_ranks() -> None:
    edge = torch.rand(1, 1, 190, 190, generator=torch.Generator().manual_seed(0))
    geometry = PairGeometry(3)
    whole = geometry.path_affinity(edge)[0].unflatten(1, geometry.source_size(190, 190))
    part = geometry.path_affinity(edge[:, :, 150:, 100:])[0].unflatten(1, geometry.source_size(40, 90))
    assert torch.equal(whole[:, 150:, 100:], part)


def test_faults() -> None:
    with pytest.raises(InputError, match="radius is 1; expected 2 or more"):
        PairGeometry(1)
    with pytest.raises(ValueError, match="a grid of 4x20 has no pixel"):
        PairGeometry(5).path_affinity(torch.zeros(1, 1, 4, 20))
    with pytest.raises(ValueError, match="a grid of 20x8 has no pixel"):
        PairGeometry(5).sources(torch.zeros(20, 8))


def test_the_truth_table_of_labels() -> None:
    foreground = np.array([[3, 3, 3, 0, 0, 0]], np.uint8)
    background = np.array([[3, 0, 2, 0, 3, 1]], np.uint8)
    assert pair_labels(foreground, background).tolist() == [[3, 3, 3, 0, 255, 255]]
    assert pair_labels(foreground, background).dtype == np.uint8
    with pytest.raises(ValueError, match="label maps of"):
        pair_labels(foreground, background[0])


def random_labels(seed: int, height: int, width: int) -> torch.Tensor:
    """Mostly background, two classes beyond the twenty of VOC, and unsure pixels."""
    random = np.random.default_rng(seed)
    values = random.choice([0, 1, 79, 255], p=random.dirichlet([2, 1, 1, 1]), size=(2, height, width))
    return torch.from_numpy(values.astype(np.uint8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.integers(2, 3))
def test_affinity_loss_and_its_gradient_equal_the_loops(seed: int, radius: int) -> None:
    labels = random_labels(seed, radius + 2, 2 * radius + 1)
    geometry = PairGeometry(radius)
    pairs = geometry.destinations(labels).shape
    affinity = torch.rand(pairs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    terms, expected = affinity_loss(affinity, pair_kinds(labels, geometry)), reference.affinity_terms(affinity, labels, radius)
    for name in ("background", "foreground", "different"):
        torch.testing.assert_close(getattr(terms, name), expected[name])
    total = expected["background"] / 4 + expected["foreground"] / 4 + expected["different"] / 2
    if total.requires_grad:
        gradients = [torch.autograd.grad(t, affinity)[0] for t in (terms.total, total)]
        torch.testing.assert_close(*gradients)


def test_affinities_of_exactly_0_and_1_have_finite_losses_and_gradients() -> None:
    labels = torch.tensor([[[0, 1, 1], [0, 1, 0]]], dtype=torch.uint8)
    geometry = PairGeometry(2)
    for value in (0.0, 1.0):
        affinity = torch.full(geometry.destinations(labels).shape, value, requires_grad=True)
        total = affinity_loss(affinity, pair_kinds(labels, geometry)).total
        total.backward()
        assert total.isfinite() and affinity.grad is not None and affinity.grad.isfinite().all()
