"""Pictures with their maps side by side, and the negative prototypes with what they suppress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tag2mask.config import RunConfig
from tag2mask.data.classes import palette
from tag2mask.data.masks import IGNORE, Masks
from tag2mask.errors import InputError
from tag2mask.maps.store import StoredMaps, load_maps
from tag2mask.report.figures import Figures, short, shown
from tag2mask.report.pictures import (
    BLANK,
    Colour,
    Photos,
    bright,
    css,
    enlarged,
    heat_uri,
    regions_uri,
)
from tag2mask.runs import method_folder, read_json
from tag2mask.score import LEVELS, absent_floor, minimum_cross_entropy
from tag2mask.stages.evidence import NOT_SUPPRESSED
from tag2mask.stages.localize import map_path
from tag2mask.stages.table import TITLES

GALLERY_LONGEST = 320
PROTOTYPE_LONGEST = 200
"""Longest sides of photos, in pixels."""
MOST_TAGS = 3
"""Rows of heat maps of an image; the prediction shows all its tags."""
MOST_NEGATIVES = 8
"""Negatives shown for a class."""
MOST_CLASSES = 16
"""Classes whose negatives are shown; both bounds keep the page small."""
RANK_COLOURS: tuple[Colour, ...] = (
    (0, 200, 255), (255, 160, 0), (255, 82, 160), (130, 225, 60), (160, 125, 255), (255, 240, 80), (0, 215, 165),
    (255, 95, 60),
)  # fmt: skip
OTHER_COLOUR: Colour = (190, 190, 190)
"""Of suppressed pixels whose nearest negative is not among those shown."""
IGNORE_COLOUR: Colour = (128, 128, 128)


@dataclass(frozen=True)
class Picture:
    """A photo, by its CSS class, with an overlay."""

    photo: str
    overlay: str
    size: tuple[int, int]
    alt: str
    caption: str
    method: str = ""
    colour: str = ""
    """Of the frame."""


@dataclass(frozen=True)
class Tag:
    """A tag with its colour in predictions and truth."""

    name: str
    colour: str


@dataclass(frozen=True)
class Row:
    """Pictures that stand side by side."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Entry:
    """An image of the gallery."""

    name: str
    tags: list[Tag]
    left_out: int
    rows: list[Row]


@dataclass(frozen=True)
class Gallery:
    """All of them, and how their predictions were cut."""

    entries: list[Entry]
    methods: list[str]
    columns: int
    threshold: str
    truth: bool


@dataclass(frozen=True)
class Negatives:
    """A class with its negative prototypes, and pictures in which they suppress."""

    name: str
    count: int
    left_out: int
    sources: list[Picture]
    suppressed: list[Picture]


def class_colours(count: int) -> list[Colour]:
    """Colours of the classes, the palette of the mask files but lifted to stand out on photos."""
    return [bright(colour) for colour in palette(count)[1:]]


def build_gallery(
    run: Path, config: RunConfig, photos: Photos, masks: Masks | None, figures: Figures | None, notes: list[str]
) -> Gallery | None:
    """The images that `prepare_report` kept maps of; what is missing is told in ``notes``."""
    if not (run / "gallery.json").is_file():
        notes.append("The side-by-side maps: this run keeps none yet. `tag2mask report` makes them.")
        return None
    kept = read_json(run / "gallery.json", "list of pictures")
    seed, images = kept["seed"], photos.images
    indices = [i for i in kept["images"] if i < len(images)]
    maps: dict[str, list[StoredMaps]] = {}
    for method in shown(["cam", *config.methods]):
        folder = method_folder(run, seed, method) / "gallery"
        try:
            maps[method] = [load_maps(map_path(folder, images.ids[i])) for i in indices]
        except InputError as error:
            notes.append(f"The maps of {TITLES[method]}: {error}")
    if not maps or not indices:
        return None
    scored = figures if figures is not None and figures.split == config.data.split else None
    tags = images.labels[indices]  # (G, C)
    levels = {method: map_level(method, seed, stored, tags, scored) for method, stored in maps.items()}
    entries = []
    for position, index in enumerate(indices):
        own = {method: stored[position] for method, stored in maps.items()}
        entries.append(build_entry(index, photos, masks, own, levels))
    threshold = (
        "gtfree, the threshold that a rule gives on the maps of the whole set"
        if scored is not None
        else f"gtfree, by a rule on the maps of these {len(indices)} photos alone, as the run was not scored"
    )
    return Gallery(entries, list(maps), len(maps) + 1, threshold, masks is not None)


