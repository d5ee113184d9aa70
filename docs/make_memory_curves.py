"""Draw docs/pictures/memory.png and .svg from the tables of docs/scale.md: peak memory against the number of images.

Run ``python docs/make_memory_curves.py`` after the tables have changed.
"""

from __future__ import annotations

import re
from pathlib import Path

from tag2mask.reproduce.draw import picture, plain

DOCS = Path(__file__).parent
ROW = re.compile(r"^\| ([\d,]+) \|(.+)\|$")
CURVES = {
    "collection": ("#d55e00", "P"), "localize": ("#0072b2", "s"), "evaluate": ("#009e73", "X"),
    "evaluate before": ("#777777", "o"),
}  # fmt: skip
"""Colour and mark of each column of the table."""


def curves(page: str) -> dict[str, list[tuple[int, float]]]:
    """Name of a column -> (images, megabytes) of its rows; a dash is no figure."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in CURVES}
    for line in page.split("\n"):
        if match := ROW.match(line):
            cells = [cell.strip() for cell in match[2].split("|")]
            if len(cells) == len(CURVES):
                for name, cell in zip(CURVES, cells, strict=True):
                    if cell != "–":
                        found[name].append((int(match[1].replace(",", "")), float(cell)))
    return found


def main() -> None:
    """Write the two files."""
    with picture(DOCS / "pictures", "memory", 7.0, 3.6) as axes:
        for name, points in curves((DOCS / "scale.md").read_text(encoding="utf-8")).items():
            colour, mark = CURVES[name]
            style = "--" if name == "evaluate before" else "-"
            axes.plot(*zip(*points, strict=True), color=colour, marker=mark, linestyle=style, label=name)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("images")
        axes.set_ylabel("peak memory of the process, MB")
        axes.legend(frameon=False, loc="lower right")
        plain(axes)


if __name__ == "__main__":
    main()
