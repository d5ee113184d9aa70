"""Tables 2 and 3: segmenters trained on the masks, if possible on photos of another split; and the masks themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.report.published import TABLE_2, TABLE_3
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import DataSet, Scale

METHODS = ("continued", "halo", "fpr")
SEGMENTER = "segmenter:irn"
PAPER_SEGMENTERS = {"continued": 67.5, "fpr": 70.3}
"""VOC val, of AdvCAM without and with FPR."""
BETTER = "FPR's masks train a better segmenter: 70.3 for 67.5 on val, 70.1 for 67.1 on test."
COMPETES = Claim(
    "Without further supervision it competes with W-OoD, EPS and CLIMS: 70.3 for 70.7, 71.0 and 70.4.",
    "no segmenter of theirs is trained here; Table 4 has the maps of W-OoD.", None,
)  # fmt: skip
GAIN = PAPER_SEGMENTERS["fpr"] - PAPER_SEGMENTERS["continued"]
PAPER_MASKS = {"seed": ("CAM", 33.1, 33.9), "irn": ("IRN", 42.4, 44.0)}
"""COCO train by stage: the row's name, without and with FPR."""
COCO_SEGMENTER = "It improves the segmenter that learns from IRN's masks on COCO: 43.9 for 42.0."
COLUMNS = {"seed": "maps", "crf": "+ CRF", "irn": "+ IRN", SEGMENTER: "segmenter, no tags"}


def cells(scale: Scale, out: Path) -> list[Cell]:
    """A segmenter for each set, seed and method."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=METHODS),
            frozenset({"evaluate", "crf", "segment"}), METHODS, dataset.val,
        )
        for dataset in scale.sets
        for seed in scale.seeds
    ]  # fmt: skip


def masks_improve(stage: str) -> str:
    """The paper's sentence about the masks of a stage."""
    name, before, after = PAPER_MASKS[stage]
    return f"FPR improves the masks of {name} on COCO by {after - before:.1f}."


def stage_values(runs: OverSeeds, file: str, method: str, stage: str) -> list[float]:
    """mIoU of a stage for each seed; NaN where it is not there."""
    found = [each.get("stages", {}).get(method, {}).get(stage) for each in runs.files(file)]
    return [float(figure["miou"]["mean"]) if figure else float("nan") for figure in found]


def complete(runs: OverSeeds, file: str, stage: str) -> bool:
    """Whether every method has the stage for every seed."""
    return all(np.isfinite(stage_values(runs, file, method, stage)).all() for method in METHODS)


