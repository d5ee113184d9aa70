"""The scalars of section 4.3: classification loss, probability of absent classes, classes that improve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.report.published import ABSENT_PROBABILITY, BINARY_CROSS_ENTROPY, CLASSES_THAT_GAIN
from tag2mask.reproduce import fig8
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import DataSet, Scale
from tag2mask.score.metrics import mean_of_known

METHODS = fig8.METHODS
LOSSES = {
    "bce": ("classification loss, Eq. 1", BINARY_CROSS_ENTROPY),
    "absent_probability": ("probability of absent classes", ABSENT_PROBABILITY),
}
"""Figures of the tags: what they are, and the paper's."""
SENTENCES = (
    "FPR lowers the classification loss, from .0300 to .0248.",
    "FPR lowers the probability of absent classes, from .0120 to .0086.",
    f"{CLASSES_THAT_GAIN[0]} of {CLASSES_THAT_GAIN[1]} classes gain.",
    "Missing tags hurt FPR; its effect will improve where they are mended.",
)
MISSING = 0.1
"""Share of the tags that is removed at random, for the paper's limitation."""


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The runs of Figure 8, and the same with tags removed."""
    found = fig8.cells(scale, out)
    for dataset in scale.sets:
        for seed in scale.seeds:
            config = dataset.settings("cam", seed)
            config = replace(config, methods=METHODS[1:], tags=replace(config.tags, remove=MISSING))
            found.append(Cell(f"{dataset.name}/missing/seed{seed}", config, frozenset({"evaluate"})))
    return found


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """A row for each method."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, METHODS)
        if runs is None:
            continue
        iou = {m: runs.by_class(m, protocol, "iou")[:, 1:] for m in METHODS}  # (seeds, C)
        mean = {m: mean_of_known(iou[m], axis=0) for m in METHODS}  # (C,)
        better = {m: int((mean[m] > mean["continued"]).sum()) for m in METHODS}
        above_both = (iou["fpr"] > np.fmax(iou["continued"], iou["halo"])).sum(axis=1)  # (seeds,)
        rows, ours = [], {}
        for method in METHODS:
            loss, absent = runs.tags(method, "bce"), runs.tags(method, "absent_probability")
            ours[method] = {"bce": float(np.mean(loss)), "absent_probability": float(np.mean(absent))}
            row = "fpr" if method == "paper" else method  # the paper has one FPR, this program two
            paper = [f"{own[row]:.4f}" if row in own else "–" for _, own in LOSSES.values()]
            count = "" if method == "continued" else f"{better[method]} of {len(runs.classes)}"
            average = spread(runs.tags(method, "mean_average_precision"))
            rows.append((scale.titles[method], spread(loss, 4), paper[0], spread(absent, 4), paper[1], average, count))
        columns = ("", "BCE", "paper", "absent classes' probability", "paper", "mAP", "IoU above trained on")
        tables.append(Table(runs.caption(dataset, protocol), columns, tuple(rows)))
        pictures.append(f"scalars_{dataset.name}.png")
        with picture(out, f"scalars_{dataset.name}", 11, 3, ncols=2, sharey=True) as panels:
            for axes, (name, (about, published)) in zip(panels, LOSSES.items(), strict=True):
                drawn = [
                    Dots(scale.titles[m], m, runs.tags(m, name), published.get("fpr" if m == "paper" else m))
                    for m in METHODS
                ]
                dots(axes, drawn, f"{about}; {dataset.name}, {len(runs.folders)} seeds")
        sets[dataset.name] = {
            "ours": ours, "paper": {name: published for name, (_, published) in LOSSES.items()},
            "difference": {
                m: {name: round(ours[m][name] - own[row], 5) for name, (_, own) in LOSSES.items()}
                for m, row in (("cam", "cam"), ("paper", "fpr"), ("fpr", "fpr"))
            },
            "classes that gain": better,
        }  # fmt: skip
        for name, sentence in zip(LOSSES, SENTENCES, strict=False):
            by_seed = {m: [-value for value in runs.tags(m, name)] for m in METHODS}  # less is better
            means = {m: -float(np.mean(values)) for m, values in by_seed.items()}
            lowered = above(by_seed["fpr"], by_seed["cam"], by_seed["continued"], by_seed["halo"])
            told = (
                f"{means['cam']:.4f} of the CAM, {means['continued']:.4f} trained on, {means['halo']:.4f} halo, "
                f"{means['paper']:.4f} with the paper's form, {means['fpr']:.4f} with {scale.titles['fpr']}, "
                f"on {dataset.name}; the latter is below all three of the first{in_seeds(lowered)}."
            )
            claims.append(Claim(sentence, told, verdict(lowered), dataset.name))
        claims.append(nearly_all_gain(above_both, len(runs.classes), better["fpr"], dataset.name))
        removed = over_seeds(scale, f"{dataset.name}/missing", out, METHODS)
        if removed is not None:
            tables.append(missing_table(runs, removed, scale, dataset, protocol))
            claims.append(limitation(runs, removed, scale, dataset, protocol))
            sets[dataset.name]["without some tags"] = {
                m: float(np.mean(removed.values(m, protocol, "miou"))) for m in METHODS
            }
    figures = {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}
    return Result(
        "scalars", "Section 4.3: scalars", command, tuple(tables), with_untold(claims, SENTENCES, scale.names), figures,
        tuple(pictures),
    )  # fmt: skip


def nearly_all_gain(above_both: np.ndarray, classes: int, above_training: int, name: str) -> Claim:
    """As large a share of the classes as in the paper, above both controls, in each seed.

    Args:
        above_both: (seeds,) int, classes whose IoU is above both controls'.
        above_training: classes above the CAM trained on, in the mean of the seeds.
    """
    gain, all_of_them = CLASSES_THAT_GAIN
    needed = -(-gain * classes // all_of_them)
    told = (
        f"{above_training} of {classes} on {name} above the CAM trained on; above halo as well by seed "
        f"{', '.join(map(str, above_both))}, where {needed} are as large a share."
    )
    return Claim(SENTENCES[2], told, verdict([float(count - needed + 0.5) for count in above_both]), name)


def missing_table(
    runs: OverSeeds, removed: OverSeeds, scale: Scale, dataset: DataSet, protocol: str
) -> Table:
    """mIoU with all tags and without some of them."""
    rows = []
    for method in METHODS:
        whole, less = (each.values(method, protocol, "miou") for each in (runs, removed))
        rows.append((scale.titles[method], spread(whole), spread(less), change(np.subtract(less, whole))))
    caption = f"{runs.caption(dataset, protocol)} Scored against all tags."
    return Table(caption, ("mIoU", "all tags", f"{MISSING:.0%} of the tags missing", "difference"), tuple(rows))


def limitation(runs: OverSeeds, removed: OverSeeds, scale: Scale, dataset: DataSet, protocol: str) -> Claim:
    """Does a missing tag cost the paper's form more than it costs training on?"""
    lost = {m: above(runs.values(m, protocol, "miou"), removed.values(m, protocol, "miou")) for m in METHODS[1:]}
    paper = lost[scale.papers_form]
    more = above(paper, lost["continued"])
    told = (
        f"without {MISSING:.0%} of the tags the paper's form loses {np.mean(paper):.1f} on {dataset.name}, the "
        f"CAM trained on {np.mean(lost['continued']):.1f}, halo {np.mean(lost['halo']):.1f}, FPR "
        f"{np.mean(lost['fpr']):.1f}; the paper's form loses, and more than training on{in_seeds(more)}."
    )
    return Claim(SENTENCES[3], told, verdict(list(np.minimum(more, paper))), dataset.name)
