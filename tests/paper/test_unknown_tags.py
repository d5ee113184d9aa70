"""Pairs of photo and class that are marked unknown (-1): no part in any loss, in no pool."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tag2mask.fpr import FPRConfig, PrototypePools, binary_cross_entropy, fpr_loss
from tag2mask.presets import method_config
from tests.paper import cases
from tests.paper.cases import Batch
from tests.paper.edge_cases import FULL

UNKNOWN = -1
CONFIGS = {
    "default": FPRConfig(),
    "sharpen": method_config("sharpen", FPRConfig()),
    "focal": method_config("focal", FPRConfig()),
    "paper": method_config("paper", FPRConfig()),
    "image": FPRConfig(pixel_average="image", pixel_form="mean", pixel_detach=True, feature_space="trained"),
}


def partly_unknown(seed: int, share: float = 0.4, **shape: int) -> Batch:
    """A batch of which a share of the labels, tagged or not, is unknown."""
    batch = cases.batch(seed, **shape)
    unknown = torch.rand(batch.labels.shape, generator=torch.Generator().manual_seed(seed + 1)) < share
    return replace(batch, labels=batch.labels.masked_fill(unknown, UNKNOWN))


def loss_by_loops(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Eq. 1 and 10: the mean over the pairs that are known."""
    total, known = logits.new_zeros(()), 0
    for n in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            probability = 1 / (1 + torch.exp(-logits[n, c]))
            if labels[n, c] == 1:
                total, known = total - torch.log(probability), known + 1
            elif labels[n, c] == 0:
                total, known = total - probability**gamma * torch.log(1 - probability), known + 1
    return total / known if known else total


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([0.0, 2.0]))
def test_classification_loss_equals_the_loops(seed: int, share: float, gamma: float) -> None:
    batch = partly_unknown(seed, share)
    *_, logits, labels = batch.outputs()
    expected = loss_by_loops(logits, labels, gamma)
    cases.assert_same(binary_cross_entropy(logits, labels, gamma), expected, batch.leaves)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_an_unknown_pair_has_no_gradient_however_sure_the_network_is(gamma: float, extreme: float) -> None:
    logits = torch.tensor([[0.3, extreme], [extreme, -0.2]], requires_grad=True)
    labels = torch.tensor([[1, UNKNOWN], [UNKNOWN, 0]])
    value = binary_cross_entropy(logits, labels, gamma)
    (gradient,) = torch.autograd.grad(value, logits)
    assert math.isfinite(value.item()) and gradient[0, 1] == gradient[1, 0] == 0
    assert gradient[0, 0] < 0 < gradient[1, 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(CONFIGS)))
def test_the_whole_loss_ignores_maps_of_unknown_pairs(seed: int, name: str) -> None:
    """A class that is unknown everywhere might as well have a map of anything, and neither map nor logit is pulled."""
    batch, lists = cases.batch(seed), cases.padded(cases.bank(seed, FULL))
    batch.labels[:, 1] = UNKNOWN
    features, maps, logits, labels = (tensor.detach() for tensor in batch.outputs())

    def terms(shift: float) -> tuple[Tensor, Tensor, Tensor]:
        other, odds = maps.clone(), logits.clone()
        other[:, 1], odds[:, 1] = shift * other[:, 1] + shift, shift
        other.requires_grad_()
        odds.requires_grad_()
        config = replace(CONFIGS[name], pixel_detach=False)
        total = fpr_loss(features, other, odds, labels, lists, config, steps=10).total
        gradients = torch.autograd.grad(total, (other, odds), allow_unused=True)
        return total.detach(), *(torch.zeros(1, 2) if g is None else g[:, 1] for g in gradients)

    one, other = terms(1.0), terms(50.0)
    assert torch.equal(one[0], other[0])
    for gradient in (*one[1:], *other[1:]):
        assert not gradient.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(CONFIGS)))
def test_the_whole_loss_equals_the_loops(seed: int, name: str) -> None:
    """Known as without the unknown: for the terms of present classes they are absent, the classification lacks them."""
    batch, lists, config = partly_unknown(seed), cases.bank(seed, FULL), CONFIGS[name]
    absent = replace(batch, labels=batch.labels.clamp(min=0))
    *_, logits, labels = batch.outputs()
    gamma = config.focal_gamma if config.classification == "focal" else 0.0
    of_all = loss_by_loops(logits, absent.labels, gamma)
    expected = cases.loop_loss(absent, lists, config) - of_all + loss_by_loops(logits, labels, gamma)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), config), expected, batch.leaves, 1e-8)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_all_unknown_is_a_loss_of_0_without_gradient(name: str) -> None:
    batch = partly_unknown(0, share=2.0)
    assert (batch.labels == UNKNOWN).all()
    value = cases.package_loss(batch, cases.padded(cases.bank(0, FULL)), CONFIGS[name])
    assert value == 0 and value.requires_grad, "a training step on it does nothing, and does not fail"
    assert not any(gradient.any() for gradient in cases.gradients(value, batch.leaves))


# Pools


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_pools_hold_what_is_known_alone(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (count, 3), generator=generator)
    regions = torch.arange(count)[:, None, None].expand(count, 3, 2).float()
    area = torch.randint(0, 3, (count, 3), generator=generator)
    pools = PrototypePools(3, 2, positives=20, negatives=20)
    pools.add(regions, area, torch.rand(count, 3, generator=generator), labels, torch.arange(count))
    for c in range(3):
        for pool, sign in ((pools.positive, 1), (pools.negative, 0)):
            rows, _, numbers, tags = pool.ranked(c)
            expected = [n for n in range(count) if labels[n, c] == sign and area[n, c] > 0]
            assert sorted(numbers.tolist()) == expected
            assert rows[:, 0].tolist() == numbers.tolist()
            known_absent = labels[numbers] == 0
            assert torch.equal(tags, ~known_absent if sign == 0 else labels[numbers] == 1), "for trimming"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_prototypes_of_a_class_are_those_of_the_photos_that_are_known(seed: int, explained: bool) -> None:
    shown = cases.images(seed, 14)
    config = FPRConfig(prototypes=2, negatives=3, explained_trim=explained)
    for image in shown[:5]:
        image.labels[:] = UNKNOWN
    found, expected = cases.collected(shown, config), cases.collected(shown[5:], config)
    for name, value in vars(expected).items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(found, name), value), name
    assert not set(found.negative_source[found.negative_valid].tolist()) & {i.number for i in shown[:5]}
    assert found.negative_valid.any()


def test_a_missing_tag_marked_unknown_leaves_the_negatives() -> None:
    """It ranks first: the object is there."""
    shown = cases.images(3, 12, tag_share=0.3)
    config = FPRConfig(prototypes=2, negatives=3)
    first = int(cases.collected(shown, config).negative_source[0, 0])
    (image,) = [image for image in shown if image.number == first]
    image.labels[0] = UNKNOWN
    found = cases.collected(shown, config)
    assert first not in found.negative_source[0].tolist() and found.negative_valid[0].any()
