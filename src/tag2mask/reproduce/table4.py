"""Table 4: two classes that go with their context, against W-OoD, which is given photos of such contexts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask.config import CooccurConfig, RivalsConfig, WoodConfig
from tag2mask.data.cooccur import read_image
from tag2mask.report.published import TABLE_4
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.over_seeds import above, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table
from tag2mask.reproduce.scales import SCENES, DataSet, Scale
from tag2mask.stages.table import TITLES

METHODS = ("continued", "halo", "wood", "paper", "fpr")
CLASSES = ("train", "boat")
OUT_OF_DISTRIBUTION = CooccurConfig(images=80, seed=777, without_class=1.0, context_alone=0.5)
"""Scenes of contexts alone, of another seed than any run."""
BATCH = 8
"""Photos of the folder in a step: each costs two passes through the whole network, and one back."""


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM with W-OoD beside it, on the built-in scenes, whose contexts can be drawn without their class.

    The other sets would need out-of-distribution photos that only the user has: `--rivals.wood.folder` of a run.
    """
    found = []
    for dataset in [each for each in scale.sets if each.name == SCENES]:
        folder = draw_contexts(out / "out_of_distribution")
        rivals = RivalsConfig(wood=WoodConfig(folder=str(folder), batch=BATCH))
        for seed in scale.seeds:
            config = replace(dataset.settings("cam", seed), methods=METHODS, rivals=rivals)
            start = f"{dataset.name}/cam/seed{seed}"
            base = replace(dataset.settings("cam", seed), methods=("continued",))
            found.append(Cell(start, base, frozenset()))
            found.append(Cell(f"{dataset.name}/table4/seed{seed}", config, frozenset({"evaluate"}), start=start))
    return found


def draw_contexts(folder: Path) -> Path:
    """The out-of-distribution photos as files, drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(OUT_OF_DISTRIBUTION.images):
        path = folder / f"{index:03}.png"
        if not path.is_file():
            photo: Image.Image = read_image(OUT_OF_DISTRIBUTION, index)
            photo.save(path)
    return folder


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """IoU of the two classes, and mIoU."""
    tables, claims = [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/table4", out)
        if runs is None:
            continue
        places = [runs.classes.index(name) for name in CLASSES if name in runs.classes]
        names = [runs.classes[c] for c in places]
        rows, ours, each = [], {}, {}
        for method in ("cam", *METHODS):
            by_class = runs.by_class(method, protocol, "iou")[:, 1:]  # (seeds, C)
            own = [list(by_class[:, c]) for c in places]
            paper = TABLE_4.get("fpr" if method == "paper" else method)  # the paper has one FPR, this program two
            published = "–" if paper is None else f"{paper.train:.1f} / {paper.boat:.1f} / {paper.miou:.1f}"
            mean = each[method] = runs.values(method, protocol, "miou")
            leak = runs.values(method, protocol, "leak")
            rows.append((TITLES[method], *(spread(values) for values in own), spread(mean), spread(leak), published))
            ours[method] = {
                **{name: float(np.mean(v)) for name, v in zip(names, own, strict=True)}, "miou": float(np.mean(mean)),
            }  # fmt: skip
        columns = ("IoU", *names, "mIoU", "leak", "paper: train / boat / mIoU")
        tables.append(Table(caption_of(runs.caption(dataset, protocol)), columns, tuple(rows)))
        sets[dataset.name] = {"ours": ours, "paper": {m: row._asdict() for m, row in TABLE_4.items()}}
        claims.append(claim_of(each, dataset))
    figures = {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}
    notes = (
        "W-OoD is given 80 scenes of contexts without their class, which FPR never sees. CLIMS needs a CLIP on disk "
        "and is not computed here: `--methods clims --rivals.clims.clip FOLDER`."
    )
    return Result(
        "table4", "Table 4: co-occurring classes", command, tuple(tables), tuple(claims), figures, notes=notes
    )  # fmt: skip


def caption_of(caption: str) -> str:
    """With what leak means."""
    return f"{caption} Leak: share of a class's predictions that lie on its own context."


def claim_of(miou: dict[str, list[float]], dataset: DataSet) -> Claim:
    """FPR without further photos against W-OoD with them; ``miou``: by method, for each seed."""
    means = {method: float(np.mean(values)) for method, values in miou.items()}
    gains = above(miou["fpr"], miou["wood"])
    told = (
        f"mIoU {means['fpr']:.1f} against {means['wood']:.1f} of W-OoD on {dataset.name}{in_seeds(gains)}; the paper's "
        f"form {means['paper']:.1f}; the better control {max(means['continued'], means['halo']):.1f}."
    )
    return Claim("FPR beats W-OoD without its photos: 54.3 for 53.3.", told, verdict(gains))
