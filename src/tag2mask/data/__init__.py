"""From disk to images with tags, and, on a separate way that training never takes, to masks."""

from __future__ import annotations

from tag2mask.config import DataConfig
from tag2mask.data.cooccur import open_cooccur
from tag2mask.data.folder import open_folder
from tag2mask.data.images import TaggedImages
from tag2mask.data.voc import open_voc

__all__ = ["TaggedImages", "open_images"]


def open_images(config: DataConfig) -> TaggedImages:
    """The images and tags that ``config`` names. Raises ``InputError`` (file and row) before anything is trained."""
    if config.kind == "folder":
        return open_folder(config)
    if config.kind == "voc":
        return open_voc(config)
    return open_cooccur(config)
