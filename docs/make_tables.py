"""Print the figures of a run as the Markdown tables of docs/results.md.

Run ``python docs/make_tables.py RUN [SPLIT]``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tag2mask.runs import read_json
from tag2mask.stages.table import TITLES, cell

PROTOCOLS = ("gtfree", "fixed", "matched", "oracle")


def methods_table(summary: dict[str, Any]) -> list[str]:
    """A row for each method."""
    lines = [
        "| method | gtfree | fixed .30 | matched* | oracle* | precision* | recall* | FDR* | leak* | pixel AP |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, figures in summary["methods"].items():
        seeds = len(summary["seeds"])
        cells = [cell(figures[protocol]["miou"], seeds) for protocol in PROTOCOLS]
        cells += [cell(figures["matched"][name], seeds) for name in ("precision", "recall", "fdr", "leak", "pixel_ap")]
        lines.append(f"| {TITLES[method]} | " + " | ".join(cells) + " |")
    return lines


def class_means(details: dict[str, Any], method: str, field: str) -> list[float | None]:
    """A field by class at matched area, averaged over seeds."""
    seeds = [details["by_seed"][seed][method]["matched"][field] for seed in details["by_seed"]]
    known = [[value for value in values if value is not None] for values in zip(*seeds, strict=True)]
    return [sum(values) / len(values) if values else None for values in known]


def fdr_table(details: dict[str, Any], title: str, field: str) -> list[str]:
    """False discovery rate by class at matched area: of the foreground as a whole, or of each class."""
    shown = ("cam", "continued", "halo", "sharpen", "paper", "fpr")
    methods = [method for method in shown if method in next(iter(details["by_seed"].values()))]
    lines = [f"| FDR, {title}* | " + " | ".join(details["classes"]) + " |", "|---|" + "---|" * len(details["classes"])]
    for method in methods:
        values = class_means(details, method, field)
        cells = ["-" if value is None else f"{value:.0f}" for value in values]
        lines.append(f"| {TITLES[method]} | " + " | ".join(cells) + " |")
    return lines


def difference_lines(details: dict[str, Any]) -> list[str]:
    """FPR minus each control with the bootstrap interval of each seed."""
    lines = ["| FPR minus | protocol | by seed: difference [95 % interval] |", "|---|---|---|"]
    seeds = list(details["differences"])
    for name in details["differences"][seeds[0]]:
        for protocol in ("gtfree", "matched"):
            rows = [details["differences"][seed][name][protocol] for seed in seeds]
            cells = "; ".join(f"{r['difference']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]" for r in rows)
            lines.append(f"| {TITLES[name]} | {protocol} | {cells} |")
    return lines


def context_table(details: dict[str, Any]) -> list[str]:
    """Share of the pixels predicted as some classes that lie on each context, CAM trained on -> FPR."""
    if not details["contexts"]:
        return []
    lines = ["| predicted as | " + " | ".join(details["contexts"]) + " |", "|---|" + "---|" * len(details["contexts"])]
    before, after = (
        [
            [sum(v or 0.0 for v in cells) / len(cells) for cells in zip(*rows, strict=True)]
            for rows in zip(
                *(seed[method]["matched"]["context_shares"] for seed in details["by_seed"].values()), strict=True
            )
        ]
        for method in ("continued", "fpr")
    )
    for name, first, second in zip(details["classes"], before, after, strict=True):
        cells = [f"{a:.0f} → {b:.0f}" if max(a, b) >= 0.5 else "·" for a, b in zip(first, second, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main(run: Path, split: str = "") -> None:
    """Print all tables of a run."""
    suffix = f".{split}" if split else ""
    summary = read_json(run / f"summary{suffix}.json", "summary")
    details = read_json(run / f"details{suffix}.json", "details")
    seeds = ", ".join(map(str, summary["seeds"]))
    print(f"mIoU in percent; split {summary['split']}, {summary['images']} images, seeds {seeds}.\n")
    scored = next(iter(next(iter(details["by_seed"].values())).values()))["matched"]
    own_area = "class_fdr_own_area" in scored  # a run that was evaluated earlier lacks it
    for lines in (
        methods_table(summary),
        difference_lines(details),
        fdr_table(details, "matched", "class_fdr"),
        fdr_table(details, "matched by class", "class_fdr_own_area") if own_area else [],
        context_table(details),
    ):
        print("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
