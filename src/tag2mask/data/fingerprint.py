"""Whether photos are still those of before: ids, sizes and times of their files. No photo is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tag2mask.data.images import TaggedImages, image_paths, read_packed


def photos_fingerprint(images: TaggedImages) -> str:
    """Hash (16 digits) of ids and of size and time of every photo's file, or of the archives that hold them.

    Folders do not count, so a data set may be moved. Of built-in scenes it is the settings that they are painted by.
    """
    content = hashlib.sha256()
    for name in images.ids:
        content.update(f"{name}\n".encode())
    for fact in _facts(images):
        content.update(fact.encode())
    return content.hexdigest()[:16]


def _facts(images: TaggedImages) -> Iterator[str]:
    paths = image_paths(images)
    if paths is None and isinstance(images.reader, partial):
        source: Any = images.reader.args[0]
        if images.reader.func is read_packed:
            paths = source.paths
        else:
            yield repr(source)
    for path in paths or ():
        yield _stamp(path)


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError:  # whoever reads it tells
        return "none;"
    return f"{status.st_size} {status.st_mtime_ns};"
