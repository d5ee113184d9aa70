"""Objects of a photo: where pixels end, which centre they belong to, and the masks that come of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.config.affinity import IRNConfig
from tag2mask.refine.instances import end_places, find_instances, pixel_groups, without_fragments
from tests.refine import affinity_reference as reference


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(0, 6), size=st.tuples(st.integers(2, 7), st.integers(2, 7)))
def test_pixels_follow_the_displacements_like_the_loops(seed: int, steps: int, size: tuple[int, int]) -> None:
    displacement = np.random.default_rng(seed).normal(size=(2, *size))
    found = end_places(displacement, steps)
    for y, x in np.ndindex(size):
        assert found[:, y, x] == pytest.approx(reference.follow(displacement, y, x, steps), abs=1e-9)


def two_discs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (h, w) of two discs that touch, 0 background; their displacements; their boundaries."""
    rows, columns = np.indices((40, 56)).astype(float)
    numbers = np.zeros((40, 56), int)
    displacement = np.zeros((2, 40, 56))
    for number, (y, x) in enumerate(((20, 15), (20, 39)), start=1):
        disc = np.hypot(rows - y, columns - x) < 12
        numbers[disc] = number
        displacement[:, disc] = np.stack([y - rows, x - columns])[:, disc]
    around = np.pad(numbers, 1, mode="edge")
    sides = [around[1:-1, 2:], around[1:-1, :-2], around[2:, 1:-1], around[:-2, 1:-1]]
    edge = 0.98 * np.any([side != numbers for side in sides], axis=0)
    return numbers, displacement, edge


def test_pixels_belong_to_the_centre_of_their_object() -> None:
    numbers, displacement, _ = two_discs()
    groups = pixel_groups(displacement, IRNConfig())
    assert len(np.unique(groups)) == 3  # two objects and the background, whose displacements are 0
    for number in range(3):
        own = np.bincount(groups[numbers == number]).argmax()
        assert (groups[numbers == number] == own).mean() > 0.95
        assert ((groups == own) & (numbers == number)).sum() > 0.95 * (groups == own).sum()


def test_one_class_map_becomes_two_objects() -> None:
    numbers, displacement, edge = two_discs()
    maps = np.stack([0.6 * (numbers > 0) + 0.4 * (numbers == 1), np.zeros(numbers.shape)])
    size = (158, 221)  # of a grid of 40x56 at stride 4
    found = find_instances(maps, np.array([7, 11]), edge, displacement, size, 4, IRNConfig())
    assert [instance.class_id for instance in found] == [7, 7]
    assert not (found[0].mask & found[1].mask).any()
    large = np.kron(numbers, np.ones((4, 4), int))[: size[0], : size[1]]
    for number in (1, 2):
        overlaps = [(i.mask & (large == number)).sum() / (i.mask | (large == number)).sum() for i in found]
        assert max(overlaps) > 0.8
    assert all(0.25 < instance.score <= 1 and instance.mask.shape == size for instance in found)
    assert max(instance.score for instance in found) == 1


def test_without_any_centre_each_class_is_one_object() -> None:
    numbers, _, edge = two_discs()
    maps = np.stack([numbers == 1, numbers == 2]).astype(float)
    adrift = np.full((2, 40, 56), 3.0)
    found = find_instances(maps, np.array([3, 5]), edge, adrift, (160, 224), 4, IRNConfig())
    assert [instance.class_id for instance in found] == [3, 5]
    assert (pixel_groups(adrift, IRNConfig()) == 0).all()


def test_empty_maps_hold_no_object() -> None:
    _, displacement, edge = two_discs()
    for maps in (np.zeros((2, 40, 56)), np.zeros((0, 40, 56))):
        assert find_instances(maps, np.arange(len(maps)), edge, displacement, (160, 224), 4, IRNConfig()) == []


def test_small_pieces_are_dropped() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:8, 2:8] = True
    mask[15, 20:25] = True  # 5 of 600 pixels
    mask[12, 2:8] = True  # 6: as many as the bound
    expected = mask.copy()
    expected[15] = False
    assert np.array_equal(without_fragments(mask, 0.01), expected)
    assert np.array_equal(without_fragments(mask, 0.0), mask)
    assert not without_fragments(~np.ones((4, 4), bool), 0.01).any()
