"""Decisions about suspected tags, made into a corrected label file that says where it came from."""

from __future__ import annotations

import csv
import io
import math
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tag2mask import __version__
from tag2mask.config import DataConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.files import fault, normal, read_text
from tag2mask.data.relabel import Change, fingerprint, label_file, relabelled
from tag2mask.errors import InputError
from tag2mask.runs import write_json, write_text
from tag2mask.stages.pipeline import read_settings

NEEDED = ("image", "class", "kind", "decision")
"""Columns that decisions must have; score and rule are passed on where they are there."""
DECISIONS = ("accept", "reject", "")
ADVICE = "use the file that the audit page saves, or suspects.csv with its column decision filled in"


@dataclass(frozen=True)
class Decision:
    """An accepted row: the change, and why it was suggested."""

    change: Change
    score: float | None
    rule: str


@dataclass(frozen=True)
class Corrected:
    """What was written."""

    labels: Path
    provenance: Path
    added: int
    removed: int
    next_run: str
    """The command of the same run on the corrected tags; its settings also say split, classes and network."""


def apply_decisions(run: Path, decisions: Path, out: Path) -> Corrected:
    """Write the run's label file with the accepted changes made, and ``OUT.provenance.json`` beside it.

    The label file of the run itself stays as it is. Raises ``InputError`` that names the row for whatever does not fit
    the run's images; nothing is written then.
    """
    data = read_settings(run).data
    if data.kind == "cooccur":
        raise InputError("the built-in scenes have no label file to correct; --apply is for photos (folder or voc).")
    images = open_images(data)
    source = label_file(data)
    if out.resolve() == source.resolve() or out.is_dir():
        raise InputError(f"--labels-out {out} is the label file itself or a folder; give another file.")
    accepted, rejected = read_decisions(decisions, images, data)
    if not accepted:
        raise InputError(f"{decisions} accepts nothing, so there is nothing to correct; write accept in its rows.")
    text = relabelled(data, [decision.change for decision in accepted])
    provenance = out.with_name(out.name + ".provenance.json")
    changes = [
        {
            "image": d.change.image, "class": d.change.name, "old": tag(not d.change.present),
            "new": tag(d.change.present), "score": d.score, "rule": d.rule,
        }
        for d in accepted
    ]  # fmt: skip
    note = {
        "labels": str(out), "source": str(source), "source_sha256": fingerprint(source), "run": str(run),
        "decisions": str(decisions), "decisions_sha256": fingerprint(decisions), "tool": f"tag2mask {__version__}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "rejected": rejected, "changes": changes,
    }  # fmt: skip
    write_json(provenance, note)  # first: labels never stand there without it
    write_text(out, text)
    added = sum(decision.change.present for decision in accepted)
    given = [data.root, "--config", str(run / "settings.yaml"), "--data.labels", str(out.resolve())]
    return Corrected(out, provenance, added, len(accepted) - added, f"tag2mask run {shlex.join(given)} --out NEW")


def tag(present: bool) -> str:
    """How the provenance says what an image was tagged."""
    return "tagged" if present else "not tagged"


def read_decisions(path: Path, images: TaggedImages, data: DataConfig) -> tuple[list[Decision], int]:
    """The accepted rows of a CSV file and the number of rejected ones. Raises ``InputError`` (file and row)."""
    numbers = {normal(name): number for number, name in enumerate(images.ids)}
    accepted: list[Decision] = []
    rejected = 0
    first_row: dict[tuple[str, int], str] = {}
    for where, row in read_rows(path):
        image, kind, decision = normal(row["image"]), row["kind"].strip(), row["decision"].strip().casefold()
        if decision not in DECISIONS:
            raise fault(where, f"unknown decision {row['decision']!r}", "write accept, reject, or nothing")
        if image not in numbers:
            raise fault(where, f"there is no image {image!r} in split {data.split!r} of {data.root}", ADVICE)
        class_index = images.classes.index(row["class"], where)
        if kind not in ("missing", "wrong"):
            raise fault(where, f"unknown kind {kind!r}", "write missing (put the tag on) or wrong (take it off)")
        if not decision:
            continue
        earlier = first_row.setdefault((image, class_index), where)
        if earlier != where:
            raise fault(where, f"{image!r}, {row['class']!r} is already decided in {earlier}", "keep one of the two")
        name, tagged = images.classes.names[class_index], bool(images.labels[numbers[image], class_index])
        if tagged == (kind == "missing"):
            state = "is" if tagged else "is not"
            what = f"{name!r} cannot be {kind}: {image!r} {state} tagged with it"
            raise fault(where, what, "the labels have changed since; run `tag2mask audit` again")
        if decision == "reject":
            rejected += 1
            continue
        score = number_or_none(row.get("score", ""), where)
        accepted.append(Decision(Change(image, name, kind == "missing"), score, row.get("rule", "")))
    return accepted, rejected


def read_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """File and row number, and cells by column, of each row of a CSV file of decisions."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    header: list[str] = []
    rows: list[tuple[str, dict[str, str]]] = []
    start = 1  # where the record begins: a quoted cell may go over several lines
    try:
        for record in reader:
            where, start = f"{path}, row {start}", reader.line_num + 1
            if not any(cell.strip() for cell in record):
                continue
            if not header:
                header = [cell.strip().casefold() for cell in record]
                lacking = [name for name in NEEDED if name not in header]
                if lacking:
                    raise fault(where, f"the column {lacking[0]} is missing", ADVICE)
            elif len(record) != len(header):
                raise fault(where, f"the row has {len(record)} cells, the header {len(header)}", ADVICE)
            else:
                rows.append((where, dict(zip(header, record, strict=True))))
    except csv.Error as error:
        raise fault(f"{path}, row {start}", f"this is not CSV ({error})", ADVICE) from None
    return rows


def number_or_none(text: str, where: str) -> float | None:
    """A score, or None where the cell is empty."""
    if not text.strip():
        return None
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise fault(where, f"the score {text!r} is not a number", ADVICE)
    return score
