from __future__ import annotations

import dataclasses
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data.cooccur import (
    CLASSES,
    CONTEXT_OF_CLASS,
    CONTEXTS,
    SMALLEST_SHARE,
    SUPERCLASSES,
    Scene,
    cooccur_masks,
    open_cooccur,
    render_scene,
    scene_content,
    scene_labels,
)
from tag2mask.data.cooccur_canvas import FIRST_CONTEXT, Canvas, Pen
from tag2mask.data.cooccur_objects import PAINTERS
from tag2mask.data.cooccur_painters import paint_post
from tag2mask.data.masks import open_masks

COUNT = 200
SMALL = CooccurConfig(images=COUNT, size=48, seed=3)


def render(config: CooccurConfig) -> list[Scene]:
    return [render_scene(config, index) for index in range(config.images)]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return render(SMALL)


def within_chance(hits: int, trials: int, probability: float) -> bool:
    """Whether ``hits`` lie within four standard deviations of a binomial variable, and half a count."""
    allowed = 4 * math.sqrt(trials * probability * (1 - probability)) + 0.5
    return abs(hits - trials * probability) <= allowed


def contexts_shown(scene: Scene) -> set[int]:
    return {int(value) - 1 for value in np.unique(scene.context) if value}


def contexts_of(labels: np.ndarray) -> set[int | None]:
    return {CONTEXT_OF_CLASS[one] for one in np.flatnonzero(labels)}


def python(program: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=environment)


def same(first: Scene, second: Scene) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("image", "mask", "context", "labels")
    )


# A function of settings and index


def test_scene_does_not_depend_on_what_was_rendered_before(scenes: list[Scene]) -> None:
    for index in (7, 0, 199, 7):
        assert same(render_scene(SMALL, index), scenes[index])


def test_scene_does_not_depend_on_the_number_of_scenes(scenes: list[Scene]) -> None:
    assert same(render_scene(dataclasses.replace(SMALL, images=5), 4), scenes[4])


def test_other_index_and_other_seed_give_other_scenes(scenes: list[Scene]) -> None:
    assert len({scene.image.tobytes() for scene in scenes}) == COUNT
    other_seed = dataclasses.replace(SMALL, seed=4)
    assert not np.array_equal(render_scene(other_seed, 0).image, scenes[0].image)


def test_scene_is_the_same_in_another_process(scenes: list[Scene]) -> None:
    program = (
        "import sys\n"
        "from tag2mask.config import CooccurConfig\n"
        "from tag2mask.data.cooccur import render_scene\n"
        "scene = render_scene(CooccurConfig(images=200, size=48, seed=3), 11)\n"
        "sys.stdout.buffer.write(scene.image.tobytes() + scene.mask.tobytes())"
    )
    run = python(program)
    assert run.returncode == 0, run.stderr
    assert run.stdout == scenes[11].image.tobytes() + scenes[11].mask.tobytes()


# What a scene is


@pytest.mark.parametrize("size", [32, 45, 128])
def test_shapes_types_and_values(size: int) -> None:
    config = CooccurConfig(size=size)
    for index in range(5):
        scene = render_scene(config, index)
        assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
        assert scene.mask.shape == scene.context.shape == (size, size)
        assert scene.mask.dtype == scene.context.dtype == np.uint8
        assert scene.mask.max() <= len(CLASSES) and scene.context.max() <= len(CONTEXTS)
        assert scene.labels.shape == (len(CLASSES),) and scene.labels.dtype == np.bool_
        assert scene.image.std() > 5


def test_masks_hold_the_tagged_classes_and_no_other(scenes: list[Scene]) -> None:
    for scene in scenes:
        areas = np.bincount(scene.mask.ravel(), minlength=len(CLASSES) + 1)[1:]
        np.testing.assert_array_equal(areas > 0, scene.labels)
        assert areas[scene.labels].min() >= SMALLEST_SHARE * scene.mask.size
        assert 1 <= scene.labels.sum() <= 2


