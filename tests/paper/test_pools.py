"""The pools of section 3.2.1: exact, whatever the order of the images, in memory that does not grow."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import PrototypePools, TopRows
from tag2mask.fpr.pools import sampling_priority

Entry = tuple[float, int]
"""Score and source number."""


def fill(pool: TopRows, entries: list[Entry], batch_size: int, class_index: int = 0) -> None:
    """Offer rows that spell out their own score and source, so that mixed-up rows show."""
    classes, _, channels = pool.rows.shape
    for start in range(0, len(entries), batch_size):
        scores, sources = zip(*entries[start : start + batch_size], strict=True)
        n = len(scores)
        score, source = torch.tensor(scores), torch.tensor(sources)
        rows = torch.full((n, classes, channels), -1.0)
        rows[:, class_index, 0], rows[:, class_index, 1] = score, source.float()
        labels = (source.unsqueeze(1) >> torch.arange(classes)) % 2 == 1  # (n, C): the source number's bits
        members = torch.zeros(n, classes, dtype=torch.bool)
        members[:, class_index] = True
        pool.add(rows, score.unsqueeze(1).expand(n, classes), members, source, labels)


def assert_ranked(pool: TopRows, expected: list[Entry], class_index: int = 0) -> None:
    rows, scores, sources, labels = pool.ranked(class_index)
    assert list(zip(scores.tolist(), sources.tolist(), strict=True)) == expected
    assert [tuple(row[:2]) for row in rows.tolist()] == [(score, float(source)) for score, source in expected]
    assert labels.tolist() == [[bool(source >> c & 1) for c in range(labels.shape[1])] for _, source in expected]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-3, 3), max_size=40), st.integers(1, 8), st.integers(1, 9), st.randoms(use_true_random=False)
)
def test_top_rows_are_those_of_a_full_sort(
    values: list[int], capacity: int, batch_size: int, shuffler: random.Random
) -> None:
    """Few different scores, so that ties decide often: they go to the smaller source number."""
    entries = [(float(value), 10 + 3 * i) for i, value in enumerate(values)]
    expected = sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:capacity]
    shuffler.shuffle(entries)
    pool = TopRows(class_count=3, capacity=capacity, channels=2)
    fill(pool, entries, batch_size, class_index=1)
    assert_ranked(pool, expected, class_index=1)
    for other in (0, 2):
        assert len(pool.ranked(other)[0]) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_classes_do_not_disturb_each_other(seed: int, capacity: int, batch_size: int) -> None:
    generator = np.random.default_rng(seed)
    n, classes = 15, 3
    scores, members = generator.integers(-2, 3, (n, classes)), generator.random((n, classes)) < 0.6
    sources = generator.permutation(100)[:n]
    rows = generator.normal(size=(n, classes, 4)).astype(np.float32)
    pool = TopRows(classes, capacity, 4)
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        pool.add(
            torch.from_numpy(rows[part]), torch.from_numpy(scores[part]).float(), torch.from_numpy(members[part]),
            torch.from_numpy(sources[part]), torch.from_numpy(members[part]),
        )  # fmt: skip
    for c in range(classes):
        best = sorted((i for i in range(n) if members[i, c]), key=lambda i: (-scores[i, c], sources[i]))[:capacity]
        found = pool.ranked(c)
        assert found[2].tolist() == sources[best].tolist()
        assert torch.equal(found[0], torch.from_numpy(rows[best, c]))
        assert torch.equal(found[3], torch.from_numpy(members[best]))


def test_rows_are_copied() -> None:
    pool = TopRows(1, 2, 2)
    rows = torch.ones(1, 1, 2, requires_grad=True)
    always = torch.ones(1, 1, dtype=torch.bool)
    pool.add(rows, torch.ones(1, 1), always, torch.tensor([5]), always)
    with torch.no_grad():
        rows.fill_(7.0)
    assert pool.ranked(0)[0].tolist() == [[1.0, 1.0]]
    assert not pool.rows.requires_grad


def filled(pools: PrototypePools, count: int, first: int = 0, seed: int = 0, batch_size: int = 10) -> PrototypePools:
    """Images from first on in random order; image i has a row of i's, and every fourth has no region."""
    classes, _, channels = pools.positive.rows.shape
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) + first
    for numbers in order.split(batch_size):
        regions = numbers.float()[:, None, None].expand(-1, classes, channels)
        labels = (numbers.unsqueeze(1) + torch.arange(classes)) % 2
        area = (numbers % 4).unsqueeze(1).expand(-1, classes)
        pools.add(regions, area, torch.sin(numbers.float()).unsqueeze(1).expand(-1, classes), labels, numbers)
    return pools


