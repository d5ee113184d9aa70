"""Tables of tags as records of texts: CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.data.files import fault, read_text
from tag2mask.errors import InputError

COLUMNS = ("image", "labels", "tags", "split")
"""What is read of a Parquet table, which may hold large columns besides."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
FORMS = (*SEPARATORS, ".parquet")
"""What a table may be, by the suffix of its file; any other suffix is read as CSV."""


def read_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The place (file and row) and the cells of each record that is not blank; the first one names the columns.

    Names in a list, which Parquet can hold, come joined by `;`. Raises ``DataError`` when the file is missing or is no
    table; of a damaged CSV file after the records before the damage. ``InputError`` when pyarrow is not installed.
    """
    if not path.is_file():
        todo = "create it, with columns called image and labels, or correct the path in the settings"
        raise fault(path, "there is no such file", todo)
    return _parquet_records(path) if path.suffix.lower() == ".parquet" else _text_records(path)


def separator(path: Path) -> str:
    """What stands between the cells of a text table."""
    return SEPARATORS.get(path.suffix.lower(), ",")


def _text_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path)), delimiter=separator(path), strict=True)
    row = 1  # where the record begins: a quoted cell may go over several lines
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            where = f"{path}, row {row}"
            row = reader.line_num + 1
            if any(cells):
                yield where, cells
    except csv.Error as error:
        form = "TSV" if separator(path) == "\t" else "CSV"
        raise fault(
            f"{path}, row {row}", f"this is not {form} ({error})", 'close every quote, and write `""` for one inside'
        ) from None


def _parquet_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(
            f"{path} needs the package pyarrow, which is not installed; run `pip install 'tag2mask[parquet]'`, or save "
            "the table as CSV."
        ) from None
    try:
        with ParquetFile(path) as file:
            every = list(file.schema_arrow.names)
            names = [name for name in every if name.casefold() in COLUMNS]
            yield f"{path}, the columns", names or every
            row = 0
            for batch in file.iter_batches(columns=names):
                for record in batch.to_pylist():
                    row += 1
                    where = f"{path}, row {row}"
                    yield where, [_text(record[name], name, where) for name in names]
    except (ArrowException, OSError) as error:
        raise fault(path, f"this is not a Parquet file ({error})", "save the table again") from None


def _text(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        for name in value:
            if not isinstance(name, str) or ";" in name:
                raise fault(
                    where, f"column {column} holds {name!r} in a list", "write names there, without a `;` in them"
                )
        return ";".join(value)
    if not isinstance(value, str):
        raise fault(where, f"column {column} holds {value!r}", "write a text, or for tags a list of texts")
    return value.strip()
