"""Ground-truth masks and contexts, for evaluation alone: no module that trains may import this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.classes import Classes, read_classes, unknown_class
from tag2mask.data.coco import annotation_file
from tag2mask.data.coco_index import read_coco
from tag2mask.data.cooccur import cooccur_masks
from tag2mask.data.files import DataError, Finding, Folder, fault, raise_first
from tag2mask.data.images import TaggedImages, opened, require_file
from tag2mask.data.pseudo_masks import require_numbers, sized
from tag2mask.data.sbd import find_sbd
from tag2mask.data.voc import voc_names

IGNORE = 255
"""Mask value of the pixels that count nowhere."""


@dataclass(frozen=True)
class Contexts:
    """Where the contexts (grass, water, road ...) are, so that a false positive can be traced to one."""

    names: tuple[str, ...]
    reader: Callable[[int], np.ndarray]
    """Index to (H, W) uint8: 0 none, k + 1 is ``names[k]``."""
    of_class: tuple[int | None, ...] | None = None
    """Index into ``names`` of each class's own context, where the data knows it."""


@dataclass(frozen=True)
class Masks:
    """The masks of N images: the same ids in the same order as their ``TaggedImages``."""

    classes: Classes
    ids: tuple[str, ...]
    reader: Callable[[int], np.ndarray]
    """Index to (H, W) uint8: 0 background, c + 1 class c, 255 ignore."""
    contexts: Contexts | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, index: int, size_hw: tuple[int, int] | None = None) -> np.ndarray:
        """The mask at its own size, (H, W) uint8: 0 background, c + 1 class c, 255 ignore.

        ``size_hw`` is the (H, W) that the caller expects, that of the upright image; another is an ``InputError``.
        """
        return sized(self.reader(index), size_hw, f"mask of {self.ids[index]!r}")

    def context(self, index: int, size_hw: tuple[int, int] | None = None) -> np.ndarray:
        """The context of each pixel, (H, W) uint8: 0 none, k + 1 is ``contexts.names[k]``; as ``mask`` otherwise."""
        if self.contexts is None:
            raise ValueError("these masks have no contexts")
        return sized(self.contexts.reader(index), size_hw, f"context mask of {self.ids[index]!r}")


def open_masks(config: DataConfig, images: TaggedImages) -> Masks | None:
    """The masks of ``images``, same ids and order, or None when the data has none (or ``config.masks`` is "none").

    Looks whether each file is there and opens none; an ``InputError`` names the first that is missing.
    """
    if config.kind == "cooccur":
        if config.masks == "none":
            return None
        return cooccur_masks(config, images)
    if not masks_are_files(config):
        return None if config.masks == "none" else open_inner_masks(config, images)
    masks, findings = survey_masks(config, images, _look)
    raise_first(findings, Path(config.root))
    return masks


def masks_are_files(config: DataConfig) -> bool:
    """Whether masks are files of their own, in a folder; else they are drawn, or come out of other files."""
    named = bool(config.masks) and config.masks != "none"
    return config.kind in ("folder", "classes", "voc") or (named and config.kind in ("coco", "huggingface", "shards"))


def open_inner_masks(config: DataConfig, images: TaggedImages) -> Masks | None:
    """Masks that COCO's annotations, a column, or the members of shards hold. What is wrong with one is told when it
    is read."""
    if config.kind == "coco":
        from tag2mask.data.coco_masks import open_coco_masks

        return open_coco_masks(config, images)
    from tag2mask.data.packed_masks import open_packed_masks

    return open_packed_masks(config, images)


MaskVerifier = Callable[[Path, int, np.ndarray], None]
"""Called with a mask file, the index of its image and the table of its values; raises ``DataError``."""


def survey_masks(
    config: DataConfig, images: TaggedImages, verify: MaskVerifier
) -> tuple[Masks | None, list[Finding]]:
    """The masks on disk of ``images`` and everything that is wrong with them, as far as ``verify`` looks."""
    folder = _folder(config, config.masks, _mask_folders(config), "data.masks")
    if folder is None:
        return None, []
    names = value_names(config)
    table = mask_table(names, images.classes)
    findings: list[Finding] = []
    paths = _paths(folder, images.ids, table, verify, findings, _other_masks(config))

    contexts = None
    try:
        context_folder = _folder(config, config.contexts, ("masks_stuff",), "data.contexts")
        if context_folder is not None:
            stuff = read_classes(Path(config.root) / "classes_stuff.txt")
            context_names = _context_names(config, stuff, names)
            context_table = _context_table(stuff, context_names)
            context_paths = _paths(context_folder, images.ids, context_table, verify, findings)
            contexts = Contexts(context_names, partial(_read_path, context_paths, context_table))
    except DataError as error:  # after the findings about the masks, which must not be lost
        findings.append(error.finding)
    return Masks(images.classes, images.ids, partial(_read_path, paths, table), contexts), findings


def _mask_folders(config: DataConfig) -> tuple[str, ...]:
    return ("SegmentationClassAug", "SegmentationClass") if config.kind == "voc" else ("masks",)


