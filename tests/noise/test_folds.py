"""Probabilities from classifiers that did not see the tag in question."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tag2mask.noise import fit_classifiers, out_of_fold_probabilities, suspicion
from tag2mask.noise.folds import STRENGTH, components, dealt


def clouds(images: int, classes: int, dimensions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) with a direction of their own for each class, and tags (N, C)."""
    random = np.random.default_rng(seed)
    tags = random.random((images, classes)) < 0.25
    return random.normal(size=(images, dimensions)) + 2 * tags @ random.normal(size=(classes, dimensions)), tags


def test_classes_are_told_apart_and_probabilities_are_probabilities() -> None:
    features, tags = clouds(200, 4, 40)
    found = out_of_fold_probabilities(features, tags)
    assert found.shape == tags.shape and found.dtype == np.float64
    assert (found >= 0).all() and (found <= 1).all()
    assert min(roc_auc_score(tags[:, c], found[:, c]) for c in range(4)) > 0.95


def test_an_image_s_own_tag_does_not_reach_its_probability() -> None:
    """Without signal, what is learnt by heart would give itself away: out of fold it is a guess."""
    random = np.random.default_rng(1)
    features, tags = random.normal(size=(120, 300)), random.random((120, 3)) < 0.5
    found = out_of_fold_probabilities(features, tags)
    assert all(0.3 < roc_auc_score(tags[:, c], found[:, c]) < 0.7 for c in range(3))


@pytest.mark.parametrize("count", [0, 1])
def test_a_class_in_all_or_no_image_gives_its_share(count: int) -> None:
    features, tags = clouds(30, 3, 8)
    tags[:, 0], tags[:, 1] = False, True
    tags[:count, 0], tags[:count, 1] = True, False
    found = out_of_fold_probabilities(features, tags)
    assert (found[:, 0] == count / 30).all() and (found[:, 1] == 1 - count / 30).all()
    assert len(np.unique(found[:, 2])) > 20


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_rare_class_is_still_found(count: int) -> None:
    features, tags = clouds(80, 1, 20)
    tags[:] = False
    tags[:count] = True
    features[:count] += 3
    found = out_of_fold_probabilities(features, tags)
    assert found[:count].min() > np.median(found[count:])


@pytest.mark.parametrize("images", [1, 2, 4])
def test_fewer_images_than_folds(images: int) -> None:
    features, tags = clouds(images, 2, 6)
    found = out_of_fold_probabilities(features, tags)
    assert found.shape == (images, 2) and np.isfinite(found).all()


def test_constant_features_and_equal_images_do_no_harm() -> None:
    features, tags = clouds(40, 2, 10)
    features[:, 3] = 7.0
    assert np.isfinite(out_of_fold_probabilities(features, tags)).all()
    assert np.isfinite(out_of_fold_probabilities(np.zeros((40, 10)), tags)).all()


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads() -> None:
    features, tags = clouds(100, 3, 30)
    first = out_of_fold_probabilities(features, tags, seed=4)
    with threadpool_limits(2):
        assert (out_of_fold_probabilities(features, tags, seed=4) == first).all()
    assert (out_of_fold_probabilities(features, tags, seed=5) != first).any()


def test_dealing_gives_each_fold_its_share_of_tagged_images() -> None:
    tagged = np.arange(53) % 4 == 0  # 14 of 53
    fold = dealt(tagged, 5, np.random.default_rng(0))
    assert set(np.bincount(fold).tolist()) <= {10, 11}
    assert set(np.bincount(fold[tagged], minlength=5).tolist()) <= {2, 3}


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_components_keep_all_distances_of_the_standardised_features(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(3, 5, size=shape)
    plain = (features - features.mean(0)) / features.std(0)
    space = components(features)
    found = space.values
    assert found.shape[1] <= min(shape)
    between = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (plain, found)]
    np.testing.assert_allclose(*between, atol=1e-6)
    np.testing.assert_allclose(space.of(features), found, atol=1e-6)


def test_removed_tags_rank_far_above_chance() -> None:
    features, tags = clouds(300, 5, 60)
    random = np.random.default_rng(3)
    images, classes = np.nonzero(tags)
    gone = random.choice(len(images), 20, replace=False)
    left = tags.copy()
    left[images[gone], classes[gone]] = False
    found = suspicion(out_of_fold_probabilities(features, left), left)
    removed = tags[~left]
    assert average_precision_score(removed, found.score[~left]) > 0.8 > 20 * removed.mean() / 2
    assert removed[found.flagged[~left]].mean() > 0.7


@pytest.mark.parametrize(("images", "dimensions"), [(200, 40), (90, 150)])
def test_other_images_get_the_mean_of_the_folds(images: int, dimensions: int) -> None:
    """Against scikit-learn's own pipeline on the standardised features, where all directions are kept."""
    features, tags = clouds(images + 50, 3, dimensions)
    known, others = features[:images], features[images:]
    tags[:, 2] = False  # nothing can be learnt of it
    found = fit_classifiers(known, tags[:images], seed=2)
    got = found.of(others)
    random = np.random.default_rng(2)
    scaled = StandardScaler().fit(known)
    for c in range(2):
        fold = dealt(tags[:images, c], 5, random)
        answers = []
        for part in range(5):
            model = LogisticRegression(C=STRENGTH / dimensions, max_iter=1000, tol=1e-8)
            model.fit(scaled.transform(known[fold != part]), tags[:images][fold != part, c])
            answers.append(model.predict_proba(scaled.transform(others))[:, 1])
        np.testing.assert_allclose(got[:, c], np.mean(answers, axis=0), atol=5e-3)
    assert (got[:, 2] == 0).all()
