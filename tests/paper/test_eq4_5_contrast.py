"""Eq. 4-5: the region contrast equals the loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import AUTHORS, PAPER, PAPER_AT_SCALE, FPRConfig, fpr_loss, region_contrast
from tag2mask.fpr.contrast import paired_distance
from tests.paper import cases, reference
from tests.paper.edge_cases import FULL

REGION_ALONE = replace(PAPER, region_weight=1.0, pixel_weight=0.0)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    distance=st.sampled_from(["l2", "rms", "cosine"]),
    offset=st.sampled_from([0.0, 0.1]),
    temperature=st.sampled_from([1.0, 13.0]),
    unit=st.sampled_from(["spread", "literal"]),
    centre=st.sampled_from(["mean", "weighted"]),
    sizes=st.sampled_from(["some", "all"]),
)
def test_equals_the_loops(
    seed: int, images: int, distance: str, offset: float, temperature: float, unit: str, centre: str, sizes: str
) -> None:
    config = replace(
        REGION_ALONE, distance=distance, distance_offset=offset, temperature=temperature, temperature_unit=unit,
        positive_centre=centre, region_average="pairs",
    )  # fmt: skip
    batch = cases.batch(seed, images)
    lists = cases.bank(seed, cases.random_sizes(seed) if sizes == "some" else FULL)
    expected = cases.loop_loss(batch, lists, config)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), config), expected, batch.leaves)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0, 0.5, 1]))
def test_the_average_per_image_equals_the_loops(seed: int, images: int, tag_share: float) -> None:
    """1 / sum(y) inside an image, then the mean over the images of the batch; without a tag an image counts as 0."""
    batch = cases.batch(seed, images, tag_share=tag_share)
    lists = cases.bank(seed, FULL)
    expected = cases.loop_loss(batch, lists, REGION_ALONE)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), REGION_ALONE), expected, batch.leaves)


def test_a_class_that_is_left_out_does_not_count_in_sum_y() -> None:
    """Two tags, one of them without negatives: what is left of Eq. 4 is the mean over one class."""
    batch = cases.batch(0, images=1)
    batch.labels[:] = torch.tensor([1, 1, 0])
    lists = cases.bank(0, [(3, 3, 3), (3, 0, 0), (3, 3, 3)])
    assert all((batch.maps().amax(dim=(2, 3)) > 0)[0, :2])
    expected = cases.loop_loss(batch, lists, REGION_ALONE)
    cases.assert_same(cases.package_loss(batch, cases.padded(lists), REGION_ALONE), expected, batch.leaves)


# Numbers of the paper and the release


@given(st.integers(0, 10**6))
def test_rms_is_l2_over_the_root_of_the_channels(seed: int) -> None:
    """So the release's T = 13 is 588.3 in units of the paper's L2 distance on 2048 channels."""
    first, second = torch.randn(2, 2048, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rms, l2 = paired_distance(first, second, "rms"), paired_distance(first, second, "l2")
    assert (rms**2 - 1e-4).sqrt().item() == pytest.approx(l2.item() / math.sqrt(2048))
    temperature = l2.item() / ((rms**2 - 1e-4).sqrt().item() / 13)
    assert temperature == pytest.approx(588.3, abs=0.05)


def contrast_of(region: list[float], positive: list[float], negative: list[float], config: FPRConfig) -> torch.Tensor:
    lists = reference.Bank([[positive]], [[1.0]], [[negative]], [[0]], [[negative]], [[0]], 1.0)
    return region_contrast(
        torch.tensor([[region]], dtype=torch.float64), torch.tensor([[True]]),
        cases.padded(lists, count=1, channels=len(region)), config.temperature, config.distance,
        config.distance_offset, config.positive_centre, config.region_average,
    )  # fmt: skip


def test_numbers_by_hand() -> None:
    """Distances 5 and 10 with T = 13."""
    value = contrast_of([0.0, 0.0], [3.0, 4.0], [-6.0, 8.0], PAPER).item()
    assert value == pytest.approx(5 / 13 - math.log(1 - math.exp(-10 / 13)))
    rms = math.sqrt((9 + 16) / 2 + 1e-4), math.sqrt((36 + 64) / 2 + 1e-4)
    value = contrast_of([0.0, 0.0], [3.0, 4.0], [-6.0, 8.0], AUTHORS).item()
    assert value == pytest.approx(rms[0] / 13 + 0.1 - math.log(1 - math.exp(-(rms[1] / 13 + 0.1))))


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2), st.lists(st.floats(-30, 30), min_size=2, max_size=2))
def test_the_offset_keeps_the_negative_similarity_below_9048(region: list[float], negative: list[float]) -> None:
    push = contrast_of(region, region, negative, AUTHORS).item() - (math.sqrt(1e-4) / 13 + 0.1)
    similarity = 1 - math.exp(-push)
    assert similarity <= 0.9048
    assert push <= -math.log(1 - math.exp(-0.1))


# Invariants


@pytest.mark.parametrize("distance", ["l2", "rms", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("config", [PAPER, AUTHORS, PAPER_AT_SCALE])
@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e-12, 1e-6])
def test_a_region_on_its_prototypes_has_a_finite_gradient(
    distance: str, dtype: torch.dtype, config: FPRConfig, gap: float
) -> None:
    region = torch.tensor([[[1.0, 2.0]]], dtype=dtype, requires_grad=True)
    lists = reference.Bank([[[1.0 + gap, 2.0]]], [[1.0]], [[[1.0 + gap, 2.0]]], [[0]], [[]], [[]], 1.0)
    loss = region_contrast(
        region, torch.tensor([[True]]), cases.padded(lists, count=2, channels=2, dtype=dtype),
        config.temperature, distance, config.distance_offset, config.positive_centre, config.region_average,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, region)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_the_gradient_pulls_to_the_centre_and_pushes_from_the_nearest_negative() -> None:
    region = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    lists = reference.Bank([[[9.0, 0.0]]], [[1.0]], [[[0.0, 2.0], [0.0, -8.0]]], [[0, 1]], [[]], [[]], 1.0)
    prototypes = cases.padded(lists, count=2, channels=2)
    (gradient,) = torch.autograd.grad(region_contrast(region, torch.tensor([[True]]), prototypes, 13.0), region)
    assert gradient[0, 0, 0] < 0  # descent moves to the right, towards the positives
    assert gradient[0, 0, 1] > 0  # and down, away from the nearest negative although the other one is there


def test_the_negatives_are_not_trimmed() -> None:
    batch = cases.batch(2)
    lists = cases.bank(2, FULL)
    without = cases.bank(2, FULL)
    without.trimmed = [[], [], []]
    expected = cases.package_loss(batch, cases.padded(lists), REGION_ALONE)
    assert cases.package_loss(batch, cases.padded(without), REGION_ALONE) == expected


def test_the_classifier_gets_no_gradient() -> None:
    """Section 3.2.2: the 1x1 convolution is not aware of the contrast."""
    features, maps, logits, labels = cases.batch(4).outputs()
    prototypes = cases.padded(cases.bank(4, FULL))
    detached = fpr_loss(features, maps.detach(), logits.detach(), labels, prototypes, REGION_ALONE, steps=1).total
    attached = fpr_loss(features, maps, logits.detach(), labels, prototypes, REGION_ALONE, steps=1).total
    expected, found = cases.gradients(detached, [features]), cases.gradients(attached, [features, maps])
    assert expected[0].any()
    assert torch.equal(found[0], expected[0])
    assert not found[1].any()


def test_a_spread_of_zero_does_not_blow_up_the_loss() -> None:
    """One positive for each class, as in a very small set: the spread is 0, and T in its units means nothing."""
    config = replace(PAPER_AT_SCALE, pixel_weight=0.0)
    shown = cases.images(0, 3)
    for i, image in enumerate(shown):
        image.labels[:] = torch.eye(3)[i]
        image.maps.abs_()
    found = cases.collected(shown, config)
    assert found.spread == 0
    batch = cases.batch(0)
    loss = cases.package_loss(batch, cases.double(found), config)
    assert loss.item() < 100
    assert all(gradient.abs().max() < 100 for gradient in cases.gradients(loss, batch.leaves))


def test_the_temperature_in_units_of_the_spread_makes_the_term_scale_free() -> None:
    """The same pictures with features in another unit have the same region contrast."""
    for scale in (1e-3, 7.0, 1e4):
        values = []
        for factor in (1.0, scale):
            shown = cases.images(1, 14)
            for image in shown:
                image.features *= factor
            found = cases.double(cases.collected(shown, PAPER_AT_SCALE))
            features, maps, logits, labels = cases.batch(1).outputs()
            values.append(fpr_loss(features * factor, maps, logits, labels, found, PAPER_AT_SCALE, 100).region.item())
        assert values[0] > 0
        assert values[1] == pytest.approx(values[0], rel=1e-4)
