"""Every finding about a data set at once, and what it holds: what ``tag2mask check`` prints."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.checksums import MaskDigest, label_digest
from tag2mask.data.class_folders import NO_CLASS, SUFFIXES
from tag2mask.data.files import DataError, Finding, normal
from tag2mask.data.folder import ALL
from tag2mask.data.images import TaggedImages, decode_image
from tag2mask.data.masks import masks_are_files, open_inner_masks, read_mask, survey_masks
from tag2mask.data.readers import read_rows
from tag2mask.data.rows import Row, Source, survey_rows

__all__ = ["Finding", "Inspection", "check", "inspect"]

FEW = 5
"""A class with fewer photos than this is told of, in a split of twenty times as many photos or more."""
USUAL_SPLITS = ("train", "trainval", "val", "valid", "validation", "dev", "test")
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    findings: list[Finding]
    images: TaggedImages | None
    """The sound images; None when there are none to speak of."""
    labels_sha256: str = ""
    masks_sha256: str = ""
    """Empty where there are no masks, or one of them is unfit."""
    masks_unfit: bool = False
    pixels: float = 0.0
    """Pixels of a photo, on average."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split, where a table names them."""


def check(config: DataConfig) -> list[Finding]:
    """All errors and warnings, in order of file and row; empty when all is well."""
    return inspect(config).findings


def inspect(config: DataConfig, progress: Progress = lambda done, total: None) -> Inspection:
    """Look at every picture and every mask of the split.

    Unlike the readers, which look at headers, this decodes all of them and compares their sizes and, for pictures that
    are there twice, their bytes. The built-in scenes have no files, hence no findings.
    """
    if config.kind == "cooccur":
        images = open_images(config)
        return Inspection([], images, label_digest(images), pixels=float(config.cooccur.size**2))
    try:
        source = read_rows(config)
    except DataError as error:
        return Inspection([error.finding], None)
    pictures = _Pictures(source, progress)
    survey = survey_rows(config, source, pictures.look)
    findings = survey.findings + pictures.copies + _odd_splits(config, source) + _unlisted(config, source)
    if not source.names:  # without names no mask value has a meaning; the finding says why there are none
        return Inspection(findings, None)
    findings += _rare(survey.images, source.where) + _slips(survey.images, source.where)
    digest = MaskDigest(survey.images.ids)
    try:
        mask_findings = _look_at_masks(config, survey.images, pictures.sizes, digest)
    except DataError as error:
        mask_findings = [error.finding]
    masks_sha256 = "" if mask_findings else digest.hexdigest()
    pixels = float(np.mean([height * width for height, width in pictures.sizes] or [0]))
    return Inspection(
        findings + mask_findings, survey.images, label_digest(survey.images), masks_sha256, bool(mask_findings), pixels,
        source.splits,
    )  # fmt: skip


@dataclass
class _Pictures:
    """Decodes each picture once and remembers its size and the hash of its bytes."""

    source: Source
    progress: Progress
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """(H, W) of the upright pictures, in the order of the images."""
    copies: list[Finding] = field(default_factory=list)
    first: dict[bytes, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def look(self, row: Row, path: Path) -> None:
        packed = self.source.packed
        if packed is None:
            picture, content = decode_image(path), path.read_bytes()
        else:
            content = packed.content(row.record)
            picture = decode_image(path, content)
        self.sizes.append((picture.height, picture.width))
        self.progress(len(self.sizes), len(self.source.entries))
        tags = frozenset(row.names)
        where, others = self.first.setdefault(hashlib.sha256(content).digest(), (row.where, tags))
        if where != row.where:
            with_tags = "with the same tags" if tags == others else "with other tags"
            what = f"the picture is the same file, byte for byte, as that of {where}, {with_tags}"
            self.copies.append(Finding("warning", row.where, what, "keep one of the two"))


def _rare(images: TaggedImages, where: str) -> list[Finding]:
    """Classes with so few photos that nothing can be learnt from them."""
    if len(images) < 20 * FEW:
        return []
    counts = zip(images.classes.names, images.labels.sum(axis=0).tolist(), strict=True)
    what = "of {} images {} tagged {!r}: too few to learn from"
    todo = "tag more, or leave the class out with data.classes"
    return [
        Finding("warning", where, what.format(len(images), f"{n} is" if n == 1 else f"{n} are", name), todo)
        for name, n in counts
        if 0 < n < FEW
    ]


def _slips(images: TaggedImages, where: str) -> list[Finding]:
    """Classes of a few photos that are called nearly like one of many: no list of classes says that they are none."""
    counts = dict(zip(images.classes.names, images.labels.sum(axis=0).tolist(), strict=True))
    found = []
    for name, n in counts.items():
        others = [other for other, many in counts.items() if many >= FEW * max(n, 1)]
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.75 if n <= 2 else 0.8)  # 0.75: `baot`, `boat`
        if 0 < n < FEW and near:
            are = "is" if n == 1 else "are"
            what = f"{n} of {len(images)} images {are} tagged {name!r}, and {counts[near[0]]} {near[0]!r}"
            todo = "mend the name, or write classes.txt with the names that there are"
            found.append(Finding("warning", where, what, todo))
    return found


