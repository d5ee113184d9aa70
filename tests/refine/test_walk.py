"""The sparse random walk: equal to the dense one, what it keeps, what stops it, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.walk import edge_transition, pair_transition, random_walk, upsampled_scores, walked_mask
from tests.refine import affinity_reference as reference

GEOMETRY = PairGeometry(5)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def random_edge(seed: int, size: Sequence[int]) -> np.ndarray:
    """Mostly faint, here and there a boundary, some of it without any gap."""
    random = np.random.default_rng(seed)
    edge = random.random(size) ** 4
    edge[random.random(size) < 0.1] = 1
    return edge


def test_equal_to_the_dense_walk() -> None:
    """The golden case: 18x23, beta 10, 2^8 steps, float64."""
    random = np.random.default_rng(0)
    edge, maps = random.random((18, 23)), random.random((2, 18, 23))
    found = random_walk(maps, edge_transition(edge, GEOMETRY, 10), 256)
    assert np.abs(found - reference.walk_of_edges(maps, edge, 10, 8)).max() < 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=SIZES, beta=st.sampled_from([1.0, 8.0, 10.0]), doublings=st.integers(0, 6))
def test_equal_to_the_dense_walk_on_every_small_grid(seed: int, size: tuple[int, int], beta: float, doublings: int) -> None:
    edge = random_edge(seed, size)
    maps = np.random.default_rng(seed).random((3, *size))
    found = random_walk(maps, edge_transition(edge, GEOMETRY, beta), 2**doublings)
    np.testing.assert_allclose(found, reference.walk_of_edges(maps, edge, beta, doublings), atol=1e-12)


def test_float32_and_transposed_input() -> None:
    edge, maps = random_edge(0, (12, 9)), np.random.default_rng(0).random((2, 12, 9))
    expected = random_walk(maps, edge_transition(edge, GEOMETRY, 10))
    strided = np.asfortranarray(maps.astype(np.float32))
    found = random_walk(strided, edge_transition(edge.T.astype(np.float32).T, GEOMETRY, 10))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=SIZES, steps=st.integers(0, 40))
def test_what_every_walk_keeps(seed: int, size: tuple[int, int], steps: int) -> None:
    edge = random_edge(seed, size)
    transition = edge_transition(edge, GEOMETRY, 10)
    np.testing.assert_allclose(transition.sum(axis=0), 1, atol=1e-12)
    assert (transition.data > 0).all() and transition.nnz <= 69 * edge.size

    maps = np.random.default_rng(seed).random((2, *size))
    walked = random_walk(maps, transition, steps)
    np.testing.assert_allclose(random_walk(np.full((1, *size), 0.7), transition, steps), 0.7, atol=1e-12)
    assert (walked >= maps.min(axis=(1, 2), keepdims=True) - 1e-12).all()
    assert (walked <= maps.max(axis=(1, 2), keepdims=True) + 1e-12).all()
    weights = 1 / transition.diagonal()  # the column sums of S, whose diagonal is 1
    np.testing.assert_allclose(walked.reshape(2, -1) @ weights, maps.reshape(2, -1) @ weights, rtol=1e-10)
    np.testing.assert_allclose(random_walk(3 * maps[:1] + maps[1:], transition, steps), 3 * walked[:1] + walked[1:], rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), top=st.integers(1, 4), left=st.integers(1, 4))
def test_a_closed_boundary_lets_nothing_out_and_a_gap_does(seed: int, top: int, left: int) -> None:
    edge = np.random.default_rng(seed).random((14, 15)) * 0.5
    edge[top, left : left + 8] = edge[top + 7, left : left + 8] = 1
    edge[top : top + 8, left] = edge[top : top + 8, left + 7] = 1
    inside = np.zeros((14, 15), bool)
    inside[top + 1 : top + 7, left + 1 : left + 7] = True
    maps = np.zeros((1, 14, 15))
    maps[0, top + 3, left + 3] = 1
    walked = random_walk(maps, edge_transition(edge, GEOMETRY, 1))
    assert (walked[0, ~inside] == 0).all() and (walked[0, inside] > 0).all()
    edge[top, left + 1 : left + 7] = 0
    assert (random_walk(maps, edge_transition(edge, GEOMETRY, 1))[0] > 0).sum() > inside.sum()


def test_affinities_that_leave_the_grid_do_not_matter() -> None:
    random = np.random.default_rng(0)
    affinity = random.random((34, 7 * 6))
    other = affinity.copy()
    for p, (dy, dx) in enumerate(GEOMETRY.directions):
        for y in range(7):
            for x in range(6):
                if not (0 <= y + dy < 7 and 0 <= x + dx < 6):
                    other[p, y * 6 + x] = random.random()
    assert not np.array_equal(affinity, other)
    first, second = (pair_transition(a, (7, 6), GEOMETRY, 8).toarray() for a in (affinity, other))
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match="expected \\(34, 42\\) for a grid"):
        pair_transition(affinity[:30], (7, 6), GEOMETRY, 8)


@pytest.mark.parametrize("size", [(13, 18), (16, 16), (1, 1), (9, 4)])
def test_scores_at_the_size_of_the_photo(size: tuple[int, int]) -> None:
    small = ((size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    walked = np.random.default_rng(0).random((2, *small)) * 1e-6
    scores = upsampled_scores(walked, size, 4)
    assert scores.shape == (2, *size) and scores.dtype == np.float32
    assert scores.max() == 1 and scores[0].max() != scores[1].max()  # one maximum for both
    for y, x in np.ndindex(size):  # the centre of pixel y lies at (y + 0.5) / 4 - 0.5
        places = [min(max((v + 0.5) / 4 - 0.5, 0), n - 1) for v, n in zip((y, x), small, strict=True)]
        (top, down), (left, right) = ((int(v), v - int(v)) for v in places)
        below, beside = min(top + 1, small[0] - 1), min(left + 1, small[1] - 1)
        upper = walked[:, top, left] * (1 - right) + walked[:, top, beside] * right
        lower = walked[:, below, left] * (1 - right) + walked[:, below, beside] * right
        expected = upper * (1 - down) + lower * down
        np.testing.assert_allclose(scores[:, y, x] / scores[0, 0, 0], expected / walked[0, 0, 0], rtol=1e-4)


def test_scores_of_nothing_are_zero_and_a_wrong_grid_is_refused() -> None:
    assert (upsampled_scores(np.zeros((2, 4, 5)), (13, 18), 4) == 0).all()
    assert upsampled_scores(np.zeros((0, 4, 5)), (13, 18), 4).shape == (0, 13, 18)
    with pytest.raises(ValueError, match="are not those of a photo of"):
        upsampled_scores(np.zeros((2, 4, 5)), (17, 18), 4)


def test_the_mask_names_classes_and_leaves_the_rest_to_the_background() -> None:
    scores = np.array([[[1.0, 0.3, 0.2, 0.25]], [[0.1, 0.4, 0.1, 0.0]]])
    mask = walked_mask(scores, np.array([4, 19]), 0.25)
    assert mask.dtype == np.uint8 and mask.tolist() == [[5, 20, 0, 0]]
    assert walked_mask(np.zeros((0, 2, 2)), np.array([], np.int64), 0.25).tolist() == [[0, 0], [0, 0]]


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")

MEASURE = """
import json, time
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from tag2mask.config.affinity import IRNConfig
from tag2mask.refine.irn import refine_maps
def memory(what):  # not resource's, which begins at the size of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
random = np.random.default_rng(0)
size, classes = {size}, 3
edge, maps = random.random(size) ** 4, random.random((classes, *size))
idle, start = memory("VmRSS"), time.process_time()
walked = refine_maps(maps, edge, IRNConfig())
assert np.isfinite(walked).all()
print(json.dumps([time.process_time() - start, memory("VmHWM") - idle, memory("VmHWM")]))
"""


def cost(size: tuple[int, int], environment: dict[str, str]) -> tuple[float, int, int]:
    """CPU seconds, bytes above the idle process and bytes in all of one walk of three classes in a process of its own."""
    command = [sys.executable, "-c", MEASURE.format(size=size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=True)
    seconds, above, whole = json.loads(done.stdout)
    return seconds, above, whole


@needs_proc
def test_a_photo_of_500x375_takes_a_moment_and_little_memory(environment: dict[str, str]) -> None:
    """One core, three classes, building included; the dense matrix alone would have 1.1 GB."""
    seconds, above, _ = cost((94, 125), environment)
    assert seconds < 2
    assert above < 150e6


@needs_proc
@pytest.mark.slow
def test_a_photo_of_2000x1500_fits(environment: dict[str, str]) -> None:
    """The dense matrix would have 281 GB."""
    _, _, whole = cost((375, 500), environment)
    assert whole < 4e9