def test_present_classes_are_positive_absent_ones_negative_and_empty_regions_neither() -> None:
    pools = filled(PrototypePools(2, 3, positives=100, negatives=100), 40)
    for c in range(2):
        with_region = [i for i in range(40) if i % 4]
        assert sorted(pools.positive.ranked(c)[2].tolist()) == [i for i in with_region if (i + c) % 2 == 1]
        assert sorted(pools.negative.ranked(c)[2].tolist()) == [i for i in with_region if (i + c) % 2 == 0]


def sizes(pools: PrototypePools) -> list[tuple[torch.Size, int]]:
    tensors = [value for pool in (pools.positive, pools.negative) for value in vars(pool).values()]
    assert all(isinstance(value, torch.Tensor) for value in tensors)  # no list that could grow
    return [(value.shape, value.untyped_storage().nbytes()) for value in tensors]


def test_memory_is_the_same_after_10_and_1000_images() -> None:
    pools = PrototypePools(3, 4, positives=20, negatives=5)
    at_start = sizes(pools)
    after_10 = sizes(filled(pools, 10))
    after_1000 = sizes(filled(pools, 990, first=10))
    assert at_start == after_10 == after_1000


# The positives' sample


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 1000), st.integers(1, 17))
def test_all_positives_are_kept_up_to_the_capacity(count: int, seed: int, batch_size: int) -> None:
    pools = filled(PrototypePools(1, 2, positives=count, negatives=1), 2 * count, seed=seed, batch_size=batch_size)
    expected = [i for i in range(2 * count) if i % 4 and i % 2 == 1]
    assert sorted(pools.positive.ranked(0)[2].tolist()) == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
def test_the_sample_does_not_depend_on_the_order(first: int, second: int, one_size: int, other_size: int) -> None:
    one = filled(PrototypePools(2, 2, positives=7, negatives=5), 120, seed=first, batch_size=one_size)
    other = filled(PrototypePools(2, 2, positives=7, negatives=5), 120, seed=second, batch_size=other_size)
    for c in range(2):
        for name in ("positive", "negative"):
            for found, expected in zip(getattr(one, name).ranked(c), getattr(other, name).ranked(c), strict=True):
                assert torch.equal(found, expected)


@pytest.mark.parametrize("stride", [1, 2, 1000, 4096])
@pytest.mark.parametrize("start", [0, 2**31, 2**40])
def test_the_sample_is_spread_evenly(stride: int, start: int) -> None:
    """1000 of 10,000 images, in ten equal stretches: about 100 from each, in every class, and classes independent."""
    classes = 4
    numbers = start + stride * torch.arange(10_000)
    priority = sampling_priority(numbers, classes)
    assert priority.shape == (10_000, classes)
    assert priority.min() >= 0
    assert priority.max() < 1
    chosen = torch.zeros(10_000, classes, dtype=torch.bool).scatter(0, priority.topk(1000, dim=0).indices, True)
    shares = chosen.view(10, 1000, classes).sum(dim=1)  # (10, C)
    assert (shares - 100).abs().max() < 5 * 90**0.5  # five standard deviations
    even_and_odd = chosen.view(5000, 2, classes).sum(dim=0)  # (2, C)
    assert (even_and_odd - 500).abs().max() < 5 * 225**0.5
    for one in range(classes):
        for other in range(one):
            both = int((chosen[:, one] & chosen[:, other]).sum())
            assert abs(both - 100) < 5 * 81**0.5, "two classes keep the same images"


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))
def test_pools_of_shares_merge_to_the_pool_of_all(data: st.DataObject, count: int, capacity: int, shares: int) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=count, max_size=count))
    owner = data.draw(st.lists(st.integers(0, shares - 1), min_size=count, max_size=count))
    entries: list[Entry] = list(zip(scores, range(count), strict=True))
    pools = [TopRows(3, capacity, 2) for _ in range(shares)]
    for number, pool in enumerate(pools):
        fill(pool, [entry for entry, own in zip(entries, owner, strict=True) if own == number], batch_size=4)
    while len(pools) > 1:  # pairs in any order, as a tree or as a chain
        other = pools.pop(data.draw(st.integers(0, len(pools) - 1)))
        pools[data.draw(st.integers(0, len(pools) - 1))].merge(other)
    assert_ranked(pools[0], sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:capacity])


def test_both_pools_merge_and_an_empty_one_changes_nothing() -> None:
    whole, first, second = (PrototypePools(3, 4, positives=8, negatives=5) for _ in range(3))
    filled(whole, 30)
    filled(first, 12)
    filled(second, 18, first=12)
    first.merge(PrototypePools(3, 4, positives=8, negatives=5))
    first.merge(second)
    for one, other in ((first.positive, whole.positive), (first.negative, whole.negative)):
        for c in range(3):
            for found, expected in zip(one.ranked(c)[1:], other.ranked(c)[1:], strict=True):
                assert torch.equal(found, expected)
