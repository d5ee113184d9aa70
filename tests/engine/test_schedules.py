from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.config import OptimiserConfig
from tag2mask.data.order import epoch_batches, epoch_order
from tag2mask.engine import build_optimiser, rate_factor
from tag2mask.hosts.cam import CamHost
from tag2mask.presets import PRESETS

VOC_IMAGES = 10582
PLAIN = replace(PRESETS["paper"].host, backbone="test_resnet", weights="none", freeze="layer2")


def test_poly_against_numbers_by_hand() -> None:
    config = OptimiserConfig(schedule="poly", poly_power=0.9)
    expected = {0: 1.0, 5: 0.535887, 9: 0.125893}  # (1 - step/10)^0.9
    assert {step: round(rate_factor(config, step, 10), 6) for step in expected} == expected
    assert rate_factor(OptimiserConfig(poly_power=1.0), 3, 4) == 0.25


def test_one_cycle_against_numbers_by_hand() -> None:
    config = OptimiserConfig(schedule="onecycle")
    factors = [rate_factor(config, step, 200) for step in range(200)]  # up in 30 steps, down in 170
    assert factors[0] == pytest.approx(1 / 31)
    assert factors[29] == pytest.approx(30 / 31)
    assert factors[30] == 1.0
    assert factors[115] == pytest.approx(0.5)  # half of the way down
    assert factors[72] == pytest.approx(0.5 * (1 + math.cos(math.pi * 42 / 170)))
    assert factors[199] == pytest.approx(8.5e-5, rel=0.01)


def test_cosine_against_numbers_by_hand() -> None:
    config = OptimiserConfig(schedule="cosine", epochs=20, warm_up=5)
    factors = [rate_factor(config, step, 200) for step in range(200)]  # up in 50 steps, down in 150
    assert [factors[step] for step in (0, 49, 50, 125)] == pytest.approx([1 / 51, 50 / 51, 1.0, 0.5])
    assert factors[100] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert rate_factor(replace(config, warm_up=0), 0, 200) == 1.0
    assert 0 < rate_factor(replace(config, warm_up=30), 199, 200) < 1  # still rising where training ends before


@given(st.integers(1, 400), st.sampled_from(["poly", "onecycle", "cosine"]))
def test_a_schedule_stays_above_0_and_at_most_1_and_ends_low(steps: int, schedule: str) -> None:
    config = OptimiserConfig(schedule=schedule)  # type: ignore[arg-type]
    factors = [rate_factor(config, step, steps) for step in range(steps)]
    assert all(0 < f <= 1 for f in factors)
    peak = factors.index(max(factors))
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[:peak] == sorted(factors[:peak])
    if steps >= 30:
        assert factors[-1] < 0.06


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_presets_have_the_momentum_that_the_irn_family_really_uses(preset: str) -> None:
    """Its optimiser passes the weight decay in the place of the momentum, and its 0.9 is the power of the decay."""
    for phase in (PRESETS[preset].classify, PRESETS[preset].rectify):
        assert (phase.kind, phase.momentum, phase.weight_decay, phase.poly_power) == ("sgd", 1e-4, 1e-4, 0.9)
        assert (phase.schedule, phase.learning_rate, phase.backbone_rate) == ("poly", 1.0, 0.1)
        steps = len(epoch_batches(VOC_IMAGES, phase.batch_size, 0, 0)) * phase.epochs
        assert steps == 3305


def test_golden_steps_of_that_optimiser() -> None:
    """From w = 1 with gradient 1, rate 0.1, decay 1e-4: computed by hand."""
    config = OptimiserConfig(kind="sgd", learning_rate=0.1, momentum=1e-4, weight_decay=1e-4)
    host = CamHost(replace(PLAIN, freeze="all"), 1).double()
    optimiser = build_optimiser(host, config, side=True)
    weight = host.classifier.weight
    torch.nn.init.ones_(weight)
    seen = []
    for step in range(2):
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * rate_factor(config, step, 3305)
        weight.grad = torch.ones_like(weight)
        optimiser.step()
        assert weight.std() == 0
        seen.append(weight.flatten()[0].item())
    assert seen[0] == pytest.approx(1 - 0.1 * (1 + 1e-4), abs=1e-15)  # 0.89999
    velocity = 1e-4 * (1 + 1e-4) + 1 + 1e-4 * seen[0]
    assert seen[1] == pytest.approx(seen[0] - 0.1 * (1 - 1 / 3305) ** 0.9 * velocity, abs=1e-15)


def test_backbone_neck_and_classifier_have_their_rates() -> None:
    host = CamHost(replace(PLAIN, neck=8), 2)
    config = OptimiserConfig(learning_rate=0.3, backbone_rate=0.02)
    groups = build_optimiser(host, config, side=True).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert host.neck is not None
    assert {rates[id(p)] for p in host.trained_stages.parameters()} == {0.02}
    assert {rates[id(p)] for p in [*host.neck.parameters(), *host.classifier.parameters()]} == {0.3}
    trained = [p for p in host.parameters() if p.requires_grad]
    assert len(rates) == len(trained) and all(id(p) in rates for p in trained)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_reads_every_image_once(count: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(count, batch_size, seed, epoch)
    read = [int(i) for batch in batches for i in batch]
    assert len(set(read)) == len(read)
    if count >= batch_size:
        assert {len(batch) for batch in batches} == {batch_size} and len(read) > count - batch_size
    else:
        assert sorted(read) == list(range(count))
    assert sorted(epoch_order(count, seed, epoch).tolist()) == list(range(count))
    if count > 20:
        assert epoch_order(count, seed, epoch).tolist() != epoch_order(count, seed, epoch + 1).tolist()
        assert epoch_order(count, seed, epoch).tolist() != epoch_order(count, seed + 1, epoch).tolist()
