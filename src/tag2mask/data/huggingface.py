"""Datasets of the Hugging Face library ``datasets``, saved on disk by ``save_to_disk``.

A column of pictures, and one of tags: class labels, or names, one or a list. If wanted, a column of names for the
photos, and one of masks, which is looked at for evaluation alone, by ``packed_masks.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tag2mask.config import DataConfig
from tag2mask.data.classes import read_classes
from tag2mask.data.files import DataError, Finding, fault, normal
from tag2mask.data.rows import Row, Source, inside
from tag2mask.errors import InputError

LABELS = ("labels", "tags", "label", "tag")
IDS = ("id", "image_id", "file_name")
MASKS = ("mask", "masks")
"""Names of columns that are looked for, in this order."""
ADVICE = "cast it to ClassLabel, or to names"


@dataclass(frozen=True)
class HuggingFacePictures:
    """A column of pictures; opened when it is first read in a process."""

    root: str
    split: str
    column: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the dataset, of all splits."""
        return tuple(sorted(Path(self.root).rglob("*.arrow")))

    def name(self, record: int) -> Path:
        """The place of a picture; records count from 0, as in the library."""
        return Path(f"{self.root}, record {record}, {self.column}")

    def content(self, record: int) -> bytes:
        """The bytes of a picture's file. Raises ``DataError`` when the record has none."""
        value = _column(self.root, self.split, self.column)[record][self.column]
        if value is not None and value.get("bytes") is not None:
            content: bytes = value["bytes"]
            return content
        path = None if value is None else value.get("path")
        if path is None:
            raise fault(self.name(record), "there is no picture", "fill the column, or take the record out")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            what = f"the file cannot be read ({error.strerror})"
            raise fault(path, what, "save the dataset with its pictures in it") from None


    def alone(self, record: int) -> tuple[HuggingFacePictures, int]:
        """The same column: it is three words."""
        return self, record


def read_huggingface(config: DataConfig) -> Source:
    """The records with their tags. Raises ``DataError`` when there is no dataset, or no column of pictures or tags."""
    root = Path(config.root)
    records = load_split(config.root, config.split)
    pictures = HuggingFacePictures(config.root, config.split, picture_column(config, records.features))
    labels = tag_column(config, records.features)
    id_column = _chosen(config.columns.id, IDS, records.features, "data.columns.id")
    known = label_names(records.features[labels])
    classes = root / "classes.txt"
    entries = list(_rows(records, root, labels, id_column, known))
    if known is not None:
        names = tuple(normal(name) for name in known if normal(name).casefold() != "background")
    elif classes.exists():
        names = read_classes(classes)
    else:  # those of every split, so that they have the same numbers in each
        others = [load_split(config.root, split) for split in splits(config.root) if split != config.split]
        every = entries + [row for other in others for row in _rows(other, root, labels, id_column, None)]
        names = tuple(sorted({normal(name) for row in every if isinstance(row, Row) for name in row.names}))
    if not entries:
        raise fault(root, "the dataset has no records", "fill it")
    if not names and all(isinstance(entry, Row) for entry in entries):
        raise fault(f"{root}, column {labels}", "no record has a tag", "write class names there")
    return Source(names, entries, f"{root}, column {labels}", packed=pictures)


@lru_cache(maxsize=4)
def load_split(root: str, split: str) -> Any:
    """A ``datasets.Dataset``. Raises ``InputError`` when the library or the split is not there."""
    try:
        from datasets import Dataset, load_from_disk
    except ImportError:
        raise InputError(
            "data.kind huggingface needs the package datasets, which is not installed; run "
            "`pip install 'tag2mask[hf]'`."
        ) from None
    if not Path(root).is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    try:
        found = load_from_disk(root)
    except MemoryError:
        raise
    except Exception as error:  # a damaged folder makes the library raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise fault(root, f"this is no dataset on disk ({reason})", "write it by `dataset.save_to_disk`") from None
    if isinstance(found, Dataset):
        if split not in ("train", "all"):
            raise fault(root, f"the dataset has no splits, so none {split!r}", "save a DatasetDict with one")
        return found
    if split not in found:
        raise fault(root, f"there is no split {split!r}", f"set data.split to one of {', '.join(found)}")
    return found[split]