def test_context_never_lies_on_a_class(scenes: list[Scene]) -> None:
    assert not any(((scene.mask > 0) & (scene.context > 0)).any() for scene in scenes)


def test_every_class_and_context_occurs(scenes: list[Scene]) -> None:
    assert np.any([scene.labels for scene in scenes], axis=0).all()
    assert set.union(*(contexts_shown(scene) for scene in scenes)) == set(range(len(CONTEXTS)))


def test_two_classes_in_about_a_third_of_the_scenes(scenes: list[Scene]) -> None:
    assert within_chance(sum(int(scene.labels.sum() == 2) for scene in scenes), COUNT, 0.35)


def test_there_are_superclasses_with_several_classes_and_a_class_without_a_context() -> None:
    assert len(set(SUPERCLASSES)) == 3 and all(SUPERCLASSES.count(name) >= 2 for name in SUPERCLASSES)
    assert None in CONTEXT_OF_CLASS


# How often contexts are there


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.15), (0.5, 0.5), (0.2, 0.8)])
def test_rates_of_contexts_with_and_without_their_class(p: float, q: float) -> None:
    config = dataclasses.replace(SMALL, context_with_class=p, context_alone=q)
    with_class: list[bool] = []
    alone: list[bool] = []
    for scene in render(config):
        own, shown = contexts_of(scene.labels), contexts_shown(scene)
        for k in range(len(CONTEXTS)):
            (with_class if k in own else alone).append(k in shown)
    assert within_chance(sum(with_class), len(with_class), p)
    assert within_chance(sum(alone), len(alone), q)


def test_no_context_without_its_class_when_q_is_0() -> None:
    for scene in render(dataclasses.replace(SMALL, context_alone=0.0)):
        assert contexts_shown(scene) <= contexts_of(scene.labels)


def test_extremes_of_p_and_q() -> None:
    nothing = dataclasses.replace(SMALL, images=40, context_with_class=0.0, context_alone=0.0)
    assert not any(scene.context.any() for scene in render(nothing))
    always = dataclasses.replace(SMALL, images=40, context_with_class=1.0, context_alone=0.0)
    for scene in render(always):
        assert contexts_shown(scene) == contexts_of(scene.labels) - {None}


def test_scenes_without_class_keep_their_contexts() -> None:
    full, bare, some = (dataclasses.replace(SMALL, images=60, without_class=share) for share in (0.0, 1.0, 0.3))
    for index in range(20):
        scene, content = render_scene(bare, index), scene_content(full, index)
        assert not scene.labels.any() and not scene.mask.any()
        assert scene_content(bare, index).contexts == content.contexts
    empty = sum(not scene_content(some, index).classes for index in range(60))
    assert 8 <= empty <= 30
    assert all(scene_content(some, i) in (scene_content(full, i), scene_content(bare, i)) for i in range(60))


def test_another_q_only_adds_contexts(scenes: list[Scene]) -> None:
    more = dataclasses.replace(SMALL, context_alone=0.5)
    untouched = 0
    for index, scene in enumerate(scenes):
        before, after = scene_content(SMALL, index), scene_content(more, index)
        assert after.classes == before.classes
        assert all(now or not then for then, now in zip(before.contexts, after.contexts, strict=True))
        if after.contexts == before.contexts:
            assert same(render_scene(more, index), scene)
            untouched += 1
    assert 5 < untouched < COUNT


# Label noise


def test_label_noise_moves_no_pixel(scenes: list[Scene]) -> None:
    noisy = dataclasses.replace(SMALL, images=60, missing_labels=0.4, false_labels=0.3)
    changed = 0
    for before, after in zip(scenes, render(noisy), strict=False):
        assert same(dataclasses.replace(after, labels=before.labels), before)
        changed += not np.array_equal(after.labels, before.labels)
    assert changed > 30


