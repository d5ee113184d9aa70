"""Ours: the pixels nearer to a positive prototype, their lift, and the controls that act on activation alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import (
    AUTHORS,
    PAPER,
    PAPER_AT_SCALE,
    FPRConfig,
    compared_pixels,
    fpr_loss,
    halo_pixels,
    pixel_lift,
    suppressed_pixels,
)
from tag2mask.presets import method_config
from tests.paper import cases, ours, reference
from tests.paper.cases import Batch
from tests.paper.edge_cases import EDGE_CASES, FULL
from tests.paper.flat_images import flat_image
from tests.paper.reference import Bank

SHARPEN = method_config("sharpen", FPRConfig())
HALO = method_config("halo", FPRConfig())


def positive_maps(maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Present classes with a positive pixel, (N, C)."""
    return (labels > 0) & (maps.amax(dim=(2, 3)) > 0)


def some_lifted(seed: int, share: float, images: int = 2, height: int = 2) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """A batch, any choice of its positive pixels of present classes, and those classes."""
    batch = cases.batch(seed, images, height=height)
    maps = batch.maps().detach()
    chosen = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed)) < share
    return batch, (maps > 0) & chosen & (batch.labels > 0)[:, :, None, None], positive_maps(maps, batch.labels)


# Which pixels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 3),
    theta=st.floats(0, 0.9),
    margin=st.sampled_from([0.5, 0.8, 0.95, 1.0, 1.3]),
    epsilon=st.sampled_from([0.0, 1e-4, 1e-3]),
    cosine=st.booleans(),
)
def test_lifted_pixels_equal_the_loops(
    seed: int, height: int, theta: float, margin: float, epsilon: float, cosine: bool
) -> None:
    """Neither theta nor the epsilon of Eq. 2 has a say in what is lifted; the other half is Phi."""
    batch, lists = cases.batch(seed, height=height), cases.bank(seed, cases.random_sizes(seed))
    features, maps, _, labels = batch.outputs()
    arguments = (features, maps, labels > 0, cases.padded(lists), theta, margin, epsilon, cosine)
    suppressed, lifted = compared_pixels(*arguments)
    places = ours.lifted(features, maps, labels, lists, margin=margin, kind="cosine" if cosine else "l2")
    assert torch.equal(lifted, cases.as_mask(places, maps))
    assert torch.equal(suppressed, suppressed_pixels(*arguments))
    assert not (lifted.requires_grad or suppressed.requires_grad)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.9), st.floats(0.1, 1), st.booleans())
def test_no_pixel_is_suppressed_and_lifted(seed: int, theta: float, margin: float, cosine: bool) -> None:
    features, maps, _, labels = cases.batch(seed, height=4).outputs()
    prototypes = cases.padded(cases.bank(seed, FULL))
    suppressed, lifted = compared_pixels(features, maps, labels > 0, prototypes, theta, margin, cosine=cosine)
    assert not (suppressed & lifted).any()
    assert not lifted[maps <= 0].any()
    assert not lifted[labels == 0].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 2), st.floats(0, 1), st.booleans())
def test_the_lifted_set_grows_with_the_margin(seed: int, margin: float, step: float, cosine: bool) -> None:
    features, maps, _, labels = cases.batch(seed).outputs()
    prototypes = cases.padded(cases.bank(seed, FULL))
    small, large = (
        compared_pixels(features, maps, labels > 0, prototypes, margin=width, cosine=cosine)[1]
        for width in (margin, margin + step)
    )
    assert not (small & ~large).any()


def test_with_margin_1_every_activated_pixel_goes_one_way_or_the_other() -> None:
    for seed in range(20):
        features, maps, _, labels = cases.batch(seed, height=4).outputs()
        prototypes = cases.padded(cases.bank(seed, FULL))
        suppressed, lifted = compared_pixels(features, maps, labels > 0, prototypes, theta=0.0, margin=1.0)
        assert torch.equal(suppressed | lifted, (maps > 0) & (labels > 0)[:, :, None, None])


