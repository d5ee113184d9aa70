"""Figures as a table on the terminal. Every figure stands with its protocol, split, seeds and number of images."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

TITLES = {
    "cam": "CAM", "continued": "CAM trained on", "focal": "focal BCE", "halo": "halo (no prototypes)",
    "sharpen": "sharpen (no prototypes)",
    "rc": "region contrast (RC)", "pr": "pixel rectification (PR)", "paper": "RC + PR, the paper's form",
    "training_free": "FPR without training", "fpr": "FPR, the default", "imported": "imported maps",
    "wood": "W-OoD (photos without classes)", "eps": "EPS (saliency maps)", "clims": "CLIMS (CLIP)",
}  # fmt: skip
"""How methods are called in tables and reports."""
STAGES = {"seed": "maps", "crf": "+ CRF", "irn": "+ IRN", "psa": "+ PSA"}
"""How stages are called; a segmenter is called after the masks it has learnt from."""
COLUMNS = ("gtfree", "fixed", "matched", "oracle")


def print_summary(summary: dict[str, Any]) -> None:
    """Print the methods of a summary, a row each."""
    seeds = summary["seeds"]
    by = f" of maps by {summary['attribution']}" if "attribution" in summary else ""
    table = Table(
        title=f"mIoU by threshold protocol{by}; {summary['images']} images, split {summary['split']}, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})",
        caption="gtfree and fixed read no mask; matched and oracle choose their threshold with the masks "
        "(diagnostics). FDR: false discovery rate. Leak: predictions that lie on a context.",
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    table.add_column("method", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("precision", "recall", "FDR", "leak"):
        table.add_column(f"{column}\nmatched", justify="right", no_wrap=True)
    for method, figures in summary["methods"].items():
        cells = [cell(figures[protocol]["miou"], len(seeds)) for protocol in COLUMNS]
        cells += [
            cell(figures["matched"][name], len(seeds)) for name in ("precision", "recall", "fdr", "leak")
        ]
        table.add_row(TITLES[method], *cells)
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    tags = summary.get("tags", {})
    if any(tags.values()):
        console.print(tag_table(tags, summary))


def stage_title(stage: str) -> str:
    """``segmenter:irn`` as a person would say it."""
    return STAGES.get(stage) or f"segmenter, from {STAGES[stage.partition(':')[2]].removeprefix('+ ')}"


def tag_table(tags: dict[str, Any], summary: dict[str, Any]) -> Table:
    """The image-level figures: does the classifier still classify?"""
    seeds = len(summary["seeds"])
    table = Table(
        title=f"Tags; {summary['images']} images, split {summary['split']}, {seeds} seed{'s' if seeds > 1 else ''}",
        caption="BCE: Eq. 1. Absent: mean probability of absent classes. mAP: mean average precision, percent.",
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for column in ("method", "BCE", "absent", "mAP"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for method, figures in tags.items():
        cells = [cell(figures["bce"], seeds, 4), cell(figures["absent_probability"], seeds, 4)]
        table.add_row(TITLES[method], *cells, cell(figures["mean_average_precision"], seeds))
    return table


def cell(figure: dict[str, float | None], seeds: int, digits: int = 1) -> str:
    """``49.5 ±0.3``; without deviation for one seed; a dash where nothing is known."""
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:.{digits}f}" + (f" ±{figure['std']:.{digits}f}" if seeds > 1 else "")
