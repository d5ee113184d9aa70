"""Ours: negatives that show what their photo is tagged with are dropped, without any super-classes."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tag2mask.fpr import FPRConfig
from tag2mask.fpr.prototypes import explained_by_tags
from tests.paper import cases, reference
from tests.paper.reference import Image

Rows = list[list[float]]


def by_loops(regions: Rows, tags: list[list[bool]], positive: list[Rows], typical: list[float]) -> list[bool]:
    """Region by region, tag by tag, prototype by prototype."""
    explained = []
    for region, tagged in zip(regions, tags, strict=True):
        of_any = False
        for c, tag in enumerate(tagged):
            for prototype in positive[c]:
                if tag and math.dist(region, prototype) < typical[c]:
                    of_any = True
        explained.append(of_any)
    return explained


def sample(seed: int, count: int, classes: int = 3) -> tuple[Tensor, Tensor, list[Rows], Tensor]:
    """Regions (R, D), tags (R, C), positive prototypes of each class, and how far its regions typically lie."""
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randn(count, 4, generator=generator, dtype=torch.float64) + 0.5
    tags = torch.rand(count, classes, generator=generator) < 0.5
    lists = cases.bank(seed, cases.random_sizes(seed, classes))
    typical = 3 * torch.rand(classes, generator=generator, dtype=torch.float64)
    return regions, tags, lists.positive, typical


def package(regions: Tensor, tags: Tensor, positive: list[Rows], typical: Tensor) -> Tensor:
    prototypes = cases.padded(replace(cases.bank(0, [(0, 0, 0)] * len(positive)), positive=positive))
    return explained_by_tags(regions, tags, prototypes.positive, prototypes.positive_valid, typical)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40))
def test_equals_the_loops(seed: int, count: int) -> None:
    """40 regions: beyond 25 the distances are products of matrices."""
    regions, tags, positive, typical = sample(seed, count)
    expected = by_loops(regions.tolist(), tags.tolist(), positive, typical.tolist())
    assert package(regions, tags, positive, typical).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3))
def test_a_wider_bound_or_another_tag_never_explains_less(seed: int, wider: float) -> None:
    regions, tags, positive, typical = sample(seed, 15)
    before = package(regions, tags, positive, typical)
    assert (package(regions, tags, positive, typical + wider) >= before).all()
    more = tags.clone()
    more[:, 1] = True
    assert (package(regions, more, positive, typical) >= before).all()


def test_nothing_is_explained_without_tags_or_positives() -> None:
    regions, tags, positive, _ = sample(0, 15)
    everywhere = torch.full((3,), torch.inf, dtype=torch.float64)
    assert package(regions, torch.ones_like(tags), positive, everywhere).all(), "with both, all of it here"
    assert not package(regions, torch.zeros_like(tags), positive, everywhere).any()
    assert not package(regions, torch.ones_like(tags), [[], [], []], everywhere).any()
    only_one = torch.zeros_like(tags)
    only_one[:, 2] = True
    assert not package(regions, only_one, [*positive[:2], []], everywhere).any(), "its class has no positives"


# In the prototype pass


def expected_trimmed(shown: list[Image], config: FPRConfig, superclasses: list[int] | None) -> list[list[int]]:
    """Source numbers of the trimmed negatives of each class, by the loops."""
    classes = len(shown[0].labels)
    setting = dict(
        theta=config.theta, epsilon=0.0, count=config.prototypes, positive_theta=config.positive_theta,
        singleton="keep", restarts=config.kmeans_restarts, order=cases.row_order(classes), superclasses=superclasses,
    )  # fmt: skip
    bank = reference.collect(shown, negatives=config.negatives * config.refill, **setting)  # type: ignore[arg-type]
    tags = {image.number: [bool(tag) for tag in image.labels] for image in shown}
    typical = []
    for c in range(classes):
        own = [
            min(
                math.dist([float(v) for v in reference.region(image.features, pixels)], row) for row in bank.positive[c]
            )
            for image in shown
            if image.labels[c] == 1 and (pixels := reference.activated(image.maps[c], config.positive_theta, 0.0))
        ]
        typical.append(statistics.median_low(own) if own else math.inf)
        assume(typical[-1] > 1e-5)  # a prototype that is a region itself: what is nearer hangs on the last bit
    result = []
    for c in range(classes):
        # Two maps of a photo may activate the same pixels; then a negative is a positive, and may be the median itself.
        for row, number in zip(bank.trimmed[c], bank.trimmed_source[c], strict=True):
            for other in range(classes):
                if tags[number][other] and bank.positive[other]:
                    nearest = min(math.dist(row, prototype) for prototype in bank.positive[other])
                    assume(abs(nearest - typical[other]) > 1e-5)
        dropped = by_loops(bank.trimmed[c], [tags[n] for n in bank.trimmed_source[c]], bank.positive, typical)
        kept = [n for n, gone in zip(bank.trimmed_source[c], dropped, strict=True) if not gone]
        result.append(kept[: config.negatives])
    return result


def sources(shown: list[Image], config: FPRConfig, superclasses: list[int] | None = None) -> list[list[int]]:
    """The package's."""
    found = cases.collected(shown, config, superclasses)
    return [found.trimmed_source[c, found.trimmed_valid[c]].tolist() for c in range(len(shown[0].labels))]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 25), prototypes=st.integers(1, 3), negatives=st.integers(1, 4),
    refill=st.integers(1, 3), superclasses=st.sampled_from([None, [0, 0, 1]]),
)  # fmt: skip
def test_the_prototype_pass_equals_the_loops(
    seed: int, count: int, prototypes: int, negatives: int, refill: int, superclasses: list[int] | None
) -> None:
    shown = cases.images(seed, count)
    config = FPRConfig(
        tagged_theta=1.0, support="off", explained_trim=True, prototypes=prototypes, negatives=negatives, refill=refill,
        superclass_trim=superclasses is not None,
    )  # fmt: skip
    assert sources(shown, config, superclasses) == expected_trimmed(shown, config, superclasses)


