"""Eq. 3: region features equal the loops, with their gradient to the features."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.fpr import activated_pixels, region_features
from tests.paper import cases, reference


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.floats(0, 0.9))
def test_equals_the_loops(seed: int, height: int, width: int, theta: float) -> None:
    batch = cases.batch(seed, height=height, width=width)
    maps = batch.maps()
    regions, area = region_features(batch.features, activated_pixels(maps, theta, 0.0))
    weights = torch.randn(regions.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for n in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            pixels = reference.activated(maps[n, c], theta, 0.0)
            assert area[n, c] == len(pixels)
            if not pixels:
                assert not regions[n, c].any()
                continue
            for d, value in enumerate(reference.region(batch.features[n], pixels)):
                assert regions[n, c, d].item() == pytest.approx(value.item(), abs=1e-12)
                expected = expected + weights[n, c, d] * value
    cases.assert_same((weights * regions).sum(), expected, batch.leaves)


def test_nothing_activated_gives_zero_and_a_finite_gradient() -> None:
    batch = cases.batch(0)
    regions, area = region_features(batch.features, torch.zeros(2, 3, 2, 3, dtype=torch.bool))
    assert not regions.any()
    assert not area.any()
    assert all(not gradient.any() for gradient in cases.gradients(regions.square().sum(), batch.leaves))


def test_the_region_of_one_pixel_is_that_pixel() -> None:
    features = cases.batch(1).features.detach()
    activated = torch.zeros(2, 3, 2, 3, dtype=torch.bool)
    activated[1, 2, 1, 0] = True
    regions, area = region_features(features, activated)
    assert torch.equal(regions[1, 2], features[1, :, 1, 0])
    assert area.sum() == 1