def test_nothing_is_lifted_without_positives_or_without_trimmed_negatives() -> None:
    """No negative prototype is not one at an infinite distance: where one kind is missing, nothing is compared."""
    features, maps, _, _ = cases.batch(0).outputs()
    present = torch.ones(2, 3, dtype=torch.bool)
    assert compared_pixels(features, maps, present, cases.padded(cases.bank(0, FULL)))[1].any()
    for sizes in ([(0, 3, 3)] * 3, [(3, 3, 0)] * 3, [(0, 0, 0)] * 3):
        assert not compared_pixels(features, maps, present, cases.padded(cases.bank(0, sizes)))[1].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_class_that_reaches_less_far_lifts_less_and_suppresses_the_same(seed: int, reach: list[float]) -> None:
    features, maps, _, labels = cases.batch(seed, height=3).outputs()
    present, lists = positive_maps(maps, labels), cases.bank(seed, FULL)
    narrower = replace(cases.padded(lists), lift_reach=torch.tensor(reach, dtype=torch.float64))
    (suppressed, lifted), (still, fewer) = (
        compared_pixels(features, maps, present, prototypes, margin=0.95) for prototypes in (cases.padded(lists), narrower)
    )
    places = ours.lifted(features, maps, labels, lists, margin=0.95, reach=reach)
    assert torch.equal(fewer, cases.as_mask(places, maps)) and not (fewer & ~lifted).any()
    assert torch.equal(suppressed, still)


@pytest.mark.parametrize(
    ("lift_fewer", "without", "share"), [(2, 4, 1), (2, 8, 0.5), (1, 8, 0.5), (2, 20, 0.4), (0.5, 20, 0.4), (0, 20, 0.4)]
)
def test_fewer_negatives_are_a_smaller_share_of_the_places_that_photos_without_the_class_can_fill(
    lift_fewer: float, without: int, share: float
) -> None:
    """Four photos of rails that the map of train fires on, among those without a train; ten places."""
    shown = [flat_image(8 + i, 1, 0, i) for i in range(5)]
    shown += [flat_image(1 + i / 10, 0, 8 - i, 10 + i) for i in range(4)]
    silent = flat_image(0, 0, -1, 20)
    shown += [replace(silent, maps=-silent.maps, number=20 + i) for i in range(without - 4)]
    found = cases.collected(shown, FPRConfig(prototypes=1, negatives=10, lift_fewer=lift_fewer))
    assert int(found.trimmed_valid[0].sum()) == 4
    assert float(found.lift_height[0]) == pytest.approx(share**lift_fewer)
    assert float(found.lift_reach[0]) == pytest.approx(share ** (lift_fewer / 12))


def test_a_class_in_every_photo_has_a_lift_of_nothing_and_not_of_no_number() -> None:
    found = cases.collected([flat_image(8 + i, 1, 0, i) for i in range(5)], FPRConfig(prototypes=1))
    assert float(found.lift_height[0]) == float(found.lift_reach[0]) == 0


def test_a_pixel_on_its_prototypes() -> None:
    """Distance 0 to a positive lifts; distance 0 to both does nothing, as strictly nearer is asked for."""
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])  # (1, 2, 1, 2): pixels (1, 2) and (3, 4)
    maps = torch.ones(1, 1, 1, 2)
    present = torch.ones(1, 1, dtype=torch.bool)
    lists = Bank([[[1.0, 2.0], [3.0, 4.0]]], [[0.5, 0.5]], [[]], [[]], [[[1.0, 2.0]]], [[0]], 1.0)
    for margin in (0.5, 1.0):
        found = compared_pixels(features, maps, present, cases.padded(lists, 2, 2, torch.float32), margin=margin)
        assert [pixels.flatten().tolist() for pixels in found] == [[False, False], [False, True]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_maps_in_another_unit_change_no_pixel_and_the_lift_by_that_unit(seed: int, scale: float) -> None:
    features, maps, _, labels = cases.batch(seed, height=3).outputs()
    prototypes, present = cases.padded(cases.bank(seed, FULL)), positive_maps(maps, labels)
    (suppressed, lifted), scaled = (
        compared_pixels(features, factor * maps, present, prototypes, margin=0.95) for factor in (1.0, scale)
    )
    assert torch.equal(scaled[0], suppressed)
    assert torch.equal(scaled[1], lifted)
    value, other = (pixel_lift(factor * maps, lifted, present).item() for factor in (1.0, scale))
    assert other == pytest.approx(scale * value)


@pytest.mark.parametrize("scale", [2.0**-10, 1e-2, 0.3, 5.0, 2.0**10])
def test_features_in_another_unit_change_nothing(scale: float) -> None:
    for seed in range(20):
        batch, prototypes = cases.batch(seed, height=4), cases.padded(cases.bank(seed, FULL))
        names = ("positive", "negative", "trimmed")
        scaled = replace(prototypes, **{name: scale * getattr(prototypes, name) for name in names})
        one, other = (
            compared_pixels(factor * batch.features, batch.maps(), batch.labels > 0, rows, margin=0.95)
            for factor, rows in ((1.0, prototypes), (scale, scaled))
        )
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.5), st.floats(0.1, 1), st.sampled_from([0.0, 1e-4]))
def test_the_controls_pixels_equal_the_loops(seed: int, theta: float, below: float, epsilon: float) -> None:
    """Low activations of the control are pushed down, those above lifted; no pixel is both."""
    _, maps, _, labels = cases.batch(seed, height=3).outputs()
    low = halo_pixels(maps, labels > 0, theta, below, epsilon)
    high = halo_pixels(maps, labels > 0, below, float("inf"), epsilon)
    assert torch.equal(low, cases.as_mask(ours.halo(maps, labels, theta=theta, below=below, epsilon=epsilon), maps))
    assert torch.equal(high, cases.as_mask(ours.above_halo(maps, labels, below=below, epsilon=epsilon), maps))
    assert not (low & high).any()


