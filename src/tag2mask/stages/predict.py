"""New photos, without any tag: masks, overlays and areas."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tag2mask.atomic import check_writable, write_bytes
from tag2mask.data.classes import palette
from tag2mask.data.images import decode_image
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.runs import read_json, write_json
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.predict import predict_labels
from tag2mask.stages.pipeline import chosen_methods, default_methods, read_settings
from tag2mask.stages.refine import check_refiner
from tag2mask.stages.segment import find_segmenter, load_segmenter

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Files that are taken for pictures in a folder."""
OVERLAY = 0.5
"""Opacity of the classes over the photo."""
AREAS = "areas.json"


class Segmenter:
    """A trained segmenter, ready for photos.

    Example:
        ``mask = Segmenter.load("runs/mine").predict(Image.open("lake.jpg"))``

    Attributes:
        classes: names; ``mask == c + 1`` is where class c is, 0 is the background.
        initial_weights: which weights its encoder started from, in words.
    """

    def __init__(self, network: SegmentationNetwork, facts: dict[str, Any], device: torch.device) -> None:
        self.network, self.device = network, device
        self.classes = tuple(facts["classes"])
        self.initial_weights = str(facts["initial_weights"])

    @classmethod
    def load(
        cls, run: str | Path, method: str = "", source: str = "", seed: int | None = None, device: str = "auto"
    ) -> Segmenter:
        """The segmenter of a run.

        Args:
            run: folder of a run after `tag2mask segment`.
            method, source, seed: which one, where there are several; by default the run's first seed, the default
                method, and the masks that are refined most.

        Raises:
            InputError: there is none, or its files are damaged.
        """
        folder = chosen_segmenter(Path(run), method, source, seed)
        chosen = set_up_torch(0, device)
        network, facts = load_segmenter(folder, chosen)
        return cls(network, facts, chosen)

    def predict(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """(H, W) uint8 of a photo of any size (PIL, or (H, W, 3) uint8): 0 background, c + 1 class c.

        A PIL image is read as a file is: upright by its EXIF rotation, so H and W are those of the upright photo.
        """
        return predict_labels(self.network, image, self.network.config, self.device)


def chosen_segmenter(run: Path, method: str, source: str, seed: int | None) -> Path:
    """Folder of the segmenter that is asked for, by default as ``Segmenter.load`` says."""
    config = read_settings(run)
    seed = config.seeds[0] if seed is None else seed
    method = chosen_methods(config, (method,) if method else default_methods(config, run))[0]
    return find_segmenter(run, seed, method, check_refiner(source) if source else None)


@dataclass(frozen=True)
class Prediction:
    """What a prediction of files has done."""

    done: int
    failures: list[tuple[str, str]]
    """File, and why it was left out."""


def predict_files(segmenter: Segmenter, source: Path, out: Path, report: Reporter) -> Prediction:
    """Predict one picture, or every picture in a folder and its sub-folders.

    Writes ``masks/<name>.png`` (palette, class numbers), ``overlays/<name>.jpg`` and ``areas.json``: what the values
    and colours mean, and for each file the size, and pixels and share of each class in it. A file that cannot be read
    is listed there and left out. What ``out`` holds of other photos stays, and stays listed.

    Raises:
        InputError: there is no such file or folder, or no picture in it; or ``check_results`` refuses ``out``.
    """
    names = picture_names(source)
    check_results(source, out, names)
    check_writable(out)
    made = {written(name)[0] for _, name in names}
    areas = {file: entry for file, entry in earlier_areas(out, segmenter.classes).items() if entry["mask"] not in made}
    failures: list[tuple[str, str]] = []

    def write_areas() -> None:
        write_json(
            out / AREAS,
            {
                "classes": list(segmenter.classes),
                "legend": legend(segmenter.classes),
                "initial_weights": segmenter.initial_weights,
                "images": areas,
                "failed": [{"file": file, "why": why} for file, why in failures],
            },
        )

    if areas:
        write_areas()  # without those that are being made anew, of which it would speak until the end
    else:
        (out / AREAS).unlink(missing_ok=True)
    before = len(areas)
    with report.task("predicting") as step:
        for number, (path, name) in enumerate(names, 1):
            try:
                picture = decode_image(path)
            except InputError as error:
                failures.append((str(path), str(error)))
                for earlier in written(name):  # of when it could be read
                    (out / earlier).unlink(missing_ok=True)
            else:
                mask = segmenter.predict(picture)
                mask_file, overlay = written(name)
                write_mask(out / mask_file, mask)
                write_overlay(out / overlay, picture, mask)
                areas[str(path)] = {"mask": mask_file, **areas_of(mask, segmenter.classes)}
            step(number, len(names))
    write_areas()
    return Prediction(len(areas) - before, failures)


def picture_names(source: Path) -> list[tuple[Path, str]]:
    """Pictures and the names of their outputs; a name that two files share gets the suffix of its file."""
    if source.is_file():
        return [(source, source.stem)]
    if not source.is_dir():
        raise InputError(f"there is no file or folder {source}; give a picture or a folder of pictures.")
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(f"there is no picture in {source}; expected files such as .jpg or .png.")
    stems = [p.relative_to(source).with_suffix("").as_posix() for p in paths]
    return [
        (path, stem if stems.count(stem) == 1 else path.relative_to(source).as_posix())
        for path, stem in zip(paths, stems, strict=True)
    ]


def written(name: str) -> tuple[str, str]:
    """Mask and overlay of a picture, below the folder of the results."""
    return f"masks/{name}.png", f"overlays/{name}.jpg"


def check_results(source: Path, out: Path, names: list[tuple[Path, str]]) -> None:
    """Raise ``InputError`` where results would be taken for photos or true masks, or replace those of another photo.

    A folder among the photos would be segmented next time, and ``masks`` beside them counts as truth. One picture alone
    may have its results in a folder beside it.
    """
    home, place = (source if source.is_dir() else source.parent).resolve(), out.resolve()
    if place == home or place in home.parents or (source.is_dir() and home in place.parents):
        how = "is" if place == home else "holds" if place in home.parents else "lies in"
        raise InputError(
            f"--out {out} {how} the folder of the photos, where results would be taken for photos or for true masks; "
            f"choose another --out, outside {home}."
        )
    if not out.is_dir():
        return
    if not (out / AREAS).is_file():
        ours = {out / file for _, name in names for file in written(name)}  # of a prediction that was cut off
        other = next((p for p in out.rglob("*") if p.is_file() and p not in ours and not of_the_system(p)), None)
        if other:
            raise InputError(f"--out {out} holds other files, such as {other}; choose a folder that is new or empty.")
    masks = {entry["mask"]: file for file, entry in earlier_areas(out).items()}
    for path, name in names:
        known = masks.get(written(name)[0])
        if known and Path(known).exists() and Path(known).resolve() != path.resolve():
            raise InputError(f"--out {out} holds the mask of {known}, which {path} would replace; choose another.")


def earlier_areas(out: Path, classes: tuple[str, ...] | None = None) -> dict[str, dict[str, Any]]:
    """What ``areas.json`` lists and is still there, by file; nothing where it cannot be read, as it is made again.

    Raises:
        InputError: it is of other ``classes``.
    """
    try:
        content = read_json(out / AREAS, "list of areas")
        images = {file: entry for file, entry in content["images"].items() if (out / entry["mask"]).is_file()}
        known = tuple(content["classes"])
    except (InputError, AttributeError, KeyError, TypeError):
        return {}
    if images and classes is not None and known != classes:
        raise InputError(f"--out {out} holds masks of other classes ({', '.join(known)}); choose another --out.")
    return images


def of_the_system(path: Path) -> bool:
    """Whether a file is what desktops leave in every folder."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")


def legend(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Value, name and colour of the background and each class, as masks and overlays have them."""
    colours = palette(len(classes))
    return [
        {"value": value, "name": name, "colour": "#" + bytes(colours[value].tolist()).hex()}
        for value, name in enumerate(("background", *classes))
    ]


def areas_of(mask: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Size of a mask, and pixels and share (0 to 1) of each class that occurs, the largest first."""
    counts = np.bincount(mask.ravel(), minlength=256)
    found = sorted(((int(counts[c + 1]), name) for c, name in enumerate(classes) if counts[c + 1]), reverse=True)
    height, width = mask.shape
    return {
        "width": width,
        "height": height,
        "areas": {name: {"pixels": count, "share": round(count / mask.size, 6)} for count, name in found},
    }


def write_overlay(path: Path, picture: Image.Image, mask: np.ndarray) -> None:
    """The photo with its classes in their colours."""
    colours = Image.fromarray(palette(255)[mask])
    blended = Image.blend(picture, colours, OVERLAY)
    shown = Image.composite(blended, picture, Image.fromarray((mask > 0).astype(np.uint8) * 255))
    content = io.BytesIO()
    shown.save(content, format="JPEG", quality=90)
    write_bytes(path, content.getvalue())


