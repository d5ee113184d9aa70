"""The PASCAL VOC layout: list files, JPEGImages, and labels from XML boxes or a JSON file.

ImageSets/Segmentation/<split>.txt      one image id a line
JPEGImages/<id>.jpg                     or .jpeg, .png
Annotations/<id>.xml                    the classes of its boxes, difficult ones included, are the tags; or else
labels.json                             {"classes": [name, ...], "labels": {id: [name, ...]}}

The list ``train_aug``, which neither VOC nor SBD has, is computed from the two where it is missing (``sbd.py``). With
``data.labels none`` no image has a tag, and neither boxes nor the JSON file are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from sys import intern
from typing import Any
from xml.etree import ElementTree

from tag2mask.config import DataConfig
from tag2mask.data.classes import VOC_NAMES, read_classes
from tag2mask.data.files import DataError, Finding, Folder, fault, normal, read_text
from tag2mask.data.images import TaggedImages
from tag2mask.data.rows import Row, Source, inside, open_rows
from tag2mask.data.sbd import AUGMENTED, augmented_ids, find_sbd, listed_ids

Tags = Callable[[str, str], tuple[tuple[str, ...], str]]
"""From an image id and the place of its row to the names of its tags and the file (and key) where they stand."""


def open_voc(config: DataConfig) -> TaggedImages:
    """The tagged images of the list ``config.split``. Looks at every row and whether every picture is there;
    an ``InputError`` names the first fault (file and row) and says how many more there are."""
    return open_rows(config, read_voc(config))


def read_voc(config: DataConfig) -> Source:
    """The rows of the list file with their tags, no picture looked at. Raises ``DataError`` when there is no list, or
    nothing that could give tags."""
    root = Path(config.root)
    if not root.is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    list_file = root / "ImageSets" / "Segmentation" / f"{config.split}.txt"
    if list_file.exists():
        images = listed_ids(list_file)
    elif config.split == AUGMENTED and list_file.parent.is_dir() and (sbd := find_sbd(config)) is not None:
        images = augmented_ids(list_file.parent, sbd)
    else:
        raise fault(list_file, "there is no such list file", _other_list(config))
    label_file = _label_file(config)
    if label_file is None:
        tags: Tags = _no_tags
    else:
        tags = _tags_of_boxes(label_file) if label_file.is_dir() else _tags_of_json(label_file)
    return Source(voc_names(config), list(_rows(images, tags)), str(list_file))


def voc_splits(config: DataConfig) -> list[str]:
    """The lists that there are, by name, and ``train_aug`` where it can be computed."""
    lists = Path(config.root) / "ImageSets" / "Segmentation"
    names = {path.stem for path in lists.glob("*.txt")}
    if {"train", "val"} <= names and find_sbd(config) is not None:
        names.add(AUGMENTED)
    return sorted(names)


def _other_list(config: DataConfig) -> str:
    """What to do when the list of the split is not there."""
    inner = next((name for name in ("VOC2012", "VOCdevkit/VOC2012") if (Path(config.root) / name).is_dir()), None)
    if inner is not None:
        return f"set data.root to {Path(config.root) / inner}"
    if config.split == AUGMENTED:
        return "put SBD beside it or name its folder in data.sbd, from which the list is computed; or write the list"
    there = voc_splits(config)
    return f"set data.split to one of {', '.join(there)}" if there else "write one, with one image id a line"


def voc_names(config: DataConfig) -> tuple[str, ...]:
    """Every class of the data in the order of the mask values: from the labels' JSON file if it says, else from
    ``classes.txt`` if there, else the 20 of VOC."""
    label_file = _label_file(config)
    if label_file is not None and not label_file.is_dir():
        names = _read_json(label_file).get("classes")
        if names is not None:
            return _json_names(names, label_file)
    class_file = Path(config.root) / "classes.txt"
    return read_classes(class_file) if class_file.exists() else VOC_NAMES


def _label_file(config: DataConfig) -> Path | None:
    root = Path(config.root)
    if config.labels == "none":
        return None
    if config.labels:
        if not (root / config.labels).exists():
            raise fault(root / config.labels, "data.labels names nothing that is there", "correct it")
        return root / config.labels
    for name in ("Annotations", "labels.json"):
        if (root / name).exists():
            return root / name
    todo = "add one of the two, or name a JSON file in data.labels"
    raise fault(root, "no labels: there is neither a folder Annotations nor a file labels.json", todo)


def _rows(images: Iterable[tuple[str, str]], tags: Tags) -> Iterator[Row | Finding]:
    for where, image_id in images:
        try:
            image_id = str(inside(image_id, where))
            names, names_where = tags(image_id, where)
        except DataError as error:
            yield error.finding
            continue
        files = tuple(f"JPEGImages/{image_id}{suffix}" for suffix in (".jpg", ".jpeg", ".png"))
        yield Row(where, image_id, files, names, names_where)


def _no_tags(image_id: str, where: str) -> tuple[tuple[str, ...], str]:
    return (), where


def _tags_of_boxes(folder: Path) -> Tags:
    finder = Folder(folder)

    def tags(image_id: str, where: str) -> tuple[tuple[str, ...], str]:
        path = finder.find(f"{image_id}.xml")
        if path is None:
            raise fault(where, f"there is no file {folder / image_id}.xml", "add it, or take the row out")
        try:
            # bytes, not text: the XML says its encoding itself
            tree = ElementTree.fromstring(path.read_bytes())
        except ElementTree.ParseError as error:
            raise fault(
                f"{path}, row {error.position[0]}", f"this is not XML ({error})", "restore the file"
            ) from None
        except OSError as error:
            raise fault(path, f"the file cannot be read ({error.strerror})", "restore the file") from None
        # direct children alone: an object may hold parts, such as the head of a person, which have names too
        names = [normal(box.findtext("name", default="")) for box in tree.findall("object")]
        if "" in names:
            raise fault(path, f"object {names.index('') + 1} has no name", "write its class in <name>")
        return tuple(map(intern, dict.fromkeys(names))), str(path)

    return tags


def _tags_of_json(path: Path) -> Tags:
    labels = _read_json(path).get("labels")
    if not isinstance(labels, dict):
        raise fault(path, "there is no key labels with {id: [names]}", "write it")
    by_id = {normal(image_id): names for image_id, names in labels.items()}

    def tags(image_id: str, where: str) -> tuple[tuple[str, ...], str]:
        if image_id not in by_id:
            raise fault(where, f"{path} has no labels for {image_id!r}", "add them, [] if there is no tag")
        names = by_id[image_id]
        names_where = f"{path}, key {image_id!r}"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise fault(names_where, f"{names!r} is not a list of names", 'write for example ["cat", "dog"]')
        return tuple(normal(name) for name in names), names_where

    return tags


def _read_json(path: Path) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if normal(key) in content:
                raise fault(path, f"the key {key!r} stands there twice", "keep one of the two")
            content[normal(key)] = value
        return content

    try:
        content = json.loads(read_text(path), object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        raise fault(
            f"{path}, row {error.lineno}", f"this is not JSON ({error.msg})", "correct the file"
        ) from None
    if not isinstance(content, dict):
        raise fault(
            path, "this is not a JSON object", 'write {"classes": [name, ...], "labels": {id: [name, ...]}}'
        )
    return content


def _json_names(names: object, path: Path) -> tuple[str, ...]:
    where = f"{path}, key 'classes'"
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise fault(where, "this is not a list of names", 'write for example ["cat", "dog"]')
    classes = [normal(name) for name in names]
    if classes[0].casefold() == "background":  # the mask value 0, which some lists name
        del classes[0]
    for name in classes:
        if not name or name.casefold() == "background":
            raise fault(
                where, f"{name!r} is no class", "name background first or not at all: position is mask value"
            )
        if classes.count(name) > 1:
            raise fault(where, f"class {name!r} is named twice", "name each class once")
    return tuple(classes)
