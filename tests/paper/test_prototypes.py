"""Section 3.2.1: prototypes equal the loops; section 3.2.2: so do the trimmed ones."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.data.classes import VOC_NAMES, VOC_SUPERCLASSES
from tag2mask.fpr import AUTHORS, PAPER, FPRConfig, Prototypes
from tests.paper import cases, reference
from tests.paper.reference import Bank, Image

VOC_GROUPS = [next(g for g, names in enumerate(VOC_SUPERCLASSES.values()) if name in names) for name in VOC_NAMES]


def loop_bank(shown: list[Image], config: FPRConfig, superclasses: list[int] | None, seed: int = 0) -> Bank:
    return reference.collect(
        shown, theta=config.theta, epsilon=1e-5, count=config.prototypes,
        superclasses=superclasses if config.superclass_trim else None, singleton=config.singleton_superclass,
        positive_theta=config.positive_theta, tagged_theta=config.tagged_theta, negatives=config.negatives,
        restarts=config.kmeans_restarts, refill=config.refill, rank_by=config.rank_by, seed=seed,
        order=cases.row_order(len(shown[0].labels)),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 14),
    config=st.builds(
        FPRConfig,
        theta=st.floats(0, 0.75, width=16),
        positive_theta=st.floats(0, 0.75, width=16),
        tagged_theta=st.floats(0, 1, width=16),
        prototypes=st.integers(1, 4),
        negatives=st.integers(1, 4),
        superclass_trim=st.booleans(),
        singleton_superclass=st.sampled_from(["keep", "skip"]),
        support=st.just("off"),  # which test_support.py holds against loops
        refill=st.integers(1, 3),
        rank_by=st.sampled_from(["logit", "max"]),
        kmeans_restarts=st.integers(1, 2),
    ),
    superclasses=st.sampled_from([None, [0, 0, 1], [0, 1, 2], [4, 4, 4]]),
)
def test_every_switch_equals_the_loops(
    seed: int, count: int, config: FPRConfig, superclasses: list[int] | None
) -> None:
    shown = cases.images(seed, count)
    expected = loop_bank(shown, config, superclasses, seed % 5)
    cases.assert_same_prototypes(cases.collected(shown, config, superclasses, seed % 5), expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_paper_preset_equals_the_loops(seed: int, count: int) -> None:
    shown = cases.images(seed, count)
    expected = reference.paper_bank(shown, [0, 0, 1], 0, cases.row_order(3))
    cases.assert_same_prototypes(cases.collected(shown, PAPER, [0, 0, 1]), expected)


def test_more_positives_than_the_capacity() -> None:
    """k-means then sees the rows with the highest priority alone; nothing else changes."""
    config = FPRConfig(prototypes=2, positive_capacity=5)
    shown = cases.images(3, 30, tag_share=0.5)
    found = cases.collected(shown, config)
    order = cases.row_order(3)
    full = loop_bank(shown, config, None)
    for c in range(3):
        ranked = sorted((image for image in shown if image.labels[c]), key=lambda image, c=c: order(image.number, c))
        kept = [image for image in ranked if reference.activated(image.maps[c], config.positive_theta, 1e-5)][:5]
        expected = loop_bank(kept, config, None)
        torch.testing.assert_close(found.positive[c].double(), torch.tensor(expected.positive[c]).double())
        assert found.negative_source[c, found.negative_valid[c]].tolist() == full.negative_source[c]


def same(one: Prototypes, other: Prototypes) -> bool:
    return one.spread == other.spread and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name, value in vars(one).items()
        if isinstance(value, torch.Tensor)
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(12)), st.integers(1, 12))
def test_the_order_of_the_images_changes_no_bit(seed: int, order: list[int], batch_size: int) -> None:
    """Also with equal logits, where the image number decides; the pool is smaller than the number of images."""
    config = FPRConfig(prototypes=2, negatives=2, refill=2, superclass_trim=True, positive_capacity=4)
    shown = cases.images(seed, 12)
    for image in shown:
        image.logits.round_()
    one = cases.collected(shown, config, [0, 0, 1])
    other = cases.collected([shown[i] for i in order], config, [0, 0, 1], batch_size=batch_size)
    assert same(one, other)


def regions_of(rows: torch.Tensor, tags: torch.Tensor, logits: torch.Tensor | None = None) -> list[Image]:
    """Images of one pixel whose region feature is the row itself, for every class."""
    classes = tags.shape[1]
    logits = torch.zeros(len(rows), classes) if logits is None else logits
    return [
        Image(row.double()[:, None, None], torch.ones(classes, 1, 1).double(), logits[i].double(), tags[i].double(), i)
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("copies", [3, 45])
def test_repeated_regions_give_each_distinct_one_once(copies: int) -> None:
    """Fewer distinct regions than K: as many centroids, no empty cluster, no double weight in the centre of Eq. 5."""
    rows = torch.cat([torch.tensor([[1.0, 2.0]]).expand(copies, 2), torch.tensor([[5.0, -1.0]])])  # (copies + 1, 2)
    shown = regions_of(rows, torch.ones(len(rows), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn's about more clusters than points
        found = cases.collected(shown, FPRConfig(prototypes=10))
    assert sorted(found.positive[0, found.positive_valid[0]].tolist()) == [[1.0, 2.0], [5.0, -1.0]]
    assert sorted(found.positive_weight[0].tolist())[-2:] == pytest.approx([1 / (copies + 1), copies / (copies + 1)])


def test_shares_and_spread() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.2], [8.0, 0.0], [8.0, 0.2], [8.0, 0.1]])
    tags = torch.tensor([[1, 0]] * 5)
    found = cases.collected(regions_of(rows, tags), FPRConfig(prototypes=2, kmeans_restarts=10))
    assert sorted(found.positive_weight[0].tolist()) == pytest.approx([0.4, 0.6])
    middle = rows.mean(dim=0)
    assert found.spread == pytest.approx((rows - middle).norm(dim=1).mean().item())  # class 1 has no positive: no part


def test_one_prototype_is_the_mean() -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    found = cases.collected(regions_of(rows, torch.ones(30, 1)), FPRConfig(prototypes=1))
    torch.testing.assert_close(found.positive[0, 0], rows.mean(dim=0))
    assert found.positive_weight[0].tolist() == [1.0]


def voc_negatives(config: FPRConfig, sources: list[tuple[str, ...]]) -> Prototypes:
    """One image for each source with these tags; a class's confidence falls from image to image."""
    tags = torch.tensor([[name in names for name in VOC_NAMES] for names in sources])
    logits = torch.arange(len(sources), 0, -1).unsqueeze(1).expand(-1, len(VOC_NAMES))
    rows = torch.randn(len(sources), 3, generator=torch.Generator().manual_seed(0))
    return cases.collected(regions_of(rows, tags, logits), config, VOC_GROUPS)


