"""Masks side by side, stage by stage: photo, maps, CRF, IRN, segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.config import RunConfig
from tag2mask.data.masks import Masks
from tag2mask.data.pseudo_masks import read_pseudo_mask
from tag2mask.errors import InputError
from tag2mask.report.figures import short
from tag2mask.report.gallery import (
    GALLERY_LONGEST,
    IGNORE,
    IGNORE_COLOUR,
    Entry,
    Picture,
    Row,
    Tag,
    class_colours,
    classes_uri,
)
from tag2mask.report.pictures import BLANK, Photos, css, enlarged
from tag2mask.runs import mask_folder, read_json
from tag2mask.stages.table import STAGES, TITLES, cell, stage_title

EVERY_STAGE = (*STAGES, *(f"segmenter:{source}" for source in STAGES))
SHOWN_METHODS = ("cam", "continued", "fpr")
"""Whose masks are shown; of a run without any of these, the last method's."""


@dataclass(frozen=True)
class StageGallery:
    """Photos with their masks, and a table of figures for each split."""

    entries: list[Entry]
    columns: int
    tables: list[dict[str, Any]]


def build_stage_gallery(
    run: Path, config: RunConfig, photos: Photos, masks: Masks | None, notes: list[str]
) -> StageGallery | None:
    """The photos of the gallery with the masks of every stage that the run has; None where nothing was refined."""
    if not (run / "gallery.json").is_file():
        return None
    kept = read_json(run / "gallery.json", "list of pictures")
    seed, split = kept["seed"], config.data.split
    methods = [m for m in ("cam", *config.methods) if mask_folder(run, seed, m, "crf", split).is_dir()]
    methods = [m for m in methods if m in SHOWN_METHODS] or methods[-1:]
    stages = [s for s in EVERY_STAGE if any(mask_folder(run, seed, m, s, split).is_dir() for m in methods)]
    if not methods or len(stages) < 2:
        return None
    entries = []
    for index in kept["images"]:
        if index >= len(photos.images):
            continue
        try:
            entries.append(stage_entry(run, seed, split, index, methods, stages, photos, masks))
        except InputError as error:
            notes.append(f"Masks of {photos.images.ids[index]}: {error}")
    return StageGallery(entries, len(stages) + 1, stage_tables(run))


def stage_entry(
    run: Path, seed: int, split: str, index: int, methods: list[str], stages: list[str], photos: Photos,
    masks: Masks | None,
) -> Entry:  # fmt: skip
    """A row for each method: the photo (with the ground truth, where there is one), then the masks."""
    images, colours = photos.images, class_colours(len(photos.images.classes))
    name, tags = images.ids[index], np.flatnonzero(images.labels[index])
    photo = photos.show(index, GALLERY_LONGEST)
    size = photos.size(index)
    of_value = {**dict(enumerate(colours, start=1)), IGNORE: IGNORE_COLOUR}
    rows = []
    for method in methods:
        pictures = [Picture(photo, BLANK, size, f"Photo {name}", "photo")]
        if masks is not None:
            regions = enlarged(masks.mask(index), size, smooth=False)
            pictures = [Picture(photo, classes_uri(regions, of_value), size, f"Ground truth of {name}", "ground truth")]
        for stage in stages:
            path = mask_folder(run, seed, method, stage, split) / f"{name}.png"
            if not path.is_file():
                continue
            regions = enlarged(read_pseudo_mask(path, len(colours)), size, smooth=False)
            alt = f"{TITLES[method]}, {stage_title(stage)}: mask of {name}"
            pictures.append(Picture(photo, classes_uri(regions, of_value), size, alt, stage_title(stage), method))
        rows.append(Row(short(method), pictures))
    named = [Tag(images.classes.names[c], css(colours[c])) for c in tags]
    return Entry(name, named, 0, rows)


def stage_tables(run: Path) -> list[dict[str, Any]]:
    """A table for each stages.json: the split, its images, and rows of mIoU by method and stage."""
    tables = []
    for path in sorted(run.glob("stages*.json")):
        summary = read_json(path, "figures of the stages")
        stages = list(dict.fromkeys(s for table in summary["stages"].values() for s in table))
        several = len(summary["seeds"])
        rows = [
            (TITLES.get(method, method), [cell(table[s]["miou"], several) if s in table else "–" for s in stages])
            for method, table in summary["stages"].items()
        ]
        tables.append(
            {
                "split": summary["split"], "images": summary["images"], "rows": rows,
                "seeds": ", ".join(map(str, summary["seeds"])), "stages": [stage_title(s) for s in stages],
            }
        )  # fmt: skip
    return tables
