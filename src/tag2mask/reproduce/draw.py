"""Charts for the page: matplotlib, colours and marks that do not need colour vision, a PNG and an SVG of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tag2mask.errors import InputError

COLOURS = {
    "cam": "#777777", "continued": "#0072b2", "halo": "#e69f00", "sharpen": "#cc79a7", "paper": "#56b4e9",
    "fpr": "#d55e00", "wood": "#009e73", "focal": "#f0e442",
}  # fmt: skip
"""Of M. Okabe and K. Ito's palette, told apart by people without red-green vision."""
MARKS = {"cam": "o", "continued": "s", "halo": "^", "sharpen": "v", "paper": "D", "fpr": "P", "wood": "X", "focal": "*"}


@contextmanager
def picture(out: Path, name: str, width: float = 8.0, height: float = 4.0, **options: Any) -> Iterator[Any]:
    """Axes to draw on; on leaving, ``name.png`` and ``name.svg`` are written.

    Args:
        width, height: inches.
        options: of ``subplots``, such as ``ncols``.

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

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **options)
    try:
        yield axes
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / f"{name}.png", dpi=150)
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})
    finally:
        pyplot.close(figure)


def plain(axes: Any) -> None:
    """No box around the chart, and faint lines to read heights by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