def map_level(
    method: str, seed: int, stored: list[StoredMaps], tags: np.ndarray, figures: Figures | None
) -> int:
    """Threshold level under gtfree: that of the figures, or the same rule over the maps at hand."""
    if figures is not None:
        scored = figures.details["by_seed"].get(str(seed), {}).get(method)
        if scored is not None:
            return int(scored["gtfree"]["level"])
    histogram = np.zeros(LEVELS, np.int64)
    for image in stored:
        if len(image.classes):
            histogram += np.bincount(image.maps.max(axis=0).ravel(), minlength=LEVELS)
    floor = absent_floor(np.stack([image.peaks for image in stored]), tags)
    return max(floor, minimum_cross_entropy(histogram))


def build_entry(
    index: int, photos: Photos, masks: Masks | None, maps: dict[str, StoredMaps], levels: dict[str, int]
) -> Entry:
    """A row of heat maps for each tag, then a row of predictions beside the truth."""
    images = photos.images
    name, colours = images.ids[index], class_colours(len(images.classes))
    photo = photos.show(index, GALLERY_LONGEST)
    size = photos.size(index)
    tags = np.flatnonzero(images.labels[index])
    tag_names = ", ".join(images.label_names(index)) or "none"
    plain = Picture(photo, BLANK, size, f"Photo {name}, tags: {tag_names}", "photo")
    rows = []
    for c in tags[:MOST_TAGS]:
        tag = images.classes.names[c]
        pictures = [plain]
        for method, stored in maps.items():
            plane = np.flatnonzero(stored.classes == c)
            if len(plane):
                values = stored.maps[plane[0]]
                alt = f"{TITLES[method]}: heat map of {tag} over {name}"
                caption = short(method) if values.any() else f"{short(method)}: nothing activated"
                pictures.append(Picture(photo, heat_uri(values), size, alt, caption, method))
        rows.append(Row(tag, pictures))
    truth = plain
    if masks is not None:
        regions = enlarged(masks.mask(index), size, smooth=False)
        overlay = classes_uri(regions, {**dict(enumerate(colours, start=1)), IGNORE: IGNORE_COLOUR})
        truth = Picture(photo, overlay, size, f"Ground truth of {name}", "ground truth")
    predictions = [truth]
    for method, stored in maps.items():
        regions = enlarged(predicted(stored, levels[method]), size, smooth=False)
        overlay = classes_uri(regions, {p: colours[c] for p, c in enumerate(stored.classes, start=1)})
        alt = f"{TITLES[method]}: prediction for {name}"
        predictions.append(Picture(photo, overlay, size, alt, short(method), method))
    rows.append(Row("prediction", predictions))
    named = [Tag(images.classes.names[c], css(colours[c])) for c in tags]
    return Entry(name, named, max(0, len(tags) - MOST_TAGS), rows)


def predicted(stored: StoredMaps, level: int) -> np.ndarray:
    """(H, W) uint8: 0 background, p + 1 where the map in place p is the largest and reaches the level."""
    if not len(stored.classes):
        return np.zeros(stored.maps.shape[1:], np.uint8)
    reached = stored.maps.max(axis=0) >= level  # (P, H, W) -> (H, W)
    places: np.ndarray = np.where(reached, stored.maps.argmax(axis=0) + 1, 0).astype(np.uint8)
    return places


def classes_uri(regions: np.ndarray, colours: dict[int, Colour]) -> str:
    """Regions (H, W) uint8 in the colours of their numbers, over a photo that stays visible."""
    present = {int(number) for number in np.unique(regions)}
    return regions_uri(regions, {n: c for n, c in colours.items() if n in present}, fill=0.55, veil=0.25)


