"""The permutohedral lattice: near the true filter, linear, and the same lattice wherever the features lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.refine.lattice import PermutohedralLattice, enclosing_simplices


def vertices_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embedded points (N, d + 1) and the d + 1 vertices (N, d + 1, d + 1) of their simplices, by the definition."""
    d = features.shape[1]
    simplices = enclosing_simplices(np.ascontiguousarray(features.T, np.float32))
    axes = np.zeros((d + 1, d))  # columns span the plane of sum 0
    for i in range(d):
        axes[: i + 1, i], axes[i + 1, i] = 1, -(i + 1)
        axes[:, i] *= np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))
    points = features.astype(np.float64) @ axes.T
    vertices = np.zeros((len(features), d + 1, d + 1))
    for n in range(len(features)):
        for k in range(d + 1):
            for i in range(d):
                lower = simplices.rank[i][n] > d - k
                vertices[n, k, i] = (d + 1) * (simplices.corner[i][n] - lower) + k
            vertices[n, k, d] = -vertices[n, k, :d].sum()
    return points, vertices


@pytest.mark.parametrize("d", [1, 2, 3, 5, 6])
def test_a_point_is_the_weighted_mean_of_the_vertices_around_it(d: int) -> None:
    features = np.random.default_rng(d).normal(0, 5, (200, d)).astype(np.float32)
    weights = enclosing_simplices(np.ascontiguousarray(features.T)).weights
    points, vertices = vertices_of(features)
    assert weights.shape == (200, d + 1) and weights.min() > -1e-5
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.einsum("nk,nki->ni", weights, vertices), points, atol=1e-3)
    # a vertex of the lattice has sum 0 and coordinates that are equal modulo d + 1; those of a simplex are adjacent
    assert (np.mod(vertices - vertices[:, :, :1], d + 1) == 0).all()
    assert (np.ptp(vertices - vertices[:, :1], axis=2) <= d + 1).all()


def blurred_by_hand(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same filter with vertices in a dictionary, point by point."""
    n, d = features.shape
    _, vertices = vertices_of(features)
    weights = enclosing_simplices(np.ascontiguousarray(features.T)).weights.astype(np.float64)
    keys = [[tuple(int(x) for x in vertices[i, k]) for k in range(d + 1)] for i in range(n)]

    def unscaled(column: np.ndarray) -> np.ndarray:
        grid: dict[tuple[int, ...], Any] = {}
        for i in range(n):
            for k in range(d + 1):
                grid[keys[i][k]] = grid.get(keys[i][k], 0) + weights[i, k] * column[i]
        for j in range(d + 1):
            step = tuple(1 - (d + 1) * (i == j) for i in range(d + 1))
            grid = {
                key: value
                + 0.5 * grid.get(tuple(a + b for a, b in zip(key, step, strict=True)), 0)
                + 0.5 * grid.get(tuple(a - b for a, b in zip(key, step, strict=True)), 0)
                for key, value in grid.items()
            }
        return np.array([sum(weights[i, k] * grid[keys[i][k]] for k in range(d + 1)) for i in range(n)])

    scale = 1 / np.sqrt(unscaled(np.ones(n)))
    return np.stack([scale * unscaled(scale * column) for column in values.T], axis=1)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
def test_filter_against_a_dictionary_of_vertices(d: int, spread: float) -> None:
    generator = np.random.default_rng(d)
    features = generator.normal(0, spread, (150, d)).astype(np.float32)
    values = generator.random((150, 3)).astype(np.float32)
    given_ = PermutohedralLattice(features).filter(values)
    assert given_.dtype == np.float32
    np.testing.assert_allclose(given_, blurred_by_hand(features, values), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("sd", [1.5, 3.0, 6.0])
def test_filter_is_near_the_sum_over_all_pairs(exact: Any, sd: float) -> None:
    rows, columns = np.indices((24, 30))
    features = np.stack([columns.ravel(), rows.ravel()], axis=1) / sd
    values = np.random.default_rng(0).random((720, 1)).astype(np.float32)
    true = exact.kernel(features) @ values
    given_ = PermutohedralLattice(features.astype(np.float32)).filter(values)
    assert np.abs(given_ - true).mean() < 0.03 * true.mean()
    assert np.corrcoef(given_[:, 0], true[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("columns", [0, 1, 2, 3, 4, 5, 8, 11])
def test_columns_are_filtered_alone(columns: int) -> None:
    generator = np.random.default_rng(columns)
    lattice = PermutohedralLattice(generator.normal(0, 2, (90, 3)).astype(np.float32))
    values = generator.random((90, columns)).astype(np.float32)
    together = lattice.filter(values)
    assert together.shape == (90, columns)
    for c in range(columns):
        np.testing.assert_array_equal(together[:, c], lattice.filter(values[:, [c]])[:, 0])


@given(
    st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.01, 20), st.floats(-3, 3), st.floats(-3, 3)
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_filter_is_linear_and_not_negative(
    d: int, n: int, seed: int, spread: float, a: float, b: float
) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(0, spread, (n, d)).round(generator.integers(0, 4)).astype(np.float32)
    lattice = PermutohedralLattice(features)
    x, y = generator.random((2, n, 2)).astype(np.float32)
    mixed = lattice.filter((a * x + b * y).astype(np.float32))
    np.testing.assert_allclose(mixed, a * lattice.filter(x) + b * lattice.filter(y), atol=1e-4)
    assert lattice.filter(x).min() >= -1e-5
    assert np.isfinite(mixed).all()


def test_points_far_apart_keep_their_values_and_equal_ones_share_them() -> None:
    features = np.array([[0, 0], [0, 0], [0, 0], [500, 0], [0, 900]], np.float32)
    values = np.array([[1], [2], [6], [4], [5]], np.float32)
    np.testing.assert_allclose(PermutohedralLattice(features).filter(values)[:, 0], [3, 3, 3, 4, 5], rtol=1e-6)


def test_features_without_a_number_are_refused() -> None:
    features = np.random.default_rng(0).uniform(0, 1e6, (20, 5)).astype(np.float32)
    with pytest.raises(InputError, match="standard deviations of the CRF are too small"):
        PermutohedralLattice(features)
