"""From rows (an image and the names of its tags) to ``TaggedImages``: what the readers on disk have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.classes import Classes, built_in_superclasses, read_superclasses, unknown_class
from tag2mask.data.files import DataError, Finding, Folder, fault, normal, raise_first
from tag2mask.data.images import Packed, TaggedImages, read_packed, read_path, require_file


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a data set as its files state it, nothing verified."""

    where: str
    """File and row."""
    id: str
    files: tuple[str, ...]
    """Where the picture may be, relative to the root; the first that exists counts. Empty for a packed picture."""
    names: tuple[str, ...]
    names_where: str
    """File and row (or key) of the tags."""
    in_split: bool = True
    record: int = -1
    """The number of a packed picture."""


@dataclass(frozen=True)
class Source:
    """What a reader found: its rows, or in place of a row the finding that made it unreadable, in file order."""

    names: tuple[str, ...]
    """Every class of the data, in the order of the mask values."""
    entries: list[Row | Finding]
    where: str
    """The file that lists the images, for what concerns all of them."""
    superclasses: tuple[str, ...] | None = None
    """One for each of ``names``, where the data say them."""
    packed: Packed | None = None
    """The pictures, where they are no files of their own."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split, where one file says the splits of all."""


@dataclass(frozen=True)
class Survey:
    """The sound images of a source, and everything that is wrong with the others."""

    images: TaggedImages
    findings: list[Finding]
    root: Path

    def opened(self) -> TaggedImages:
        """The images, if there is no error; else an ``InputError`` with the first one and the number of the others."""
        raise_first(self.findings, self.root)
        return self.images


Look = Callable[[Row, Path], None]
"""Called with the row of a picture, and its file or its name in another one; raises ``DataError`` when it is unfit."""


def inside(name: str, where: str) -> PurePosixPath:
    """A relative path of a row, in POSIX form. Raises ``DataError`` when it is absolute or climbs with `..`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise fault(
            where, f"{name!r} points outside the data folder", "give a path relative to it, without `..`"
        )
    if "\0" in name or not path.parts:
        raise fault(where, f"{name!r} is no file name", "correct the row")
    return path


def id_of(path: PurePosixPath) -> str:
    """The id of an image whose file is named by its path: without suffix and without a leading `images/`."""
    parts = path.with_suffix("").parts
    return normal("/".join(parts[1:] if parts[0] == "images" and len(parts) > 1 else parts))


def open_rows(config: DataConfig, source: Source) -> TaggedImages:
    """The tagged images of a source. Looks at every row and whether every picture that is a file is there, and opens
    none; an ``InputError`` names the first fault (file and row) and says how many more there are."""

    def look(row: Row, path: Path) -> None:
        if row.record < 0:
            require_file(path)

    return survey_rows(config, source, look).opened()


def survey_rows(config: DataConfig, source: Source, look: Look) -> Survey:
    """Look at every row."""
    findings: list[Finding] = []
    try:
        classes = _choose_classes(config, source)
    except DataError as error:
        findings.append(error.finding)
        classes = Classes(source.names)
    known = Classes(source.names)
    root = Path(config.root)
    finder = Folder(root)
    real_root = Path(os.path.realpath(root))
    first_row: dict[str, str] = {}
    ids: list[str] = []
    paths: list[str] = []
    records: list[int] = []
    tagged: list[list[int]] = []  # class numbers of the sound images
    stated = np.zeros(len(classes), dtype=np.int64)  # (C,) images of the split, also those whose picture is unfit
    total = 0
    for entry in source.entries:
        if isinstance(entry, Finding):
            findings.append(entry)
            continue
        try:
            if entry.id in first_row:
                advice = (
                    "keep one of the two (an id is the path without suffix and without a leading `images/`)"
                    if source.packed is None
                    else "give each its own name"
                )
                raise fault(
                    entry.where, f"the image id {entry.id!r} is already in {first_row[entry.id]}", advice
                )
            first_row[entry.id] = entry.where
            if entry.in_split:
                numbers = {number for name in entry.names if (number := classes.find(name)) is not None}
                stated[list(numbers)] += 1
                total += 1
                paths.append(str(_located(entry, source.packed, finder, real_root, look)))
                records.append(entry.record)
                ids.append(entry.id)
                tagged.append(sorted(numbers))
        except DataError as error:
            findings.append(error.finding)
        for name in entry.names:
            if source.names and known.find(name) is None:
                findings.append(unknown_class(name, entry.names_where, source.names).finding)
    labels = np.zeros((len(ids), len(classes)), dtype=bool)  # a row of False for an image without tags
    for row, present in zip(labels, tagged, strict=True):
        row[present] = True
    findings += _never_or_always(classes, stated, total, source.where)
    reader = (
        partial(read_path, tuple(paths))
        if source.packed is None
        else partial(read_packed, source.packed, np.array(records, dtype=np.int64))
    )
    return Survey(TaggedImages(classes, tuple(ids), labels, reader), findings, root)


def _located(row: Row, packed: Packed | None, finder: Folder, real_root: Path, look: Look) -> Path:
    if packed is not None:
        path = packed.name(row.record)
        look(row, path)
        return path
    path = _locate(row, finder, real_root)
    try:
        look(row, path)
    except DataError as error:
        finding = error.finding
        raise fault(f"{row.where}, {finding.where}", finding.what, finding.todo) from error
    return path


def _locate(row: Row, finder: Folder, real_root: Path) -> Path:
    path = next((path for file in row.files if (path := finder.find(file))), None)
    if path is None:
        similar = next((name for file in row.files if (name := finder.similar(file))), None)
        todo = f"did you mean {similar!r}" if similar else "restore the file, or take its row out"
        raise fault(row.where, f"there is no image file {finder.root / row.files[0]}", todo)
    if not finder.real(path).is_relative_to(real_root):
        raise fault(
            row.where,
            f"{path} is a link that leaves the data folder",
            "put the file itself there, or point data.root where all files are",
        )
    return path


def _choose_classes(config: DataConfig, source: Source) -> Classes:
    """The classes in use, with their super-classes from the file, from the data, or those of VOC or COCO."""
    names = source.names
    known = Classes(names)
    chosen = names
    if config.classes and names:
        positions = [known.index(name, "data.classes") for name in config.classes]
        chosen = tuple(names[position] for position in positions)
        for name in chosen:
            if chosen.count(name) > 1:
                raise fault("data.classes", f"class {name!r} is named twice", "name each class once")
    path = Path(config.root) / (config.superclasses or "superclasses.yaml")
    if names and (config.superclasses or path.exists()):
        return Classes(chosen, read_superclasses(path, chosen, known=names))
    groups = source.superclasses or built_in_superclasses(names)
    if groups is None and config.kind == "voc":  # elsewhere a few names may be VOC's by chance
        return Classes(chosen, built_in_superclasses(chosen, partly=True))
    return Classes(chosen, groups and tuple(groups[names.index(name)] for name in chosen))


def _never_or_always(classes: Classes, counts: np.ndarray, total: int, where: str) -> list[Finding]:
    findings = []
    for name, count in zip(classes.names if total else (), counts.tolist(), strict=bool(total)):
        if count == 0:
            what, todo = (
                f"no image of the split is tagged {name!r}",
                "tag some, or leave it out with data.classes",
            )
        elif count == total:
            what, todo = (
                f"every image of the split is tagged {name!r}",
                "add images without it: it has no negatives",
            )
        else:
            continue
        findings.append(Finding("warning", where, what, todo))
    return findings
