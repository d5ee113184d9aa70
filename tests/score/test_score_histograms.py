"""Histograms and the scores read off them, against loops over pixels and scikit-learn."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix

from tag2mask.data.masks import Contexts
from tag2mask.score import IGNORE, ScoreHistograms, counts_by_level, image_levels, miou_by_level, scores


@dataclass(frozen=True)
class Example:
    """One image as ``ScoreHistograms.add`` takes it."""

    class_ids: tuple[int, ...]
    maps: np.ndarray
    mask: np.ndarray
    context: np.ndarray | None


@dataclass(frozen=True)
class World:
    """A few random images: few map values, so that there are ties; tags that miss classes of the mask."""

    class_count: int
    context_count: int
    images: tuple[Example, ...]

    def histograms(self, order: list[int] | None = None) -> ScoreHistograms:
        histograms = ScoreHistograms(self.class_count, self.context_count, images=len(self.images))
        for index in range(len(self.images)) if order is None else order:
            image = self.images[index]
            histograms.add(index, image.class_ids, image.maps, image.mask, image.context)
        return histograms


def make_world(seed: int, class_count: int = 3, context_count: int = 2, images: int = 3) -> World:
    generator = np.random.default_rng(seed)
    examples = []
    for _ in range(images):
        height, width = generator.integers(1, 8, 2)
        present = generator.permutation(class_count)[: generator.integers(0, class_count + 1)]
        values = generator.choice(256, size=generator.integers(1, 6))
        labels = np.array([0, 0, *range(class_count + 1), IGNORE])
        context = generator.integers(0, context_count + 1, (height, width)) if context_count else None
        examples.append(
            Example(
                class_ids=tuple(present.tolist()),
                maps=generator.choice(values, (len(present), height, width)).astype(np.uint8),
                mask=generator.choice(labels, (height, width)).astype(np.uint8),
                context=None if context is None else context.astype(np.uint8),
            )
        )
    return World(class_count, context_count, tuple(examples))


worlds = st.builds(
    make_world,
    seed=st.integers(0, 2**32 - 1),
    class_count=st.integers(1, 4),
    context_count=st.integers(0, 3),
    images=st.integers(1, 4),
)
levels = st.integers(1, 255)


def predict(image: Example, level: int) -> np.ndarray:
    """The mask that the maps give at a level, one pixel at a time."""
    prediction = np.zeros(image.mask.shape, int)
    for row, column in np.ndindex(image.mask.shape):
        best, winner = -1, None
        for class_id, plane in zip(image.class_ids, image.maps, strict=True):
            if plane[row, column] > best:
                best, winner = int(plane[row, column]), class_id
        if winner is not None and best >= level:
            prediction[row, column] = winner + 1
    return prediction


def slow_confusion(images: tuple[Example, ...], level: int, class_count: int) -> np.ndarray:
    truth = np.concatenate([image.mask.ravel() for image in images])
    prediction = np.concatenate([predict(image, level).ravel() for image in images])
    counted = truth != IGNORE
    if not counted.any():
        return np.zeros((class_count + 1, class_count + 1), int)
    return confusion_matrix(truth[counted], prediction[counted], labels=range(class_count + 1))


def slow_share(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan


def slow_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


@settings(deadline=None, max_examples=60)
@given(world=worlds, level=levels)
def test_scores_equal_a_loop_over_pixels(world: World, level: int) -> None:
    found = scores(world.histograms(), level)
    confusion = slow_confusion(world.images, level, world.class_count)
    np.testing.assert_array_equal(found.confusion, confusion)
    assert found.confusion.dtype == np.int64

    classes = range(world.class_count + 1)
    hits = [confusion[c, c] for c in classes]
    truth = [sum(confusion[c, k] for k in classes) for c in classes]
    predicted = [sum(confusion[k, c] for k in classes) for c in classes]
    iou = [slow_share(hits[c], truth[c] + predicted[c] - hits[c]) for c in classes]
    precision = [slow_share(hits[c], predicted[c]) for c in classes[1:]]
    recall = [slow_share(hits[c], truth[c]) for c in classes[1:]]
    np.testing.assert_allclose(found.iou, iou)
    np.testing.assert_allclose(found.class_precision, precision)
    np.testing.assert_allclose(found.class_recall, recall)
    np.testing.assert_allclose(found.class_fdr, [100 - value for value in precision])
    np.testing.assert_allclose(found.miou, slow_mean(iou))
    np.testing.assert_allclose(found.precision, slow_mean(precision))
    np.testing.assert_allclose(found.recall, slow_mean(recall))
    np.testing.assert_allclose(found.fdr, 100 - slow_mean(precision))
    np.testing.assert_array_equal(found.truth_pixels, truth)
    np.testing.assert_array_equal(found.predicted_pixels, predicted)
    np.testing.assert_allclose(found.foreground_share, slow_share(sum(predicted[1:]), sum(predicted)))
    np.testing.assert_allclose(found.truth_share, slow_share(sum(truth[1:]), sum(truth)))
    assert (found.level, found.threshold, found.images) == (level, level / 255, len(world.images))


@settings(deadline=None, max_examples=30)
@given(world=worlds)
def test_false_discovery_at_a_class_s_own_area_equals_a_loop_over_levels(world: World) -> None:
    found = scores(world.histograms(), 1).class_fdr_own_area
    at_level = [slow_confusion(world.images, level, world.class_count) for level in range(1, 256)]
    for c in range(1, world.class_count + 1):
        truth = at_level[0][c].sum()
        missing = [abs(confusion[:, c].sum() - truth) for confusion in at_level]
        nearest = at_level[missing.index(min(missing))]
        predicted = nearest[:, c].sum()
        near = truth > 0 and 10 * abs(int(predicted) - int(truth)) <= truth
        np.testing.assert_allclose(found[c - 1], 100 * (1 - nearest[c, c] / predicted) if near else math.nan)


def test_a_class_that_wins_too_few_pixels_has_no_figure_at_its_own_area() -> None:
    histograms, maps = ScoreHistograms(1, images=1), np.zeros((1, 10, 10), np.uint8)
    maps[0, 0] = 200
    histograms.add(0, np.array([0]), maps, np.ones((10, 10), np.uint8))
    assert math.isnan(scores(histograms, 100).class_fdr_own_area[0]) and scores(histograms, 100).class_fdr[0] == 0


@settings(deadline=None, max_examples=60)
@given(world=worlds, level=levels)
def test_context_figures_equal_a_loop_over_pixels(world: World, level: int) -> None:
    on_context = np.zeros((world.class_count, world.context_count))
    predicted = np.zeros(world.class_count)
    for image in world.images:
        prediction = predict(image, level)
        for pixel in np.ndindex(image.mask.shape):
            if image.mask[pixel] == IGNORE or prediction[pixel] == 0:
                continue
            predicted[prediction[pixel] - 1] += 1
            if image.context is not None and image.context[pixel] > 0 and image.mask[pixel] == 0:
                on_context[prediction[pixel] - 1, image.context[pixel] - 1] += 1
    names = tuple(f"context {number}" for number in range(world.context_count))
    of_class = tuple(c if c < world.context_count else None for c in range(world.class_count))
    unknown = scores(world.histograms(), level)
    known = scores(
        world.histograms(), level, Contexts(names, reader=lambda index: np.zeros((1, 1), np.uint8), of_class=of_class)
    )

    table = [[slow_share(on_context[c, j], predicted[c]) for j in range(len(names))] for c in range(len(predicted))]
    np.testing.assert_allclose(unknown.context_shares, np.reshape(table, on_context.shape))
    np.testing.assert_array_equal(known.context_shares, unknown.context_shares)
    own = [math.nan if context is None else table[c][context] for c, context in enumerate(of_class)]
    np.testing.assert_allclose(known.class_leak, own)
    np.testing.assert_allclose(known.leak, slow_mean(own))
    expected = slow_share(on_context.sum(), predicted.sum()) if names else math.nan
    np.testing.assert_allclose(unknown.leak, expected)


@settings(deadline=None, max_examples=40)
@given(world=worlds, level=levels)
def test_counts_of_each_image_equal_a_loop_over_pixels(world: World, level: int) -> None:
    counts = {name: table.toarray() for name, table in vars(world.histograms().image_counts(level)).items()}
    for index, image in enumerate(world.images):
        confusion = slow_confusion((image,), level, world.class_count)
        np.testing.assert_array_equal(counts["true_positives"][index], np.diagonal(confusion))
        np.testing.assert_array_equal(counts["predicted"][index], confusion.sum(axis=0))
        np.testing.assert_array_equal(counts["truth"][index], confusion.sum(axis=1))


@settings(deadline=None, max_examples=15)
@given(world=worlds)
def test_the_sweep_equals_the_scores_at_each_level(world: World) -> None:
    histograms = world.histograms()
    counts, miou = counts_by_level(histograms), miou_by_level(histograms)
    for level in range(1, 256, 7):
        at_level = scores(histograms, level)
        np.testing.assert_array_equal(counts.true_positives[:, level - 1], np.diagonal(at_level.confusion))
        np.testing.assert_array_equal(counts.predicted[:, level - 1], at_level.predicted_pixels)
        np.testing.assert_allclose(miou[level - 1], at_level.miou)
        np.testing.assert_allclose(counts.foreground_share[level - 1], at_level.foreground_share)
    assert (np.diff(counts.foreground_share) <= 0).all() or np.isnan(counts.truth_share)


@settings(deadline=None, max_examples=40)
@given(world=worlds)
def test_pixel_average_precision_equals_scikit_learn(world: World) -> None:
    found = scores(world.histograms(), 128).class_pixel_ap
    for class_id in range(world.class_count):
        truth, score = [], []
        for image in world.images:
            winners = predict(image, 0)
            for pixel in np.ndindex(image.mask.shape):
                if image.mask[pixel] != IGNORE:
                    truth.append(image.mask[pixel] == class_id + 1)
                    score.append(int(image.maps[:, *pixel].max()) if winners[pixel] == class_id + 1 else 0)
        expected = 100 * average_precision_score(truth, score) if any(truth) else math.nan
        np.testing.assert_allclose(found[class_id], expected)


def same(first: ScoreHistograms, second: ScoreHistograms) -> None:
    for name in ("joint", "on_context", "map_levels", "added"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for one, other in zip(*(vars(each.image_counts(100)).values() for each in (first, second)), strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


@settings(deadline=None, max_examples=40)
@given(world=worlds, data=st.data())
def test_order_does_not_matter_and_parts_merge_into_the_whole(world: World, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(world.images))))
    cut = data.draw(st.integers(0, len(order)))
    whole = world.histograms()
    same(whole, world.histograms(order))
    first, second = world.histograms(order[:cut]), world.histograms(order[cut:])
    same(whole, first.merge(second))
    same(whole, second.merge(first))
    same(first, world.histograms(order[:cut]))  # merging left the parts alone


def test_pieces_that_are_sent_one_by_one_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.score.histograms.PART_IMAGES", 2)
    world = make_world(0, images=7)
    whole = world.histograms()
    pieces = [pickle.loads(pickle.dumps(piece)) for piece in whole.parts()]
    assert len(pieces) == 4
    found = world.histograms([])
    for piece in pieces:
        found.take_in(piece)
    same(found, whole)



@settings(deadline=None, max_examples=40)
@given(world=worlds, level=levels, seed=st.integers(0, 2**32 - 1))
def test_what_lies_under_ignored_pixels_changes_no_score(world: World, level: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    changed = []
    for image in world.images:
        noise = generator.integers(0, 256, image.maps.shape, dtype=np.uint8)
        maps = np.where(image.mask == IGNORE, noise, image.maps)
        context = None
        if image.context is not None:
            context = np.where(image.mask == IGNORE, image.context.max(), image.context)
        changed.append(replace(image, maps=maps, context=context))
    first = scores(world.histograms(), level).plain()
    assert first == scores(replace(world, images=tuple(changed)).histograms(), level).plain()


@settings(deadline=None, max_examples=40)
@given(world=worlds)
def test_the_histogram_of_the_maps_reads_no_mask(world: World) -> None:
    expected = np.zeros(256, int)
    without_masks = ScoreHistograms(world.class_count, images=len(world.images))
    for index, image in enumerate(world.images):
        without_masks.add(index, image.class_ids, image.maps, None)
        if image.class_ids:
            for value in image.maps.max(axis=0).ravel():
                expected[value] += 1
    np.testing.assert_array_equal(world.histograms().map_levels, expected)
    np.testing.assert_array_equal(without_masks.map_levels, expected)
    assert not without_masks.joint.any()


def test_perfect_maps_score_100() -> None:
    mask = np.array([[0, 1, 1], [2, 2, IGNORE], [0, 0, 0]], np.uint8)
    maps = np.stack([mask == 1, mask == 2]).astype(np.uint8) * 255
    histograms = ScoreHistograms(3, images=1)
    histograms.add(0, [0, 1], maps, mask)
    for level in (1, 128, 255):
        found = scores(histograms, level)
        np.testing.assert_array_equal(found.iou, [100, 100, 100, np.nan])  # the third class is nowhere
        assert (found.miou, found.precision, found.recall, found.fdr, found.pixel_ap) == (
            100,
            100,
            100,
            0,
            100,
        )


def test_an_empty_prediction_has_no_precision_and_no_recall() -> None:
    histograms = ScoreHistograms(1, images=1)
    histograms.add(0, [0], np.zeros((1, 2, 2), np.uint8), np.array([[1, 0], [0, 0]], np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(histograms, 1)
    np.testing.assert_array_equal(found.iou, [75, 0])
    assert (found.miou, found.recall) == (37.5, 0)
    assert all(math.isnan(value) for value in (found.precision, found.fdr, found.leak))


def test_an_image_without_tags_is_all_background_at_every_level() -> None:
    histograms = ScoreHistograms(2, images=1)
    histograms.add(0, [], np.zeros((0, 1, 4), np.uint8), np.array([[0, 0, 2, IGNORE]], np.uint8))
    for level in (1, 255):
        np.testing.assert_array_equal(scores(histograms, level).confusion, [[2, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert not histograms.map_levels.any()


def test_of_equal_maps_the_first_present_class_gets_the_pixel() -> None:
    for ids in ([2, 0, 1], [1, 2, 0]):
        histograms = ScoreHistograms(3, images=1)
        histograms.add(0, ids, np.full((3, 1, 1), 9, np.uint8), np.zeros((1, 1), np.uint8))
        assert scores(histograms, 9).predicted_pixels[ids[0] + 1] == 1
        assert scores(histograms, 10).predicted_pixels[0] == 1


def test_many_present_classes_and_regions_count_right() -> None:
    """254 regions and 60 present classes need codes of more than 16 bits."""
    generator = np.random.default_rng(5)
    ids = generator.permutation(200)[:60]
    maps = generator.integers(0, 256, (60, 20, 30), dtype=np.uint8)
    mask = generator.integers(0, 201, (20, 30)).astype(np.uint8)
    context = generator.integers(0, 54, (20, 30)).astype(np.uint8)
    histograms = ScoreHistograms(200, 53, images=1)
    histograms.add(0, ids, maps, mask, context)
    predicted = np.where(maps.max(axis=0) >= 250, ids[maps.argmax(axis=0)] + 1, 0)
    expected = confusion_matrix(mask.ravel(), predicted.ravel(), labels=range(201))
    np.testing.assert_array_equal(scores(histograms, 250).confusion, expected)


def test_large_images_are_counted_to_the_last_pixel() -> None:
    """More pixels than 16 bits count, in one bin, and more than one block."""
    shape = (400, 501)
    histograms = ScoreHistograms(1, images=1)
    histograms.add(0, [0], np.full((1, *shape), 255, np.uint8), np.ones(shape, np.uint8))
    assert scores(histograms, 255).confusion[1, 1] == 400 * 501
    assert histograms.image_counts(255).true_positives[0, 1] == 400 * 501


def test_totals_do_not_overflow() -> None:
    """No image is that large, so the first count is set by hand; then it doubles 20 times."""
    histograms = ScoreHistograms(1, images=0)
    histograms._counts[1, 2, 255] = 2**31 - 1
    for _ in range(20):
        histograms = histograms.merge(histograms)
    found = scores(histograms, 255)
    assert found.confusion[1, 1] == (2**31 - 1) * 2**20
    assert found.miou == 100


def test_plain_scores_are_json_with_none_for_nan() -> None:
    histograms = make_world(3).histograms()
    found = scores(histograms, 77)
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain["miou"] == found.miou
    assert plain["confusion"] == found.confusion.tolist()
    assert set(plain) >= {"miou", "precision", "recall", "fdr", "leak", "pixel_ap", "iou", "context_shares"}
    nowhere = ScoreHistograms(1, images=1)
    nowhere.add(0, [], np.zeros((0, 1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    plain = json.loads(json.dumps(scores(nowhere, 77).plain(), allow_nan=False))
    assert plain["iou"] == [100.0, None]
    assert plain["leak"] is None


def test_many_images_go_to_a_file_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound their counts are kept on disk; nothing else changes."""
    generator = np.random.default_rng(0)
    masks = generator.integers(0, 4, (40, 9, 9)).astype(np.uint8)
    maps = generator.integers(0, 256, (40, 2, 9, 9)).astype(np.uint8)
    found = []
    for bound in (1 << 22, 500):
        monkeypatch.setattr(image_levels, "KEPT_BYTES", bound)
        histograms = ScoreHistograms(3, images=40)
        for index in range(40):
            histograms.add(index, [2, 0], maps[index], masks[index])
        found.append(histograms)
    assert [histograms._images._records._rolled for histograms in found] == [False, True]
    same(*found)
