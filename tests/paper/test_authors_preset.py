"""The `authors` preset equals the loops that compute what the release does: values, gradients, prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import AUTHORS, Prototypes, fpr_loss
from tests.paper import cases, reference
from tests.paper.cases import Batch
from tests.paper.edge_cases import EDGE_CASES, FULL, no_prototypes_at_all, no_tags, nothing_activated
from tests.paper.reference import Bank


def assert_authors(batch: Batch, lists: Bank) -> None:
    expected = reference.authors_loss(*batch.outputs(), lists)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), AUTHORS), expected, batch.leaves)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.sampled_from([0, 0.5, 1]))
def test_total_equals_the_loops(seed: int, images: int, height: int, width: int, tag_share: float) -> None:
    batch = cases.batch(seed, images, height=height, width=width, tag_share=tag_share)
    assert_authors(batch, cases.bank(seed, cases.random_sizes(seed)))


@pytest.mark.parametrize("change", EDGE_CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_edge_cases_equal_the_loops(change: Callable[[Batch, Bank], tuple[Batch, Bank]], seed: int) -> None:
    assert_authors(*change(cases.batch(seed), cases.bank(seed, FULL)))


@pytest.mark.parametrize("change", [nothing_activated, no_tags, no_prototypes_at_all])
def test_only_the_classification_is_left_where_no_term_applies(
    change: Callable[[Batch, Bank], tuple[Batch, Bank]],
) -> None:
    batch, lists = change(cases.batch(3), cases.bank(3, FULL))
    features, maps, logits, labels = batch.outputs()
    terms = fpr_loss(features, maps, logits, labels, cases.padded(lists), AUTHORS, steps=10)
    assert terms.region == 0
    assert terms.pixel == 0
    assert terms.suppressed_share == 0
    cases.assert_same(terms.total, reference.binary_cross_entropy(logits, labels), batch.leaves)


def test_the_cases_reach_both_terms() -> None:
    """The random batches would prove little if nothing were ever suppressed or contrasted."""
    suppressed = contrasted = 0
    for seed in range(20):
        features, maps, logits, labels = cases.batch(seed).outputs()
        terms = fpr_loss(features, maps, logits, labels, cases.padded(cases.bank(seed, FULL)), AUTHORS, steps=10)
        suppressed += int(0 < terms.suppressed_share < 1)
        contrasted += int(terms.region > 0)
    assert suppressed >= 10
    assert contrasted >= 15


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
def test_the_two_terms_have_an_epsilon_each(scale: float) -> None:
    """1e-4 for the contrast, 1e-3 for the rectification: on maps of this size they decide which pixels are active."""
    for seed in range(40):
        batch = cases.batch(seed, height=3)
        assert_authors(
            replace(batch, classifier=(scale * batch.classifier.detach()).requires_grad_()), cases.bank(seed, FULL)
        )


def test_single_precision_agrees_as_far_as_it_reaches() -> None:
    for seed in range(20):
        batch, lists = cases.batch(seed), cases.bank(seed, FULL)
        single = Batch(*(leaf.detach().float().requires_grad_() for leaf in batch.leaves), batch.labels.float())
        found = cases.package_loss(single, cases.padded(lists, dtype=torch.float32), AUTHORS)
        expected = reference.authors_loss(*batch.outputs(), lists)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        for one, other in zip(
            cases.gradients(found, single.leaves), cases.gradients(expected, batch.leaves), strict=True
        ):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-6)


# The prototype pass


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 16), st.sampled_from([0.1, 0.4, 0.8]))
def test_collected_prototypes_equal_the_loops(seed: int, count: int, tag_share: float) -> None:
    shown = cases.images(seed, count, classes=4, tag_share=tag_share)
    superclasses = [0, 0, 1, 2]
    expected = reference.authors_bank(shown, superclasses, seed % 7, cases.row_order(4))
    cases.assert_same_prototypes(cases.collected(shown, AUTHORS, superclasses, seed % 7), expected)


def test_more_regions_than_prototypes() -> None:
    shown = cases.images(8, 60, tag_share=0.5)
    expected = reference.authors_bank(shown, [0, 0, 1], 0, cases.row_order(3))
    assert [len(rows) for rows in expected.positive] == [10, 10, 10]
    found = cases.collected(shown, AUTHORS, [0, 0, 1], batch_size=7)
    cases.assert_same_prototypes(found, expected)
    assert not found.trimmed_valid[2].any()  # alone in its super-class


@pytest.mark.parametrize("peak", [2e-5, 1e-4, 1e-3])
def test_the_prototype_pass_has_its_own_epsilon(peak: float) -> None:
    """1e-5 in this pass; with the training terms' 1e-4 the second pixel would drop out of these regions."""
    shown = cases.images(4, 6)
    for image in shown:
        image.maps.zero_()
        image.maps[:, 0, 0] = peak
        image.maps[:, 1, 1] = 0.1 * (peak + 2e-5)
    expected = reference.authors_bank(shown, [0, 0, 1], 0, cases.row_order(3))
    cases.assert_same_prototypes(cases.collected(shown, AUTHORS, [0, 0, 1]), expected)


@pytest.mark.parametrize("tags", [(1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_pools_that_stay_empty(tags: tuple[int, int, int]) -> None:
    """A class in every image has no negative, a class in none has no positive."""
    shown = cases.images(5, 6)
    for image in shown:
        image.labels[:] = torch.tensor(tags)
    found = cases.collected(shown, AUTHORS, [0, 0, 1])
    cases.assert_same_prototypes(found, reference.authors_bank(shown, [0, 0, 1], 0, cases.row_order(3)))
    for c, tag in enumerate(tags):
        assert not (found.negative_valid if tag else found.positive_valid)[c].any()


def test_from_collected_prototypes_to_gradients() -> None:
    """The whole way in one go: images, pools, prototypes, loss."""
    for seed in range(5):
        shown = cases.images(seed, 14)
        lists = reference.authors_bank(shown, [0, 0, 1], 0, cases.row_order(3))
        found: Prototypes = cases.double(cases.collected(shown, AUTHORS, [0, 0, 1]))
        batch = cases.batch(seed)
        expected = reference.authors_loss(*batch.outputs(), lists)
        cases.assert_same(cases.package_loss(batch, found, AUTHORS), expected, batch.leaves, tolerance=1e-6)


def test_double_precision_features_take_collected_prototypes() -> None:
    """Prototypes are collected in single precision; a batch in another precision must be able to use them."""
    batch = cases.batch(1)
    found = cases.collected(cases.images(1, 14), AUTHORS, [0, 0, 1])
    expected = cases.package_loss(batch, cases.double(found), AUTHORS)
    cases.assert_same(cases.package_loss(batch, found, AUTHORS), expected, batch.leaves)