# Their lift


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_lift_equals_the_loops(seed: int, images: int, height: int, share: float) -> None:
    batch, lifted, present = some_lifted(seed, share, images, height)
    places = {tuple(place) for place in lifted.nonzero().tolist()}
    expected = ours.pixel_lift(batch.maps(), batch.labels, places)
    cases.assert_same(pixel_lift(batch.maps(), lifted, present), expected, batch.leaves)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_lift_up_to_a_height_equals_the_loops(seed: int, height: list[float]) -> None:
    """What is above the height of its class feels nothing."""
    batch, lifted, present = some_lifted(seed, 1.0, height=3)
    places = {tuple(place) for place in lifted.nonzero().tolist()}
    expected = ours.pixel_lift(batch.maps(), batch.labels, places, height)
    heights = torch.tensor(height, dtype=torch.float64)
    cases.assert_same(pixel_lift(batch.maps(), lifted, present, heights), expected, batch.leaves)


def test_numbers_by_hand() -> None:
    """Maxima 4 and 8; the pixels 2 and 3 of the first image's map and 2 of the second's are lifted."""
    maps = torch.tensor([[[[4.0, 2.0, 3.0]]], [[[8.0, 2.0, 1.0]]]], dtype=torch.float64, requires_grad=True)
    lifted = torch.tensor([[[[False, True, True]]], [[[False, True, False]]]])
    value = pixel_lift(maps, lifted, torch.ones(2, 1, dtype=torch.bool))
    assert value.item() == pytest.approx((2 / 4 + 1 / 4 + 6 / 8) / 3 * 6)
    (gradient,) = torch.autograd.grad(value, maps)
    expected = [[[[5 / 16 * 2, -2 / 4, -2 / 4]]], [[[2 / 64 * 2, -2 / 8, 0]]]]
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0]))
def test_a_step_against_the_gradient_lifts_towards_the_maximum(seed: int, share: float) -> None:
    batch, lifted, present = some_lifted(seed, share, height=3)
    maps = batch.maps().detach().requires_grad_()
    peak = maps == maps.amax(dim=(2, 3), keepdim=True)
    (gradient,) = torch.autograd.grad(pixel_lift(maps, lifted, present), maps)
    assert (gradient[lifted & ~peak] < 0).all()
    assert (gradient[peak] >= -1e-12).all()  # a peak that is lifted itself cancels out
    assert not gradient[~lifted & ~peak].any()
    stepped = (maps - 1e-6 * gradient).detach()
    before, after = (values / values.amax(dim=(2, 3), keepdim=True) for values in (maps.detach(), stepped))
    assert (after > before)[lifted & ~peak].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0]))
