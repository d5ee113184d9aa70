"""Whole or not there: a file is written under another name and renamed. And what a full or a closed disk is told as."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where no more bytes fit: disk, quota, limit of a file's size."""
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class Written(NamedTuple):
    """What a file holds."""

    size: int
    """Bytes."""
    sha256: str


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A failure of the disk gets the name of the file, which writing alone does not tell."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name to write to; that file becomes ``path`` at the end, and is removed if anything fails.

    The name is the same each time, so that what a killed process leaves is written over by the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.partial")
    try:
        with named(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> Written:
    """Write a file, atomically; makes its folder if need be."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Written(len(content), hashlib.sha256(content).hexdigest())


def read_back(path: Path) -> Written:
    """What a file holds now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Written(file.tell(), digest)


def check_writable(folder: Path) -> None:
    """Raise the ``OSError`` that writing to a folder would raise, which need not be there yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    write_bytes(there / ".writable", b"1")
    (there / ".writable").unlink()


def told(error: OSError) -> str:
    """A failure of the disk as one sentence: where, and how to go on."""
    name = error.filename if isinstance(error.filename, str) else ""
    if error.errno in FULL:
        folder = Path(name).parent if name else "the results"
        return (
            f"the disk of {folder} is full ({error.strerror}); make room and give the same command again, `train` and "
            "`demo` with --resume: what was finished is kept."
        )
    if error.errno in CLOSED:
        return (
            f"{name or 'a file'} may not be written or read ({error.strerror}); choose another folder, or change its "
            "permissions, and give the same command again: what was finished is kept."
        )
    return f"{error.strerror or error}{f' ({name})' if name else ''}"
