"""Table 5: what each term adds. BCE, focal BCE, L_RC, L_PR, both, and FPR with its controls beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.report.published import TABLE_5
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import Scale

ROWS = {
    "continued": ("BCE (trained on)", "continued"), "halo": ("halo, the push without prototypes", ""),
    "focal": ("focal BCE (Eq. 10)", "focal"), "rc": ("BCE + region contrast (Eq. 5)", "rc"),
    "pr": ("BCE + pixel rectification (Eq. 7)", ""), "paper": ("BCE + both, the paper's form (Eq. 9)", "fpr"),
    "fpr": ("", ""),
}  # fmt: skip
"""Method -> its name, if it is not what the scale calls it, and that of the paper's row; see ``rows_of``."""
FOCAL = "Focal BCE gains 0.6 over BCE."
REGION = "Region contrast gains 2.9."
BOTH = "Region contrast and pixel rectification together gain 4.8."


def rows_of(scale: Scale) -> dict[str, tuple[str, str]]:
    """``ROWS``; where FPR computes the paper's form itself, its row is that of the paper."""
    if scale.papers_form == "paper":
        return ROWS
    return ROWS | {"paper": ("BCE + both, weights for short trainings", ""), "fpr": ("", "fpr")}


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM with every term, for each set and seed."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=tuple(ROWS)),
            frozenset({"evaluate"}),
        )
        for dataset in scale.sets
        for seed in scale.seeds
    ]  # fmt: skip


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """mIoU by term."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    rows_here = rows_of(scale)
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, tuple(ROWS))
        if runs is None:
            continue
        base = np.array(runs.values("continued", protocol, "miou"))
        rows, ours, drawn = [], {}, []
        for method, (name, published) in rows_here.items():
            title = name or scale.titles[method]
            values = runs.values(method, protocol, "miou")
            ours[method] = float(np.mean(values))
            gain = change(np.array(values) - base) if method != "continued" else ""
            paper = f"{TABLE_5[published]:.1f}" if published else "–"
            above = published and published != "continued"
            paper_gain = f"{TABLE_5[published] - TABLE_5['continued']:+.1f}" if above else ""
            matched = spread(runs.values(method, "matched", "miou"))
            rows.append((title, spread(values), gain, matched, paper, paper_gain))
            drawn.append(Dots(title, method, values, TABLE_5[published] if published else None))
        columns = ("terms", "mIoU", "above BCE", "matched mIoU*", "paper", "paper, above BCE")
        tables.append(Table(runs.caption(dataset, protocol), columns, tuple(rows)))
        pictures.append(f"table5_{dataset.name}.png")
        with picture(out, f"table5_{dataset.name}", 8, 3.4) as axes:
            dots(axes, drawn, f"mIoU, {protocol}; {dataset.name}, {len(runs.folders)} seeds")
        sets[dataset.name] = {
            "ours": ours, "paper": TABLE_5,
            "difference": {m: round(ours[m] - TABLE_5[p], 2) for m, (_, p) in rows_here.items() if p},
        }  # fmt: skip
        for method, sentence in (("focal", FOCAL), ("rc", REGION), (scale.papers_form, BOTH)):
            values, gains = runs.values(method, protocol, "miou"), runs.gain(protocol, method)
            over_bce = list(np.array(values) - base)
            over_halo = change(np.subtract(values, runs.values("halo", protocol, "miou")))
            told = (
                f"{change(over_bce)} over BCE on {dataset.name}{in_seeds(over_bce)}, {over_halo} over halo; over both"
                f"{in_seeds(gains)}."
            )
            claims.append(Claim(sentence, told, verdict(gains), dataset.name))
    figures = {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}
    return Result(
        "table5", "Table 5: what each term adds", command, tuple(tables),
        with_untold(claims, (FOCAL, REGION, BOTH), scale.names), figures, tuple(pictures),
    )  # fmt: skip
