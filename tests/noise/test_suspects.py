"""The confident-learning test, its ranking, and how much a region looks like the labelled ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tag2mask.noise import positive_likeness, second_opinion, suspicion

PAIRS = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float64, shape, elements=st.floats(0, 1, width=32)), arrays.arrays(np.bool_, shape)
    )
)


def example(seed: int = 0, images: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tags = random.random((images, classes)) < 0.3
    return np.clip(0.6 * tags + random.normal(0.2, 0.2, tags.shape), 0, 1), tags


def by_the_book(probabilities: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule pair by pair."""
    score, flagged = np.zeros(tags.shape), np.zeros(tags.shape, bool)
    for c in range(tags.shape[1]):
        having = [i for i in range(len(tags)) if tags[i, c]]
        lacking = [i for i in range(len(tags)) if not tags[i, c]]
        if not having or not lacking:
            continue
        present = sum(probabilities[i, c] for i in having) / len(having)
        absent = sum(1 - probabilities[i, c] for i in lacking) / len(lacking)
        for i in range(len(tags)):
            p = probabilities[i, c]
            sides = {True: p - present + max(present, absent), False: 1 - p - absent + max(present, absent)}
            score[i, c] = sides[not tags[i, c]] / (sides[True] + sides[False])
            flagged[i, c] = present + absent > 1 and (1 - p >= absent if tags[i, c] else p >= present)
    return score, flagged


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_rule_pair_by_pair(seed: int) -> None:
    probabilities, tags = example(seed)
    found = suspicion(probabilities, tags)
    score, flagged = by_the_book(probabilities, tags)
    np.testing.assert_allclose(found.score, score, atol=1e-12)
    assert (found.flagged == flagged).all()


@pytest.mark.parametrize("seed", range(3))
def test_score_is_one_less_the_label_quality_of_cleanlab(seed: int) -> None:
    rank = pytest.importorskip("cleanlab.multilabel_classification.rank")
    probabilities, tags = example(seed)
    rows = [np.flatnonzero(row).tolist() for row in tags]
    quality = rank.get_label_quality_scores_per_class(
        rows, probabilities, method="self_confidence", adjust_pred_probs=True
    )
    np.testing.assert_allclose(1 - suspicion(probabilities, tags).score, quality, atol=1e-12)


@given(PAIRS)
def test_scores_lie_between_0_and_1_and_odd_classes_have_no_suspects(pair: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, tags = pair
    found = suspicion(probabilities, tags)
    assert np.isfinite(found.score).all() and found.score.min() >= -1e-9 and found.score.max() <= 1 + 1e-9
    odd = tags.all(axis=0) | ~tags.any(axis=0)
    assert not found.flagged[:, odd].any()


@given(PAIRS, st.randoms(use_true_random=False))
def test_permuting_images_permutes_the_answer(pair: tuple[np.ndarray, np.ndarray], random: object) -> None:
    probabilities, tags = pair
    order = list(range(len(tags)))
    random.shuffle(order)  # type: ignore[attr-defined]
    found, moved = suspicion(probabilities, tags), suspicion(probabilities[order], tags[order])
    np.testing.assert_allclose(moved.score, found.score[order], atol=1e-9)
    for c in range(tags.shape[1]):  # a mean over another order may differ in the last bit, and decide a tie
        having, lacking = probabilities[tags[:, c], c], probabilities[~tags[:, c], c]
        means = [side.mean() for side in (having, lacking) if side.size]
        apart = np.abs(np.subtract.outer(probabilities[order, c], means)).min(axis=1) > 1e-6
        if abs(max(means) - min(means)) > 1e-6:
            assert (moved.flagged[:, c] == found.flagged[order, c])[apart].all()


@given(PAIRS)
def test_turning_every_tag_and_probability_round_turns_the_kinds_round(pair: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, tags = pair
    found, turned = suspicion(probabilities, tags), suspicion(1 - probabilities, ~tags)
    np.testing.assert_allclose(turned.score, found.score, atol=1e-9)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.7])
def test_a_class_of_which_nothing_was_learnt_has_no_suspects(share: float) -> None:
    """Constants, as of a class with one tag; and a classifier that is worse than a guess."""
    tags = np.arange(30)[:, None] % 7 == 0
    for probabilities in (np.full((30, 1), share), np.where(tags, share / 2, share)):
        found = suspicion(probabilities, tags)
        assert not found.flagged.any() and found.learnt.tolist() == [False]
    assert suspicion(np.where(tags, share, share / 2), tags).learnt.tolist() == [True]


def test_ranking_is_by_score_then_image_then_class() -> None:
    tags = np.array([[True, True], [False, False], [False, False], *[[False, False]] * 14])
    probabilities = np.array([[0.85, 0.85], [0.9, 0.9], [0.9, 0.9], *[[0.1, 0.1]] * 14])
    found = suspicion(probabilities, tags)
    assert found.ranked().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert found.kind(1, 0) == "missing" and found.kind(0, 0) == "wrong"
    probabilities[2, 1] = 0.95
    assert suspicion(probabilities, tags).ranked()[0].tolist() == [2, 1]


def test_nothing_flagged_is_an_empty_ranking() -> None:
    assert suspicion(np.array([[0.9], [0.8], [0.1]]), np.array([[True], [True], [False]])).ranked().shape[1:] == (2,)
    assert suspicion(np.zeros((3, 1)), np.zeros((3, 1), bool)).ranked().tolist() == []


def test_second_opinion_finds_the_plain_cases_and_none_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cleanlab")
    tags = np.zeros((60, 3), bool)
    tags[:30, 0] = tags[20:50, 1] = True  # nobody has class 2
    probabilities = np.clip(tags * 0.9 + 0.05, 0, 1)
    probabilities[3, 0], probabilities[55, 1] = 0.01, 0.99
    flagged = second_opinion(probabilities, tags)
    assert flagged is not None and np.argwhere(flagged).tolist() == [[3, 0], [55, 1]]
    monkeypatch.setitem(sys.modules, "cleanlab.multilabel_classification.filter", None)
    assert second_opinion(probabilities, tags) is None


def test_likeness_is_high_among_the_positives_and_nothing_far_away() -> None:
    generator = torch.Generator().manual_seed(0)
    positives = torch.randn(40, 6, generator=generator)
    asked = torch.stack([positives.mean(0), positives[0], torch.full((6,), 50.0)])
    found = positive_likeness(asked, positives, count=1)
    assert found[0] == 1 and 0 < found[1] <= 1 and found[2] == 0
    assert positive_likeness(positives, positives, count=1).mean() == pytest.approx(0.5, abs=0.05)
    assert positive_likeness(asked, positives[:1]).tolist()[2] == 0
    assert positive_likeness(asked, positives[:0]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("contradicted", "flagged"), [(1, True), (5, False)])
def test_a_weak_classifier_may_not_doubt_tags(contradicted: int, flagged: bool) -> None:
    """Of twenty images without the class, the classifier takes some for images with it: one it may doubt, five not."""
    tags = np.array([[True]] * 5 + [[False]] * 20)
    probabilities = np.array([[0.8]] * 5 + [[0.9]] * contradicted + [[0.1]] * (20 - contradicted))
    assert suspicion(probabilities, tags).flagged[5, 0] == flagged