def _odd_splits(config: DataConfig, source: Source) -> list[Finding]:
    """Rows that no training reads, for a slip in the name of their split; a folder is mostly checked whole."""
    trained = "train" if config.split == ALL else config.split
    found = []
    if source.splits and config.split == ALL and trained not in source.splits:
        there = ", ".join(sorted(source.splits))
        what = f"no row has the split {trained!r}, which `tag2mask run` trains on unless data.split is said"
        found.append(Finding("warning", source.where, what, f"write it in rows, or say one that there is ({there})"))
    for name, count in source.splits.items():
        if name in (trained, *USUAL_SPLITS):
            continue
        near = difflib.get_close_matches(name.casefold(), (trained, *USUAL_SPLITS), n=1)
        rows = f"{count} row has" if count == 1 else f"{count} rows have"
        what = f"{rows} the split {name!r}, which a run on {trained!r} does not read"
        todo = f"did you mean {near[0]!r}" if near else f"it is read with --data.split {name}"
        found.append(Finding("warning", source.where, what, todo))
    return found


def _unlisted(config: DataConfig, source: Source) -> list[Finding]:
    """Photos that lie in the folder of a table and are not in it: no one would miss them."""
    unread = any(isinstance(entry, Finding) and entry.severity == "error" for entry in source.entries)
    if config.kind != "folder" or unread:  # a row that cannot be read may list one of them
        return []
    root = Path(config.root).resolve()
    listed = {normal(file) for entry in source.entries if isinstance(entry, Row) for file in entry.files}
    no_photos = {root / name for name in (*NO_CLASS, config.masks, config.contexts)}
    found = []
    for home, folders, files in os.walk(root):
        place = Path(home).relative_to(root)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(home, f) not in no_photos)
        names = [(place / name).as_posix() for name in sorted(files) if not name.startswith(".")]
        found += [name for name in names if Path(name).suffix.lower() in SUFFIXES and normal(name) not in listed]
    if not found:
        return []
    photos = f"{len(found)} photo{'s'[: len(found) != 1]} ({found[0]}{', ...'[: 5 * (len(found) > 1)]})"
    what = f"{photos} {'is' if len(found) == 1 else 'are'} not in {Path(source.where).name} and will not be used"
    todo = "add rows; a row without tags makes a photo count as one that shows none of the classes"
    return [Finding("warning", config.root, what, todo)]


def _look_at_masks(
    config: DataConfig, images: TaggedImages, sizes: list[tuple[int, int]], digest: MaskDigest
) -> list[Finding]:
    """Read every mask, compare its size with that of its picture, and add it to ``digest``."""
    if masks_are_files(config):

        def compare(path: Path, index: int, table: np.ndarray) -> None:
            mask = read_mask(path, table, sizes[index])
            if not digest.has(index):  # contexts come after the masks
                digest.add(index, mask)

        _, findings = survey_masks(config, images, compare)
        return findings
    masks = None if config.masks == "none" else open_inner_masks(config, images)
    findings = []
    for index in range(0 if masks is None else len(images)):
        try:
            if masks is not None:
                digest.add(index, masks.mask(index, sizes[index]))
        except DataError as error:
            findings.append(error.finding)
    return findings
