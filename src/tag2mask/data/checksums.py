"""One number for the tags and one for the masks of a data set: two people's are the same if their numbers are.

SHA-256 over the bytes of all images, in the order of their ids (by the bytes of their UTF-8). For each image

tags     the id, a zero byte, the names of its tags in the order of the classes, each followed by a zero byte, a newline
masks    32 bytes: SHA-256 of the id, a zero byte, height and width as ``375x500``, a zero byte, and the H x W bytes of
         the mask, row by row

Masks are those that evaluation reads: 0 background, c + 1 class c in use, 255 ignore; so they depend on
``data.classes``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tag2mask.data.images import TaggedImages


def label_digest(images: TaggedImages) -> str:
    """The checksum of the tags, 64 hexadecimal digits."""
    content = hashlib.sha256()
    for index in _by_id(images.ids):
        content.update(images.ids[index].encode() + b"\0")
        content.update(b"".join(name.encode() + b"\0" for name in images.label_names(index)) + b"\n")
    return content.hexdigest()


class MaskDigest:
    """The checksum of masks that are read one after the other, in any order.

    Only the hash of each is kept.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self._hashes: dict[int, bytes] = {}

    def has(self, index: int) -> bool:
        """Whether the mask of an image was added."""
        return index in self._hashes

    def add(self, index: int, mask: np.ndarray) -> None:
        """A mask (H, W) uint8 of the image ``index``."""
        height, width = mask.shape
        head = self.ids[index].encode() + b"\0" + f"{height}x{width}".encode() + b"\0"
        self._hashes[index] = hashlib.sha256(head + np.ascontiguousarray(mask).tobytes()).digest()

    def hexdigest(self) -> str:
        """64 hexadecimal digits; empty unless every mask was added."""
        if not self.ids or len(self._hashes) < len(self.ids):
            return ""
        return hashlib.sha256(b"".join(self._hashes[index] for index in _by_id(self.ids))).hexdigest()


def _by_id(ids: Sequence[str]) -> list[int]:
    return sorted(range(len(ids)), key=lambda index: ids[index].encode())