def test_person_is_alone_in_its_super_class() -> None:
    """The release never rectifies persons; by the paper's wording they keep every negative."""
    person = VOC_NAMES.index("person")
    sources = [("bus",), ("cat", "sofa"), ("bottle",)] * 5
    for config, expected in ((AUTHORS, 0), (PAPER, 10)):
        found = voc_negatives(config, sources)
        assert found.negative_valid[person].sum() == 10
        assert found.trimmed_valid[person].sum() == expected


def test_negatives_from_the_own_super_class_are_trimmed_after_the_top_k() -> None:
    """The paper leaves the gaps: a bus image among the ten best negatives of car is dropped, not replaced."""
    car, cat = VOC_NAMES.index("car"), VOC_NAMES.index("cat")
    sources = [("bus", "person"), ("person",), ("cat",), ()] * 4
    found = voc_negatives(PAPER, sources)
    assert found.negative_source[car].tolist() == list(range(10))
    assert found.trimmed_source[car, found.trimmed_valid[car]].tolist() == [1, 2, 3, 5, 6, 7, 9]
    assert torch.equal(found.trimmed[car, :3], found.negative[car, 1:4])
    no_cats = [i for i in range(16) if "cat" not in sources[i]][:10]
    assert found.trimmed_source[cat, found.trimmed_valid[cat]].tolist() == no_cats  # cat's negatives show no animal


def test_a_higher_threshold_for_the_positives_keeps_to_the_core() -> None:
    """Two pixels, the second at 30 % of the maximum: part of the negative's region, not of the positive's."""
    features = torch.tensor([[[1.0, 5.0]], [[2.0, 8.0]]]).double()  # (D, H, W) of a 1 x 2 image
    maps = torch.tensor([[[1.0, 0.3]], [[1.0, 0.3]]]).double()
    shown = [Image(features, maps, torch.zeros(2).double(), torch.tensor([1.0, 0.0]), 7)]
    found = cases.collected(shown, FPRConfig(positive_theta=0.4, tagged_theta=1.0))
    assert found.positive[0, 0].tolist() == [1, 2]
    assert found.negative[1, 0].tolist() == [3, 5]
    found = cases.collected(shown, FPRConfig(positive_theta=0.1, tagged_theta=1.0))
    assert found.positive[0, 0].tolist() == [3, 5]


def test_refill_replaces_trimmed_negatives() -> None:
    car = VOC_NAMES.index("car")
    sources = [("bus", "person"), ("person",), ("cat",), ()] * 5
    found = voc_negatives(replace(PAPER, refill=2), sources)
    assert found.negative_source[car].tolist() == list(range(10))
    assert found.trimmed_source[car].tolist() == [i for i in range(20) if i % 4][:10]


def test_classes_without_a_negative_are_named() -> None:
    """Three animals, every image holds an animal: nothing survives, as on a data set of animals alone."""
    tags = torch.eye(3)[torch.arange(9) % 3]
    rows = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    shown = regions_of(rows, tags)
    assert cases.collected(shown, PAPER, [0, 0, 0]).without_negatives() == [0, 1, 2]
    assert cases.collected(shown, PAPER, [0, 0, 1]).without_negatives() == []
    assert cases.collected(shown, AUTHORS, [0, 0, 1]).without_negatives() == [2]


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        cases.collect_prototypes(lambda x: (x, x, x), [], PAPER)


def test_an_image_without_tags_gives_negatives_that_survive_any_trimming() -> None:
    shown = cases.images(2, 1)
    shown[0].labels.zero_()
    shown[0].maps.abs_()
    found = cases.collected(shown, PAPER, [0, 0, 0])
    assert found.trimmed_source[:, 0].tolist() == [100, 100, 100]
    assert found.trimmed_valid.sum() == 3
    assert not found.positive_valid.any()
    assert found.spread == 0
