"""Figures 3 and 4: localization maps and segmentations of a few photos, method beside method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.data import TaggedImages, open_images
from tag2mask.data.classes import palette
from tag2mask.data.masks import Masks, open_masks
from tag2mask.data.pseudo_masks import open_pseudo_masks
from tag2mask.maps.store import StoredMaps, load_maps
from tag2mask.report.pictures import HEAT
from tag2mask.reproduce import table4
from tag2mask.reproduce.cells import Cell, figures
from tag2mask.reproduce.draw import picture
from tag2mask.reproduce.result import Claim, Result
from tag2mask.reproduce.scales import SCENES, DataSet, Scale
from tag2mask.reproduce.table2 import METHODS, SEGMENTER
from tag2mask.runs import mask_folder, method_folder
from tag2mask.stages.network import data_of_seed, other_split
from tag2mask.stages.pipeline import gallery

ROWS = 5
MAPS = ("cam", "continued", "halo", "fpr")
WITH_WOOD = ("cam", "continued", "halo", "wood", "fpr")
"""On the built-in scenes, for which Table 4 trains W-OoD, as the paper's figure shows it."""
BOATS = Claim(
    "Segmentations are better above all for classes that co-occur, such as boat with its waterfront.",
    "a matter of looking; Table 2 has the figures over all classes, Table 4 those of the maps of train and boat.", None,
)  # fmt: skip
SIDE = 192
"""Longest side of a picture in the grid."""


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM of the first seed, on the built-in scenes that of Table 4, with the maps of a few photos."""
    seed = scale.seeds[0]
    with_wood = [
        replace(cell, steps=cell.steps | {"pictures"} if cell.start else cell.steps)
        for cell in table4.cells(replace(scale, seeds=(seed,)), out)
        if cell.name.endswith((f"/cam/seed{seed}", f"/table4/seed{seed}"))
    ]
    return with_wood + [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=MAPS[1:]),
            frozenset({"evaluate", "pictures"}),
        )
        for dataset in scale.sets
        if dataset.name != SCENES
    ]  # fmt: skip


def photos_of(dataset: DataSet, seed: int, split: str = "") -> tuple[TaggedImages, Masks | None]:
    """Photos of a seed, of another split if one is named, and their masks to look at."""
    data = data_of_seed(dataset.data, seed)
    data = other_split(data, split) if split else data
    images = open_images(data)
    return images, open_masks(data, images)


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """Heat maps of the first tag of each photo."""
    pictures, shown_of = [], []
    seed = scale.seeds[0]
    for dataset in scale.sets:
        kind, methods = ("table4", WITH_WOOD) if dataset.name == SCENES else ("cam", MAPS)
        run = out / "runs" / dataset.name / kind / f"seed{seed}"
        if not (run / "gallery.json").is_file():
            continue
        images, masks = photos_of(dataset, seed)
        shown = figures(run / "gallery.json")["images"][:ROWS]
        with picture(out, f"fig3_{dataset.name}", 1.7 * (len(methods) + 2), 1.75 * len(shown),
                     nrows=len(shown), ncols=len(methods) + 2, squeeze=False) as axes:  # fmt: skip
            for row, index in enumerate(shown):
                photo, c = small(images.image(index)), int(np.flatnonzero(images.labels[index])[0])
                titles = ["photo", "truth", *(scale.titles[m] for m in methods)]
                truth = None if masks is None else masks.mask(index) == c + 1
                planes: list[np.ndarray] = [photo, photo if truth is None else veiled(photo, truth)]
                for method in methods:
                    stored = load_maps(method_folder(run, seed, method) / "gallery" / f"{images.ids[index]}.npz")
                    planes.append(heated(photo, plane_of(stored, c)))
                for column, (plane, title) in enumerate(zip(planes, titles, strict=True)):
                    axes[row, column].imshow(plane)
                    axes[row, column].set_axis_off()
                    if row == 0:
                        axes[row, column].set_title(title, fontsize=8)
                axes[row, 0].text(0, -4, images.classes.names[c], fontsize=7)
        pictures.append(f"fig3_{dataset.name}.png")
        shown_of.append(f"{dataset.name}: split {dataset.data.split}, seed {seed}")
    return Result(
        "fig3", "Figure 3: localization maps", command, pictures=tuple(pictures),
        figures={"seed": seed, "photos": "the first of the report's choice: classes in turn, fewest tags first"},
        notes=f"{'; '.join(shown_of)}. Each map is divided by its own maximum, so no threshold is chosen. Photos are "
        "not picked by how well they look: classes in turn, fewest tags first.",
    )  # fmt: skip


def segmentation_cells(scale: Scale, out: Path) -> list[Cell]:
    """Segmenters of the first seed."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{scale.seeds[0]}",
            replace(dataset.settings("cam", scale.seeds[0]), methods=METHODS),
            frozenset({"evaluate", "crf", "segment"}), METHODS, dataset.val,
        )
        for dataset in scale.sets
    ]  # fmt: skip


