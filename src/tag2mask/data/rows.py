"""From rows (an image and the names of its tags) to ``TaggedImages``: what the readers on disk have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.classes import VOC_NAMES, VOC_SUPERCLASSES, Classes, read_superclasses, unknown_class
from tag2mask.data.files import DataError, Finding, Folder, fault, normal, raise_first
from tag2mask.data.images import TaggedImages, read_path


@dataclass(frozen=True)
class Row:
    """One image of a data set as its files state it, nothing verified."""

    where: str
    """File and row."""
    id: str
    files: tuple[str, ...]
    """Where the picture may be, relative to the root; the first that exists counts."""
    names: tuple[str, ...]
    names_where: str
    """File and row (or key) of the tags."""
    in_split: bool = True


@dataclass(frozen=True)
class Source:
    """What a reader found: its rows, or in place of a row the finding that made it unreadable, in file order."""

    names: tuple[str, ...]
    """Every class of the data, in the order of the mask values."""
    entries: list[Row | Finding]
    where: str
    """The file that lists the images, for what concerns all of them."""


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


def survey_rows(config: DataConfig, source: Source, verify: Callable[[Path], None]) -> Survey:
    """Look at every row; ``verify`` gets the path of each picture and raises ``DataError`` when it is unfit."""
    findings: list[Finding] = []
    try:
        classes = _choose_classes(config, source.names)
    except DataError as error:
        findings.append(error.finding)
        classes = Classes(source.names)
    known = Classes(source.names)
    root = Path(config.root)
    finder = Folder(root)
    real_root = Path(os.path.realpath(root))
    first_row: dict[str, str] = {}
    ids: list[str] = []
    paths: list[Path] = []
    tags: list[set[str]] = []  # of the sound images
    stated: list[set[str]] = []  # of all images of the split, also those whose picture is unfit
    for entry in source.entries:
        if isinstance(entry, Finding):
            findings.append(entry)
            continue
        try:
            if entry.id in first_row:
                advice = (
                    "keep one of the two (an id is the path without suffix and without a leading `images/`)"
                )
                raise fault(
                    entry.where, f"the image id {entry.id!r} is already in {first_row[entry.id]}", advice
                )
            first_row[entry.id] = entry.where
            if entry.in_split:
                stated.append({normal(name) for name in entry.names})
                paths.append(_locate(entry, finder, real_root, verify))
                ids.append(entry.id)
                tags.append(stated[-1])
        except DataError as error:
            findings.append(error.finding)
        for name in entry.names:
            if source.names and known.find(name) is None:
                findings.append(unknown_class(name, entry.names_where, source.names).finding)
    # (N, C): a row of False for an image without tags
    labels = np.array([[name in row for name in classes.names] for row in tags], dtype=bool)
    labels = labels.reshape(len(ids), len(classes))
    findings += _never_or_always(classes, stated, source.where)
    return Survey(TaggedImages(classes, tuple(ids), labels, partial(read_path, tuple(paths))), findings, root)


def _locate(row: Row, finder: Folder, real_root: Path, verify: Callable[[Path], None]) -> Path:
    path = next((path for file in row.files if (path := finder.find(file))), None)
    if path is None:
        similar = next((name for file in row.files if (name := finder.similar(file))), None)
        todo = f"did you mean {similar!r}" if similar else "restore the file, or take its row out"
        raise fault(row.where, f"there is no image file {finder.root / row.files[0]}", todo)
    if not Path(os.path.realpath(path)).is_relative_to(real_root):
        raise fault(
            row.where,
            f"{path} is a link that leaves the data folder",
            "put the file itself there, or point data.root where all files are",
        )
    try:
        verify(path)
    except DataError as error:
        finding = error.finding
        raise fault(f"{row.where}, {finding.where}", finding.what, finding.todo) from error
    return path


def _choose_classes(config: DataConfig, names: tuple[str, ...]) -> Classes:
    """The classes in use, with their super-classes from the file, or else those of VOC if all names are VOC's."""
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
    if chosen and config.kind == "voc" and set(chosen) <= set(VOC_NAMES):
        superclass_of = {name: group for group, members in VOC_SUPERCLASSES.items() for name in members}
        return Classes(chosen, tuple(superclass_of[name] for name in chosen))
    return Classes(chosen)


def _never_or_always(classes: Classes, tags: list[set[str]], where: str) -> list[Finding]:
    findings = []
    for name in classes.names if tags else ():
        count = sum(name in row for row in tags)
        if count == 0:
            what, todo = (
                f"no image of the split is tagged {name!r}",
                "tag some, or leave it out with data.classes",
            )
        elif count == len(tags):
            what, todo = (
                f"every image of the split is tagged {name!r}",
                "add images without it: it has no negatives",
            )
        else:
            continue
        findings.append(Finding("warning", where, what, todo))
    return findings
