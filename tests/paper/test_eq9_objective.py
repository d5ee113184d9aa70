"""Eq. 9: the whole loss equals the loops, for the `paper` preset and for every switch at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import AUTHORS, PAPER, PAPER_AT_SCALE, FPRConfig, fpr_loss, pixel_term_weight
from tests.paper import cases, reference
from tests.paper.cases import Batch
from tests.paper.edge_cases import EDGE_CASES, FULL
from tests.paper.reference import Bank

SWITCHES = {
    "classification": ["bce", "focal"],
    "focal_gamma": [0.0, 1.0, 2.0],
    "theta": [0.0, 0.1, 0.45],
    "region_weight": [0.0, 0.12, 1.0],
    "pixel_weight": [0.0, 1.0, 30.0],
    "pixel_weight_unit": ["schedule", "literal"],
    "pixel_form": ["ratio", "mean", "softplus"],
    "pixel_lift": [0.0, 0.5, 1.0],
    "pixel_select": ["prototypes", "prototypes", "halo"],
    "halo_below": [0.2, 0.6],
    "margin": [0.8, 1.0, 1.2],
    "feature_space": ["trained"],  # a matter of the network; the loss takes the features that it is given
    "distance": ["l2", "rms", "cosine"],
    "distance_offset": [0.0, 0.1],
    "temperature": [1.0, 13.0],
    "temperature_unit": ["spread", "literal"],
    "region_average": ["pairs", "image"],
    "pixel_average": ["batch", "image"],
    "pixel_detach": [False, True],
    "positive_centre": ["mean", "weighted"],
    "region_epsilon": [0.0, 0.3],
    "pixel_epsilon": [0.0, 0.6],
}


@pytest.mark.parametrize("seed", range(120))
def test_every_switch_equals_the_loops(seed: int) -> None:
    """Any combination of the switches of a training step; the epsilons are large, so that they matter."""
    chooser = random.Random(seed)
    config = FPRConfig(**{name: chooser.choice(values) for name, values in SWITCHES.items()})
    batch = cases.batch(seed, images=chooser.choice([1, 2, 3]), tag_share=chooser.choice([0.6, 1]))
    lists = cases.bank(seed, FULL)
    expected = cases.loop_loss(batch, lists, config, steps=7)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), config, steps=7), expected, batch.leaves)


def test_the_switches_are_all_there() -> None:
    """A new switch of the training step must come into the test above; these others are of the prototype pass."""
    of_the_pass = {
        "positive_theta", "tagged_theta", "prototypes", "negatives", "superclass_trim", "singleton_superclass", "refill",
        "rank_by", "positive_capacity", "exact_kmeans", "kmeans_restarts", "collect_every", "collect_scales", "collect_flip",
        "collect_epsilon", "explained_trim", "likeness_trim", "suspects", "support", "remember", "lift_fewer",
    }  # fmt: skip
    assert {field.name for field in fields(FPRConfig)} == set(SWITCHES) | of_the_pass


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 0.5, 1]))
def test_the_paper_preset_equals_the_loops(seed: int, images: int, height: int, tag_share: float) -> None:
    """Eq. 1 to 9 as printed, averaged over the images of the batch."""
    batch, lists = cases.batch(seed, images, height=height, tag_share=tag_share), cases.bank(seed, FULL)
    expected = reference.paper_loss(*batch.outputs(), lists)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), PAPER), expected, batch.leaves)


@pytest.mark.parametrize("change", EDGE_CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_paper_preset_at_the_edges(change: Callable[[Batch, Bank], tuple[Batch, Bank]], seed: int) -> None:
    batch, lists = change(cases.batch(seed), cases.bank(seed, FULL))
    expected = reference.paper_loss(*batch.outputs(), lists)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), PAPER), expected, batch.leaves)


def test_the_paper_preset_from_images_to_gradients() -> None:
    for seed in range(5):
        shown = cases.images(seed, 20)
        lists = reference.paper_bank(shown, [0, 0, 1], 0, cases.row_order(3))
        assert all(lists.positive)
        assert all(lists.negative)
        found = cases.double(cases.collected(shown, PAPER, [0, 0, 1]))
        batch = cases.batch(seed)
        expected = reference.paper_loss(*batch.outputs(), lists)
        cases.assert_same(cases.package_loss(batch, found, PAPER), expected, batch.leaves, tolerance=1e-6)


def test_the_terms_are_those_of_the_sum() -> None:
    batch, lists = cases.batch(0), cases.bank(0, FULL)
    features, maps, logits, labels = batch.outputs()
    terms = fpr_loss(features, maps, logits, labels, cases.padded(lists), AUTHORS, steps=1)
    assert terms.total.item() == pytest.approx(
        (terms.classification + 0.12 * terms.region + 15e-5 * terms.pixel).item(), rel=1e-12
    )
    assert min(terms.classification, terms.region, terms.pixel) > 0
    assert terms.total.requires_grad
    assert not any(term.requires_grad for term in terms[1:])


def test_lambda_2_in_units_of_the_schedule() -> None:
    """10 x weight / (classes x steps): the paper's 1.5e-4 with 20 classes and 3305 steps is 9.9 / (20 x 3305)."""
    literal = FPRConfig(pixel_weight=15e-5, pixel_weight_unit="literal")
    assert pixel_term_weight(literal, 20, 3305) == 15e-5
    assert pixel_term_weight(FPRConfig(pixel_weight=1.0), 20, 3305) == pytest.approx(15e-5, rel=0.01)
    assert pixel_term_weight(FPRConfig(pixel_weight=2.0), 4, 50) == pytest.approx(0.1)