def tell_segmentations(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """Figure 4: segmentations of photos that were not trained on, where the set has such."""
    pictures, shown_of, seed = [], [], scale.seeds[0]
    for dataset in scale.sets:
        run = out / "runs" / dataset.name / "cam" / f"seed{seed}"
        images, masks = photos_of(dataset, seed, dataset.val)
        split = dataset.val or dataset.data.split
        folders = {m: mask_folder(run, seed, m, SEGMENTER, split) for m in METHODS}
        if masks is None or not all(folder.is_dir() for folder in folders.values()):
            continue
        colours = np.asarray(palette(len(images.classes) + 1), np.uint8).reshape(-1, 3)
        shown = gallery(images.labels)[:ROWS]
        made = {m: open_pseudo_masks(folder, images.ids, len(images.classes)) for m, folder in folders.items()}
        with picture(out, f"fig4_{dataset.name}", 1.75 * (len(folders) + 2), 1.75 * len(shown),
                     nrows=len(shown), ncols=len(folders) + 2, squeeze=False) as axes:  # fmt: skip
            for row, index in enumerate(shown):
                photo = small(images.image(index))
                labels = [None, masks.mask(index), *(made[m].mask(index) for m in folders)]
                titles = ["photo", "truth", *(f"segmenter,\n{scale.titles[m]}" for m in folders)]
                for column, (label, title) in enumerate(zip(labels, titles, strict=True)):
                    axes[row, column].imshow(photo if label is None else painted(photo, label, colours))
                    axes[row, column].set_axis_off()
                    if row == 0:
                        axes[row, column].set_title(title, fontsize=8)
        pictures.append(f"fig4_{dataset.name}.png")
        trained_on = "not trained on" if dataset.val else "trained on, as no other split is given"
        shown_of.append(f"{dataset.name}: split {split}, photos that were {trained_on}, seed {seed}")
    return Result(
        "fig4", "Figure 4: segmentations", command, claims=(BOATS,), pictures=tuple(pictures), figures={"seed": seed},
        notes=f"{'; '.join(shown_of)}. The segmenter is told no tag. Chosen as in Figure 3.",
    )  # fmt: skip


def small(photo: Image.Image) -> np.ndarray:
    """A photo as (h, w, 3) uint8, at most ``SIDE`` wide and high."""
    copy = photo.convert("RGB")
    copy.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(copy)


def fitted(values: np.ndarray, photo: np.ndarray, smooth: bool) -> np.ndarray:
    """(H, W) uint8 in the size of a photo (h, w, 3)."""
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(values).resize((photo.shape[1], photo.shape[0]), how))


def plane_of(stored: StoredMaps, c: int) -> np.ndarray:
    """(H, W) uint8 of a class; zeros where the photo has none."""
    place = np.flatnonzero(stored.classes == c)
    return stored.maps[place[0]] if len(place) else np.zeros(stored.maps.shape[1:], np.uint8)


def heated(photo: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A localization map (H, W) uint8 over its photo, (h, w, 3) uint8."""
    colours = HEAT[fitted(values, photo, smooth=True)]  # (h, w, 3)
    return (0.4 * photo + 0.6 * colours).astype(np.uint8)


def veiled(photo: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A photo, dark outside of (H, W) bool."""
    keep = fitted(inside.astype(np.uint8), photo, smooth=False)[..., None]
    return np.where(keep, photo, photo // 4).astype(np.uint8)


def painted(photo: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A mask (H, W) uint8 over its photo; 0 and 255 are left clear."""
    values = fitted(labels, photo, smooth=False)
    known = ((values > 0) & (values < len(colours)))[..., None]
    over = 0.4 * photo + 0.6 * colours[np.minimum(values, len(colours) - 1)]
    return np.where(known, over, photo).astype(np.uint8)
