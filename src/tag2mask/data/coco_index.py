"""A file of annotations in COCO's format, read once and indexed: what is where, no outline kept in memory.

COCO's own files have half a gigabyte, nearly all of it outlines. Each annotation is parsed when the file is read, but
only its image, its category and its place in the file are kept; whoever wants the outline reads it from there.

{"images": [{"id": 9, "file_name": "a.jpg", "height": 480, "width": 640}, ...],
 "annotations": [{"id": 7, "image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": ...}, ...],
 "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}, ...]}
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.data.files import Finding, fault, normal

SPACE = re.compile(r"[ \t\n\r]*")
MOST_PIXELS = 1 << 20
"""A side of an image is shorter: what a file says is not trusted with the memory of a mask."""
ADVICE = 'write {"images": [...], "annotations": [...], "categories": [...]} as COCO does'


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """N images, A annotations sorted by image, C categories sorted by id."""

    path: Path
    ids: tuple[int | str, ...]
    """The N ids of the images in the file."""
    files: tuple[str, ...]
    """The N file names."""
    sizes: np.ndarray
    """(N, 2) int32: H, W; 0 where the file does not say."""
    names: tuple[str, ...]
    """The C categories: the one at position c has the mask value c + 1, whatever its id."""
    supercategories: tuple[str, ...]
    """One for each category, empty where the file does not say."""
    starts: np.ndarray
    """(N + 1,) int64: image n has the annotations ``starts[n]`` to ``starts[n + 1]``."""
    category: np.ndarray
    """(A,) int16 position of the category."""
    crowd: np.ndarray
    """(A,) bool: the annotation stands for a group that nobody separated."""
    number: np.ndarray
    """(A,) int64 id of the annotation, or its position where it has none."""
    outlined: np.ndarray
    """(A,) bool: there is an outline, not a box alone."""
    span: np.ndarray
    """(A, 2) int64: first byte of the annotation in the file, and the one after its last."""
    findings: tuple[Finding, ...]
    """What is wrong with single entries, which are then left out."""

    def annotations(self, image: int) -> range:
        """The numbers of the annotations of an image."""
        return range(int(self.starts[image]), int(self.starts[image + 1]))

    def categories_of(self, image: int) -> tuple[str, ...]:
        """Names of the categories of an image, each once, crowds included, in the order of the categories."""
        here = self.annotations(image)
        return tuple(self.names[c] for c in np.unique(self.category[here.start : here.stop]))


def read_coco(path: Path) -> CocoIndex:
    """Read a file, or give what was read when it was last looked at, if it has not changed since.

    Raises ``DataError`` when there is no such file, it is not JSON, or has no images or categories.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise fault(path, f"the file cannot be read ({error.strerror})", "correct data.labels or data.split") from None
    return _read(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, changed: int) -> CocoIndex:
    try:
        # One character for each byte, so that positions in the text are positions in the file. UTF-8 has no byte of
        # JSON's own marks inside a character, so the parser is not misled; names are decoded one by one.
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            text = str(content, "latin-1")
    except ValueError:  # nothing can be mapped of no bytes
        raise fault(path, "the file is empty", "restore it from where it came") from None
    except OSError as error:
        raise fault(path, f"the file cannot be read ({error.strerror})", "check its permissions") from None
    reading = _Reading(path, text)
    lists: dict[str, Callable[[Any, int, int], None]] = {
        "images": reading.image, "categories": reading.category, "annotations": reading.annotation,
    }  # fmt: skip
    try:
        seen = _walk(path, text, lists)
    except (json.JSONDecodeError, IndexError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else len(text)
        row, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it is cut off"
        raise fault(
            f"{path}, row {row}, character {column}", f"this is not JSON ({why})", "restore the file"
        ) from None
    for key in lists:
        if key not in seen:
            raise fault(path, f"there is no list {key!r}", ADVICE)
    return reading.index()


def _walk(path: Path, text: str, lists: dict[str, Callable[[Any, int, int], None]]) -> set[str]:
    """Call ``lists[key]`` with each element of a list at the top and with its place; gives the keys that were there."""
    decoder = json.JSONDecoder()
    seen: set[str] = set()

    def past_space(at: int) -> int:
        match = SPACE.match(text, at)
        return at if match is None else match.end()

    def past(mark: str, at: int) -> int:
        if text[at] != mark:
            raise json.JSONDecodeError(f"expected {mark!r}", text, at)
        return past_space(at + 1)

    def past_comma(at: int, closing: str) -> int:
        at = past_space(at)
        return at if text[at] == closing else past(",", at)

    at = past_space(3 if text.startswith("\xef\xbb\xbf") else 0)
    if text[at] != "{":
        raise fault(path, "this is not a JSON object", ADVICE)
    at = past("{", at)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        at = past(":", past_space(at))
        if key in seen:
            raise fault(path, f"the key {key!r} stands there twice", "keep one of the two")
        seen.add(key)
        if key not in lists:
            _, at = decoder.raw_decode(text, at)
        elif text[at] != "[":
            raise fault(f"{path}, key {key!r}", "this is not a list", ADVICE)
        else:
            at = past("[", at)
            while text[at] != "]":
                value, end = decoder.raw_decode(text, at)
                lists[key](value, at, end)
                at = past_comma(end, "]")
            at += 1
        at = past_comma(at, "}")
    if (at := past_space(at + 1)) < len(text):
        raise json.JSONDecodeError("there is more after its end", text, at)
    return seen


def _pixels(size: Any) -> int:
    """A side of an image, which some programs write as 480.0; 0 for what is none."""
    return int(size) if isinstance(size, int | float) and 0 <= size < MOST_PIXELS and size == int(size) else 0


@dataclass
class _Reading:
    """What has been read so far; the three lists may come in any order."""

    path: Path
    text: str
    images: dict[int | str, tuple[str, int, int]] = field(default_factory=dict)
    categories: dict[int | str, tuple[str, str]] = field(default_factory=dict)
    image_ids: list[int | str] = field(default_factory=list)
    category_ids: list[int | str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Five of each annotation: id, crowd, outlined, first byte, last byte + 1."""

    def image(self, value: Any, start: int, end: int) -> None:
        where = f"{self.path}, image {len(self.images) + 1}"
        entry = self._entry(value, start, end, where)
        key, name = self._key(entry, "id", where), entry.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise fault(where, f"file_name is {name!r}", "write the path of the picture")
        if key in self.images:
            raise fault(where, f"the image id {key!r} is already that of {self.images[key][0]!r}", "number them anew")
        self.images[key] = (normal(name), _pixels(entry.get("height")), _pixels(entry.get("width")))

    def category(self, value: Any, start: int, end: int) -> None:
        where = f"{self.path}, category {len(self.categories) + 1}"
        entry = self._entry(value, start, end, where)
        key, name, above = self._key(entry, "id", where), entry.get("name"), entry.get("supercategory")
        if not isinstance(name, str) or not normal(name):
            raise fault(where, f"name is {name!r}", "write the name of the class")
        if normal(name).casefold() == "background":
            raise fault(where, "background is no class", "delete the category: 0 in masks is always background")
        if key in self.categories:
            raise fault(where, f"the category id {key!r} is already that of {self.categories[key][0]!r}", "correct it")
        if normal(name) in (known for known, _ in self.categories.values()):
            raise fault(where, f"the category {name!r} is there twice", "name each class once")
        self.categories[key] = (normal(name), normal(above) if isinstance(above, str) else "")

    def annotation(self, value: Any, start: int, end: int) -> None:
        position = len(self.image_ids) + 1
        where = f"{self.path}, annotation {position}"
        if not isinstance(value, dict):
            raise fault(where, f"{str(value)[:40]!r} is no table of keys and values", ADVICE)
        self.image_ids.append(self._key(value, "image_id", where))
        self.category_ids.append(self._key(value, "category_id", where))
        own = value.get("id")
        number = own if isinstance(own, int) and abs(own) < 1 << 62 else position
        self.numbers.extend(
            (number, value.get("iscrowd") not in (0, None, "", "0"), bool(value.get("segmentation")), start, end)
        )

    def _entry(self, value: Any, start: int, end: int, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise fault(where, f"{str(value)[:40]!r} is no table of keys and values", ADVICE)
        piece = self.text[start:end]
        try:
            entry: dict[str, Any] = value if piece.isascii() else json.loads(piece.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError:
            raise fault(where, "the text is not UTF-8", "save the file as UTF-8") from None
        return entry

    @staticmethod
    def _key(entry: dict[str, Any], name: str, where: str) -> int | str:
        key = entry.get(name)
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise fault(where, f"{name} is {key!r}", "write a whole number (or a text)")
        return key

    def index(self) -> CocoIndex:
        """Everything in its order. Annotations of images or categories that are not there are left out and told."""
        if not self.images:
            raise fault(self.path, "it has no images", ADVICE)
        if not self.categories:
            raise fault(self.path, "it has no categories", ADVICE)
        keys = list(self.categories)
        if all(isinstance(key, int) for key in keys):
            keys.sort(key=lambda key: (0, key) if isinstance(key, int) else (1, 0))
        position_of = {key: position for position, key in enumerate(keys)}
        image_of = {key: position for position, key in enumerate(self.images)}
        findings: list[Finding] = []
        images = self._positions(self.image_ids, image_of, "image", findings)
        categories = self._positions(self.category_ids, position_of, "category", findings)
        facts = np.array(self.numbers, dtype=np.int64).reshape(-1, 5)
        kept = np.flatnonzero((images >= 0) & (categories >= 0))
        kept = kept[np.argsort(images[kept], kind="stable")]
        counts = np.bincount(images[kept], minlength=len(self.images))
        return CocoIndex(
            path=self.path,
            ids=tuple(self.images),
            files=tuple(name for name, _, _ in self.images.values()),
            sizes=np.array([size for _, *size in self.images.values()], dtype=np.int32),
            names=tuple(self.categories[key][0] for key in keys),
            supercategories=tuple(self.categories[key][1] for key in keys),
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            category=categories[kept].astype(np.int16),
            number=facts[kept, 0],
            crowd=facts[kept, 1].astype(bool),
            outlined=facts[kept, 2].astype(bool),
            span=facts[kept, 3:],
            findings=tuple(findings),
        )

    def _positions(
        self, keys: list[int | str], position_of: dict[int | str, int], what: str, findings: list[Finding]
    ) -> np.ndarray:
        positions = np.array([position_of.get(key, -1) for key in keys], dtype=np.int64)  # (A,)
        missing = np.flatnonzero(positions < 0)
        if len(missing):
            more = f", as of {len(missing)} annotations" if len(missing) > 1 else ""
            where = f"{self.path}, annotation {missing[0] + 1}"
            text = f"there is no {what} with the id {keys[missing[0]]!r}{more}"
            findings.append(fault(where, text, f"add the {what}, or take the annotation out").finding)
        return positions
