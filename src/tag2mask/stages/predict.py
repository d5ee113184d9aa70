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
from tag2mask.runs import write_json
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.predict import predict_labels
from tag2mask.stages.pipeline import default_methods, read_settings
from tag2mask.stages.refine import check_refiner
from tag2mask.stages.segment import find_segmenter, load_segmenter

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Files that are taken for pictures in a folder."""
OVERLAY = 0.5
"""Opacity of the classes over the photo."""


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
    method = method or default_methods(config, run)[0]
    return find_segmenter(run, seed, method, check_refiner(source) if source else None)


@dataclass(frozen=True)
class Prediction:
    """What a prediction of files has done."""

    done: int
    failures: list[tuple[str, str]]
    """File, and why it was left out."""


def predict_files(segmenter: Segmenter, source: Path, out: Path, report: Reporter) -> Prediction:
    """Predict one picture, or every picture in a folder and its sub-folders.

    Writes ``masks/<name>.png`` (palette, class numbers), ``overlays/<name>.jpg`` and ``areas.json``: for each file the
    size, and pixels and share of each class in it. A file that cannot be read is listed there and left out.

    Raises:
        InputError: there is no such file or folder, or no picture in it.
    """
    names = picture_names(source, out)
    check_writable(out)
    areas: dict[str, Any] = {}
    failures: list[tuple[str, str]] = []
    with report.task("predicting") as step:
        for number, (path, name) in enumerate(names, 1):
            try:
                picture = decode_image(path)
            except InputError as error:
                failures.append((str(path), str(error)))
            else:
                mask = segmenter.predict(picture)
                write_mask(out / "masks" / f"{name}.png", mask)
                write_overlay(out / "overlays" / f"{name}.jpg", picture, mask)
                areas[str(path)] = {"mask": f"masks/{name}.png", **areas_of(mask, segmenter.classes)}
            step(number, len(names))
    write_json(
        out / "areas.json",
        {
            "classes": list(segmenter.classes),
            "initial_weights": segmenter.initial_weights,
            "images": areas,
            "failed": [{"file": file, "why": why} for file, why in failures],
        },
    )
    return Prediction(len(areas), failures)


def picture_names(source: Path, out: Path) -> list[tuple[Path, str]]:
    """Pictures and the names of their outputs; a name that two files share gets the suffix of its file.

    What lies in ``out``, the folder of the results, is left out: it may be a folder among the photos.
    """
    if source.is_file():
        return [(source, source.stem)]
    if not source.is_dir():
        raise InputError(f"there is no file or folder {source}; give a picture or a folder of pictures.")
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if source.resolve() in out.resolve().parents:
        paths = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not paths:
        raise InputError(f"there is no picture in {source}; expected files such as .jpg or .png.")
    stems = [p.relative_to(source).with_suffix("").as_posix() for p in paths]
    return [
        (path, stem if stems.count(stem) == 1 else path.relative_to(source).as_posix())
        for path, stem in zip(paths, stems, strict=True)
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


