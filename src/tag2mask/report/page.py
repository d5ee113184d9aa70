"""report.html: everything that a run folder holds, on one page that opens from disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from tag2mask import __version__
from tag2mask.config import RunConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.masks import Masks, open_masks
from tag2mask.errors import InputError
from tag2mask.report import figures as numbers
from tag2mask.report.curves import HEIGHT, WIDTH, training_charts
from tag2mask.report.figures import Figures, read_figures
from tag2mask.report.gallery import Gallery, Negatives, build_gallery, build_negatives
from tag2mask.report.pictures import Photos, heat_gradient
from tag2mask.report.stage_pictures import StageGallery, build_stage_gallery
from tag2mask.report.words import with_figures, without_figures
from tag2mask.runs import read_json, write_text
from tag2mask.settings import flattened
from tag2mask.stages.network import data_of_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.table import TITLES


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    The page needs the settings alone; whatever else is missing (figures, masks, maps, prototypes, even the photos)
    makes it shorter, and it says so. Raises ``InputError`` when ``run`` is no run folder.
    """
    config = read_settings(run)
    notes: list[str] = []
    every = read_figures(run)
    main = every[0] if every else None
    if main is None:
        notes.append(f"Figures: this run has none. With masks, `tag2mask evaluate {shlex.quote(str(run))}` makes them.")
    images, masks = open_data(config, notes)
    photos = None if images is None else Photos(images)
    gallery: Gallery | None = None
    stage_gallery: StageGallery | None = None
    negatives: list[Negatives] = []
    classes_left_out = 0
    if photos is not None:
        try:
            gallery = build_gallery(run, config, photos, masks, main, notes)
        except InputError as error:
            notes.append(f"The side-by-side maps: {error}")
        try:
            stage_gallery = build_stage_gallery(run, config, photos, masks, notes)
        except InputError as error:
            notes.append(f"The masks of the stages: {error}")
        try:
            negatives, classes_left_out = build_negatives(run, config, photos, notes)
        except InputError as error:
            notes.append(f"The negative prototypes: {error}")
    if main is not None:
        words = with_figures(config, main)
    elif images is not None:
        words = without_figures(config, len(images), len(images.classes))
    else:
        words = without_figures(config, None, None)
    own = masks.contexts.of_class if masks is not None and masks.contexts is not None else None
    bar_methods = [] if main is None else numbers.shown(main.methods)
    text = environment().get_template("template.html").render(
        words=words,
        main=main,
        tables=[figure_tables(found) for found in every],
        classes=None if main is None else numbers.class_rows(main),
        bar_methods=bar_methods,
        numbered=bar_methods.index("fpr") if "fpr" in bar_methods else -1,
        contexts=None if main is None else numbers.context_tables(main, own),
        gallery=gallery,
        stage_gallery=stage_gallery,
        heat_gradient=heat_gradient(),
        negatives=negatives,
        classes_left_out=classes_left_out,
        photos={} if photos is None else photos.uris,
        charts=training_charts(run, config.seeds[0], config.methods),
        chart_width=WIDTH,
        chart_height=HEIGHT,
        first_seed=config.seeds[0],
        titles=TITLES,
        notes=notes,
        changed=changed_settings(config),
        settings=(run / "settings.yaml").read_text(encoding="utf-8"),
        versions=read_json(run / "versions.json", "versions") if (run / "versions.json").is_file() else {},
        commands=commands(run, config),
        program=f"tag2mask {__version__}",
        methods=["cam", *config.methods],
    )  # fmt: skip
    path = run / "report.html"
    write_text(path, text)
    return path


def environment() -> jinja2.Environment:
    """Templates of this package; whatever they insert is escaped."""
    folder = files("tag2mask.report")
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def open_data(config: RunConfig, notes: list[str]) -> tuple[TaggedImages | None, Masks | None]:
    """Photos and masks of the first seed, as far as they are there and in order."""
    data = data_of_seed(config.data, config.seeds[0])
    try:
        images = open_images(data)
    except InputError as error:
        notes.append(f"Pictures: the photos cannot be read. {error}")
        return None, None
    try:
        masks = open_masks(data, images)
    except InputError as error:
        notes.append(f"Ground truth: the masks cannot be read. {error}")
        return images, None
    if masks is None:
        notes.append("Ground truth: the data has no masks.")
    return images, masks


def figure_tables(figures: Figures) -> dict[str, Any]:
    """All tables of one split."""
    return {
        "split": figures.split,
        "stamp": figures.stamp,
        "several_seeds": len(figures.seeds) > 1,
        "seconds": figures.summary["seconds"],
        "miou": numbers.miou_table(figures),
        "protocols": numbers.protocol_tables(figures),
        "differences": numbers.difference_rows(figures),
    }


def changed_settings(config: RunConfig) -> list[tuple[str, str, str]]:
    """(setting, value, default) of everything that is not at its default."""
    defaults = dict(flattened(asdict(RunConfig())))
    values: Mapping[str, Any] = dict(flattened(asdict(config)))
    return [(name, shown(value), shown(defaults[name])) for name, value in values.items() if value != defaults[name]]


def shown(value: object) -> str:
    """A setting as one would type it."""
    if isinstance(value, tuple):
        return ", ".join(str(entry) for entry in value) or "(none)"
    return str(value) if value != "" else "(none)"


def commands(run: Path, config: RunConfig) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    folder = shlex.quote(str(run))
    settings = shlex.quote(str(run / "settings.yaml"))
    last = config.methods[-1] if config.methods else "cam"
    method = "fpr" if "fpr" in config.methods else last
    return [
        (f"tag2mask train --config {settings} --out NEW_FOLDER", "the same run again"),
        (f"tag2mask train --config {settings} --out {folder} --resume", "go on after it was cut off"),
        (f"tag2mask evaluate {folder}", "figures, where there are masks"),
        (f"tag2mask localize {folder} --methods {method}", "the maps of every photo"),
        (f"tag2mask report {folder}", "this page again"),
    ]