def flat_image(value: float, tags: list[int], logit: float, number: int) -> Image:
    """One pixel with the feature (value, 0), activated for every class; class 0 is as sure as ``logit``."""
    features = torch.tensor([value, 0.0], dtype=torch.float64)[:, None, None]
    logits = torch.tensor([logit, 0.0], dtype=torch.float64)
    return Image(features, torch.ones(2, 1, 1, dtype=torch.float64), logits, torch.tensor(tags).double(), number)


def buses() -> list[Image]:
    """Class 1 looks like 8 to 12. Of class 0 the surest negative shows it, the next ones a road (3, 2, 1)."""
    shown = [flat_image(8 + i, [1, 1], 0, i) for i in range(5)]
    return [
        *shown, flat_image(9.5, [0, 1], 9, 10), flat_image(3, [0, 1], 8, 11), flat_image(2, [0, 0], 7, 12),
        flat_image(10, [0, 0], 6, 13), flat_image(1, [0, 0], 5, 14),
    ]  # fmt: skip


@pytest.mark.parametrize(("refill", "kept"), [(1, [11, 12]), (2, [11, 12, 13])])
def test_an_explained_negative_is_dropped_and_replaced_where_others_are_ranked(refill: int, kept: list[int]) -> None:
    """13 looks like a bus as well, but nobody says that there is one."""
    config = FPRConfig(tagged_theta=1.0, support="off", prototypes=1, negatives=3, refill=refill, explained_trim=True)
    assert sources(buses(), config)[0] == kept
    assert sources(buses(), replace(config, explained_trim=False))[0] == [10, 11, 12]


def test_what_ranks_stays_as_it_was() -> None:
    """The region contrast pushes away from negatives that are not trimmed."""
    config = FPRConfig(tagged_theta=1.0, support="off", prototypes=1, negatives=3, refill=1, explained_trim=True)
    found = cases.collected(buses(), config)
    assert found.negative_source[0].tolist() == [10, 11, 12]
    assert found.trimmed[0, found.trimmed_valid[0], 0].tolist() == [3, 2], "rows fit their sources"


def test_without_tags_nothing_is_dropped() -> None:
    shown = [image for image in buses() if not image.labels[0]]
    for image in shown:
        image.labels[:] = 0
    config = FPRConfig(tagged_theta=1.0, support="off", prototypes=1, negatives=5, explained_trim=True)
    assert sources(shown, config)[0] == [10, 11, 12, 13, 14]
