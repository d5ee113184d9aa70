"""Photos in tar files, in WebDataset's form: files of one name belong together.

lake7.jpg           the photo; also .jpeg, .webp, or .png where there is none of these
lake7.json          {"labels": ["boat", "person"]}, or "tags", or the list alone; or
lake7.txt           names, one a line or joined by `;`; empty for no tag
lake7.png           the mask, for evaluation alone; also .mask.png or .seg.png

The archives stay as they are: their headers are read once in a process, and a photo is read at its place in the file.
The name, with its folder in the archive, is the id of the image. Classes: ``classes.txt`` in the folder of the shards
(in that of the cache for a URL), else all names in the tags, sorted.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.classes import read_classes
from tag2mask.data.coco import SPLIT
from tag2mask.data.files import DataError, Finding, fault, normal
from tag2mask.data.rows import Row, Source, inside
from tag2mask.data.shard_files import every_file, is_url, shard_files

PHOTOS = ("jpg", "jpeg", "webp", "png")
MASKS = ("mask.png", "seg.png", "png")
"""Suffixes of the two, the first that is there counts."""


@dataclass(frozen=True, eq=False)
class ShardPictures:
    """Members of tar files, each read at its place."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    places: np.ndarray
    """(N, 3) int64: number of the file, first byte, size; the size is -1 where there is no such member."""

    def name(self, record: int) -> Path:
        """The archive and the name in it."""
        return self.paths[self.places[record, 0]] / self.names[record]

    def content(self, record: int) -> bytes:
        """The bytes of a member."""
        shard, start, size = self.places[record].tolist()
        try:
            with self.paths[shard].open("rb") as file:
                file.seek(start)
                content = file.read(max(size, 0))
        except OSError as error:
            raise fault(self.paths[shard], f"the file cannot be read ({error.strerror})", "restore it") from None
        if len(content) < size:
            raise fault(self.paths[shard], "the archive is cut off", "restore it")
        return content


    def alone(self, record: int) -> tuple[ShardPictures, int]:
        """The same member among no others."""
        place = self.places[record : record + 1].copy()  # (1, 3)
        path = self.paths[place[0, 0]]
        place[0, 0] = 0
        return ShardPictures((path,), (self.names[record],), place), 0


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """N photos of some archives: where they and their masks are, and their tags."""

    keys: tuple[str, ...]
    photos: ShardPictures
    masks: ShardPictures
    tags: tuple[tuple[str, ...], ...]
    findings: tuple[Finding, ...]


def read_shards(config: DataConfig) -> Source:
    """The photos with their tags. Raises ``DataError`` when there are no archives, or one is damaged."""
    index = index_shards(shard_files(config))
    entries: list[Row | Finding] = list(index.findings)
    for record, (key, tags) in enumerate(zip(index.keys, index.tags, strict=True)):
        where = str(index.photos.name(record))
        try:
            entries.append(Row(where, normal(str(inside(key, where))), (), tags, where, record=record))
        except DataError as error:
            entries.append(error.finding)
    if not entries:
        raise fault(index.photos.paths[0], "the archives hold no photo", "put members such as a.jpg and a.json there")
    return Source(_class_names(config, index), entries, config.root, packed=index.photos)


def class_file(config: DataConfig) -> Path:
    """Where a list of the classes may be."""
    return Path(config.shard_cache if is_url(config.root) else config.root) / "classes.txt"


def _class_names(config: DataConfig, index: ShardIndex) -> tuple[str, ...]:
    path = class_file(config)
    if path.exists():
        return read_classes(path)
    if is_url(config.root) and SPLIT in config.root and not config.classes:
        todo = f"write {path}, one name a line, or name the classes in data.classes"
        raise fault(path, "there is no list of the classes, and the tags of one split may not have them all", todo)
    tags = index.tags if is_url(config.root) else index_shards(every_file(config)).tags
    names = {normal(name) for row in tags for name in row} | {normal(name) for name in config.classes}
    if not names and not index.findings:
        raise fault(config.root, "no photo has a tag", "write class names in the .json or .txt members")
    return tuple(sorted(names))


