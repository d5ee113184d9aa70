"""The figures of a run, read from summary.json and details.json, as rows of tables and charts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.runs import read_json
from tag2mask.score import NEEDS_MASKS
from tag2mask.stages.evaluate import REFERENCES
from tag2mask.stages.table import COLUMNS, TITLES, cell

SHOWN = ("cam", "continued", "halo", "fpr")
"""Methods in bars and pictures, where the run has them."""
MOST_SHOWN = 4
PROTOCOL_TEXTS = {
    "gtfree": "threshold by a rule on the maps alone (minimum cross-entropy, not below what absent classes reach)",
    "fixed": "one threshold for all, 0.30 of a map's maximum",
    "matched": "threshold at which the predicted area equals the true area",
    "oracle": "threshold with the best mIoU",
}
COLUMN_TITLES = {
    "miou": "mIoU", "precision": "precision", "recall": "recall", "fdr": "FDR", "leak": "leak", "threshold": "threshold"
}  # fmt: skip
MOST_CONTEXTS = 9
"""Columns of the context tables."""
SMALLEST_SHARE = 0.5
"""Percent below which a share of a context is left blank."""


@dataclass(frozen=True)
class Figures:
    """What `tag2mask evaluate` wrote about one split."""

    summary: dict[str, Any]
    details: dict[str, Any]

    @property
    def split(self) -> str:
        """Name of the images' split."""
        return str(self.summary["split"])

    @property
    def seeds(self) -> list[int]:
        """Seeds, ascending."""
        return list(self.summary["seeds"])

    @property
    def methods(self) -> list[str]:
        """Methods, in the order of the run."""
        return list(self.summary["methods"])

    def mean(self, method: str, protocol: str, name: str) -> float | None:
        """Mean over seeds of a figure; None where the method or the figure is not there."""
        figure = self.summary["methods"].get(method, {}).get(protocol, {}).get(name)
        return None if figure is None else figure["mean"]

    def text(self, method: str, protocol: str, name: str) -> str:
        """``49.5 ±0.3``, as in every table of this program."""
        figure = self.summary["methods"][method][protocol].get(name, {"mean": None, "std": None})
        if name == "threshold" and figure["mean"] is not None:
            return f"{figure['mean']:.2f}"
        return cell(figure, len(self.seeds))

    def by_seed(self, method: str, protocol: str, name: str) -> np.ndarray:
        """An array of details.json for every seed, (seeds, ...) float with NaN for what is not known."""
        return np.array(
            [self.details["by_seed"][str(seed)][method][protocol][name] for seed in self.seeds], dtype=float
        )

    def tells(self, name: str) -> bool:
        """Whether details.json has a figure by class; one that an earlier version wrote lacks the later ones."""
        return all(name in scored["matched"] for seed in self.details["by_seed"].values() for scored in seed.values())

    def difference(self, seed: int, reference: str, protocol: str) -> dict[str, float] | None:
        """Paired difference of mIoU, ``fpr`` minus a control, of one seed."""
        found = self.details.get("differences", {}).get(str(seed), {}).get(reference, {})
        return found.get(protocol)

    @property
    def stamp(self) -> str:
        """What stands beside every figure."""
        several = "s" if len(self.seeds) > 1 else ""
        return f"split {self.split}, {self.summary['images']} images, seed{several} {', '.join(map(str, self.seeds))}"


def read_figures(run: Path) -> list[Figures]:
    """Figures of the split that was trained on, then of others; empty when nothing was scored."""
    found = []
    for path in [run / "summary.json", *sorted(run.glob("summary.*.json"))]:
        details = path.with_name(path.name.replace("summary", "details", 1))
        if path.is_file() and details.is_file():
            found.append(Figures(read_json(path, "summary"), read_json(details, "details")))
    return found


