"""Eq. 6-8: the suppressed pixels and the pixel rectification equal the loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tag2mask.fpr import (
    AUTHORS,
    PAPER,
    FPRConfig,
    activated_pixels,
    fpr_loss,
    halo_pixels,
    pixel_rectification,
    suppressed_pixels,
)
from tests.paper import cases, reference
from tests.paper.edge_cases import FULL


def positive_maps(batch: cases.Batch) -> torch.Tensor:
    """Present classes with a positive pixel, (N, C)."""
    return (batch.labels > 0) & (batch.maps().amax(dim=(2, 3)) > 0)


# Which pixels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 3),
    theta=st.floats(0, 0.9),
    margin=st.sampled_from([0.5, 0.8, 1.0, 1.3]),
    epsilon=st.sampled_from([0.0, 1e-4, 1e-3]),
    cosine=st.booleans(),
)
def test_suppressed_pixels_equal_the_loops(
    seed: int, height: int, theta: float, margin: float, epsilon: float, cosine: bool
) -> None:
    batch, lists = cases.batch(seed, height=height), cases.bank(seed, cases.random_sizes(seed))
    features, maps, _, labels = batch.outputs()
    places = reference.suppressed(
        features, maps, labels, lists, theta=theta, epsilon=epsilon, margin=margin, kind="cosine" if cosine else "l2"
    )
    found = suppressed_pixels(features, maps, labels > 0, cases.padded(lists), theta, margin, epsilon, cosine)
    assert torch.equal(found, cases.as_mask(places, maps))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_far_from_the_origin(dtype: torch.dtype) -> None:
    """Distances of 1 between vectors of length 100: wherever the two differ by 1 %, the nearer one decides."""
    generator = torch.Generator().manual_seed(0)
    features = 12.5 + 0.125 * torch.randn(4, 64, 4, 4, generator=generator, dtype=torch.float64)
    positive, negative = (
        12.5 + 0.125 * torch.randn(2, 1, 10, 64, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    positive, negative = positive[0], negative[0]
    lists = reference.Bank(positive.tolist(), [[0.1] * 10], negative.tolist(), [[]], negative.tolist(), [[]], 1.0)
    to_positive, to_negative = (
        torch.cdist(features.permute(0, 2, 3, 1).reshape(-1, 64), rows[0]).amin(dim=1).view(4, 1, 4, 4)
        for rows in (positive, negative)
    )
    clear = (to_negative / to_positive - 1).abs() > 0.01
    assert 0.2 < ((to_negative < to_positive) & clear).float().mean() < 0.8
    found = suppressed_pixels(
        features.to(dtype), torch.ones(4, 1, 4, 4, dtype=dtype), torch.ones(4, 1, dtype=torch.bool),
        cases.padded(lists, count=10, channels=64, dtype=dtype),
    )  # fmt: skip
    assert torch.equal(found[clear], (to_negative < to_positive)[clear])


def test_a_pixel_on_its_prototypes() -> None:
    """Distance 0 to a negative suppresses; distance 0 to both does not, as Eq. 8 asks for strictly nearer."""
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])  # (1, 2, 1, 2): pixels (1, 2) and (3, 4)
    maps = torch.ones(1, 1, 1, 2)
    present = torch.ones(1, 1, dtype=torch.bool)
    lists = reference.Bank([[[1.0, 2.0]]], [[1.0]], [[]], [[]], [[[1.0, 2.0], [3.0, 4.0]]], [[0, 1]], 1.0)
    for margin in (0.5, 1.0):
        found = suppressed_pixels(features, maps, present, cases.padded(lists, 2, 2, torch.float32), margin=margin)
        assert found.flatten().tolist() == [False, True]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 2), st.floats(0, 1), st.booleans())
def test_the_suppressed_set_grows_with_the_margin(seed: int, margin: float, step: float, cosine: bool) -> None:
    features, maps, _, labels = cases.batch(seed).outputs()
    prototypes = cases.padded(cases.bank(seed, FULL))
    small = suppressed_pixels(features, maps, labels > 0, prototypes, margin=margin, cosine=cosine)
    large = suppressed_pixels(features, maps, labels > 0, prototypes, margin=margin + step, cosine=cosine)
    assert not (small & ~large).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.9))
def test_only_activated_pixels_of_present_classes(seed: int, theta: float) -> None:
    features, maps, _, labels = cases.batch(seed).outputs()
    prototypes = cases.padded(cases.bank(seed, FULL))
    for found in (
        suppressed_pixels(features, maps, labels > 0, prototypes, theta),
        halo_pixels(maps, labels > 0, theta, below=0.95),
    ):
        assert not (found & ~activated_pixels(maps, theta)).any()
        assert not found[labels == 0].any()


def test_nothing_is_suppressed_without_positives_or_without_trimmed_negatives() -> None:
    """The release suppresses everything where a class has negatives but no positive; that is a slip, not kept."""
    features, maps, _, _ = cases.batch(0).outputs()
    present = torch.ones(2, 3, dtype=torch.bool)
    assert suppressed_pixels(features, maps, present, cases.padded(cases.bank(0, FULL))).any()
    for sizes in ([(0, 3, 3)] * 3, [(3, 3, 0)] * 3, [(0, 0, 0)] * 3):
        assert not suppressed_pixels(features, maps, present, cases.padded(cases.bank(0, sizes))).any()


@pytest.mark.parametrize("scale", [2.0**-10, 1e-2, 0.3, 5.0, 2.0**10])
def test_the_default_is_invariant_to_the_scale_of_the_features(scale: float) -> None:
    """The same network with features in another unit: maps and prototypes scale along, the pixels stay."""
    config = FPRConfig()
    for seed in range(40):
        batch, prototypes = cases.batch(seed, images=3, height=4, width=4), cases.padded(cases.bank(seed, FULL))
        names = ("positive", "negative", "trimmed")
        scaled = replace(prototypes, **{name: scale * getattr(prototypes, name) for name in names})
        one, other = (
            suppressed_pixels(
                factor * batch.features, batch.maps(factor * batch.features), batch.labels > 0, rows, config.theta,
                config.margin, config.pixel_epsilon, config.distance == "cosine",
            )
            for factor, rows in ((1.0, prototypes), (scale, scaled))
        )  # fmt: skip
        assert torch.equal(one, other), f"{int((one != other).sum())} pixels changed (seed {seed})"


# Their loss


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    form=st.sampled_from(["mean", "softplus", "ratio"]),
    average=st.sampled_from(["batch", "image"]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_term_equals_the_loops(seed: int, images: int, form: str, average: str, share: float) -> None:
    """Any choice of activated pixels as the suppressed ones."""
    batch = cases.batch(seed, images)
    present = positive_maps(batch)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(batch.maps().shape, generator=generator) < share
    suppressed = activated_pixels(batch.maps()) & chosen & present[:, :, None, None]
    places = {tuple(place) for place in suppressed.nonzero().tolist()}
    expected = reference.pixel_rectification(batch.maps(), batch.labels, places, form=form, average=average)
    found = pixel_rectification(batch.maps(), suppressed, form, average, present)
    cases.assert_same(found, expected, batch.leaves)


@given(st.integers(0, 10**6))
def test_softplus_is_the_binary_cross_entropy_to_0(seed: int) -> None:
    batch = cases.batch(seed)
    suppressed = activated_pixels(batch.maps())
    values = batch.maps()[suppressed]
    expected = functional.binary_cross_entropy_with_logits(values, torch.zeros_like(values))
    found = pixel_rectification(batch.maps(), suppressed, "softplus")
    if suppressed.any():
        cases.assert_same(found, expected, batch.leaves)


def test_numbers_by_hand() -> None:
    """Maxima 4 and 8; the pixels 2 and 3 of the first image's map and 2 of the second's are suppressed."""
    maps = torch.tensor([[[[4.0, 2.0, 3.0]]], [[[8.0, 2.0, 1.0]]]], dtype=torch.float64, requires_grad=True)
    suppressed = torch.tensor([[[[False, True, True]]], [[[False, True, False]]]])
    present = torch.ones(2, 1, dtype=torch.bool)

    def value(form: str, average: str) -> float:
        return pixel_rectification(maps, suppressed, form, average, present).item()

    assert value("mean", "batch") == pytest.approx((2 + 3 + 2) / 3)
    assert value("mean", "image") == pytest.approx((2.5 + 2) / 2)
    assert value("ratio", "batch") == pytest.approx((2 / 4 + 3 / 4 + 2 / 8) / 3 * 6)
    assert value("ratio", "image") == pytest.approx((5 / 8 + 2 / 8) / 2 * 6)
    (gradient,) = torch.autograd.grad(pixel_rectification(maps, suppressed, "ratio", "batch", present), maps)
    expected = [[[[-5 / 16 * 2, 2 / 4, 2 / 4]]], [[[-2 / 64 * 2, 2 / 8, 0]]]]
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.sampled_from(["batch", "image"]))
def test_the_ratio_scales_with_the_maps(seed: int, scale: float, average: str) -> None:
    """M -> s M multiplies the term by s: the mean ratio itself knows no scale, the mean maximum gives it back."""
    batch = cases.batch(seed)
    maps, present = batch.maps().detach(), positive_maps(batch)
    suppressed = activated_pixels(maps, epsilon=0.0) & present[:, :, None, None]
    value = pixel_rectification(maps, suppressed, "ratio", average, present)
    scaled = pixel_rectification(scale * maps, suppressed, "ratio", average, present)
    assert scaled.item() == pytest.approx(scale * value.item())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_ratio_is_bounded_by_the_mean_maximum(seed: int) -> None:
    batch = cases.batch(seed)
    maps, present = batch.maps(), positive_maps(batch)
    suppressed = activated_pixels(maps) & present[:, :, None, None]
    value = pixel_rectification(maps, suppressed, "ratio", "batch", present)
    assert 0 <= value <= (maps.amax(dim=(2, 3))[present].mean() if present.any() else 0)


def test_the_pixel_term_reaches_the_classifier_and_the_features_or_the_classifier_alone() -> None:
    """Its gradient flows into both, as in the release; ``pixel_detach`` keeps it from the features."""
    batch, prototypes = cases.batch(0), cases.padded(cases.bank(0, FULL))
    features, maps, logits, labels = batch.outputs()
    for detach in (False, True):
        config = replace(AUTHORS, region_weight=0.0, pixel_detach=detach)
        total = fpr_loss(features, maps, logits.detach(), labels, prototypes, config, 1, batch.maps).total
        to_features, to_classifier, _ = cases.gradients(total, batch.leaves)
        assert to_classifier.any()
        assert to_features.any() != detach
    with pytest.raises(ValueError, match="classifier"):
        fpr_loss(features, maps, logits, labels, prototypes, replace(PAPER, pixel_detach=True), steps=1)


def test_the_share_counts_activated_pixels_of_present_classes() -> None:
    for seed in range(10):
        features, maps, logits, labels = cases.batch(seed).outputs()
        lists = cases.bank(seed, FULL)
        terms = fpr_loss(features, maps, logits, labels, cases.padded(lists), AUTHORS, steps=1)
        places = reference.suppressed(features, maps, labels, lists, theta=0.1, epsilon=1e-3)
        activated = sum(
            len(reference.activated(maps[n, c], 0.1, 1e-3)) for n in range(2) for c in range(3) if labels[n, c]
        )
        assert terms.suppressed_share.item() == pytest.approx(len(places) / max(activated, 1))
