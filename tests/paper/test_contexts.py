"""Contexts of earlier collections fill the places that a collection leaves empty, against plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.fpr import FPRConfig, Prototypes
from tests.paper import cases
from tests.paper.flat_images import flat_image
from tests.paper.reference import Image

Row = tuple[float, ...]
Negatives = dict[int, Row]
"""Image number -> region feature, in order."""


def kept_of(prototypes: Prototypes, c: int) -> Negatives:
    held = prototypes.trimmed_valid[c]
    return rows_of(prototypes.trimmed_source[c, held].tolist(), prototypes.trimmed[c, held].tolist())


def contexts_of(prototypes: Prototypes, c: int) -> Negatives:
    known = prototypes.contexts(c)
    return rows_of(known.sources.tolist(), known.rows.tolist())


def rows_of(sources: list[int], rows: list[list[float]]) -> Negatives:
    assert len(set(sources)) == len(sources), "an image lends one negative"
    return dict(zip(sources, map(tuple, rows), strict=True))


def filled_by_loops(collections: list[Prototypes], c: int, remember: int, places: int) -> list[list[tuple[int, Row]]]:
    """Of each of some collections that know of no other: image numbers and regions, with what is remembered."""
    memory: dict[int, tuple[int, Row]] = {}  # image -> collection in which it was last found, region
    result = []
    stopped = False
    for now, alone in enumerate(collections):
        kept, found = kept_of(alone, c), contexts_of(alone, c)
        stopped = stopped or (bool(alone.negative_valid[c].any()) and not kept and bool(memory))
        if stopped:
            kept, found = {}, {}
        lent = [(image, row) for image, (then, row) in memory.items() if now - then <= remember and image not in kept]
        result.append([*kept.items(), *lent][:places])
        memory = {image: last for image, last in memory.items() if now - last[0] < remember or image in found}
        for image, row in found.items():
            memory[image] = now, row  # what is known keeps its place in a dict
    return result


def shown_in_turn(seed: int, count: int, collections: int) -> list[list[Image]]:
    """The same photos with other maps in each collection, as a classifier gives while it is trained."""
    first = cases.images(seed, count)
    others = [cases.images(seed + 1 + turn, count) for turn in range(collections - 1)]
    turns = [
        [replace(a, maps=b.maps, logits=b.logits) for a, b in zip(first, other, strict=True)] for other in others
    ]
    return [first, *turns]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 24), st.integers(1, 4), st.integers(3, 8))
def test_what_is_kept_equals_the_loops(seed: int, count: int, remember: int, places: int) -> None:
    config = FPRConfig(prototypes=2, negatives=places, remember=remember)
    turns = shown_in_turn(seed, count, 6)
    alone = [cases.collected(shown, config) for shown in turns]
    previous: Prototypes | None = None
    chained = []
    for shown in turns:
        previous = cases.collected(shown, config, previous=previous)
        chained.append(previous)
    for c in range(3):
        expected = filled_by_loops(alone, c, remember, places)
        assert [list(kept_of(one, c).items()) for one in chained] == expected
        most = min(places, sum(1 for image in turns[0] if image.labels[c] == 0))  # a photo lends a class one
        heights = [(len(kept) / most) ** config.lift_fewer if most else 0 for kept in expected]
        assert [float(one.lift_height[c]) for one in chained] == pytest.approx(heights)


def test_the_loops_above_have_something_to_fill() -> None:
    config = FPRConfig(prototypes=2, negatives=8, remember=1)
    first, second = shown_in_turn(3, 24, 2)
    alone = cases.collected(second, config)
    after = cases.collected(second, config, previous=cases.collected(first, config))
    assert after.trimmed_valid.sum() > alone.trimmed_valid.sum()


RAILS = 1.0
MEMORY = FPRConfig(prototypes=1, remember=3)


def turn(rails: bool, shunned: bool = False) -> list[Image]:
    """Trains at 8 to 12; rails alone, if they still fire, and a train whose tag is missing, if it is there."""
    shown = [flat_image(8 + i, 1, 0, i) for i in range(5)]
    if rails:
        shown += [flat_image(RAILS + i / 10, 0, 8 - i, 10 + i) for i in range(4)]
    if shunned:
        shown.append(flat_image(10.2, 0, 9, 20))
    return shown


def test_contexts_that_no_longer_fire_stay_for_as_many_collections_as_are_asked_for() -> None:
    for remember in (0, 1, 3):
        config = FPRConfig(prototypes=1, remember=remember)
        previous = cases.collected(turn(rails=True), config)
        counts = []
        for _ in range(5):
            previous = cases.collected(turn(rails=False), config, previous=previous)
            counts.append(int(previous.trimmed_valid[0].sum()))
        assert counts == [4] * remember + [0] * (5 - remember)


@pytest.mark.parametrize("remember", [0, 3])
def test_a_class_without_support_once_takes_nothing_new_in(remember: int) -> None:
    """Between two collections with rails nothing but trains without their tags fires, which have no support."""
    config = FPRConfig(prototypes=1, remember=remember)
    trains = [*turn(rails=False), *(flat_image(value, 0, 9, 20 + i) for i, value in enumerate([2, 6, 14, 18]))]
    previous, kept = None, []
    for shown in [turn(rails=True), trains, *[turn(rails=True)] * 3]:
        previous = cases.collected(shown, config, previous=previous)
        kept.append(list(kept_of(previous, 0)))
    rails = [10, 11, 12, 13]
    assert kept == ([rails, rails, rails, rails, []] if remember else [rails, [], rails, rails, rails])
    later = cases.collected(turn(rails=True), config, previous=cases.collected(trains, config))
    assert list(kept_of(later, 0)) == rails, "a class of which no context was known yet does not stop"


def test_what_has_no_support_is_not_remembered() -> None:
    first = cases.collected(turn(rails=True, shunned=True), MEMORY)
    assert set(contexts_of(first, 0)) == {10, 11, 12, 13}
    assert 20 in kept_of(cases.collected(turn(rails=True, shunned=True), replace(MEMORY, support="off")), 0)


def test_a_single_negative_is_kept_and_not_remembered() -> None:
    """It has no fellow that could tell what it is."""
    first = cases.collected([*turn(rails=False), flat_image(RAILS, 0, 8, 10)], MEMORY)
    assert list(kept_of(first, 0)) == [10] and not contexts_of(first, 0)


def lit(value: float, train: bool, bus: bool, tags: list[float], number: int) -> Image:
    """One pixel with the feature (value, 0), and which of two class maps are activated there."""
    pixel = torch.tensor([value, 0.0], dtype=torch.float64)[:, None, None]
    maps = torch.tensor([train, bus]).double()[:, None, None]
    return Image(pixel, maps, maps.flatten(), torch.tensor(tags).double(), number)


def test_what_stays_as_it_is_a_tagged_class_is_not_remembered() -> None:
    """Two photos of buses in which the map of train fires on the bus; rails alone are a context."""
    shown = [lit(8 + i, True, False, [1, 0], i) for i in range(5)]
    shown += [lit(20 + i, False, True, [0, 1], 10 + i) for i in range(5)]
    shown += [lit(21.5 + i, True, False, [0, 1], 20 + i) for i in range(2)]
    shown += [lit(RAILS + i / 10, True, False, [0, 0], 30 + i) for i in range(4)]
    found = cases.collected(shown, MEMORY)
    assert set(kept_of(found, 0)) == {20, 21, 30, 31, 32, 33}
    assert set(contexts_of(found, 0)) == {30, 31, 32, 33}


def test_a_class_without_positives_remembers_nothing() -> None:
    found = cases.collected([flat_image(RAILS + i / 10, 0, 8, i) for i in range(4)], MEMORY)
    assert len(kept_of(found, 0)) == 4 and not contexts_of(found, 0)


@pytest.mark.parametrize("change", [{"remember": 0}, {"support": "off"}, {"support": "weigh"}])
def test_settings_without_memory_take_nothing_from_before(change: dict[str, Any]) -> None:
    before, without = cases.collected(turn(rails=True), MEMORY), replace(MEMORY, **change)
    after = cases.collected(turn(rails=False), without, previous=before)
    assert not kept_of(after, 0) and after.context is None


def test_a_setting_of_fewer_negatives_takes_as_many() -> None:
    before = cases.collected(turn(rails=True), replace(MEMORY, negatives=40))
    after = cases.collected(turn(rails=False), replace(MEMORY, negatives=2, remember=1), previous=before)
    assert list(kept_of(after, 0)) == [10, 11]


def test_fewer_collections_than_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"fpr\.remember"):
        FPRConfig(remember=-1)
