"""Pseudo masks in others' formats: COCO, a folder for mmsegmentation, the archive of the VOC test server."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import secrets
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np
from PIL import Image

from tag2mask import __version__
from tag2mask.atomic import write_bytes
from tag2mask.data.classes import VOC_NAMES, Classes, palette
from tag2mask.data.files import normal
from tag2mask.data.images import opened
from tag2mask.data.pseudo_masks import UNSURE, PseudoMasks
from tag2mask.errors import InputError
from tag2mask.progress import Step
from tag2mask.runs import write_text

VOC_RESULTS = "results/VOC2012/Segmentation/comp6_test_cls"
"""Where the test server looks; competition 6 is the one for models trained on more than the images of VOC."""


def write_coco(
    masks: PseudoMasks, classes: Classes, images: Sequence[Path], image_root: Path, path: Path, step: Step
) -> None:
    """One JSON file in COCO's format, masks as compressed run lengths.

    An image has one annotation for each class in it, as in COCO-Stuff: a mask of classes does not know where one object
    ends and the next begins. ``iscrowd`` is 0: readers leave crowds out when they train and pass over them when they
    score, and these regions are to be learned. COCO has no word for unsure pixels (255); they are in no annotation.

    ``category_id`` is the value in the masks, c + 1. ``images[].id`` counts from 1, because COCO's readers want whole
    numbers there and one made of ``2007_000032`` would lose its underscore; the id as it is stands in
    ``images[].name``, the path from ``image_root`` in ``images[].file_name``.

    Args:
        masks: N of them.
        classes: their C classes; a super-class, where there is one, becomes ``supercategory``.
        images: the N image files.
        image_root: folder above all of them.
        path: of the JSON file.
        step: called with masks done of N.

    Raises:
        InputError: pycocotools is not installed; a mask is damaged or not of the size of its image.
    """
    try:
        from pycocotools import mask as run_lengths  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise InputError(
            "COCO files need the package pycocotools, which is not installed; run `pip install 'tag2mask[coco]'`."
        ) from None
    _require_matching(masks, classes, images)
    superclasses = classes.superclasses or ("",) * len(classes)
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (image_id, image) in enumerate(zip(masks.ids, images, strict=True)):
        mask = _mask(masks, index, image)  # (H, W)
        height, width = mask.shape
        name = Path(os.path.relpath(image, image_root)).as_posix()
        pictures.append({"id": index + 1, "name": image_id, "file_name": name, "width": width, "height": height})
        values = np.array([value for value in np.unique(mask) if value not in (0, UNSURE)], np.uint8)  # (P,)
        planes = np.asfortranarray(mask[:, :, None] == values, dtype=np.uint8)  # (H, W, P)
        for value, encoded in zip(values.tolist(), run_lengths.encode(planes), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": value,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
                    "area": int(run_lengths.area(encoded)),
                    "bbox": run_lengths.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                }
            )
        step(index + 1, len(masks))
    categories = [
        {"id": value, "name": name, "supercategory": above}
        for value, (name, above) in enumerate(zip(classes.names, superclasses, strict=True), start=1)
    ]
    info = {"description": "pseudo masks, one annotation for each class", "version": f"tag2mask {__version__}"}
    content = {"info": info, "licenses": [], "images": pictures, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def write_mmsegmentation(
    masks: PseudoMasks, classes: Classes, images: Sequence[Path], split: str, folder: Path, step: Step
) -> Path:
    """A folder that the ``BaseSegDataset`` of mmsegmentation 1.x reads; several splits may share it.

    img_dir/<split>/<id>.jpg    the images: hard links, symbolic links where those cannot be, else copies
    ann_dir/<split>/<id>.png    grey PNG of class numbers: 0 background, c + 1 class c, 255 ignored
    splits/<split>.txt          the ids, and one list more for each file suffix where there are several
    dataset_<split>.py          ``metainfo`` (classes with background, colours) and ``dataset``

    In a config that names the last one in ``_base_``: ``train_dataloader = dict(dataset={{_base_.dataset}})``, with a
    pipeline. The list goes by file, so masks of an earlier, longer list may lie there without harm.

    That file is written last, so it is there when all else is. It finds its own folder, which may be moved.

    Args:
        masks, classes, images: as in ``write_coco``.
        split: a name of letters, digits, dots, hyphens and underscores.
        folder: to write to.
        step: called with masks done of N.

    Returns:
        Path of the config.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", split):
        raise InputError(f"The split is {split!r}; expected a name of letters, digits, dots, hyphens and underscores.")
    _require_matching(masks, classes, images)
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for index, (image_id, image) in enumerate(zip(masks.ids, images, strict=True)):
        mask = _mask(masks, index, image)  # (H, W)
        write_bytes(folder / "ann_dir" / split / f"{image_id}.png", _png(mask, colours=False))
        link_or_copy(image, folder / "img_dir" / split / f"{image_id}{image.suffix}")
        by_suffix[image.suffix].append(image_id)
        step(index + 1, len(masks))
    lists = folder / "splits"
    write_text(lists / f"{split}.txt", "".join(f"{image_id}\n" for image_id in masks.ids))
    parts = []
    for suffix, ids in by_suffix.items():
        name = split if len(by_suffix) == 1 else f"{split}_{suffix.removeprefix('.') or 'bare'}"
        write_text(lists / f"{name}.txt", "".join(f"{image_id}\n" for image_id in ids))
        parts.append(
            f"dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, ann_file={f'splits/{name}.txt'!r},\n"
            f"    data_prefix=dict(img_path={f'img_dir/{split}'!r}, seg_map_path={f'ann_dir/{split}'!r}),\n"
            f"    img_suffix={suffix!r}, seg_map_suffix='.png', ignore_index={UNSURE}, reduce_zero_label=False)"
        )
    joined = ",\n".join(parts)
    dataset = joined if len(parts) == 1 else f"dict(type='ConcatDataset', datasets=[\n{joined}])"
    names = ["background", *classes.names]
    config = folder / f"dataset_{split}.py"
    write_text(
        config,
        f"# {len(masks)} pseudo masks for mmsegmentation 1.x; name this file in a config's `_base_`, use `dataset`.\n"
        "data_root = '{{ fileDirname }}'\n"
        f"metainfo = dict(\n    classes={pformat(names, width=110, compact=True)},\n"
        f"    palette={pformat(palette(len(classes)).tolist(), width=110, compact=True)},\n)\n"
        f"dataset = {dataset}\n",
    )
    return config


