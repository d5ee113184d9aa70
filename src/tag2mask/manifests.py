"""What a folder of a run holds, by name, size and sha256: ``manifest.jsonl`` in the folder, a line for each file.

Lines are only ever added, so a folder of a million maps costs a line for each. Where maps and masks are looked for, a
file without a line, or of a size that no line of its name has, is made again. Weights, states and prototypes are
read whole when they are loaded; their line is written before the file appears, so the file may still be that of an
earlier line. One that no line describes at all, as earlier versions left them, is taken as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask.atomic import Written, named, read_back, write_bytes
from tag2mask.errors import InputError

FILES = "manifest*.jsonl"


class Entry(NamedTuple):
    """A line."""

    name: str
    """Below the folder, parts separated by ``/``."""
    written: Written


def entries(folder: Path) -> Iterator[Entry]:
    """The lines of a folder's manifests in the order of writing; a line that was cut off is left out."""
    for path in sorted(folder.glob(FILES)):
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    yield Entry(row["name"], Written(row["size"], row["sha256"]))
                except (ValueError, KeyError, TypeError):
                    continue  # cut off; the file counts as not described


class Manifest:
    """The manifest of a folder of maps or masks, which grows as they are made.

    ``writer``: several processes may each add to a file of their own; all are read.
    """

    def __init__(self, folder: Path, writer: int = 0) -> None:
        self.folder, self.file = folder, folder / (f"manifest.{writer}.jsonl" if writer else "manifest.jsonl")
        self._sizes: dict[str, int] = {}
        self._others: set[tuple[str, int]] = set()
        """Further sizes of a name: another writer may have made it since, in whatever order their files are read."""
        for entry in entries(folder):
            self._describe(entry.name, entry.written.size)

    def holds(self, path: Path) -> bool:
        """Whether a file of the folder is there, described, and of the size that it should have."""
        try:
            size, name = path.stat().st_size, self._name(path)
        except OSError:
            return False
        return self._sizes.get(name) == size or (name, size) in self._others

    def add(self, path: Path, written: Written) -> None:
        """Describe a file that has just been written."""
        append(self.file, Entry(self._name(path), written))
        self._describe(self._name(path), written.size)

    def _describe(self, name: str, size: int) -> None:
        if self._sizes.setdefault(name, size) != size:
            self._others.add((name, size))

    def _name(self, path: Path) -> str:
        return path.as_posix().removeprefix(f"{self.folder.as_posix()}/")


def append(file: Path, entry: Entry, durable: bool = False) -> None:
    """Add a line to a manifest. ``durable``: it stays where the machine loses its power in the next moment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"name": entry.name, "size": entry.written.size, "sha256": entry.written.sha256}
    with named(file), file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read(1) != b"\n":  # the line before was cut off
                lines.write(b"\n")
        lines.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        if durable:
            lines.flush()
            os.fsync(lines.fileno())


def record(path: Path, written: Written) -> None:
    """Describe a single file that is about to appear; what is known of it already is not written again."""
    entry = Entry(path.name, written)
    if entry not in entries(path.parent):
        append(path.parent / "manifest.jsonl", entry, durable=True)


def proven(path: Path) -> Written | None:
    """What a file holds, where some line of its folder says so, or no line names it; else None."""
    known = {entry.written for entry in entries(path.parent) if entry.name == path.name}
    found = read_back(path)
    return found if not known or found in known else None


def prove(path: Path) -> Written:
    """What a file holds. Raises ``InputError`` where it is not ``proven``."""
    found = proven(path)
    if found is None:
        raise InputError(
            f"{path} is damaged (it is not what was written: cut off, or changed since); the command that made it "
            "makes it again: `tag2mask train --resume`, `refine` or `segment`."
        )
    return found


def write_described(path: Path, content: bytes) -> None:
    """Write a single file, atomically, and describe it."""
    record(path, Written(len(content), sha256(content).hexdigest()))
    write_bytes(path, content)


def write_result(path: Path, value: Any) -> None:
    """Write JSON and describe it; not-a-number is not JSON and must have been replaced."""
    write_described(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