def test_the_lift_is_bounded_by_the_mean_maximum(seed: int, share: float) -> None:
    batch, lifted, present = some_lifted(seed, share)
    value = pixel_lift(batch.maps(), lifted, present)
    assert 0 <= value <= (batch.maps().amax(dim=(2, 3))[present].mean() if present.any() else 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_pixels_at_the_maximum_need_no_lift(seed: int) -> None:
    """Also where several pixels share the maximum."""
    batch, _, present = some_lifted(seed, 1.0)
    level = batch.maps().detach().amax(dim=(2, 3), keepdim=True)
    maps = torch.minimum(batch.maps().detach(), 0.5 * level).requires_grad_()
    at_maximum = (maps == maps.amax(dim=(2, 3), keepdim=True)) & present[:, :, None, None]
    value = pixel_lift(maps, at_maximum, present)
    assert value == 0
    (gradient,) = torch.autograd.grad(value, maps)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_nothing_lifted_is_a_term_of_0_without_gradient() -> None:
    batch, lifted, present = some_lifted(0, 0.0)
    value = pixel_lift(batch.maps(), lifted, present)
    assert value == 0
    assert not any(gradient.any() for gradient in cases.gradients(value, batch.leaves))


# In the whole loss


@pytest.mark.parametrize("seed", range(10))
def test_each_class_has_its_reach_and_height(seed: int) -> None:
    """Of the default, where prototypes choose; a control without them knows neither."""
    batch, lists, reach, height = cases.batch(seed, height=3), cases.bank(seed, FULL), [1.0, 0.9, 0.6], [1.0, 0.3, 0.7]
    per_class = [torch.tensor(values, dtype=torch.float64) for values in (reach, height)]
    prototypes = replace(cases.padded(lists), lift_reach=per_class[0], lift_height=per_class[1])
    for config in (FPRConfig(), SHARPEN):
        expected = cases.loop_loss(batch, lists, config, reach=reach, height=height)
        cases.assert_same(cases.package_loss(batch, prototypes, config), expected, batch.leaves)


@pytest.mark.parametrize("config", [FPRConfig(), SHARPEN, HALO, FPRConfig(pixel_lift=0.3, margin=1.2, pixel_form="mean")])
@pytest.mark.parametrize("change", EDGE_CASES)
def test_edge_cases_equal_the_loops(change: Callable[[Batch, Bank], tuple[Batch, Bank]], config: FPRConfig) -> None:
    for seed in range(3):
        batch, lists = change(cases.batch(seed), cases.bank(seed, FULL))
        expected = cases.loop_loss(batch, lists, config)
        cases.assert_same(cases.package_loss(batch, cases.padded(lists), config), expected, batch.leaves)


def test_the_term_of_the_default_is_push_and_lift() -> None:
    """Both are at work in the random batches, and ``pixel`` of the terms is their sum."""
    pushed = lifted = 0
    for seed in range(20):
        features, maps, logits, labels = cases.batch(seed).outputs()
        prototypes = cases.padded(cases.bank(seed, FULL))
        push, both, double = (
            fpr_loss(features, maps, logits, labels, prototypes, FPRConfig(pixel_lift=lift), steps=1).pixel.item()
            for lift in (0.0, 1.0, 2.0)
        )
        assert double - both == pytest.approx(both - push)
        pushed += push > 0
        lifted += both > push
    assert min(pushed, lifted) >= 10


def test_readings_of_the_paper_lift_nothing_and_compare_trained_features() -> None:
    for config in (PAPER, AUTHORS, PAPER_AT_SCALE):
        assert config.pixel_lift == 0
        assert config.feature_space == "trained"


@pytest.mark.parametrize("config", [SHARPEN, HALO])
def test_the_controls_need_no_prototypes(config: FPRConfig) -> None:
    assert not config.needs_prototypes()
    for seed in range(5):
        batch = cases.batch(seed, height=3)
        expected = cases.loop_loss(batch, cases.bank(seed, [(0, 0, 0)] * 3), config)
        cases.assert_same(cases.package_loss(batch, None, config), expected, batch.leaves)


def test_sharpen_is_the_default_without_prototypes_and_halo_the_push_alone() -> None:
    assert replace(SHARPEN, pixel_select="prototypes") == FPRConfig()
    assert replace(SHARPEN, pixel_lift=0.0, pixel_weight=HALO.pixel_weight) == HALO
    assert HALO.pixel_weight < SHARPEN.pixel_weight
    assert reference.pixel_weight(HALO.pixel_weight, HALO.pixel_weight_unit, 20, 3305) == pytest.approx(15e-5, rel=0.01)
