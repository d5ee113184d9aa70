"""Figure 8: false discovery rate by class, FDR = FP / (TP + FP)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import COLOURS, picture, plain
from tag2mask.reproduce.over_seeds import OverSeeds, above, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import DataSet, Scale
from tag2mask.score.metrics import mean_of_known

METHODS = ("cam", "continued", "halo", "paper", "fpr")
SENTENCE = "FPR significantly decreases the false positives."


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM, for each set and seed."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=METHODS[1:]),
            frozenset({"evaluate"}),
        )
        for dataset in scale.sets
        for seed in scale.seeds
    ]  # fmt: skip


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """FDR by class and method."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, METHODS)
        if runs is None:
            continue
        by_method = {m: runs.by_class(m, protocol, "class_fdr") for m in METHODS}  # (seeds, C)
        rows = [
            (name, *(spread(list(by_method[m][:, c])) for m in METHODS)) for c, name in enumerate(runs.classes)
        ]
        rows.append(("mean", *(spread(list(mean_of_known(by_method[m], axis=1))) for m in METHODS)))
        columns = ("FDR", *(scale.titles[m] for m in METHODS))
        tables.append(Table(runs.caption(dataset, protocol), columns, tuple(rows)))
        mean = {m: mean_of_known(by_method[m], axis=0) for m in METHODS}  # (C,)
        control = np.fmin(mean["continued"], mean["halo"])
        lower, paper_lower = (int((mean[m] < control).sum()) for m in ("fpr", "paper"))
        overall = {m: list(-mean_of_known(by_method[m], axis=1)) for m in METHODS}  # less is better
        gains = above(overall["fpr"], overall["continued"], overall["halo"])
        told = (
            f"on {dataset.name} the mean FDR of {scale.titles['fpr']} is {-np.mean(overall['fpr']):.1f}, trained on "
            f"{-np.mean(overall['continued']):.1f}, of halo {-np.mean(overall['halo']):.1f}, of the paper's form "
            f"{-np.mean(overall['paper']):.1f}; lower than both controls{in_seeds(gains)}, and in {lower} of "
            f"{len(runs.classes)} classes (the paper's form in {paper_lower})."
        )
        claims.append(Claim(SENTENCE, told, verdict(gains), dataset.name))
        sets[dataset.name] = {m: dict(zip(runs.classes, mean[m].round(2).tolist(), strict=True)) for m in METHODS}
        name = f"fig8_{dataset.name}"
        draw(runs, mean, scale.titles, dataset, protocol, out, name)
        pictures.append(f"{name}.png")
    figures = {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}
    return Result(
        "fig8", "Figure 8: false discovery rate by class", command, tuple(tables),
        with_untold(claims, (SENTENCE,), scale.names), figures, tuple(pictures),
    )  # fmt: skip


def draw(
    runs: OverSeeds, mean: dict[str, np.ndarray], titles: dict[str, str], dataset: DataSet, protocol: str, out: Path,
    name: str,
) -> None:  # fmt: skip
    """Bars by class."""
    places = np.arange(len(runs.classes))
    width = 0.8 / len(METHODS)
    with picture(out, name, width=max(7, 0.7 * len(places))) as axes:
        for number, method in enumerate(METHODS):
            offset = (number - (len(METHODS) - 1) / 2) * width
            axes.bar(places + offset, mean[method], width, label=titles[method], color=COLOURS[method])
        axes.set_xticks(places, runs.classes, rotation=30, ha="right")
        axes.set_ylabel("false discovery rate, %")
        axes.set_title(f"{dataset.name}, protocol {protocol}, mean of {len(runs.folders)} seeds", fontsize=10)
        axes.legend(ncols=3, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        plain(axes)