@pytest.mark.parametrize(("missing", "false"), [(0.1, 0.0), (0.0, 0.1), (0.3, 0.05), (1.0, 1.0), (1.0, 0.0)])
def test_rates_of_label_noise(missing: float, false: float) -> None:
    clean = CooccurConfig()
    noisy = CooccurConfig(missing_labels=missing, false_labels=false)
    true = np.stack([scene_labels(clean, index) for index in range(600)])
    tags = np.stack([scene_labels(noisy, index) for index in range(600)])
    assert within_chance(int((true & ~tags).sum()), int(true.sum()), missing)
    assert within_chance(int((~true & tags).sum()), int((~true).sum()), false)


# Class frequencies


@pytest.mark.parametrize("imbalance", [0.0, 0.5, 1.0, 1.4])
def test_class_frequencies_follow_the_exponent(imbalance: float) -> None:
    config, trials = CooccurConfig(imbalance=imbalance), 5000
    times = np.zeros(len(CLASSES))
    for index in range(trials):
        times[list(scene_content(config, index).classes)] += 1
    shares = np.arange(1, len(CLASSES) + 1) ** -imbalance
    expected = times.sum() * shares / shares.sum()
    np.testing.assert_allclose(times, expected, atol=4 * np.sqrt(expected.max()), rtol=0)
    slope = np.polyfit(np.log(np.arange(1, len(CLASSES) + 1)), np.log(times), 1)[0]
    assert slope == pytest.approx(-imbalance, abs=0.12)


@pytest.mark.parametrize("imbalance", [3.0, 5000.0])
def test_a_steep_imbalance_still_gives_one_or_two_classes(imbalance: float) -> None:
    config = CooccurConfig(imbalance=imbalance)
    contents = [scene_content(config, index).classes for index in range(200)]
    assert all(0 in classes for classes in contents if len(classes) == 2)
    assert {len(set(classes)) for classes in contents} == {1, 2}


# Strokes and labels


def even_tone(rows: int) -> np.ndarray:
    return np.zeros((rows, 64), np.float32)


STROKES: list[Callable[[Canvas], None]] = [
    lambda canvas: canvas.polygon((200, 90, 90), [(5.3, 4.1), (60.7, 20.2), (31.5, 58.9)]),
    lambda canvas: canvas.ellipse((200, 90, 90), 30.4, 25.7, 17.2, 9.9),
    lambda canvas: canvas.line((200, 90, 90), [(-4, 10), (35.5, 40.1), (70, 33)], 4.6),
    lambda canvas: canvas.texture([(0, 20.5), (64, 12.2), (64, 50), (0, 70)], (200, 90, 90), even_tone),
]


@pytest.mark.parametrize("stroke", STROKES)
def test_a_stroke_labels_the_pixels_that_it_paints(stroke: Callable[[Canvas], None]) -> None:
    canvas = Canvas(32)
    canvas.label = 3
    stroke(canvas)
    painted = np.asarray(canvas.image).any(axis=2)
    np.testing.assert_array_equal(np.asarray(canvas.labels), np.where(painted, 3, 0))
    assert 0 < painted.mean() < 1


@pytest.mark.parametrize("one", range(len(CLASSES)))
@pytest.mark.parametrize("facing", [-1, 1])
def test_an_object_labels_all_of_itself_and_its_shadow_labels_nothing(one: int, facing: int) -> None:
    shadow = (15, 15, 20)  # on ground of this colour a shadow cannot be seen
    canvas = Canvas(64)
    canvas.image.paste(shadow, (0, 0, 128, 128))
    canvas.label = one + 1
    PAINTERS[one](Pen(canvas, 64, 80, 80, facing), np.random.default_rng(one))
    painted = (np.asarray(canvas.image) != shadow).any(axis=2)
    np.testing.assert_array_equal(np.asarray(canvas.labels), np.where(painted, one + 1, 0))
    assert painted.mean() > 0.05