def write_voc_archive(masks: PseudoMasks, classes: Classes, path: Path, step: Step) -> None:
    """The ``.tgz`` that the PASCAL VOC 2012 test server takes: palette PNGs under the name ``VOC_RESULTS``.

    The same masks give the same bytes: entries are sorted, without time, owner or name of the archive.

    Args:
        masks: of exactly the images of the list (1,456 in the official one), each pixel a class.
        classes: the 20 of VOC, in their order.
        path: of the archive.
        step: called with masks done of N.

    Raises:
        InputError: the classes are others; the folder has a mask that the list does not name; a mask has unsure pixels.
    """
    if classes.names != VOC_NAMES:
        raise InputError(
            f"The VOC test server knows the 20 classes of PASCAL VOC; these masks are of {len(classes)} others, or in "
            "another order: predict with a model of all 20."
        )
    _require_matching(masks, classes, masks.paths)
    listed = {normal(image_id) for image_id in masks.ids}
    if len(listed) < len(masks):
        raise InputError(f"The list names {len(masks) - len(listed)} images twice; name each once.")
    there = sorted(masks.folder.rglob("*.png"))
    names = [found.relative_to(masks.folder).with_suffix("").as_posix() for found in there]
    others = [name for name in names if normal(name) not in listed]
    if others:
        raise InputError(
            f"{masks.folder / others[0]}.png is not in the list, as {len(others)} of {len(names)} masks; the test "
            "server wants exactly the images of its list: move the others away, or correct the list."
        )
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for done, index in enumerate(sorted(range(len(masks)), key=lambda i: masks.ids[i]), start=1):
            mask = masks.mask(index)  # (H, W)
            if (mask == UNSURE).any():
                raise InputError(
                    f"{masks.paths[index]}: {(mask == UNSURE).mean():.1%} of the pixels are unsure (255), which the "
                    "test server refuses; make the masks without 255."
                )
            content = _png(mask, colours=True)
            entry = tarfile.TarInfo(f"{VOC_RESULTS}/{masks.ids[index]}.png")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            step(done, len(masks))
    write_bytes(path, buffer.getvalue())


def link_or_copy(source: Path, target: Path) -> None:
    """Put ``source`` at ``target``, atomically: as a hard link, else a symbolic link, else a copy."""
    source = source.resolve(strict=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            os.link(source, temporary)
        except OSError:  # another disk, or a file system without links
            try:
                temporary.symlink_to(source)
            except OSError:
                shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # replacing a link by one to the same file leaves both


def _require_matching(masks: PseudoMasks, classes: Classes, images: Sequence[Path]) -> None:
    if masks.class_count != len(classes) or len(masks) != len(images):
        raise ValueError(
            f"{len(masks)} masks of {masks.class_count} classes; {len(images)} images, {len(classes)} classes"
        )


def _mask(masks: PseudoMasks, index: int, image: Path) -> np.ndarray:
    """A mask of the size of its image, whichever way the image is turned."""
    mask = masks.mask(index)  # (H, W)
    with opened(image) as picture:
        width, height = picture.size
    return mask if mask.shape == (width, height) else masks.mask(index, (height, width))


def _png(mask: np.ndarray, colours: bool) -> bytes:
    """(H, W) uint8 as an 8 bit PNG, in the VOC colours or grey."""
    picture, buffer = Image.fromarray(mask), io.BytesIO()
    if colours:
        picture.putpalette(palette(255).tobytes())
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
