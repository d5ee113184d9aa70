"""Which reader reads which kind of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tag2mask.config import DataConfig
from tag2mask.data.class_folders import read_class_folders
from tag2mask.data.coco import SPLIT, annotation_file, read_coco_rows
from tag2mask.data.coco_index import read_coco
from tag2mask.data.files import fault
from tag2mask.data.folder import read_folder
from tag2mask.data.huggingface import read_huggingface
from tag2mask.data.rows import Source
from tag2mask.data.shard_files import is_url
from tag2mask.data.shards import read_shards
from tag2mask.data.voc import read_voc

READERS: dict[str, Callable[[DataConfig], Source]] = {
    "folder": read_folder,
    "classes": read_class_folders,
    "voc": read_voc,
    "coco": read_coco_rows,
    "huggingface": read_huggingface,
    "shards": read_shards,
}


def read_rows(config: DataConfig) -> Source:
    """The rows of photos, no picture looked at. Raises ``DataError`` when there is nothing to read them from."""
    return READERS[config.kind](config)


def with_split(config: DataConfig, split: str) -> DataConfig:
    """The same data set's ``split``. Raises ``InputError`` where its classes would not be those of ``config.split``,
    or its files would be the same."""
    other = replace(config, split=split)
    if config.kind == "coco":
        if config.labels and SPLIT not in config.labels:
            what = f"data.labels is {config.labels!r} for every split, so there is none {split!r}"
            raise fault("--split", what, f"write {SPLIT} in its name where the split stands")
        here, there = annotation_file(config), annotation_file(other)
        if not config.classes and read_coco(here).names != read_coco(there).names:
            what = f"its categories are not those of {here}, so class numbers would not mean the same"
            raise fault(there, what, "write the same categories into both, or name some in data.classes")
    if config.kind == "shards" and is_url(config.root) and SPLIT not in config.root:
        what = f"data.root is {config.root!r} for every split, so there is none {split!r}"
        raise fault("--split", what, f"write {SPLIT} in it where the split stands")
    return other