@pytest.mark.parametrize("config", [AUTHORS, PAPER, PAPER_AT_SCALE, FPRConfig()])
def test_without_weights_only_the_classification_is_left(config: FPRConfig) -> None:
    batch = cases.batch(1)
    _, _, logits, labels = batch.outputs()
    without = replace(config, region_weight=0.0, pixel_weight=0.0)
    assert not without.needs_prototypes()
    expected = reference.binary_cross_entropy(logits, labels)
    cases.assert_same(cases.package_loss(batch, None, without), expected, batch.leaves)


@pytest.mark.parametrize("config", [AUTHORS, PAPER, FPRConfig()])
def test_missing_prototypes_do_not_pass_unnoticed(config: FPRConfig) -> None:
    """A term that is asked for must not silently drop out of the loss."""
    assert config.needs_prototypes()
    with pytest.raises(ValueError, match="prototypes"):
        cases.package_loss(cases.batch(1), None, config)


def test_halo_needs_no_prototypes() -> None:
    config = FPRConfig(pixel_select="halo", pixel_weight=100.0)
    assert not config.needs_prototypes()
    batch = cases.batch(2)
    expected = cases.loop_loss(batch, cases.bank(2, [(0, 0, 0)] * 3), config)
    cases.assert_same(cases.package_loss(batch, None, config), expected, batch.leaves)


@pytest.mark.parametrize("config", [AUTHORS, PAPER, PAPER_AT_SCALE, FPRConfig(), FPRConfig(distance="cosine")])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_equal_every_prototype_have_finite_gradients(config: FPRConfig, value: float) -> None:
    """The root in a distance has no slope at 0, a unit vector of 0 none either."""
    batch = cases.batch(0)
    batch.features.data.fill_(value)
    batch.labels[:] = 1
    rows = [[value] * 4] * 2
    lists = reference.Bank([rows] * 3, [[0.5, 0.5]] * 3, [rows] * 3, [[0, 1]] * 3, [rows] * 3, [[0, 1]] * 3, 1.0)
    loss = cases.package_loss(batch, cases.padded(lists), replace(config, region_weight=1.0, feature_space="trained"))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in cases.gradients(loss, batch.leaves))


@pytest.mark.parametrize("config", [AUTHORS, PAPER, FPRConfig(region_weight=0.1, feature_space="trained")])
def test_prototypes_get_no_gradient_and_inputs_stay_as_they_are(config: FPRConfig) -> None:
    batch, prototypes = cases.batch(3), cases.padded(cases.bank(3, FULL))
    features, maps, logits, labels = batch.outputs()
    before = [value.detach().clone() for value in (features, maps, logits, labels, prototypes.positive)]
    for tensor in (prototypes.positive, prototypes.negative, prototypes.trimmed):
        assert not tensor.requires_grad
    fpr_loss(features, maps, logits, labels, prototypes, config, steps=1).total.backward()
    after = (features, maps, logits, labels, prototypes.positive)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
