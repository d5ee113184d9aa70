"""Every finding about a data set at once, and what it holds: what ``tag2mask check`` prints."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.checksums import MaskDigest, label_digest
from tag2mask.data.files import DataError, Finding
from tag2mask.data.images import TaggedImages, decode_image
from tag2mask.data.masks import masks_are_files, open_inner_masks, read_mask, survey_masks
from tag2mask.data.readers import read_rows
from tag2mask.data.rows import Row, Source, survey_rows

__all__ = ["Finding", "Inspection", "check", "inspect"]

FEW = 5
"""A class with fewer photos than this is told of, in a split of twenty times as many photos or more."""
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
    pixels: float = 0.0
    """Pixels of a photo, on average."""


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
    findings = survey.findings + pictures.copies
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
        findings + mask_findings, survey.images, label_digest(survey.images), masks_sha256, pixels
    )


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
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
        if 0 < n < FEW and near:
            are = "is" if n == 1 else "are"
            what = f"{n} of {len(images)} images {are} tagged {name!r}, and {counts[near[0]]} {near[0]!r}"
            todo = "mend the name, or write classes.txt with the names that there are"
            found.append(Finding("warning", where, what, todo))
    return found


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
