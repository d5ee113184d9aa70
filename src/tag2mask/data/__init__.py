"""From disk to images with tags, and, on a separate way that training never takes, to masks."""

from __future__ import annotations

from tag2mask.config import DataConfig
from tag2mask.data.cooccur import open_cooccur
from tag2mask.data.images import TaggedImages
from tag2mask.data.readers import read_rows
from tag2mask.data.rows import open_rows

__all__ = ["TaggedImages", "open_images"]


def open_images(config: DataConfig) -> TaggedImages:
    """The images and tags that ``config`` names. Raises ``InputError`` (file and row) before anything is trained."""
    return open_cooccur(config) if config.kind == "cooccur" else open_rows(config, read_rows(config))
