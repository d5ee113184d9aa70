"""What can be wrong with the files of a data set, and how it is told: where, what, what to do.

Faults travel as a ``DataError``, which is an ``InputError`` that keeps its ``Finding``: a reader raises the first one,
``tag2mask.data.check`` collects them all.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tag2mask.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd, about a data set."""

    severity: Literal["error", "warning"]
    where: str
    """File, and row where it has rows."""
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.todo}."


class DataError(InputError):
    """An ``InputError`` with its finding. It takes one string, so that it survives a worker process."""

    finding: Finding


def fault(where: str | Path, what: str, todo: str) -> DataError:
    """The exception for an error finding; the caller raises it."""
    finding = Finding("error", str(where), what, todo)
    error = DataError(str(finding))
    error.finding = finding
    return error


def raise_first(findings: Sequence[Finding], root: Path) -> None:
    """Raise an ``InputError`` with the first error finding and the number of the others; warnings do not raise."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    more = (
        f" And {len(errors) - 1} more: run `tag2mask check {root}` to see them all."
        if len(errors) > 1
        else ""
    )
    raise InputError(f"{errors[0]}{more}")


def normal(name: str) -> str:
    """The form in which names are compared: NFC, no white space around. macOS writes NFD, nearly all others NFC."""
    return unicodedata.normalize("NFC", name).strip()


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, with or without a byte-order mark; lines end in `\\n`.

    Raises ``DataError`` if the file is missing, empty or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise fault(path, "there is no such file", "create it, or correct the path in the settings") from None
    except OSError as error:
        raise fault(
            path, f"the file cannot be read ({error.strerror})", "check the path and its permissions"
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise fault(f"{path}, row {row}", "the text is not UTF-8", "save the file as UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise fault(path, "the file is empty", "fill it, or restore it from where it came")
    return text


class Folder:
    """Finds files by relative path, whatever Unicode form either side uses; remembers the listings it needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, dict[str, str]] = {}
        self._real: dict[Path, Path] = {}

    def find(self, relative: str) -> Path | None:
        """Path of an existing file (or dangling link), or None."""
        exact = self.root / relative
        if os.path.lexists(exact):
            return exact
        path = self.root
        for part in PurePosixPath(relative).parts:
            name = self._listing(path).get(normal(part))
            if name is None:
                return None
            path = path / name
        return path

    def real(self, path: Path) -> Path:
        """A path in the folder with its links followed; folders are looked at once."""
        if path.parent not in self._real:
            self._real[path.parent] = Path(os.path.realpath(path.parent))
        whole = self._real[path.parent] / path.name
        return Path(os.path.realpath(whole)) if whole.is_symlink() else whole

    def similar(self, relative: str) -> str | None:
        """Name of a file beside the missing one that differs by case or suffix alone, the two usual slips."""
        path = PurePosixPath(relative)
        return self._listing(self.root / path.parent).get(_loose(path.name))

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except OSError:  # no such folder: nothing is in it
                names = []
            loose = {_loose(name): name for name in names}
            self._listings[folder] = loose | {normal(name): name for name in names}
        return self._listings[folder]


def _loose(name: str) -> str:
    # The leading slash cannot stand in a file name, so loose keys never meet exact ones in one dictionary.
    return "/" + PurePosixPath(normal(name)).stem.casefold()
