"""COCO, and JSON of one's own in its format: an image is tagged with the categories of its annotations.

annotations/instances_train2014.json    or another place, see ``annotation_file``
train2014/COCO_train2014_000000000009.jpg

A crowd (``iscrowd`` 1) counts as a tag: the class is there, and an image that shows it must not teach what one without
it looks like. An image without annotations has no tag. The id of an image is its file's path without suffix. Boxes and
outlines are not looked at here; masks come from ``coco_masks.py``, which nothing that trains may import.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tag2mask.config import DataConfig
from tag2mask.data.coco_index import CocoIndex, read_coco
from tag2mask.data.files import DataError, Finding, fault
from tag2mask.data.rows import Row, Source, id_of, inside

SPLIT = "{split}"
"""Stands for the split in the names of files and folders."""


def read_coco_rows(config: DataConfig) -> Source:
    """The images of the file with their tags, no picture looked at. Raises ``DataError`` when there is no file, or none
    that can be read."""
    path = annotation_file(config)
    index = read_coco(path)
    above = index.supercategories
    # One super-class over everything, as some programs write it, would leave no negative to any class.
    groups = above if all(above) and len(set(above)) > 1 else None
    entries = [*index.findings, *_rows(index, _photo_folders(config, path))]
    return Source(index.names, entries, str(path), groups)


def annotation_file(config: DataConfig) -> Path:
    """The JSON file of the split: that of ``data.labels``, with ``{split}`` put in, else where COCO and others have it.

    annotations/instances_<split>.json      <split> may leave out the year, where there is one year alone
    <split>/_annotations.coco.json, annotations/<split>.json, instances_<split>.json, <split>.json
    """
    root, split = Path(config.root), config.split
    if not root.is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    if config.labels:
        path = root / config.labels.replace(SPLIT, split)
        if not path.is_file():
            raise fault(path, "data.labels names no file that is there", "correct it, or data.split")
        return path
    names = (f"{split}/_annotations.coco.json", f"annotations/{split}.json", f"instances_{split}.json", f"{split}.json")
    for name in (f"annotations/instances_{split}.json", *names):
        if (root / name).is_file():
            return root / name
    years = sorted((root / "annotations").glob(f"instances_{split}20[0-9][0-9].json"))
    if len(years) == 1:
        return years[0]
    if years:
        there = " or ".join(path.stem.removeprefix("instances_") for path in years)
        raise fault(root, f"there are files of several years for the split {split!r}", f"set data.split to {there}")
    known = sorted(path.stem.removeprefix("instances_") for path in (root / "annotations").glob("instances_*.json"))
    todo = (
        f"set data.split to one of {', '.join(known)}" if known else "put it there, or name a JSON file in data.labels"
    )
    raise fault(root / f"annotations/instances_{split}.json", "there is no such file", todo)


def _photo_folders(config: DataConfig, path: Path) -> tuple[str, ...]:
    """Where the pictures may lie, relative to the root; the first that has one counts."""
    if config.images:
        return (f"{config.images.replace(SPLIT, config.split).rstrip('/')}/",)
    year = path.stem.removeprefix("instances_")
    beside = [path.parent.relative_to(config.root).as_posix() + "/"] if path.is_relative_to(config.root) else []
    return tuple(dict.fromkeys([f"{year}/", "", "images/", *beside, f"images/{year}/", f"{config.split}/"]))


def _rows(index: CocoIndex, folders: tuple[str, ...]) -> Iterator[Row | Finding]:
    for number, (key, name) in enumerate(zip(index.ids, index.files, strict=True)):
        where = f"{index.path}, image id {key}"
        try:
            file: PurePosixPath = inside(name, where)
        except DataError as error:
            yield error.finding
            continue
        files = tuple(f"{folder}{file}" for folder in folders)
        yield Row(where, id_of(file), files, index.categories_of(number), where)