def _other_masks(config: DataConfig) -> Folder | None:
    """Where masks may be besides: VOC's own are finer, and SBD has those of the images that VOC has none of."""
    if config.kind != "voc" or config.masks:
        return None
    sbd = find_sbd(config)
    return None if sbd is None else Folder(sbd / "cls")


def value_names(config: DataConfig) -> tuple[str, ...]:
    """The classes that the values of mask files stand for, from 1 on."""
    if config.kind == "voc":
        return voc_names(config)
    if config.kind == "coco":
        return read_coco(annotation_file(config)).names
    return _folder_names(config)


def _folder(config: DataConfig, setting: str, defaults: tuple[str, ...], key: str) -> Path | None:
    if setting == "none":
        return None
    for name in (setting,) if setting else defaults:
        if (folder := Path(config.root) / name).is_dir():
            return folder
    if setting:
        raise fault(Path(config.root) / setting, f"{key} names no folder", "correct it, or say `none`")
    return None


def _folder_names(config: DataConfig) -> tuple[str, ...]:
    path = Path(config.root) / "classes.txt"
    if not path.exists():
        raise fault(
            path, "the masks need this file to say which value is which class", "write one name a line"
        )
    return read_classes(path)


UNKNOWN = 254
"""Table entry of the mask values that the data does not define."""


def mask_table(names: tuple[str, ...], classes: Classes) -> np.ndarray:
    """(256,) uint8: what each value of a mask file becomes. Classes that are not in use are ignored pixels."""
    if len(names) >= UNKNOWN:
        raise fault(
            "data.classes", f"{len(names)} classes do not fit in 8 bit masks", f"use at most {UNKNOWN - 1}"
        )
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    table[0] = 0
    table[IGNORE] = IGNORE
    for value, name in enumerate(names, start=1):
        position = classes.find(name)
        table[value] = IGNORE if position is None else position + 1
    return table


def _context_names(config: DataConfig, stuff: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    for name in config.context_names:
        if name not in stuff:
            raise unknown_class(name, "data.context_names", stuff)
    return config.context_names or tuple(name for name in stuff if name not in names)


def _context_table(stuff: tuple[str, ...], context_names: tuple[str, ...]) -> np.ndarray:
    """(256,) uint8: what each value of a context file becomes. Void and names of object classes are no context."""
    if len(stuff) >= UNKNOWN:
        raise fault(
            "data.contexts", f"{len(stuff)} contexts do not fit in 8 bits", f"use at most {UNKNOWN - 1}"
        )
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    table[[0, IGNORE]] = 0
    for value, name in enumerate(stuff, start=1):
        table[value] = context_names.index(name) + 1 if name in context_names else 0
    return table


def _paths(
    folder: Path, ids: tuple[str, ...], table: np.ndarray, verify: MaskVerifier, findings: list[Finding],
    others: Folder | None = None,
) -> tuple[str, ...]:  # fmt: skip
    finder = Folder(folder)
    paths = []
    for index, image_id in enumerate(ids):
        path = finder.find(f"{image_id}.png") or finder.find(f"{image_id}.mat")
        if path is None and others is not None:
            path = others.find(f"{image_id}.mat")
        try:
            if path is None:
                raise fault(
                    folder / f"{image_id}.png",
                    "there is no mask for this image",
                    "add it, or set data.masks to `none`",
                )
            verify(path, index, table)
        except DataError as error:
            findings.append(error.finding)
        else:
            paths.append(str(path))
    return tuple(paths)  # as long as ids unless there are findings, with which nobody reads


def _read_path(paths: tuple[str, ...], table: np.ndarray, index: int) -> np.ndarray:
    return read_mask(Path(paths[index]), table)


def _look(path: Path, index: int, table: np.ndarray) -> None:
    if path.suffix != ".mat":  # SBD's have advice of their own when they are read
        require_file(path)


def read_mask(
    path: Path, table: np.ndarray, size_hw: tuple[int, int] | None = None, content: bytes | None = None
) -> np.ndarray:
    """A mask file (PNG, or SBD's ``.mat``) through ``table`` ((256,) uint8), as (H, W) uint8. Raises ``DataError`` for
    values without meaning, and for another size than ``size_hw``. ``content``: as in ``opened``."""
    if path.suffix == ".mat":
        from tag2mask.data.sbd_masks import read_sbd_mask

        raw = read_sbd_mask(path)
        present = np.unique(raw)
    else:
        with opened(path, content) as image:
            require_numbers(image, path)
            picture = image.point([0] + [1] * 255, "L") if image.mode == "1" else image
            present = np.flatnonzero(picture.histogram())  # the values that occur; much cheaper than np.unique
            raw = np.array(picture, dtype=np.uint8)
    unknown = present[table[present] == UNKNOWN]
    if len(unknown):
        shown = ", ".join(str(value) for value in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        highest = int(np.flatnonzero(table != UNKNOWN)[-2])  # the last one is 255
        raise fault(
            path,
            f"the mask has the values {shown}; expected 0 to {highest}, or 255 for pixels to ignore",
            "make the mask again with class numbers, or complete the list of classes",
        )
    mask = raw if np.array_equal(table[present], present) else np.take(table, raw)
    return sized(mask, size_hw, path)
