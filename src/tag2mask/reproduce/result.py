"""What an item found: figures of ours beside the paper's, with all that a figure needs to be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tag2mask.runs import read_json, versions, write_json, write_text

RUNS_ARE_MISSING = "not computed, as runs are missing."
"""Said of a claim that no figure was held against."""
VERDICTS = {True: "agrees", False: "does not agree", None: "cannot be told here"}


@dataclass(frozen=True)
class Table:
    """Rows of cells under a caption."""

    caption: str
    """Set, split, number of images, protocol, seeds."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown."""
        lines = ["| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", self.caption])


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and what came out here."""

    paper: str
    ours: str
    agrees: bool | None
    """None where it cannot be told here."""
    about: str = ""
    """The set that it was held against."""

    def markdown(self) -> str:
        """One item of a list."""
        return f"- {self.paper} **{VERDICTS[self.agrees]}**: {self.ours}"


def with_untold(
    claims: Sequence[Claim], sentences: Sequence[str], sets: Sequence[str], why: str = RUNS_ARE_MISSING
) -> tuple[Claim, ...]:
    """Claims, and those of the paper's sentences that none of them holds against a set; without sets, all of them.

    Args:
        why: they are untold, one sentence.
    """
    told = {(claim.paper, claim.about) for claim in claims}
    untold = [(sentence, name) for name in sets or ("",) for sentence in sentences if (sentence, name) not in told]
    about = {name: f"{why.removesuffix('.')} ({name})." if name else why for name in sets or ("",)}
    return (*claims, *(Claim(sentence, about[name], None, name) for sentence, name in untold))


@dataclass(frozen=True)
class Result:
    """One table or figure."""

    name: str
    """table1, fig8 ..."""
    title: str
    command: str
    """The command that computes it."""
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    """For the JSON: ours, the paper's, difference, protocol, seeds."""
    pictures: tuple[str, ...] = ()
    """File names of PNGs beside the Markdown; each with an SVG of the same stem."""
    notes: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the runs: those of the first, by its name, and what is different in each other one."""
    missing: dict[str, str] = field(default_factory=dict)
    """Runs that could not be computed, and why; figures that would need them are left out."""

    def markdown(self) -> str:
        """The whole of it, to be read by itself."""
        parts = [f"# {self.title}", f"    {self.command}"]
        parts += [f"![{self.title}]({picture})" for picture in self.pictures]
        parts += [table.markdown() for table in self.tables]
        if self.claims:
            parts.append("\n".join(claim.markdown() for claim in self.claims))
        if self.notes:
            parts.append(self.notes)
        if self.missing:
            lines = [f"- {name}: {why}" for name, why in self.missing.items()]
            parts.append("\n".join(["**Could not be computed**, and is left out above:", "", *lines]))
        return "\n\n".join(parts) + "\n"

    def write(self, out: Path) -> None:
        """``NAME.json`` and ``NAME.md`` in a folder, each whole or not there."""
        write_json(
            out / f"{self.name}.json",
            {
                "name": self.name, "title": self.title, "command": self.command,
                "figures": without_nan(self.figures),
                "tables": [vars(table) for table in self.tables], "claims": [vars(claim) for claim in self.claims],
                "pictures": self.pictures, "notes": self.notes, "missing": self.missing, "settings": self.settings,
                "versions": versions(),
            },
        )  # fmt: skip
        write_text(out / f"{self.name}.md", self.markdown())


def read_result(path: Path) -> Result:
    """What ``Result.write`` wrote as ``NAME.json``."""
    stored = read_json(path, "result")
    tables = tuple(
        Table(table["caption"], tuple(table["columns"]), tuple(tuple(row) for row in table["rows"]))
        for table in stored["tables"]
    )
    return Result(
        stored["name"], stored["title"], stored["command"], tables, tuple(Claim(**claim) for claim in stored["claims"]),
        stored["figures"], tuple(stored["pictures"]), stored["notes"], stored["settings"], stored["missing"],
    )  # fmt: skip


def without_nan(value: Any) -> Any:
    """The same with None where a number is not known, as JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