def build_negatives(run: Path, config: RunConfig, photos: Photos, notes: list[str]) -> tuple[list[Negatives], int]:
    """Classes with their negatives, those that suppress most first, and the number of classes left out."""
    path = method_folder(run, config.seeds[0], "fpr") / "evidence.npz"
    if not path.is_file():
        if "fpr" in config.methods:
            notes.append("The negative prototypes: no evidence was collected beside the weights of FPR.")
        return [], 0
    with np.load(path, allow_pickle=False) as file:
        source, source_map, shown_pairs, nearest = (file[k] for k in ("source", "source_map", "shown", "nearest"))
    count = len(photos.images)
    if (source[:, 1] >= count).any() or (shown_pairs[:, 1] >= count).any():
        notes.append("The negative prototypes: their photos are no longer in the data.")
        return [], 0
    classes = sorted({int(c) for c in source[:, 0]})
    pixels = {c: int((nearest[shown_pairs[:, 0] == c] != NOT_SUPPRESSED).sum()) for c in classes}
    chosen = sorted(sorted(classes, key=lambda c: -pixels[c])[:MOST_CLASSES])
    names = photos.images.classes.names
    without = [name for c, name in enumerate(names) if c not in classes]
    if without:
        notes.append(f"Negatives of {', '.join(without)}: there are none, so nothing of theirs is suppressed.")
    found = []
    for c in chosen:
        own, shows = source[:, 0] == c, shown_pairs[:, 0] == c
        ranks = chosen_ranks(nearest[shows], int(own.sum()))
        colours = dict(zip(ranks, RANK_COLOURS, strict=False))
        sources = [
            source_picture(photos, names[c], int(source[own][rank, 1]), source_map[own][rank], rank, colours[rank],
                           config.fpr.theta)
            for rank in ranks
        ]  # fmt: skip
        suppressed = [
            suppressed_picture(photos, names[c], int(image), grid, colours)
            for (_, image), grid in zip(shown_pairs[shows], nearest[shows], strict=True)
        ]
        found.append(Negatives(names[c], int(own.sum()), int(own.sum()) - len(ranks), sources, suppressed))
    return found, len(classes) - len(chosen)


def chosen_ranks(nearest: np.ndarray, count: int) -> list[int]:
    """The negatives to show, ascending: those nearest to most suppressed pixels, then the most confident."""
    suppressed = nearest[nearest != NOT_SUPPRESSED]
    uses = np.bincount(suppressed, minlength=count)[:count]
    return sorted(int(rank) for rank in np.argsort(-uses, kind="stable")[:MOST_NEGATIVES])


def tags_text(photos: Photos, index: int) -> str:
    """The tags of a photo as text."""
    return ", ".join(photos.images.label_names(index)) or "no tag"


def source_picture(
    photos: Photos, name: str, index: int, activation: np.ndarray, rank: int, colour: Colour, theta: float
) -> Picture:
    """A negative: its photo, dark but for the region that the class activates, whose mean feature it is."""
    photo = photos.show(index, PROTOTYPE_LONGEST)
    size = photos.size(index)
    region = (enlarged(activation, size, smooth=True) > 255 * theta).astype(np.uint8)
    overlay = regions_uri(region, {1: colour}, fill=0.0, veil=0.72)
    tags = tags_text(photos, index)
    alt = f"Negative {rank + 1} of {name}: {photos.images.ids[index]}, tags: {tags}; lit where {name} is activated"
    return Picture(photo, overlay, size, alt, f"rank {rank + 1}: {tags}", colour=css(colour))


def suppressed_picture(
    photos: Photos, name: str, index: int, nearest: np.ndarray, colours: dict[int, Colour]
) -> Picture:
    """A photo with the class, its suppressed pixels in the colour of the nearest negative."""
    photo = photos.show(index, PROTOTYPE_LONGEST)
    size = photos.size(index)
    places = np.full(256, MOST_NEGATIVES + 1, np.uint8)  # of the negatives that are not shown
    places[[*colours, NOT_SUPPRESSED]] = [*range(1, len(colours) + 1), 0]
    regions = enlarged(places[nearest], size, smooth=False)
    here = {**dict(enumerate(colours.values(), start=1)), MOST_NEGATIVES + 1: OTHER_COLOUR}
    share = 100 * (nearest != NOT_SUPPRESSED).mean()
    alt = f"{photos.images.ids[index]}: suppressed pixels of {name}, {share:.0f} % of the photo"
    overlay = regions_uri(regions, here, fill=0.55, veil=0.35)
    return Picture(photo, overlay, size, alt, tags_text(photos, index))
