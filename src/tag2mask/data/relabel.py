"""A data set's label file with some tags changed, in the form that its reader takes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tag2mask.config import DataConfig
from tag2mask.data.files import fault, normal, read_text
from tag2mask.data.folder import read_folder, table_file
from tag2mask.data.rows import Row
from tag2mask.data.tables import read_records, separator
from tag2mask.data.voc import read_voc, voc_names, voc_splits


@dataclass(frozen=True)
class Change:
    """One tag that is put on an image or taken from it."""

    image: str
    """Id of the image."""
    name: str
    """Name of the class."""
    present: bool
    """Whether the image has the tag afterwards."""


def label_file(config: DataConfig) -> Path:
    """Where the tags of photos stand: a table, a JSON file, or a folder of XML files. The data must have opened.

    Raises ``InputError`` where there is no file of tags that could be written anew: the other kinds of data.
    """
    root = Path(config.root)
    if config.kind == "folder":
        return table_file(config)
    if config.kind != "voc":
        what = f"data.kind is {config.kind!r}, whose tags are in no table that could be written anew"
        raise fault(config.root, what, "accepted changes are made in a CSV, TSV or Parquet table, or in VOC's layout")
    if config.labels:
        return root / config.labels
    return root / "Annotations" if (root / "Annotations").exists() else root / "labels.json"


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a folder of XML files that of their names and contents, in the order of the names."""
    content = hashlib.sha256()
    for file in sorted(path.glob("*.xml")) if path.is_dir() else [path]:
        if path.is_dir():
            content.update(file.name.encode())
        content.update(file.read_bytes())
    return content.hexdigest()


def relabelled(config: DataConfig, changes: Sequence[Change]) -> str:
    """Text of the label file of ``config`` with ``changes`` made; whatever is not changed stays.

    folder: CSV with the same columns and rows, also where the table is TSV or Parquet. voc: the JSON form, also where
    the tags stood in XML files: it then has the images of every list.
    """
    by_image: dict[str, list[Change]] = {}
    for change in changes:
        by_image.setdefault(change.image, []).append(change)

    def changed(image: str, names: Sequence[str]) -> list[str]:
        for change in by_image.get(image, ()):
            others = [name for name in names if normal(name) != change.name]
            names = [*others, change.name] if change.present else others
        return list(names)

    if config.kind == "folder":
        return _table_text(config, changed)
    source = label_file(config)
    content = _content_of_boxes(config) if source.is_dir() else json.loads(read_text(source))
    key = next(name for name in content if normal(name) == "labels")
    content[key] = {image: changed(normal(image), names) for image, names in content[key].items()}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _table_text(config: DataConfig, changed: Callable[[str, Sequence[str]], list[str]]) -> str:
    path = table_file(config)
    if path.suffix.lower() == ".parquet":
        records = [cells for _, cells in read_records(path)]
    else:
        records = list(csv.reader(io.StringIO(read_text(path)), delimiter=separator(path), strict=True))
    header, *body = [record for record in records if any(cell.strip() for cell in record)]
    column = next(i for i, cell in enumerate(header) if cell.strip().casefold() in ("labels", "tags"))
    rows = [entry for entry in read_folder(config).entries if isinstance(entry, Row)]  # one for each record
    for record, row in zip(body, rows, strict=True):
        names = changed(row.id, row.names)
        if names != list(row.names):
            record[column] = ";".join(names)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()


def _content_of_boxes(config: DataConfig) -> dict[str, Any]:
    labels: dict[str, list[str]] = {}
    for split in voc_splits(config):
        rows = read_voc(replace(config, split=split)).entries
        labels |= {row.id: list(row.names) for row in rows if isinstance(row, Row)}
    return {"classes": list(voc_names(config)), "labels": labels}
