"""What the weight of a negative does to the pixels (``fpr.support weigh``), against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.checkpoints import load_prototypes, save_prototypes
from tag2mask.fpr import FPRConfig, compared_pixels, training_free_rectification
from tests.paper import cases
from tests.paper.flat_images import flat_image, trains


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.8, 1.0]))
def test_weighed_distances_equal_the_loops(seed: int, margin: float) -> None:
    batch, lists = cases.batch(seed, 2), cases.bank(seed, [(2, 3, 3)] * 3)
    factor = 1 + torch.rand(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    prototypes = replace(cases.padded(lists), trimmed_factor=factor)
    features, maps, _, labels = (tensor.detach() for tensor in batch.outputs())
    present = (labels > 0) & (maps.amax(dim=(2, 3)) > 0)
    suppressed, lifted = compared_pixels(features, maps, present, prototypes, 0.1, margin)
    for n, c, y, x in torch.cartesian_prod(*(torch.arange(size) for size in maps.shape)).tolist():
        pixel = features[n, :, y, x].tolist()
        to_positive = min(math.dist(pixel, row) for row in lists.positive[c])
        to_negative = min(
            float(factor[c, k]) * math.dist(pixel, row) for k, row in enumerate(lists.trimmed[c])
        )
        relative = float(maps[n, c, y, x] / maps[n, c].max())
        asked = bool(present[n, c])
        assert bool(suppressed[n, c, y, x]) == (asked and relative > 0.1 and to_negative < margin * to_positive)
        assert bool(lifted[n, c, y, x]) == (asked and relative > 0 and to_positive < margin * to_negative)


def test_a_weight_of_1_changes_nothing_and_a_large_one_is_as_good_as_gone() -> None:
    batch, lists = cases.batch(3, 3), cases.bank(3, [(2, 2, 2)] * 3)
    prototypes = cases.padded(lists)
    features, maps, _, labels = (tensor.detach() for tensor in batch.outputs())
    present = (labels > 0) & (maps.amax(dim=(2, 3)) > 0)
    plain = compared_pixels(features, maps, present, prototypes)
    one = compared_pixels(features, maps, present, replace(prototypes, trimmed_factor=torch.ones(3, 3).double()))
    assert plain[0].any() and all(torch.equal(a, b) for a, b in zip(plain, one, strict=True))
    first = torch.tensor([1e6, 1.0, 1.0]).double().expand(3, 3)
    without = prototypes.trimmed_valid.clone()
    without[:, 0] = False
    weighed = compared_pixels(features, maps, present, replace(prototypes, trimmed_factor=first))
    gone = compared_pixels(features, maps, present, replace(prototypes, trimmed_valid=without))
    assert all(torch.equal(a, b) for a, b in zip(weighed, gone, strict=True))
    assert not torch.equal(plain[0], gone[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_weight_counts_without_training_as_well(seed: int) -> None:
    batch, lists = cases.batch(seed, 1), cases.bank(seed, [(2, 3, 3)] * 3)
    factor = 1 + torch.rand(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    features, maps = batch.features.detach(), batch.maps().detach()
    found = training_free_rectification(features, maps, replace(cases.padded(lists), trimmed_factor=factor), 4.0)
    for c, y, x in torch.cartesian_prod(*(torch.arange(size) for size in maps.shape[1:])).tolist():
        pixel = features[0, :, y, x].tolist()
        to_positive = min(math.dist(pixel, row) for row in lists.positive[c])
        to_negative = min(float(factor[c, k]) * math.dist(pixel, row) for k, row in enumerate(lists.trimmed[c]))
        expected = max(0.0, float(maps[0, c, y, x])) / (1 + (to_positive / to_negative) ** 4)
        assert float(found[0, c, y, x]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("support", ["drop", "weigh"])
def test_weights_are_stored_with_the_prototypes(support: str, tmp_path: Path) -> None:
    found = cases.collected(trains(), FPRConfig(prototypes=1, negatives=5, support=support))  # type: ignore[arg-type]
    save_prototypes(tmp_path / "prototypes.safetensors", found)
    again = load_prototypes(tmp_path / "prototypes.safetensors").trimmed_factor
    if support == "drop":
        assert again is None
    else:
        assert again is not None and found.trimmed_factor is not None
        assert torch.equal(again, found.trimmed_factor)
        assert again[0, 0] > 5 and (again[0, 1:] == 1).all(), "the train counts as five times farther, rails as they are"


def test_a_negative_that_equals_positives_counts_as_far_and_stays_finite() -> None:
    shown = [flat_image(8, 1, 0, number) for number in range(3)] + [flat_image(8, 0, 9, 3)]
    shown += [flat_image(k, 0, 0, 4 + k) for k in range(3)]
    found = cases.collected(shown, FPRConfig(prototypes=1, negatives=4, support="weigh"))
    assert found.trimmed_factor is not None and found.trimmed_factor[0, 0] == 1e6
    features = torch.tensor([8.0, 0.0]).view(1, 2, 1, 1)
    rectified = training_free_rectification(features, torch.ones(1, 1, 1, 1), found)
    assert torch.isfinite(rectified).all()