def test_what_stands_in_front_hides_class_and_context() -> None:
    canvas = Canvas(32)
    for label, top, bottom in ((2, 0, 31), (FIRST_CONTEXT + 4, 32, 63)):
        canvas.label = label
        canvas.polygon((90, 90, 90), [(0, top), (63, top), (63, bottom), (0, bottom)])
    canvas.label = 0
    paint_post(canvas, np.random.default_rng(0), horizon=0.0)
    _, mask, context = canvas.finished()
    hidden = (mask == 0) & (context == 0)
    assert set(np.unique(mask)) == {0, 2} and set(np.unique(context)) == {0, 5}
    assert hidden[5].any() and np.array_equal(hidden[5], hidden[25])


# As photos with tags, and as masks


@pytest.fixture(scope="module")
def data() -> DataConfig:
    return DataConfig(cooccur=dataclasses.replace(SMALL, images=12))


def test_photos_and_tags_are_those_of_the_scenes(data: DataConfig, scenes: list[Scene]) -> None:
    images = open_cooccur(data)
    assert len(images) == 12 == len(set(images.ids))
    assert images.classes.names == CLASSES and images.classes.superclasses == SUPERCLASSES
    for index in range(12):
        picture = images.image(index)
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), scenes[index].image)
        np.testing.assert_array_equal(images.labels[index], scenes[index].labels)


def test_tags_carry_the_label_noise() -> None:
    config = DataConfig(cooccur=dataclasses.replace(SMALL, images=12, missing_labels=0.5, false_labels=0.5))
    for index, labels in enumerate(open_cooccur(config).labels):
        np.testing.assert_array_equal(labels, render_scene(config.cooccur, index).labels)


def test_masks_and_contexts_are_those_of_the_scenes_also_of_a_subset(
    data: DataConfig, scenes: list[Scene]
) -> None:
    chosen = [9, 2, 5]
    images = open_cooccur(data).subset(chosen)
    masks = cooccur_masks(data, images)
    assert masks.ids == images.ids and masks.contexts is not None
    assert masks.contexts.names == CONTEXTS and masks.contexts.of_class == CONTEXT_OF_CLASS
    for position, index in enumerate(chosen):
        np.testing.assert_array_equal(np.asarray(images.image(position)), scenes[index].image)
        np.testing.assert_array_equal(masks.mask(position), scenes[index].mask)
        np.testing.assert_array_equal(masks.context(position), scenes[index].context)


def test_open_masks_finds_them(data: DataConfig, scenes: list[Scene]) -> None:
    images = open_cooccur(data)
    masks = open_masks(data, images)
    assert masks is not None
    np.testing.assert_array_equal(masks.mask(3), scenes[3].mask)


def test_writing_into_a_mask_does_not_change_the_next_reading(data: DataConfig, scenes: list[Scene]) -> None:
    masks = cooccur_masks(data, open_cooccur(data))
    masks.mask(1)[:] = 255
    masks.context(1)[:] = 255
    np.testing.assert_array_equal(masks.mask(1), scenes[1].mask)
    np.testing.assert_array_equal(masks.context(1), scenes[1].context)


def test_readers_can_be_sent_to_another_process(data: DataConfig, scenes: list[Scene]) -> None:
    images = open_cooccur(data)
    masks = cooccur_masks(data, images)
    assert masks.contexts is not None
    readers = pickle.loads(pickle.dumps((images.reader, masks.reader, masks.contexts.reader)))
    for reader, expected in zip(readers, (scenes[4].image, scenes[4].mask, scenes[4].context), strict=True):
        np.testing.assert_array_equal(np.asarray(reader(4)), expected)


def test_photos_and_tags_do_not_bring_the_masks_module_along() -> None:
    program = "import sys, tag2mask.data.cooccur; sys.exit('tag2mask.data.masks' in sys.modules)"
    assert python(program).returncode == 0
