"""All results in one page, to browse without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from tag2mask.reproduce.result import Result
from tag2mask.runs import versions, write_text


def write_page(results: Sequence[Result], out: Path) -> Path:
    """``index.html`` with tables, claims and pictures of all results, and the command of each."""
    environment = Environment(loader=PackageLoader("tag2mask.reproduce", "."), autoescape=select_autoescape())
    page = environment.get_template("page.html").render(results=results, versions=versions())
    path = out / "index.html"
    write_text(path, page)
    return path
