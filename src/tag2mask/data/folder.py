"""The layout of a person with photos and tags: pictures in a folder and a table.

labels.csv      columns image, labels (or tags; names joined by `;`, may be empty) and, if wanted, split; or
labels.tsv      the same with tabs between the cells; or
labels.parquet  the same columns; the tags may also be a list of texts
classes.txt     if wanted: one class name a line; else all names in the tags, sorted
superclasses.yaml   if wanted: {super-class: [class, ...]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from sys import intern

from tag2mask.config import DataConfig
from tag2mask.data.classes import read_classes
from tag2mask.data.files import DataError, Finding, fault, normal
from tag2mask.data.images import TaggedImages
from tag2mask.data.rows import Row, Source, id_of, inside, open_rows
from tag2mask.data.tables import FORMS, read_records

ALL = "all"
"""The split that keeps every row."""


def open_folder(config: DataConfig) -> TaggedImages:
    """The tagged images of ``config.root``, rows of ``config.split``. Looks at every row and whether every
    picture is there; an ``InputError`` names the first fault (file and row) and says how many more there are."""
    return open_rows(config, read_folder(config))


def table_file(config: DataConfig) -> Path:
    """The table of tags: the one that is named, else ``labels.csv``, ``.tsv`` or ``.parquet``."""
    root = Path(config.root)
    if config.labels:
        return root / config.labels
    there = [root / f"labels{suffix}" for suffix in FORMS if (root / f"labels{suffix}").exists()]
    if len(there) > 1:
        names = " and ".join(path.name for path in there)
        raise fault(root, f"there are {names}", "name one of them in data.labels")
    return there[0] if there else root / "labels.csv"


def read_folder(config: DataConfig) -> Source:
    """The rows of the table, no picture looked at. Raises ``DataError`` when there is no table to read."""
    root = Path(config.root)
    path = table_file(config)
    if not root.is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    entries: list[Row | Finding] = []
    names: tuple[str, ...] = ()
    named = (root / "classes.txt").exists()
    if named:
        try:
            names = read_classes(root / "classes.txt")
        except DataError as error:
            entries.append(error.finding)
    splits: Counter[str] = Counter()
    table = list(_rows(path, config.split, splits))
    entries += table
    rows = [entry for entry in table if isinstance(entry, Row)]
    if not table:
        entries.append(
            fault(path, "the table has no rows below its header", "add a row for each image").finding
        )
    if splits and config.split not in splits and config.split != ALL:
        todo = f"set data.split to one that there is ({', '.join(sorted(splits))}), or to `{ALL}`"
        entries.append(fault(path, f"no row has the split {config.split!r}", todo).finding)
    if not named:
        every = {normal(name) for row in rows for name in row.names}
        # `boat, person` is no class where boat and person are: its row becomes an error, which says what joins names.
        names = tuple(sorted(name for name in every if not _joined(name, every)))
        entries += _odd_names(names, path)
        if rows and not names:
            entries.append(fault(path, "no image has a tag", "write class names, joined by `;`").finding)
    return Source(names, entries, str(path), splits=splits)


def _rows(path: Path, split: str, splits: Counter[str]) -> Iterator[Row | Finding]:
    """One entry for each row; counts in ``splits`` the rows of each split that the table names."""
    columns: dict[str, int] | None = None
    width = 0
    try:
        for where, cells in read_records(path):
            if columns is None:
                columns, width = _columns(cells, where, split), len(cells)
                continue
            try:
                yield _row(cells, columns, width, where, split, splits)
            except DataError as error:
                yield error.finding
    except DataError as error:
        if columns is None:
            raise
        yield error.finding


def _columns(header: list[str], where: str, split: str) -> dict[str, int]:
    """Position of image, labels and, if there, split in the header."""
    names = [cell.casefold() for cell in header]
    found = f"the columns are {', '.join(repr(cell) for cell in header)}"
    if len(header) == 1 and any(mark in header[0] for mark in ",;\t"):
        raise fault(where, f"{found}: one column", "separate the columns by commas, or by tabs in a .tsv file")
    if "labels" in names and "tags" in names:
        raise fault(where, "there are both columns labels and tags", "keep one of the two")
    names = ["labels" if name == "tags" else name for name in names]
    for name, wanted in (("image", "image"), ("labels", "labels (or tags)")):
        if name not in names:
            raise fault(
                where, f"the column {wanted} is missing ({found})", "name the columns in the first row"
            )
    for name in ("image", "labels", "split"):
        if names.count(name) > 1:
            raise fault(where, f"there are {names.count(name)} columns {name}", "keep one of them")
    if "split" not in names and split not in ("train", ALL):
        raise fault(
            where, f"there is no column split to choose {split!r} by", f"add it, or set data.split to `{ALL}`"
        )
    return {name: names.index(name) for name in ("image", "labels", "split") if name in names}


def _row(
    cells: list[str], columns: dict[str, int], width: int, where: str, split: str, splits: Counter[str]
) -> Row:
    if len(cells) < width or any(cells[width:]):
        advice = "join several tags by `;`, or quote a cell that holds a comma"
        raise fault(where, f"the row has {len(cells)} cells, the header {width}", advice)
    row_split = split
    if "split" in columns:
        row_split = cells[columns["split"]]
        if not row_split:
            raise fault(where, "the cell of column split is empty", "write train, val or the like in every row")
        splits[row_split] += 1
    image = cells[columns["image"]]
    if not image:
        raise fault(where, "the cell of column image is empty", "write the path of the picture")
    path = inside(image, where)
    tags = tuple(intern(name) for cell in cells[columns["labels"]].split(";") if (name := cell.strip()))
    return Row(where, id_of(path), _files(path), tags, where, in_split=split in (row_split, ALL))


def _files(path: PurePosixPath) -> tuple[str, ...]:
    return (str(path),) if path.parts[0] == "images" else (str(path), f"images/{path}")


def _joined(name: str, names: set[str]) -> bool:
    parts = name.split(",")
    return len(parts) > 1 and all(normal(part) in names for part in parts)


def _odd_names(names: tuple[str, ...], path: Path) -> Iterator[Finding]:
    """Where no list of classes says what a class is: names that are probably slips."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            what = f"the classes {twin!r} and {name!r} differ by capitals alone"
            yield Finding("warning", str(path), what, "write them alike if they are one class")
        if any(mark in name for mark in ",|"):
            yield Finding("warning", str(path), f"one class is called {name!r}", "join several tags by `;`")
