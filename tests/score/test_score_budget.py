"""Threshold levels chosen by a declared budget of annotated images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.score import IGNORE, ScoreHistograms, choose_level, miou_by_level, scores
from tag2mask.score.budget import annotated_images, budget_level, draw_images, miou_of

SEEDS = st.integers(0, 2**32 - 1)


def histograms_of(seed: int, images: int = 6, classes: int = 3) -> tuple[ScoreHistograms, list[tuple]]:
    """Maps that are high where their class is, with noise; and what each image was counted from."""
    random = np.random.default_rng(seed)
    histograms, counted = ScoreHistograms(classes, images=images), []
    for index in range(images):
        ids = random.permutation(classes)[: random.integers(1, classes + 1)]
        mask = random.choice([0, 0, 0, *(ids + 1), IGNORE], size=(7, 9)).astype(np.uint8)
        peak = np.stack([mask == c + 1 for c in ids]) * random.integers(40, 150)
        maps = np.clip(peak + random.normal(70, 40, peak.shape), 0, 255).astype(np.uint8)
        histograms.add(index, ids, maps, mask)
        counted.append((ids, maps, mask))
    return histograms, counted


def miou_by_loops(counted: list[tuple], chosen: list[int], level: int, classes: int = 3) -> float:
    """Mean IoU of the pixels of the chosen images, pixel by pixel."""
    both, either = np.zeros(classes + 1), np.zeros(classes + 1)
    for index in chosen:
        ids, maps, mask = counted[index]
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                if mask[y, x] == IGNORE:
                    continue
                values = maps[:, y, x]
                predicted = ids[values.argmax()] + 1 if values.max() >= level else 0
                truth = mask[y, x]
                both[truth] += predicted == truth
                either[truth] += 1
                either[predicted] += predicted != truth
    return float(100 * np.mean(both[either > 0] / either[either > 0]))


@settings(deadline=None, max_examples=8)
@given(seed=SEEDS)
def test_the_annotated_images_alone_are_scored(seed: int) -> None:
    histograms, counted = histograms_of(seed)
    chosen = np.random.default_rng(seed).choice(6, 3, replace=False).tolist()
    curve = miou_of(annotated_images(histograms, chosen))
    for level in (1, 60, 90, 128, 200, 255):
        assert curve[level - 1] == pytest.approx(miou_by_loops(counted, chosen, level))


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_without_pull_a_budget_of_all_images_is_the_oracle(seed: int) -> None:
    histograms, _ = histograms_of(seed)
    annotated = annotated_images(histograms, range(6))
    np.testing.assert_allclose(miou_of(annotated), miou_by_level(histograms))
    level = budget_level(annotated, prior=30, pull=0)
    assert scores(histograms, level).miou == pytest.approx(scores(histograms, choose_level(histograms, "oracle")).miou)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, prior=st.integers(1, 255), budget=st.integers(1, 6))
def test_the_level_lies_between_the_prior_and_the_images_own_best(seed: int, prior: int, budget: int) -> None:
    histograms, _ = histograms_of(seed)
    annotated = annotated_images(histograms, range(budget))
    curve = miou_of(annotated)
    best = np.flatnonzero(curve >= curve.max() - 1e-9) + 1
    level = budget_level(annotated, prior)
    assert min(prior, best.min()) <= level <= max(prior, best.max())
    assert curve[level - 1] >= curve[prior - 1] - 1e-9
    assert budget_level(annotated, prior, pull=1e9) == prior
    weaker = budget_level(annotated, prior, pull=5)
    assert abs(np.log(weaker / prior)) >= abs(np.log(level / prior)) - 1e-9


def test_the_same_evidence_from_more_images_moves_further_from_the_prior() -> None:
    mask = np.zeros((4, 10), np.uint8)
    mask[:, 5:] = 1
    maps = np.tile(np.linspace(0, 250, 10).astype(np.uint8), (1, 4, 1))  # the class begins at 138
    histograms = ScoreHistograms(1, images=20)
    for index in range(20):
        histograms.add(index, [0], maps, mask)
    few, more, many = (budget_level(annotated_images(histograms, range(n)), prior=30) for n in (1, 5, 20))
    assert 30 <= few <= more <= many
    assert few < many
    assert 111 < many <= 138


def test_the_mean_level_of_many_draws_comes_near_the_oracle_as_the_budget_grows() -> None:
    histograms, _ = histograms_of(3, images=40)
    curve = miou_by_level(histograms)
    tags = np.ones((40, 3), bool)
    annotated = annotated_images(histograms, range(40))
    gaps = [
        np.mean([curve.max() - curve[budget_level(annotated.rows(r), 20) - 1] for r in draw_images(tags, n, 30)])
        for n in (1, 5, 40)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.5


def test_draws_are_of_tagged_images_without_repetition_and_the_same_every_time() -> None:
    tags = np.zeros((12, 2), bool)
    tags[[1, 4, 5, 9, 11], 0] = True
    draws = draw_images(tags, 3, 50, seed=7)
    assert draws.shape == (50, 3)
    assert all(len(set(row)) == 3 for row in draws.tolist())
    assert set(draws.flatten().tolist()) == {1, 4, 5, 9, 11}
    np.testing.assert_array_equal(draws, draw_images(tags, 3, 50, seed=7))
    assert (draws != draw_images(tags, 3, 50, seed=8)).any()


@pytest.mark.parametrize("budget", [0, -1, 6])
def test_a_budget_that_is_not_to_be_had_is_named(budget: int) -> None:
    with pytest.raises(InputError, match=f"budget is {budget} annotated"):
        draw_images(np.ones((5, 2), bool), budget, 1)


def test_images_without_a_mask_are_an_error_that_says_what_to_do() -> None:
    histograms = ScoreHistograms(1, images=2)
    histograms.add(0, [0], np.full((1, 3, 3), 9, np.uint8), None)
    with pytest.raises(InputError, match="annotate them"):
        annotated_images(histograms, [0])
    with pytest.raises(InputError, match="budget of annotated images is 0"):
        annotated_images(histograms, [])


def test_a_prior_out_of_range_is_a_mistake_of_the_programmer() -> None:
    histograms, _ = histograms_of(0)
    with pytest.raises(ValueError, match="out of range"):
        budget_level(annotated_images(histograms, [0]), prior=0)
