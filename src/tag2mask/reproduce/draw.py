"""Charts for the page: matplotlib, colours and marks that do not need colour vision, a PNG and an SVG of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import InputError

COLOURS = {
    "cam": "#777777", "continued": "#0072b2", "halo": "#e69f00", "sharpen": "#cc79a7", "paper": "#56b4e9",
    "fpr": "#d55e00", "wood": "#009e73", "focal": "#b8a900", "rc": "#882255", "pr": "#332288",
}  # fmt: skip
"""Most of M. Okabe and K. Ito's palette, told apart by people without red-green vision; marks tell them apart too."""
MARKS = {
    "cam": "o", "continued": "s", "halo": "^", "sharpen": "v", "paper": "D", "fpr": "P", "wood": "X", "focal": "*",
    "rc": "<", "pr": ">",
}  # fmt: skip


def charts() -> Any:
    """Matplotlib's ``pyplot``, which draws into files alone.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("figures need matplotlib; run `pip install 'tag2mask[figures]'`.") from error
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tag2mask"  # the same figures give the same file
    from matplotlib import pyplot

    return pyplot


@contextmanager
def picture(out: Path, name: str, width: float = 8.0, height: float = 4.0, **options: Any) -> Iterator[Any]:
    """Axes to draw on; on leaving, ``name.png`` and ``name.svg`` are written.

    Args:
        width, height: inches.
        options: of ``subplots``, such as ``ncols``.
    """
    pyplot = charts()
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **options)
    try:
        yield axes
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / f"{name}.png", dpi=150)
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})
    finally:
        pyplot.close(figure)


@dataclass(frozen=True)
class Dots:
    """A row of ``dots``: a figure over seeds, beside the paper's."""

    title: str
    method: str
    """Gives colour and mark."""
    values: Sequence[float]
    paper: float | None = None


def dots(axes: Any, rows: Sequence[Dots], figure: str) -> None:
    """Rows from above: mean and deviation over seeds; a grey bar is the paper's figure, which is of another set."""
    for place, row in enumerate(rows):
        known = [value for value in row.values if np.isfinite(value)]
        if row.paper is not None:
            axes.plot([row.paper], [place], "|", color="#555555", markersize=13, markeredgewidth=2)
        if known:
            error = np.std(known, ddof=1) if len(known) > 1 else 0.0
            axes.errorbar(
                [np.mean(known)], [place], xerr=error, color=COLOURS[row.method], marker=MARKS[row.method],
                linestyle="none", markersize=7, capsize=3,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(figure)
    axes.locator_params(axis="x", nbins=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if any(row.paper is not None for row in rows):
        axes.plot([], [], "|", color="#555555", markersize=13, markeredgewidth=2, label="the paper, PASCAL VOC or COCO")
        axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def plain(axes: Any) -> None:
    """No box around the chart, and faint lines to read heights by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
