"""Masks in a column of a dataset or beside the photos in shards, for evaluation alone: no module that trains may import
this one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.files import fault
from tag2mask.data.huggingface import (
    HuggingFacePictures,
    label_names,
    load_split,
    mask_column,
    read_huggingface,
    tag_column,
)
from tag2mask.data.images import Packed, TaggedImages
from tag2mask.data.masks import Masks, mask_table, read_mask
from tag2mask.data.rows import Row
from tag2mask.data.shard_files import shard_files
from tag2mask.data.shards import class_file, index_shards, read_shards


def open_packed_masks(config: DataConfig, images: TaggedImages) -> Masks | None:
    """The masks of ``images``, read one by one; None when there is no column of masks, or no member.

    Raises ``InputError`` when nothing says which value is which class, or a photo in shards has no mask.
    """
    packed = _column(config) if config.kind == "huggingface" else _members(config)
    if packed is None:
        return None
    source = read_huggingface(config) if config.kind == "huggingface" else read_shards(config)
    record_of = {row.id: row.record for row in source.entries if isinstance(row, Row)}
    records = np.array([record_of[image_id] for image_id in images.ids], dtype=np.int64)
    table = mask_table(source.names, images.classes)  # (256,)
    return Masks(images.classes, images.ids, partial(read_packed_mask, packed, records, table))


def read_packed_mask(packed: Packed, records: np.ndarray, table: np.ndarray, index: int) -> np.ndarray:
    """The mask ``records[index]`` through ``table`` ((256,) uint8), as (H, W) uint8."""
    record = int(records[index])
    return read_mask(packed.name(record), table, content=packed.content(record))


def _column(config: DataConfig) -> HuggingFacePictures | None:
    features = load_split(config.root, config.split).features
    column = mask_column(config, features)
    if not column:
        return None
    path = Path(config.root) / "classes.txt"
    if label_names(features[tag_column(config, features)]) is None and not path.exists():
        raise fault(path, "the masks need this file to say which value is which class", "write one name a line")
    return HuggingFacePictures(config.root, config.split, column)


def _members(config: DataConfig) -> Packed | None:
    index = index_shards(shard_files(config))
    there = index.masks.places[:, 2] >= 0  # (N,)
    if not there.any():
        return None
    if not there.all():
        missing = np.flatnonzero(~there)
        what = f"there is no mask for this photo, as for {len(missing)} of {len(there)}"
        raise fault(index.photos.name(int(missing[0])), what, "add it as KEY.mask.png, or set data.masks to `none`")
    path = class_file(config)
    if not path.exists():
        raise fault(path, "the masks need this file to say which value is which class", "write one name a line")
    return index.masks
