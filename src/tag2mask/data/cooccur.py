"""The built-in benchmark ``cooccur``: procedural scenes whose classes and contexts occur together.

A class brings its context (a train brings rails) with probability p, and a context is there without its
class with probability q. Tags cannot tell the two apart; only pictures with the context alone can, and q says
how many there are. The cow has no context and is the control. Masks and contexts are exact, because every
stroke of the painters labels the pixels that it paints.

A scene is a function of (settings, index) alone. Each part (what is there, the layout, each context, each
object, the label noise) has a random stream of its own, and numbers are drawn whether or not they are needed.
So another p or q adds or takes away contexts but leaves what does not touch them as it is, and no tag noise
moves a pixel.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data import cooccur_objects as objects
from tag2mask.data import cooccur_painters as painters
from tag2mask.data.classes import Classes
from tag2mask.data.cooccur_canvas import FIRST_CONTEXT, NEUTRAL, Band, Canvas, Pen, Point, Random
from tag2mask.data.images import TaggedImages

if TYPE_CHECKING:  # what trains imports this module, and must not reach the masks through it
    from tag2mask.data.masks import Masks

CLASSES = ("car", "bus", "train", "boat", "plane", "sheep", "cow", "bird")
"""The order is also the rank for ``imbalance``: the car is the most frequent."""
SUPERCLASSES = ("vehicle", "vehicle", "vehicle", "craft", "craft", "animal", "animal", "animal")
"""The super-class of each class."""
CONTEXTS = ("road", "rails", "water", "clouds", "grass", "foliage")
CONTEXT_OF_CLASS: tuple[int | None, ...] = (0, 0, 1, 2, 3, 4, None, 5)
"""For each class, its context as an index into ``CONTEXTS``; the cow has none and is the control."""

TWO_CLASSES = 0.35
"""Share of the scenes with two classes; the others have one."""
SECOND_INSTANCE = 0.25
"""Probability that a class is there twice."""
SMALLEST_SHARE = 0.006
"""Every class of a scene covers at least this share of the pixels."""
POST_SHARE = 0.25
"""Share of the scenes with a post in front of everything."""

ID_PREFIX = "scene_"

PLANE, BIRD = CLASSES.index("plane"), CLASSES.index("bird")
ROAD, RAILS, WATER, CLOUDS, GRASS, FOLIAGE = range(len(CONTEXTS))
KEPT_BYTES = 64 * 2**20
"""Of painted scenes in memory: 800 of 128 x 128."""
NOWHERE = -1
"""Neutral ground, which belongs to no context."""
GROUND_PAINTERS: dict[int, Callable[[Canvas, Random, Band], list[Band]]] = {
    ROAD: painters.paint_road,
    RAILS: painters.paint_rails,
    WATER: painters.paint_water,
    GRASS: painters.paint_grass,
}

# One random stream for each of these; contexts and objects count up from theirs.
CONTENT, LABEL_NOISE, LAYOUT, BACKDROP, CLUTTER, POST, CAMERA, EMPTY, CONTEXT, OBJECT = 0, 1, 2, 3, 4, 5, 6, 7, 100, 200


@dataclass(frozen=True)
class Scene:
    """A finished scene: what the camera sees, and what is true."""

    image: np.ndarray
    """(S, S, 3) uint8."""
    mask: np.ndarray
    """(S, S) uint8: 0 background, c + 1 class c."""
    context: np.ndarray
    """(S, S) uint8: 0 none, k + 1 context k; never on a pixel of a class."""
    labels: np.ndarray
    """(C,) bool: the tags, with the label noise of the settings."""


def open_cooccur(config: DataConfig) -> TaggedImages:
    """The scenes as photos with tags; nothing is painted until an image is read."""
    count = config.cooccur.images
    rows = [scene_labels(config.cooccur, index) for index in range(count)]
    return TaggedImages(
        classes=Classes(CLASSES, SUPERCLASSES),
        ids=tuple(f"{ID_PREFIX}{index:06d}" for index in range(count)),
        labels=np.stack(rows),  # N x (C,) -> (N, C)
        reader=functools.partial(read_image, config.cooccur),
    )


def cooccur_masks(config: DataConfig, images: TaggedImages) -> Masks:
    """The true masks and contexts of ``images``, which may be a subset in any order."""
    from tag2mask.data.masks import Contexts, Masks

    indices = tuple(int(name.removeprefix(ID_PREFIX)) for name in images.ids)
    contexts = Contexts(
        names=CONTEXTS,
        reader=functools.partial(read_context, config.cooccur, indices),
        of_class=CONTEXT_OF_CLASS,
    )
    return Masks(
        classes=images.classes,
        ids=images.ids,
        reader=functools.partial(read_mask, config.cooccur, indices),
        contexts=contexts,
    )


def read_image(config: CooccurConfig, index: int) -> Image.Image:
    return Image.fromarray(recent_scene(config, index).image)


def read_mask(config: CooccurConfig, indices: tuple[int, ...], position: int) -> np.ndarray:
    return recent_scene(config, indices[position]).mask.copy()


def read_context(config: CooccurConfig, indices: tuple[int, ...], position: int) -> np.ndarray:
    return recent_scene(config, indices[position]).context.copy()


def recent_scene(config: CooccurConfig, index: int) -> Scene:
    """A scene that may have been painted before: every stage, and every method, asks for the same ones."""
    return _kept_scenes(config.size)(config, index)


@functools.lru_cache(maxsize=2)
def _kept_scenes(size: int) -> Callable[[CooccurConfig, int], Scene]:
    """``render_scene`` with a memory of ``KEPT_BYTES``, or of one scene where that is more."""
    return functools.lru_cache(maxsize=max(1, KEPT_BYTES // (5 * size * size)))(render_scene)


# What is there


@dataclass(frozen=True)
class Content:
    """The classes of a scene, and whether each of ``CONTEXTS`` is there."""

    classes: tuple[int, ...]
    contexts: tuple[bool, ...]


def scene_content(config: CooccurConfig, index: int) -> Content:
    """Which classes and contexts scene ``index`` shows; a function of (config, index)."""
    random = stream(config, index, CONTENT)
    classes = draw_classes(random, 2 if random.random() < TWO_CLASSES else 1, config.imbalance)
    invited = {CONTEXT_OF_CLASS[one] for one in classes}
    with_class, alone = config.context_with_class, config.context_alone
    chances = [with_class if k in invited else alone for k in range(len(CONTEXTS))]
    drawn = random.random(len(CONTEXTS))
    if config.without_class and stream(config, index, EMPTY).random() < config.without_class:
        classes = ()  # its contexts stay
    return Content(classes, tuple((drawn < chances).tolist()))


def draw_classes(random: Random, count: int, imbalance: float) -> tuple[int, ...]:
    """``count`` different classes, each drawn with a probability proportional to rank^-imbalance.

    Systematic sampling in random order: unlike one draw after another, it keeps the proportions in pairs too.
    The limit is arithmetic: a class is in a scene once, so what a share has above 1 goes to the others. In
    scenes with two classes that begins at an imbalance of 1.44.
    """
    steepest = 64.0  # already nothing but cars and buses; far above, the other shares would become 0
    shares = np.arange(1, len(CLASSES) + 1, dtype=float) ** -min(imbalance, steepest)
    shares *= count / shares.sum()
    if shares[0] > 1:
        shares[1:] *= (count - 1) / shares[1:].sum()
        shares[0] = 1
    order = random.permutation(len(CLASSES))
    ends = np.cumsum(shares[order])
    ends[-1] = count
    picks = np.searchsorted(ends, random.random() + np.arange(count), side="right")
    return tuple(sorted(order[picks].tolist()))


def scene_labels(config: CooccurConfig, index: int) -> np.ndarray:
    """(C,) bool: the classes of the scene, less the missing labels, plus the false ones; maybe none."""
    true = np.zeros(len(CLASSES), bool)
    true[list(scene_content(config, index).classes)] = True
    kept, added = stream(config, index, LABEL_NOISE).random((2, len(CLASSES)))
    labels: np.ndarray = np.where(true, kept >= config.missing_labels, added < config.false_labels)
    return labels


# Where it is, and the picture


@dataclass(frozen=True)
class Backdrop:
    """A painted scene without its objects, and where objects can stand."""

    canvas: Canvas
    horizon: float
    standing: dict[int, list[Band]]
    """Strips to stand on: of each context on the ground, and of the neutral ground (``NOWHERE``)."""
    branches: list[list[Point]]


def render_scene(config: CooccurConfig, index: int) -> Scene:
    """Paint scene ``index``; a pure function of (config, index).

    Where a class ends up hidden, too small or outside the picture, the objects are placed again. So every
    class covers at least ``SMALLEST_SHARE`` of the pixels, tags and masks agree, and no scene is dropped.
    """
    content = scene_content(config, index)
    backdrop = paint_backdrop(config, index, content)
    needed = SMALLEST_SHARE * config.size**2
    for attempt in itertools.count():
        canvas = backdrop.canvas.copy()
        paint_objects(canvas, config, index, attempt, content, backdrop)
        random = stream(config, index, POST)
        if random.random() < POST_SHARE:
            canvas.label = NEUTRAL
            painters.paint_post(canvas, random, backdrop.horizon)
        picture, mask, context = canvas.finished()
        areas = np.bincount(mask.ravel(), minlength=len(CLASSES) + 1)
        if all(areas[one + 1] >= needed for one in content.classes):
            break
    image = photograph(np.asarray(picture, np.float32), stream(config, index, CAMERA))
    return Scene(image, mask, context, scene_labels(config, index))


def paint_backdrop(config: CooccurConfig, index: int, content: Content) -> Backdrop:
    """Sky, ground, contexts and clutter."""
    canvas = Canvas(config.size)
    layout, backdrop = stream(config, index, LAYOUT), stream(config, index, BACKDROP)
    horizon = canvas.side * layout.uniform(0.3, 0.5)
    ground = [k for k in GROUND_PAINTERS if content.contexts[k]]
    strangers = any(CONTEXT_OF_CLASS[one] not in ground for one in content.classes)
    bands = lay_bands(layout, ground, strangers and ground == [WATER], horizon, canvas.side)

    painters.paint_sky(canvas, backdrop, horizon)
    if content.contexts[CLOUDS]:
        canvas.label = FIRST_CONTEXT + CLOUDS
        sky = Band(0, horizon, 0, canvas.side)
        painters.paint_clouds(canvas, stream(config, index, CONTEXT + CLOUDS), sky)
    canvas.label = NEUTRAL
    painters.paint_ground(canvas, backdrop, horizon)
    standing = {}
    for k, band in bands.items():
        if k == NOWHERE:
            standing[k] = [band.part(*painters.STANDING)]
        else:
            canvas.label = FIRST_CONTEXT + k
            standing[k] = GROUND_PAINTERS[k](canvas, stream(config, index, CONTEXT + k), band)
    branches: list[list[Point]] = []
    if content.contexts[FOLIAGE]:
        canvas.label = FIRST_CONTEXT + FOLIAGE
        trees = Band(0.04 * canvas.side, 1.1 * horizon, 0, canvas.side)
        branches = painters.paint_foliage(canvas, stream(config, index, CONTEXT + FOLIAGE), trees)
    canvas.label = NEUTRAL
    painters.paint_clutter(canvas, stream(config, index, CLUTTER), horizon)
    return Backdrop(canvas, horizon, standing, branches)


def lay_bands(random: Random, contexts: list[int], bare: bool, horizon: float, side: int) -> dict[int, Band]:
    """Divide the ground, from the horizon down, among ``contexts`` and, half of the time, neutral ground.

    ``bare`` asks for neutral ground in any case.
    """
    every = (NOWHERE, *GROUND_PAINTERS)
    keys = dict(zip(every, random.random(len(every)).tolist(), strict=True))
    neutral, lean = random.random(2).tolist()
    wobble, tilts = random.uniform(-1, 1, (2, len(every)))
    slots = [*contexts, NOWHERE] if neutral < 0.5 or bare or not contexts else list(contexts)
    slots.sort(key=keys.__getitem__)
    spread = {1: 0.0, 2: 0.25}.get(len(slots), 0.06)
    inner = np.linspace(0, 1, len(slots) + 1)[1:-1] + spread * wobble[: len(slots) - 1]
    edges = horizon + (side - horizon) * np.array([0, *inner, 1])
    edges[-1] = 1.07 * side  # a tilted strip still reaches both lower corners
    tops, tilted = edges.tolist(), (side * (0.09 * (lean - 0.5) + 0.015 * tilts)).tolist()
    return {slot: Band(tops[k], tops[k + 1], tilted[k], side) for k, slot in enumerate(slots)}


def paint_objects(
    canvas: Canvas, config: CooccurConfig, index: int, attempt: int, content: Content, backdrop: Backdrop
) -> None:
    """Every instance of every class, the far ones first."""
    twice = stream(config, index, OBJECT).random(len(CLASSES)) < SECOND_INSTANCE
    placed = []
    for one in content.classes:
        for instance in range(2 if twice[one] else 1):
            random = stream(config, index, OBJECT + 1 + 2 * one + instance, attempt)
            depth, pen = place_object(canvas, random, one, backdrop)
            placed.append((depth, one, pen, random))
    for _, one, pen, random in sorted(placed, key=lambda entry: entry[0]):
        canvas.label = one + 1
        objects.PAINTERS[one](pen, random)


def place_object(canvas: Canvas, random: Random, one: int, backdrop: Backdrop) -> tuple[float, Pen]:
    """How near the instance of class ``one`` is (for the order of painting), and the pen that paints it."""
    side, horizon = canvas.side, backdrop.horizon
    along, down, strip_draw, facing_draw, tilt_draw, perch_draw = random.random(6).tolist()
    width = side * random.uniform(0.36, 0.78) * objects.RELATIVE_WIDTH[one]
    facing = 1 if facing_draw < 0.5 else -1
    tilt = (2 * tilt_draw - 1) * objects.LARGEST_TILT[one]
    x = (0.15 + 0.7 * along) * side
    if one == PLANE:
        y = (0.12 + 0.88 * down) * horizon
        return y - side, Pen(canvas, x, y, width, facing, tilt)
    if one == BIRD and backdrop.branches and perch_draw < 0.8:
        x, y = perch(backdrop, x, strip_draw)
        return y - side, Pen(canvas, x, y, width, facing, tilt)
    own, standing = CONTEXT_OF_CLASS[one], backdrop.standing
    dry = [band for k, bands in standing.items() if k != WATER for band in bands]
    strips = standing.get(NOWHERE if own is None else own) or standing.get(NOWHERE) or dry
    strip = strips[int(strip_draw * len(strips))]
    if SUPERCLASSES[one] == "vehicle":  # wheels follow the slope; hulls and legs stay level
        tilt = facing * strip.slope()
    y = min(strip.level(x, down), 0.985 * side)
    return y, Pen(canvas, x, y, width, facing, tilt)


def perch(backdrop: Backdrop, x: float, draw: float) -> Point:
    """The place for a bird at column ``x``, or the nearest that a branch reaches; low branches come first."""
    heights = [float(np.mean([y for _, y in branch])) for branch in backdrop.branches]
    limit = min(0.45 * backdrop.horizon, max(heights))
    low = [branch for branch, height in zip(backdrop.branches, heights, strict=True) if height >= limit]
    columns, rows = zip(*low[int(draw * len(low))], strict=True)
    x = float(np.clip(x, columns[0] + 0.1 * (columns[-1] - columns[0]), columns[-1]))
    return x, float(np.interp(x, columns, rows))


def photograph(picture: np.ndarray, random: Random) -> np.ndarray:
    """Contrast, brightness and noise of a camera; (S, S, 3) float32 levels -> uint8."""
    contrast, brightness, noise = random.uniform(0.8, 1.15), random.uniform(-18, 18), random.uniform(1, 6)
    levels = (picture - 128) * np.float32(contrast) + np.float32(128 + brightness)
    levels += random.standard_normal(picture.shape, np.float32) * np.float32(noise)
    image: np.ndarray = np.clip(levels, 0, 255).astype(np.uint8)
    return image


def stream(config: CooccurConfig, index: int, purpose: int, attempt: int = 0) -> Random:
    """The random stream of one part of one scene."""
    return np.random.default_rng((config.seed, index, purpose, attempt))