def splits(root: str) -> list[str]:
    """Names of the splits on disk; none for a dataset without."""
    if not (Path(root) / "dataset_dict.json").is_file():
        return []
    from datasets import load_from_disk

    return list(load_from_disk(root))


@lru_cache(maxsize=8)
def _column(root: str, split: str, column: str) -> Any:
    from datasets import Image

    return load_split(root, split).select_columns([column]).cast_column(column, Image(decode=False))


def picture_column(config: DataConfig, features: Any) -> str:
    """The column of the photos."""
    from datasets import Image

    pictures = [name for name, feature in features.items() if isinstance(feature, Image)]
    masks = mask_column(config, features)
    if config.columns.image:
        if config.columns.image not in pictures:
            raise _no_column(config.columns.image, pictures, "data.columns.image")
        return config.columns.image
    photos = [name for name in pictures if name != masks]
    if len(photos) != 1:
        what = f"there are {len(photos)} columns of pictures ({', '.join(photos) or 'cast one to datasets.Image'})"
        raise fault(config.root, what, "name the one of the photos in data.columns.image")
    return photos[0]


def mask_column(config: DataConfig, features: Any) -> str:
    """The column of the masks; empty when there is none."""
    from datasets import Image

    pictures = {name: feature for name, feature in features.items() if isinstance(feature, Image)}
    return _chosen(config.columns.masks, MASKS, pictures, "data.columns.masks")


def tag_column(config: DataConfig, features: Any) -> str:
    """The column of the tags."""
    column = _chosen(config.columns.labels, LABELS, features, "data.columns.labels")
    if not column:
        what = f"there is no column of tags; the columns are {', '.join(features)}"
        raise fault(config.root, what, "name it in data.columns.labels")
    return column


def _chosen(setting: str, names: tuple[str, ...], columns: Any, key: str) -> str:
    if setting and setting not in columns:
        raise _no_column(setting, list(columns), key)
    return setting or next((name for name in names if name in columns), "")


def _no_column(name: str, there: list[str], key: str) -> DataError:
    return fault(key, f"there is no such column {name!r}", f"name one of {', '.join(there) or '... there is none'}")


def label_names(feature: Any) -> list[str] | None:
    """The names of class labels, single or in a list; None for a column of names."""
    inner = getattr(feature, "feature", feature)
    names: list[str] | None = getattr(inner, "names", None)
    return names


def _rows(records: Any, root: Path, labels: str, id_column: str, known: list[str] | None) -> Iterator[Row | Finding]:
    columns = [labels, *([id_column] if id_column else [])]
    record = 0
    for batch in records.select_columns(columns).iter(batch_size=1000):
        ids = batch[id_column] if id_column else [None] * len(batch[labels])
        for value, own in zip(batch[labels], ids, strict=True):
            where = f"{root}, record {record}"
            try:
                image_id = f"{record:07d}" if own is None else str(own)
                names = _tags(value, known, f"{where}, {labels}")
                yield Row(where, normal(str(inside(image_id, where))), (), names, f"{where}, {labels}", record=record)
            except DataError as error:
                yield error.finding
            record += 1


def _tags(value: Any, known: list[str] | None, where: str) -> tuple[str, ...]:
    """Names from class labels (-1 is none), names in a list, or one text of names joined by `;`."""
    if isinstance(value, str):
        value = value.split(";")
    names = []
    for tag in value if isinstance(value, list) else [value]:
        if tag is None or tag == -1:
            continue
        if known is not None and isinstance(tag, int):
            names.append(known[tag])
        elif isinstance(tag, str):
            names.append(tag)
        else:
            raise fault(where, f"{tag!r} is neither a class label nor a name", ADVICE)
    named = (normal(name) for name in names)
    return tuple(dict.fromkeys(name for name in named if name and name.casefold() != "background"))