def shown(methods: list[str]) -> list[str]:
    """The methods for bars and pictures: the usual four, filled up with others of the run, in the run's order."""
    others = [method for method in methods if method not in SHOWN]
    chosen = {*(method for method in methods if method in SHOWN)}
    chosen |= set(others[: MOST_SHOWN - len(chosen)])
    return [method for method in methods if method in chosen]


def short(method: str) -> str:
    """A method's title for narrow places, without what follows a bracket or comma."""
    return TITLES[method].split(" (")[0].split(",")[0]


def known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN, without a warning, where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def signed(value: float) -> str:
    """``+3.2``, ``−1.5`` with a real minus sign, ``0.0``."""
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def best(figures: Figures, protocol: str, name: str) -> set[str]:
    """Methods with the highest mean of a figure, as it is printed."""
    values = {method: figures.mean(method, protocol, name) for method in figures.methods}
    known = {method: round(value, 1) for method, value in values.items() if value is not None}
    return {method for method, value in known.items() if value == max(known.values())}


def miou_table(figures: Figures) -> list[dict[str, Any]]:
    """A row for each method: mIoU under each protocol, and pixel AP."""
    tops = {protocol: best(figures, protocol, "miou") for protocol in COLUMNS}
    top_ap = best(figures, "matched", "pixel_ap")
    return [
        {
            "method": method,
            "title": TITLES[method],
            "cells": [
                {
                    "text": figures.text(method, protocol, "miou"),
                    "best": method in tops[protocol],
                    "protocol": protocol,
                    "diagnostic": protocol in NEEDS_MASKS,
                }
                for protocol in COLUMNS
            ],
            "pixel_ap": {"text": figures.text(method, "matched", "pixel_ap"), "best": method in top_ap},
        }
        for method in figures.methods
    ]


def protocol_tables(figures: Figures) -> list[dict[str, Any]]:
    """For each protocol a row for each method with all its figures."""
    columns = [
        name
        for name in COLUMN_TITLES
        if name != "leak" or any(figures.mean(method, "gtfree", "leak") is not None for method in figures.methods)
    ]
    return [
        {
            "name": protocol,
            "about": PROTOCOL_TEXTS[protocol],
            "diagnostic": protocol in NEEDS_MASKS,
            "columns": [COLUMN_TITLES[name] for name in columns],
            "rows": [
                {
                    "method": method,
                    "title": TITLES[method],
                    "cells": [figures.text(method, protocol, name) for name in columns],
                }
                for method in figures.methods
            ],
        }
        for protocol in COLUMNS
    ]


def difference_rows(figures: Figures) -> list[dict[str, Any]]:
    """FPR minus each control, by protocol and seed, with intervals placed on a common axis from 0 to 100."""
    found = [
        (reference, protocol, [(seed, figures.difference(seed, reference, protocol)) for seed in figures.seeds])
        for reference in REFERENCES
        for protocol in COLUMNS
    ]
    known = [entry for _, _, entries in found for _, entry in entries if entry is not None]
    if not known:
        return []
    reach = 1.1 * max(1.0, *(max(abs(entry["low"]), abs(entry["high"])) for entry in known))

    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    rows = []
    for reference, protocol, entries in found:
        intervals = [
            {
                "seed": seed,
                "text": signed(entry["difference"]),
                "interval": f"{signed(entry['low'])} to {signed(entry['high'])}",
                "low": place(entry["low"]),
                "high": place(entry["high"]),
                "middle": place(entry["difference"]),
                "verdict": verdict(entry),
            }
            for seed, entry in entries
            if entry is not None
        ]
        if intervals:
            rows.append(
                {
                    "reference": reference,
                    "title": TITLES[reference],
                    "protocol": protocol,
                    "diagnostic": protocol in NEEDS_MASKS,
                    "intervals": intervals,
                }
            )
    return rows


def verdict(entry: dict[str, float]) -> str:
    """Where the interval lies: ``above`` zero, ``below`` it, or ``open``."""
    if entry["low"] > 0:
        return "above"
    return "below" if entry["high"] < 0 else "open"