def index_shards(paths: tuple[Path, ...]) -> ShardIndex:
    """Read the headers of archives, or give what was read before, if the files have not changed since.

    Raises ``DataError`` that names an archive that is missing, compressed, cut off or none.
    """
    facts = []
    for path in paths:
        try:
            about = path.stat()
        except OSError as error:
            raise fault(path, f"the file cannot be read ({error.strerror})", "restore it") from None
        facts.append((about.st_size, about.st_mtime_ns))
    return _index(paths, tuple(facts))


@lru_cache(maxsize=4)
def _index(paths: tuple[Path, ...], facts: tuple[tuple[int, int], ...]) -> ShardIndex:
    keys: list[str] = []
    tags: list[tuple[str, ...]] = []
    findings: list[Finding] = []
    names: tuple[list[str], list[str]] = ([], [])
    places: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] = ([], [])
    for number, (path, (size, _)) in enumerate(zip(paths, facts, strict=True)):
        for key, members in _samples(path, size).items():
            photo = next((suffix for suffix in PHOTOS if suffix in members), None)
            if photo is None:
                findings += _dotted(path, key, members)
                continue  # notes beside the photos
            try:
                row = _tags(path, key, members)
            except DataError as error:
                findings.append(error.finding)
                continue
            mask = next((suffix for suffix in MASKS if suffix in members and suffix != photo), "")
            keys.append(key)
            tags.append(row)
            for which, suffix in enumerate((photo, mask)):
                names[which].append(f"{key}.{suffix or MASKS[0]}")
                places[which].append((number, *members.get(suffix, (0, -1))))
    photos, masks = (
        ShardPictures(paths, tuple(n), np.array(p, dtype=np.int64).reshape(-1, 3))
        for n, p in zip(names, places, strict=True)
    )
    return ShardIndex(tuple(keys), photos, masks, tuple(tags), tuple(findings))


def _dotted(path: Path, key: str, members: dict[str, tuple[int, int]]) -> Iterator[Finding]:
    """Photos that would be lost without a word, because a name ends at its first dot in WebDataset's form."""
    for suffix in members:
        if suffix.rpartition(".")[2] in PHOTOS and suffix not in MASKS:
            todo = "name it without a dot before its suffix"
            yield fault(path / f"{key}.{suffix}", f"this is not the photo of {key!r} by its name", todo).finding


def _samples(path: Path, size: int) -> dict[str, dict[str, tuple[int, int]]]:
    """For each name the first byte and the size of its members, by suffix."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as archive:  # plain alone: a compressed one cannot be read at any place
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
                folder, _, file = member.name.removeprefix("./").rpartition("/")
                stem, _, suffix = file.partition(".")
                if not member.isreg() or member.issparse() or not stem:
                    continue
                if member.offset_data + member.size > size:
                    raise fault(path, "the archive is cut off", "restore it")
                key = f"{folder}/{stem}" if folder else stem
                samples.setdefault(key, {})[suffix.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        todo = "restore it, or unpack it if it is compressed"
        raise fault(path, f"this is not a plain tar file, or it is cut off ({error})", todo) from None
    return samples


def _tags(path: Path, key: str, members: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    suffix = next((suffix for suffix in ("json", "txt") if suffix in members), None)
    if suffix is None:
        todo = "add one with the names of its classes, empty for no tag"
        raise fault(path / key, f"there is neither {key}.json nor {key}.txt for the photo", todo)
    start, size = members[suffix]
    where = f"{path / key}.{suffix}"
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(size)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fault(where, "the text is not UTF-8", "save it as UTF-8") from None
    return tuple(dict.fromkeys(_json_names(text, where) if suffix == "json" else _text_names(text)))


def _text_names(text: str) -> Iterator[str]:
    return (name for line in text.splitlines() for part in line.split(";") if (name := normal(part)))


def _json_names(text: str, where: str) -> Iterator[str]:
    todo = 'write for example {"labels": ["boat", "person"]}'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fault(where, f"this is not JSON ({error})", todo) from None
    if isinstance(value, dict):
        keys = [key for key in ("labels", "tags") if key in value]
        if len(keys) != 1:
            raise fault(where, "there is not one key of `labels` and `tags`", todo)
        value = value[keys[0]]
    if isinstance(value, str):
        return _text_names(value)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise fault(where, f"{str(value)[:40]} is not a list of names", todo)
    return (name for entry in value if (name := normal(entry)))
