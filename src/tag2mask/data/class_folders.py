"""A folder for each class, as photo programs and download scripts make them.

ROOT/boat/lake7.jpg         tagged boat
ROOT/person/lake7.jpg       the same picture under the same name once more: tagged boat and person
ROOT/background/mist.jpg    no tag: scenery alone
ROOT/classes.txt            if wanted: one class name a line; else the names of the folders, sorted

With splits, ``ROOT/train/boat/lake7.jpg`` and so on: a folder with the name of the split that has folders in it. The
id of an image is its path there, without suffix, in the first of its classes. ``masks`` and ``masks_stuff`` are no
classes.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

from tag2mask.config import DataConfig
from tag2mask.data.classes import read_classes
from tag2mask.data.files import DataError, Finding, fault, normal
from tag2mask.data.rows import Row, Source

UNTAGGED = "background"
"""The folder of photos that show no class."""
SPLITS = ("train", "val", "test")
"""What folders of splits are mostly called; `train` is also a class of many sets, which then has no folders in it."""
NO_CLASS = ("masks", "masks_stuff")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What counts as a picture; other files are passed over, with a warning unless they are hidden."""


def read_class_folders(config: DataConfig) -> Source:
    """The photos with their tags, no picture looked at. Raises ``DataError`` when there is no folder of a class."""
    root = Path(config.root)
    if not root.is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    split = root / config.split
    base = split if split.is_dir() and _folders(split) else root
    splits = [folder.name for folder in _folders(root) if folder.name in SPLITS and _folders(folder)]
    if config.split == "all" and splits:  # else they would be taken for classes
        todo = f"set data.split to {' or '.join(splits)}"
        raise fault(root, "data.split is 'all', but splits in folders of their own are read one at a time", todo)
    if base == root and config.split not in ("train", "all"):
        there = _folders(root)
        split_up = bool(there) and all(_folders(folder) for folder in there)
        names_there = ", ".join(folder.name for folder in there)
        known = f"set data.split to one of {names_there}" if split_up else "make it, with a folder for each class"
        raise fault(split, "there is no such folder with folders of classes", known)
    # The classes of every split, so that they have the same numbers in each.
    homes = [root] if base == root else [folder for folder in _folders(root) if _folders(folder)]
    found = {normal(folder.name) for home in homes for folder in _folders(home)} - {UNTAGGED}
    if not found:
        raise fault(base, "there is no folder of a class", "make one for each class, with its photos in it")
    names = read_classes(root / "classes.txt") if (root / "classes.txt").exists() else tuple(sorted(found))
    entries = list(_rows(root, base))
    if not entries:
        raise fault(base, "the folders of the classes hold no picture", f"put pictures there ({', '.join(SUFFIXES)})")
    return Source(names, entries, str(base))


def _folders(folder: Path) -> list[Path]:
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(path for path in inner if path.name not in NO_CLASS)


def _rows(root: Path, base: Path) -> Iterator[Row | Finding]:
    for path in sorted(base.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            todo = f"move it into one, or into `{UNTAGGED}` if it shows no class"
            yield fault(path, "the picture lies in no folder of a class", todo).finding
    places: dict[str, list[Path]] = {}  # path below the class -> the files of that name
    for folder in _folders(base):
        for found in _pictures(folder):
            if isinstance(found, Finding):
                yield found
            else:
                places.setdefault(normal(found.relative_to(folder).as_posix()), []).append(found)
    different = 0
    for name in sorted(places):
        groups = _same_content(places[name])
        different += len(groups) > 1
        for files in groups:
            try:
                yield _row(root, base, files)
            except DataError as error:
                yield error.finding
    if different:
        what = f"{different} file names occur in several folders with different pictures in them"
        todo = "they are taken for photos of one tag each; if they are copies of one photo, make them alike"
        yield Finding("warning", str(base), what, todo)


def _pictures(folder: Path) -> Iterator[Path | Finding]:
    for home, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(home) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield path
            elif not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini"):
                yield Finding("warning", str(path), "this is no picture by its name", "it is passed over")


def _same_content(paths: list[Path]) -> list[list[Path]]:
    """Files of one name, those with the same bytes together; the same name does not make the same photo."""
    groups: list[list[Path]] = []
    for path in paths:
        for group in groups:
            if _alike(group[0], path):
                group.append(path)
                break
        else:
            groups.append([path])
    return groups


def _alike(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # a dangling link, say: told where the picture is opened
        return False


def _row(root: Path, base: Path, files: list[Path]) -> Row:
    tags = [normal(path.relative_to(base).parts[0]) for path in files]
    if UNTAGGED in tags and len(tags) > 1:
        other = next(name for name in tags if name != UNTAGGED)
        raise fault(files[0], f"the picture lies in {UNTAGGED!r} and in {other!r}", "keep one of the two")
    names = tuple(name for name in tags if name != UNTAGGED)
    image_id = normal(files[0].relative_to(base).with_suffix("").as_posix())
    return Row(str(files[0]), image_id, (files[0].relative_to(root).as_posix(),), names, str(files[0]))