def class_rows(figures: Figures) -> list[dict[str, Any]]:
    """For each class IoU (gtfree) and false discovery rate (matched) of the methods that are shown."""
    methods = shown(figures.methods)
    names = [*figures.details["classes"], "background"]
    iou = {m: np.roll(known_mean(figures.by_seed(m, "gtfree", "iou")), -1) for m in methods}  # background last
    fdr = {m: np.append(known_mean(figures.by_seed(m, "matched", "class_fdr")), np.nan) for m in methods}
    return [
        {
            "name": name,
            "background": position == len(names) - 1,
            "iou": [bar(method, iou[method][position]) for method in methods],
            "fdr": [bar(method, fdr[method][position]) for method in methods],
        }
        for position, name in enumerate(names)
    ]


def bar(method: str, value: float) -> dict[str, Any]:
    """One bar of a chart; a value that is not known has no length."""
    known = not np.isnan(value)
    return {
        "method": method,
        "title": TITLES[method],
        "value": round(float(value), 2) if known else 0.0,
        "text": f"{value:.1f}" if known else "–",
    }


def context_tables(figures: Figures, own: tuple[int | None, ...] | None = None) -> dict[str, Any] | None:
    """Where predictions fall: shares of contexts for each method, and for each class before and after FPR.

    ``own`` is the context that belongs to each class, where the data knows it.
    """
    names = figures.details.get("contexts") or []
    if not names:
        return None
    shares, overall = {}, {}
    for method in figures.methods:
        by_class = figures.by_seed(method, "matched", "context_shares")  # (seeds, C, J)
        pixels = figures.by_seed(method, "matched", "predicted_pixels")[:, 1:]  # (seeds, C)
        total = np.maximum(pixels.sum(axis=1), 1)[:, None]  # (seeds, 1)
        overall[method] = ((np.nan_to_num(by_class) * pixels[:, :, None]).sum(axis=1) / total).mean(axis=0)  # (J,)
        shares[method] = known_mean(by_class)  # (C, J)
    order = np.argsort(-np.max(list(overall.values()), axis=0), kind="stable")[:MOST_CONTEXTS]
    chosen = sorted(int(j) for j in order)
    before = next((m for m in ("continued", "cam") if m in shares), figures.methods[0])
    after = "fpr" if "fpr" in shares else figures.methods[-1]
    classes = figures.details["classes"]
    return {
        "names": [names[j] for j in chosen],
        "left_out": len(names) - len(chosen),
        "own": own is not None,
        "overall": [
            {
                "method": method,
                "title": TITLES[method],
                "cells": [f"{overall[method][j]:.1f}" for j in chosen],
                "sum": f"{overall[method].sum():.1f}",
            }
            for method in figures.methods
        ],
        "before": TITLES[before],
        "after": TITLES[after],
        "classes": [
            {
                "name": name,
                "cells": [
                    {**change(shares[before][c, j], shares[after][c, j]), "own": own is not None and own[c] == j}
                    for j in chosen
                ],
            }
            for c, name in enumerate(classes)
        ]
        if before != after
        else [],
    }


def change(before: float, after: float) -> dict[str, Any]:
    """A cell ``before → after``, tinted by how much the share fell or rose; a dash where nothing is predicted."""
    if np.isnan(before) and np.isnan(after):
        return {"text": "", "tint": 0.0, "kind": "none"}
    if np.nan_to_num(before) < SMALLEST_SHARE and np.nan_to_num(after) < SMALLEST_SHARE:
        return {"text": "·", "tint": 0.0, "kind": "none"}
    text = " → ".join("–" if np.isnan(value) else f"{value:.0f}" for value in (before, after))
    if np.isnan(before) or np.isnan(after):
        return {"text": text, "tint": 0.0, "kind": "none"}
    moved = after - before
    return {"text": text, "tint": round(min(1.0, abs(moved) / 30), 2), "kind": "drop" if moved < 0 else "rise"}
