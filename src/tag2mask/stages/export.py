"""Pseudo masks and segmenters for other tools: ONNX, COCO, mmsegmentation, the VOC test server."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from tag2mask.atomic import check_writable, write_bytes
from tag2mask.config import DataConfig, RunConfig
from tag2mask.data.images import TaggedImages, image_paths
from tag2mask.data.pseudo_masks import PseudoMasks, open_pseudo_masks
from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.runs import read_json, seed_folder
from tag2mask.segment.export import export_onnx, largest_difference
from tag2mask.stages.formats import write_coco, write_mmsegmentation, write_voc_archive
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.refine import output
from tag2mask.stages.segment import load_segmenter, predict_split

Format = Literal["onnx", "coco", "mmseg", "voc-archive"]
FORMATS: tuple[Format, ...] = get_args(Format)
COMPARED_IMAGES = 4
"""Photos on which an ONNX file is compared with the network it came from."""
TOLERATED = 1e-4
"""Largest difference in probability between the two."""
MARK = ".tag2mask"
"""A file in a folder for mmsegmentation that was begun by an export, which may go on there or add a split."""


def without_tags(data: DataConfig, segmenter: Path) -> DataConfig:
    """The same photos for the classes of a segmenter, which needs no tag: the test set of VOC has none."""
    if data.kind != "voc":
        return data
    return replace(data, labels="none", classes=tuple(read_json(segmenter / "segmenter.json", "segmenter")["classes"]))


def export_network(setup: SeedSetup, segmenter: Path, out: Path) -> float:
    """Write a segmenter as ONNX and compare both on photos of the run.

    Args:
        segmenter: its folder.

    Returns:
        The largest difference in probability.

    Raises:
        InputError: they differ; the file is removed then.
    """
    check_writable(out.parent)
    network, facts = load_segmenter(segmenter, torch.device("cpu"))
    export_onnx(network, out, facts["classes"])
    photos = [np.asarray(setup.images.image(i)) for i in range(min(COMPARED_IMAGES, len(setup.images)))]
    difference = largest_difference(network, out, photos)
    if difference > TOLERATED:
        out.unlink()
        raise InputError(
            f"{out}: the exported network differs from its origin by {difference:.1g} in probability on photos of the "
            "run; another version of onnx or onnxruntime may help."
        )
    return difference


def export_masks(
    config: RunConfig, setup: SeedSetup, run: Path, method: str, source: str, kind: Format, out: Path, report: Reporter
) -> Path:
    """Write the masks of a split in another format.

    Args:
        source: a refinement whose masks are there, or ``segmenter:irn`` for the predictions of a segmenter.
        out: file (COCO, VOC archive) or folder (mmsegmentation).

    Returns:
        What was written; for mmsegmentation its config.

    Raises:
        InputError: among others, where the folder for mmsegmentation holds what no export wrote.
    """
    begun = (out / MARK).is_file() or any(out.glob("dataset_*.py"))  # which those of earlier versions have alone
    if kind == "mmseg" and not begun and any(path.name[0] != "." for path in out.glob("*")):
        raise InputError(
            f"--out {out} holds files that no export for mmsegmentation wrote; choose a folder that is new or empty, "
            "as masks of the same name would be written over."
        )
    check_writable(out if kind == "mmseg" else out.parent)
    masks = masks_of(setup, run, method, source, report)
    if kind == "mmseg":
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    with report.task(f"{kind} of {method}") as step:
        if kind == "voc-archive":
            out.parent.mkdir(parents=True, exist_ok=True)
            write_voc_archive(masks, setup.images.classes, out, step)
            return out
        drawn = seed_folder(run, setup.seed) / "photos" / setup.data.split
        photos = photo_files(setup.images, drawn)
        if kind == "coco":
            root = Path(config.data.root) if config.data.root else drawn
            out.parent.mkdir(parents=True, exist_ok=True)
            write_coco(masks, setup.images.classes, photos, root, out, step)
            return out
        return write_mmsegmentation(masks, setup.images.classes, photos, setup.data.split, out, step)


def masks_of(setup: SeedSetup, run: Path, method: str, source: str, report: Reporter) -> PseudoMasks:
    """The masks of a split; those of a segmenter are predicted where they are missing."""
    kind, _, origin = source.partition(":")
    if kind == "segmenter":
        with report.task(f"seed {setup.seed}: segmenter of {method}") as step:
            folder = predict_split(setup, run, method, origin, step, report)  # type: ignore[arg-type]
    else:
        folder = output(run, setup, method, kind)  # type: ignore[arg-type]
        if not folder.is_dir():
            raise InputError(f"there are no masks at {folder}; run `tag2mask refine {run} --with {kind}` first.")
    return open_pseudo_masks(folder, setup.images.ids, len(setup.images.classes))


def photo_files(images: TaggedImages, folder: Path) -> Sequence[Path]:
    """The files of the photos; the built-in scenes, which have none, are written to ``folder`` first."""
    known = image_paths(images)
    if known is not None:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in images.ids]
    for index, path in enumerate(paths):
        if not path.is_file():
            content = io.BytesIO()
            images.image(index).save(content, format="PNG")
            write_bytes(path, content.getvalue())
    return paths
