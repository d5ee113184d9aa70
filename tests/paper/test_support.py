"""Negatives that show their class after all: support, likeness, and what is done about them, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tag2mask.errors import InputError
from tag2mask.fpr import FPRConfig, compared_pixels
from tag2mask.fpr.support import likeness, of_tagged_class, support_ratio
from tests.paper import cases, reference
from tests.paper.flat_images import flat_image, sources, trains
from tests.paper.reference import Image

Rows = list[list[float]]
CLOSE = 1e-4
"""Nearer than this to a bound, single precision may decide otherwise."""


def nearest(row: list[float], others: Rows, n: int) -> float:
    return sorted(math.dist(row, other) for other in others)[n - 1]


def share_a_tag(first: list[bool], second: list[bool]) -> bool:
    return any(one and two for one, two in zip(first, second, strict=True))


def ratio_by_loops(
    candidates: Rows, tags: list[list[bool]], positives: list[Rows], c: int, photos: list[list[bool]]
) -> list[float]:
    """The third nearest fellow, or fewer, by the same of the positives; the same share where positives are more.

    Fellows stand for a tenth of the other negatives at least."""
    ratios, own = [], positives[c]
    without = [photo for photo in photos if any(photo) and not photo[c]]
    for number, (row, own_tags) in enumerate(zip(candidates, tags, strict=True)):
        others = [place for place in range(len(candidates)) if place != number]
        if not others or not own:
            ratios.append(0.0)
            continue
        apart = [k for k in others if not share_a_tag(own_tags, tags[k])]
        if not without or sum(not share_a_tag(own_tags, photo) for photo in without) < 0.1 * len(without):
            apart = others
        if not apart:
            ratios.append(0.0 if of_a_tagged_class(row, own_tags, positives, own) else math.inf)
            continue
        n, stand_for = min(3, len(apart), len(own)), max(len(apart), math.ceil(0.1 * len(others)))
        farther = nearest(row, [candidates[k] for k in apart], n) / nearest(row, own, max(n, n * len(own) // stand_for))
        ratios.append(0.0 if of_a_tagged_class(row, own_tags, positives, own) else farther / 0.95)
    return ratios


def of_a_tagged_class(row: list[float], tags: list[bool], positives: list[Rows], own: Rows) -> bool:
    """Whether the positives of a class that the photo is tagged with are as near, by the same share of both."""
    for tag, like in zip(tags, positives, strict=True):
        n = min(3, len(like), len(own))
        if tag and len(like) > 3:
            theirs = nearest(row, like, max(n, n * len(like) // len(own)))
            if theirs <= nearest(row, own, max(n, n * len(own) // len(like))):
                return True
    return False


def likeness_by_loops(regions: Rows, positives: Rows, prototypes: Rows) -> list[float]:
    """How many positives are no nearer to the prototypes than the region is."""
    shares = []
    for row in regions:
        asked = min((math.dist(row, prototype) for prototype in prototypes), default=math.inf)
        farther = sum(min(math.dist(one, prototype) for prototype in prototypes) >= asked for one in positives)
        shares.append(farther / len(positives) if positives else 0.0)
    return shares


def rows(seed: int, count: int, channels: int = 4) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tags_of(seed: int, count: int, share: float, own: int = 0) -> Tensor:
    """Tags of three classes; the negatives are those of class ``own``, so that it has none."""
    tags = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) < share
    tags[:, own] = False
    return tags


def untagged(count: int) -> Tensor:
    return torch.zeros(count, 3, dtype=torch.bool)


def ratio(candidates: Tensor, tags: Tensor, *positives: Tensor, own: int = 0, photos: Tensor | None = None) -> Tensor:
    """``support_ratio``, 0 where ``of_tagged_class``, with the positives of each class; of others there are none.

    Unless ``photos`` says another, all photos are those of the negatives."""
    given_rows = [*positives, *[candidates[:0]] * (tags.shape[1] - len(positives))]
    found = support_ratio(candidates, tags, given_rows.__getitem__, own, tags if photos is None else photos)
    return found.masked_fill(of_tagged_class(candidates, tags, given_rows.__getitem__, own), 0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(0, 40), st.lists(st.integers(0, 40), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.1, 0.4, 0.9]), st.integers(0, 2), st.integers(0, 30),
)  # fmt: skip
def test_support_equals_the_loops(
    seed: int, candidates: int, counts: list[int], tagged: float, own: int, photos: int
) -> None:
    """40 rows: beyond 25 the distances are products of matrices."""
    given_rows, tags = rows(seed, candidates), tags_of(seed, candidates, tagged, own)
    shown = torch.rand(photos, 3, generator=torch.Generator().manual_seed(seed)) < 0.4
    positives = [rows(seed + 1 + c, count) for c, count in enumerate(counts)]
    expected = ratio_by_loops(
        given_rows.tolist(), tags.tolist(), [one.tolist() for one in positives], own, shown.tolist()
    )
    assert ratio(given_rows, tags, *positives, own=own, photos=shown).tolist() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 40), st.integers(1, 5))
def test_likeness_equals_the_loops(seed: int, regions: int, positives: int, count: int) -> None:
    asked, own, prototypes = rows(seed, regions), rows(seed + 1, positives), rows(seed + 2, count)
    expected = likeness_by_loops(asked.tolist(), own.tolist(), prototypes.tolist())
    assert likeness(asked, own, prototypes).tolist() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(1, 20), st.floats(0.01, 100), st.floats(-5, 5))
def test_support_is_free_of_scale_and_place(
    seed: int, candidates: int, positives: int, scale: float, shift: float
) -> None:
    given_rows, tags = rows(seed, candidates), tags_of(seed, candidates, 0.4)
    own = [rows(seed + 1, positives), rows(seed + 2, 5), rows(seed + 3, 4)]
    moved = ratio(given_rows * scale + shift, tags, *[one * scale + shift for one in own])
    torch.testing.assert_close(moved, ratio(given_rows, tags, *own), rtol=1e-4, atol=1e-6)


def test_support_with_the_same_region_twice() -> None:
    """Photos that are copies of each other stay; a copy of one that is tagged, alone of its kind, does not."""
    same = torch.ones(5, 4)
    assert (ratio(same, untagged(5), same) == 0).all()
    shown = torch.tensor([[1.0, 0], [5, 0], [5.1, 0], [5.2, 0], [5.3, 0]])
    assert (ratio(shown, untagged(5), shown[:1].expand(3, -1)) > 1).tolist() == [True, False, False, False, False]


def test_a_negative_needs_fellows_that_are_clearly_nearer() -> None:
    """The third nearest fellow lies .935 or .96 times as far away as the positives."""
    shown = torch.tensor([[0.0, 0], [0, 1], [1, 0], [0, -1]])
    for place, near in ((-1.07, True), (-1.04, False)):
        own = torch.tensor([[place, 0.0]]).expand(3, -1)
        assert bool(ratio(shown, untagged(4), own)[0] <= 1) == near, place


BUS, TRAIN, COW = torch.eye(4, dtype=torch.bool)[1:]
WHEELS, ROAD = torch.tensor([9.0, 9.2, 9.4, 9.6]).unsqueeze(1), torch.tensor([1.0, 1.2, 1.4, 1.6, 1.8]).unsqueeze(1)
SEEN = torch.cat([WHEELS, ROAD])
TAGS = torch.stack([BUS, BUS, BUS, BUS, BUS, BUS, TRAIN, COW, torch.zeros_like(BUS)])
"""Negatives of car: wheels in four photos of buses; road in two of buses, of a train, of a cow and alone."""
CARS = torch.full((4, 1), 8.0)


def stays(tags: Tensor, *positives: Tensor) -> list[bool]:
    return (ratio(SEEN, tags, CARS, *positives) <= 1).tolist()


def test_wheels_of_buses_do_not_support_each_other_and_roads_of_buses_do() -> None:
    assert stays(TAGS) == [False] * 4 + [True] * 5
    assert stays(torch.zeros_like(TAGS)) == [True] * 9, "without tags all are fellows"


def test_what_a_tagged_class_is_nearer_to_than_the_class_stays() -> None:
    """Buses lie at 10: what is seen is a bus, not its wheels. Photos of other things have no say."""
    buses = torch.full((4, 1), 10.0)
    assert stays(TAGS, buses) == [True] * 9
    assert stays(TAGS, buses[:0], buses) == [False] * 4 + [True] * 5, "those of trains"


@pytest.mark.parametrize("buses", [1, 3, 38, 380])
def test_many_photos_of_another_class_do_not_make_it_nearer(buses: int) -> None:
    """38 birds whose tag is missing, in photos of buses; buses lie farther off, but are a few, or many more."""
    birds, others = rows(0, 76, 32), rows(1, buses, 32)
    others[:, 0] += 4
    tags = BUS.expand(38, -1)
    kept = ratio(birds[:38], tags, birds[38:], others) == 0
    assert kept.float().mean() < 0.1


@pytest.mark.parametrize("mistagged", [0, 1, 4, 8])
def test_with_two_classes_surroundings_stay(mistagged: int) -> None:
    """Every photo is tagged car or bus but for some cars that lost their tag: no photo but these is of other things."""
    road, cars = rows(0, 80 - mistagged, 32), rows(1, 40 + mistagged, 32)
    cars[:, 0] += 12
    tags = torch.cat([BUS.expand(len(road), -1), torch.zeros(mistagged, 4, dtype=torch.bool)])
    found = ratio(torch.cat([road, cars[:mistagged]]), tags, cars[mistagged:]) <= 1
    assert found[: len(road)].float().mean() > 0.95


def test_where_every_photo_without_the_class_shares_a_tag_all_others_are_fellows() -> None:
    """Photos with the class have no say, nor have those without any tag; one in ten of the others is enough."""
    tags, cars = BUS.expand(len(SEEN), -1), (COW | torch.eye(4, dtype=torch.bool)[0]).expand(50, -1)
    alone = ratio(SEEN, torch.zeros_like(tags), CARS)
    assert torch.equal(ratio(SEEN, tags, CARS, photos=torch.cat([tags, cars, untagged_of(tags, 50)])), alone)
    assert torch.equal(ratio(SEEN, tags, CARS, photos=cars), alone), "no photo without cars has a tag"
    for buses, all_are_fellows in ((9, False), (10, True)):
        photos = torch.cat([COW.unsqueeze(0), BUS.expand(buses, -1), untagged_of(tags, 50)])
        found = ratio(SEEN, tags, CARS, photos=photos)
        assert torch.equal(found, alone) if all_are_fellows else bool(torch.isinf(found).all()), "no fellow at all"


def untagged_of(tags: Tensor, count: int) -> Tensor:
    return tags.new_zeros(count, tags.shape[1])


@pytest.mark.parametrize(("strays", "apart"), [(0, 0.0), (1, 3.0), (1, 6.0), (2, 3.0), (3, 3.0), (3, 6.0), (8, 6.0)])
def test_a_few_fellows_let_no_wheel_pass_where_little_else_fires_any_more(strays: int, apart: float) -> None:
    """The data holds buses and cows; of 80 negatives of car, a few are of cows, and the others, of buses, are cars."""
    wheels, cars, road = rows(0, 80 - strays, 32), rows(1, 400, 32), rows(2, strays, 32)
    road[:, 0] += apart
    tags = torch.cat([BUS.expand(80 - strays, -1), COW.expand(strays, -1)])
    found = ratio(torch.cat([wheels, road]), tags, cars, photos=torch.cat([BUS.expand(50, -1), COW.expand(50, -1)]))
    assert (found[: 80 - strays] <= 1).float().mean() < 0.05


def test_few_negatives_are_not_dropped_because_they_are_few() -> None:
    """50 positives and 3 negatives of one kind: the third nearest positive would be nearer by number alone."""
    kind = torch.randn(53, 4, generator=torch.Generator().manual_seed(0))
    assert (ratio(kind[:3], untagged(3), kind[3:]) <= 1).all()


# In the prototype pass


def expected_trimmed(shown: list[Image], config: FPRConfig) -> tuple[list[list[int]], list[list[float]]]:
    """Source numbers of the trimmed negatives of each class and what distances to them count, by the loops."""
    classes = len(shown[0].labels)
    ranked = config.negatives * config.refill
    bank = reference.collect(
        shown, theta=config.theta, positive_theta=config.positive_theta, tagged_theta=config.tagged_theta, epsilon=0.0, count=config.prototypes,
        singleton="keep", restarts=config.kmeans_restarts, order=cases.row_order(classes), superclasses=None,
        negatives=ranked,
    )  # fmt: skip
    by_number = {image.number: image for image in shown}
    positives = [
        [
            [float(v) for v in reference.region(image.features, pixels)]
            for image in shown
            if image.labels[c] == 1 and (pixels := reference.activated(image.maps[c], config.positive_theta, 0.0))
        ]
        for c in range(classes)
    ]
    all_tags = [[bool(tag) for tag in image.labels] for image in shown]
    numbers, factors = [], []
    for c in range(classes):
        tags = [[bool(tag) for tag in by_number[number].labels] for number in bank.negative_source[c]]
        own = positives[c]
        ratios = ratio_by_loops(bank.negative[c], tags, positives, c, all_tags)
        enough = 4 * sum(one <= 1 for one in ratios) >= len(ratios)
        shares = likeness_by_loops(bank.negative[c], own, bank.positive[c])
        kept = []
        for number, ratio, share in zip(bank.negative_source[c], ratios, shares, strict=True):
            assume(abs(ratio - 1) > CLOSE)
            unlike = config.likeness_trim == 0 or share < config.likeness_trim
            if unlike and (config.support != "drop" or (enough and ratio <= 1)):
                kept.append((number, min(max(1.0, ratio), 1e6) if config.support == "weigh" else 1.0))
        numbers.append([number for number, _ in kept[: config.negatives]])
        factors.append([factor for _, factor in kept[: config.negatives]])
    return numbers, factors


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 25), prototypes=st.integers(1, 3), negatives=st.integers(1, 4),
    refill=st.integers(1, 4), likeness_trim=st.sampled_from([0.0, 0.33, 0.77]),
    support=st.sampled_from(["off", "drop", "weigh"]),
)  # fmt: skip
def test_the_prototype_pass_equals_the_loops(
    seed: int, count: int, prototypes: int, negatives: int, refill: int, likeness_trim: float, support: str
) -> None:
    shown = cases.images(seed, count)
    config = FPRConfig(
        prototypes=prototypes, negatives=negatives, refill=refill, likeness_trim=likeness_trim,
        support=support,  # type: ignore[arg-type]
    )  # fmt: skip
    # With a positive that is a prototype itself, which of two equal distances is larger hangs on the last bit.
    assume(likeness_trim == 0 or all(sum(int(i.labels[c]) for i in shown) > 2 * prototypes for c in range(3)))
    numbers, factors = expected_trimmed(shown, config)
    found = cases.collected(shown, config)
    valid = found.trimmed_valid
    assert [found.trimmed_source[c, valid[c]].tolist() for c in range(len(numbers))] == numbers
    if support == "weigh":
        assert found.trimmed_factor is not None
        for c, expected in enumerate(factors):
            assert found.trimmed_factor[c, valid[c]].tolist() == pytest.approx(expected, rel=1e-3)
    else:
        assert found.trimmed_factor is None


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [11, 12, 13]), ({"support": "off", "refill": 1}, [10, 11, 12]),
        ({"support": "drop", "negatives": 5, "refill": 1}, [11, 12, 13, 14]),
        ({"support": "weigh", "refill": 1}, [10, 11, 12]),
        ({"support": "off", "likeness_trim": 0.5, "refill": 1}, [11, 12]),
        ({"support": "off", "likeness_trim": 0.5, "refill": 2}, [11, 12, 13]),
    ],
)  # fmt: skip
def test_a_train_without_its_tag_is_left_out_by_default_and_rails_are_not(options: dict[str, object], kept: list[int]) -> None:
    config = FPRConfig(**{"prototypes": 1, "negatives": 3, **options})  # type: ignore[arg-type]
    assert sources(trains(), config) == kept


def traffic(bus_tag: int) -> list[Image]:
    """Cars look like 8; wheels, like 9, are in photos of buses, which themselves are not activated; road is like 1."""
    def image(value: float, car: int, bus: int, cow: int, number: int) -> Image:
        one = flat_image(value, car, 10 - number, number)
        maps = torch.cat([one.maps, torch.zeros(2, 1, 1, dtype=torch.float64)])
        logits = torch.cat([one.logits, torch.zeros(2, dtype=torch.float64)])
        return Image(one.features, maps, logits, torch.tensor([car, bus, cow]).double(), number)

    wheels = [image(9 + k / 10, 0, bus_tag, 0, k) for k in range(4)]
    road = [image(1 + k / 10, 0, 0, 1 - k % 2, 4 + k) for k in range(8)]
    return [*wheels, *road, *(image(8 + k / 10, 1, 0, 0, 12 + k) for k in range(4))]


@pytest.mark.parametrize(("bus_tag", "kept"), [(1, [4, 5, 6]), (-1, [4, 5, 6]), (0, [0, 1, 2])])
def test_wheels_of_buses_are_no_negatives_of_car_tagged_or_perhaps_there(bus_tag: int, kept: list[int]) -> None:
    assert sources(traffic(bus_tag), FPRConfig(prototypes=1, negatives=3, refill=4)) == kept
    assert sources(traffic(bus_tag), FPRConfig(prototypes=1, negatives=3, support="off")) == [0, 1, 2]


def test_a_class_that_may_be_in_every_photo_takes_no_fellows_away() -> None:
    """Photos of it share its tag with all others, so that all others are fellows."""
    for bus_tag in (0, -1):
        shown = [image for image in traffic(bus_tag) if image.number > 3]
        for image in shown:
            image.labels[1] = bus_tag
        assert sources(shown, FPRConfig(prototypes=1, negatives=8)) == [4, 5, 6, 7, 8, 9, 10, 11], bus_tag


def test_what_ranks_stays_as_it_was() -> None:
    """The region contrast pushes away from negatives that are not trimmed."""
    found = cases.collected(trains(), FPRConfig(prototypes=1, negatives=3))
    assert found.negative_source[0].tolist() == [10, 11, 12]
    assert found.trimmed[0, found.trimmed_valid[0], 0].tolist() == [1, 2, 3], "rows fit their sources"


@pytest.mark.parametrize("options", [{}, {"support": "weigh"}, {"support": "off", "likeness_trim": 0.5}])
def test_without_positives_nothing_is_dropped(options: dict[str, object]) -> None:
    shown = [image for image in trains() if not image.labels[0]]
    config = FPRConfig(prototypes=1, negatives=5, **options)  # type: ignore[arg-type]
    assert sources(shown, config) == [10, 11, 12, 13, 14]


def test_a_class_may_lose_every_negative_and_keeps_its_map() -> None:
    shown = [flat_image(8 + i / 10, 1, 0, i) for i in range(5)]
    shown += [flat_image(v, 0, 9, 10 + i) for i, v in enumerate((7, 10, 13))]
    config = FPRConfig(prototypes=1, negatives=3)
    found = cases.collected(shown, config)
    assert found.negative_valid.any() and found.without_negatives() == [0]
    features, maps = torch.randn(1, 2, 3, 3).double(), torch.rand(1, 1, 3, 3).double()
    for chosen in compared_pixels(features, maps, torch.ones(1, 1, dtype=torch.bool), found):
        assert not chosen.any()


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_share_outside_of_0_to_1_is_named(value: float) -> None:
    with pytest.raises(InputError, match=f"fpr.likeness_trim is {value}; expected a share from 0"):
        FPRConfig(likeness_trim=value)