def stage_table(dataset: DataSet, runs: OverSeeds, file: str, titles: dict[str, str]) -> Table:
    """Methods down, stages across: of photos that were not trained on, the segmenter alone."""
    known = [stage for stage in COLUMNS if any(np.isfinite(stage_values(runs, file, m, stage)).any() for m in METHODS)]
    rows = [
        (titles[m], *(spread(stage_values(runs, file, m, stage)) for stage in known)) for m in METHODS
    ]
    first = next((each for each in runs.files(file) if each), {})
    seeds = [str(each["seeds"][0]) for each in runs.files(file) if each]
    caption = (
        f"{dataset.name}, split {first.get('split')}, {first.get('images')} images, protocol {first.get('protocol')}, "
        f"seeds {', '.join(seeds)}. Maps, CRF and IRN are told a photo's tags, the segmenter is not."
    )
    return Table(caption, ("mIoU", *(COLUMNS[stage] for stage in known)), tuple(rows))


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """Table 2: segmenters, on photos that were not trained on where the set has such."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, METHODS)
        file = f"stages.{dataset.val}.json" if dataset.val else "stages.json"
        if runs is None or not complete(runs, file, SEGMENTER):
            continue
        tables.append(stage_table(dataset, runs, file, scale.titles))
        ours = {m: stage_values(runs, file, m, SEGMENTER) for m in METHODS}
        gains = above(ours["fpr"], ours["continued"], ours["halo"])
        sets[dataset.name] = ours | {"difference of the gains": round(float(np.mean(gains)) - GAIN, 2)}
        pictures.append(f"table2_{dataset.name}.png")
        with picture(out, f"table2_{dataset.name}", 8, 2.4) as axes:
            about = f"mIoU of the segmenter, gtfree; {dataset.name}, {len(scale.seeds)} seeds"
            dots(axes, [Dots(scale.titles[m], m, ours[m], PAPER_SEGMENTERS.get(m)) for m in METHODS], about)
        where = "on photos that were not trained on" if dataset.val else "on photos that were trained on"
        told = f"{change(gains)} above the better control on {dataset.name}, {where}{in_seeds(gains)}."
        claims.append(Claim(BETTER, told, verdict(gains), dataset.name))
    rows = tuple((r.method, r.external or "–", r.backbone, f"{r.val:.1f}", f"{r.test:.1f}") for r in TABLE_2)
    tables.append(Table("Published, PASCAL VOC.", ("method", "brings beside tags", "network", "val", "test"), rows))
    figures = {"protocol": "gtfree", "seeds": list(scale.seeds), "sets": sets, "paper": [r._asdict() for r in TABLE_2]}
    return Result(
        "table2", "Table 2: segmenters", command, tuple(tables),
        (*with_untold(claims, (BETTER,), scale.names), COMPETES), figures, tuple(pictures),
    )  # fmt: skip


def tell_coco(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """Table 3: masks of CAM and of IRN on the training photos, and what a segmenter makes of them."""
    tables, claims, pictures = [], [], []
    sets: dict[str, dict[str, Any]] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, METHODS)
        if runs is None or not complete(runs, "stages.json", "irn"):
            continue
        tables.append(stage_table(dataset, runs, "stages.json", scale.titles))
        sets[dataset.name] = {
            m: {s: stage_values(runs, "stages.json", m, s) for s in COLUMNS if s != SEGMENTER} for m in METHODS
        }
        pictures.append(f"table3_{dataset.name}.png")
        with picture(out, f"table3_{dataset.name}", 11, 2.4, ncols=2, sharey=True) as panels:
            for axes, (stage, (name, before, after)) in zip(panels, PAPER_MASKS.items(), strict=True):
                papers = {"continued": before, "fpr": after}
                ours = {m: stage_values(runs, "stages.json", m, stage) for m in METHODS}
                drawn = [Dots(scale.titles[m], m, ours[m], papers.get(m)) for m in METHODS]
                dots(axes, drawn, f"mIoU of the masks of {name}, gtfree; {dataset.name}, {len(scale.seeds)} seeds")
        for stage, (_, before, after) in PAPER_MASKS.items():
            paper = round(after - before, 1)
            values = {m: stage_values(runs, "stages.json", m, stage) for m in METHODS}
            gains = above(values["fpr"], values["continued"], values["halo"])
            sets[dataset.name][f"difference of the gains, {stage}"] = round(float(np.mean(gains)) - paper, 2)
            told = (
                f"{change(gains)} above the better control on {dataset.name}, on photos that were trained on"
                f"{in_seeds(gains)}."
            )
            claims.append(Claim(masks_improve(stage), told, verdict(gains), dataset.name))
        file = f"stages.{dataset.val}.json" if dataset.val else "stages.json"
        if complete(runs, file, SEGMENTER):
            learnt = {m: stage_values(runs, file, m, SEGMENTER) for m in METHODS}
            gains = above(learnt["fpr"], learnt["continued"], learnt["halo"])
            told = f"{change(gains)} above the better control on {dataset.name}{in_seeds(gains)}."
            claims.append(Claim(COCO_SEGMENTER, told, verdict(gains), dataset.name))
    rows = tuple((r.method, spread([r.pseudo_masks or np.nan]), f"{r.val:.1f}") for r in TABLE_3)
    tables.append(Table("Published, COCO 2014.", ("method", "masks, train", "segmenter, val"), rows))
    notes = "" if scale.name == "coco" else "COCO itself needs `--scale coco`; these are the same stages on other sets."
    figures = {"protocol": "gtfree", "seeds": list(scale.seeds), "sets": sets, "paper": [r._asdict() for r in TABLE_3]}
    return Result(
        "table3", "Table 3: masks by stage", command, tuple(tables),
        with_untold(claims, (*map(masks_improve, PAPER_MASKS), COCO_SEGMENTER), scale.names), figures, tuple(pictures),
        notes,
    )  # fmt: skip
