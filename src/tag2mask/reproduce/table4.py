"""Table 4: two classes that go with their context, against W-OoD, which is given photos of such contexts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tag2mask.config import CooccurConfig, RivalsConfig, WoodConfig
from tag2mask.data.cooccur import read_image
from tag2mask.report.published import TABLE_4
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table
from tag2mask.reproduce.scales import SCENES, DataSet, Scale
from tag2mask.reproduce.table1 import METHODS as ADVCAM_METHODS
from tag2mask.reproduce.table1 import advcam_cell

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
            climbed = replace(config, methods=("wood",))
            found += [
                Cell(start, base, frozenset()),
                Cell(f"{dataset.name}/table4/seed{seed}", config, frozenset({"evaluate"}), start=start),
                Cell(f"{dataset.name}/table4_advcam/seed{seed}", climbed, frozenset({"advcam"}), start=start),
                advcam_cell(dataset, seed),
            ]
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
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/table4", out)
        if runs is None:
            continue
        entries = [Row(scale.titles[method], method, runs, method) for method in ("cam", *METHODS)]
        climbed = over_seeds(scale, f"{dataset.name}/advcam", out, ".advcam")
        with_wood = over_seeds(scale, f"{dataset.name}/table4_advcam", out, ".advcam")
        if climbed is not None and with_wood is not None:
            entries += [
                Row(f"AdvCAM: {scale.titles[method]}", f"advcam+{method}", with_wood if method == "wood" else climbed,
                    method)
                for method in (*ADVCAM_METHODS[:-1], "wood", "fpr")
            ]  # fmt: skip
        places = [runs.classes.index(name) for name in CLASSES if name in runs.classes]
        names = [runs.classes[c] for c in places]
        figures = {row.name: row.figures(places, protocol) for row in entries}
        lines = []
        for row in entries:
            paper = TABLE_4.get("fpr" if row.name == "paper" else row.name)  # the paper has one FPR, this program two
            published = "–" if paper is None else f"{paper.train:.1f} / {paper.boat:.1f} / {paper.miou:.1f}"
            lines.append((row.title, *(spread(values) for values in figures[row.name]), published))
        pictures.append(f"table4_{dataset.name}.png")
        across, height = len(places) + 1, 0.4 * len(entries) + 1
        with picture(
            out, f"table4_{dataset.name}", 5 * across, height, ncols=across, sharey=True, squeeze=False
        ) as panels:
            for place, name in enumerate([*names, "mIoU"]):
                drawn = [row.dots(figures[row.name][place], name.lower()) for row in entries]
                about = f"{name if name == 'mIoU' else f'IoU of {name}'}, {protocol}; {dataset.name}"
                dots(panels[0, place], drawn, f"{about}, {len(runs.folders)} seeds")
        columns = ("IoU", *names, "mIoU", "leak", "recall, matched*", "paper: train / boat / mIoU")
        tables.append(Table(caption_of(runs.caption(dataset, protocol)), columns, tuple(lines)))
        means = {
            name: dict(zip((*names, "miou", "leak", "recall, matched"), map(mean, own), strict=True))
            for name, own in figures.items()
        }
        paper_of = {m: row._asdict() for m, row in TABLE_4.items()}
        apart = {m: {k: round(means[m][k] - v, 2) for k, v in p.items() if k in means[m]}
                 for m, p in paper_of.items() if m in means}  # fmt: skip
        sets[dataset.name] = {"ours": means, "paper": paper_of, "difference": apart}
        claims += claims_of(figures, names, dataset)
    notes = (
        "W-OoD is given 80 scenes of contexts without their class, which FPR never sees. CLIMS needs a CLIP on disk "
        "and is not computed here: `--methods clims --rivals.clims.clip FOLDER`."
    )
    return Result(
        "table4", "Table 4: co-occurring classes", command, tuple(tables), tuple(claims),
        {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}, tuple(pictures), notes,
    )  # fmt: skip


class Row(NamedTuple):
    """A row of the table: how it is called here and in ``TABLE_4``, and where its figures are."""

    title: str
    name: str
    runs: OverSeeds
    method: str

    def figures(self, places: list[int], protocol: str) -> list[list[float]]:
        """By seed: IoU of each of the classes, mIoU, leak, and recall at matched area."""
        iou = self.runs.by_class(self.method, protocol, "iou")[:, 1:]  # (seeds, C)
        own = [self.runs.values(self.method, protocol, name) for name in ("miou", "leak")]
        return [*(list(iou[:, c]) for c in places), *own, self.runs.values(self.method, "matched", "recall")]

    def dots(self, values: list[float], name: str) -> Dots:
        """Of a class or of all, beside the paper's."""
        paper = TABLE_4.get("fpr" if self.name == "paper" else self.name)
        return Dots(self.title, self.method, values, None if paper is None else getattr(paper, name))


def mean(values: list[float]) -> float:
    """Of the seeds."""
    return float(np.mean(values))


def caption_of(caption: str) -> str:
    """With what leak means."""
    return f"{caption} Leak: share of a class's predictions that lie on its own context. Recall reads masks."


def claims_of(figures: dict[str, list[list[float]]], names: list[str], dataset: DataSet) -> list[Claim]:
    """FPR without further photos against W-OoD with them; ``figures``: by row, what ``Row.figures`` says."""
    found = []
    miou = {name: own[-3] for name, own in figures.items()}
    recall = {name: own[-1] for name, own in figures.items()}
    for before, sentence in (
        ("", "FPR beats W-OoD without its photos: 54.3 for 53.3."),
        ("advcam+", "With AdvCAM as well: 59.7 for 58.8."),
    ):
        if f"{before}wood" not in miou:
            found.append(Claim(sentence, f"not computed on {dataset.name}.", None))
            continue
        control = max(mean(miou[f"{before}{name}"]) for name in ("continued", "halo"))
        gains = above(miou[f"{before}fpr"], miou[f"{before}wood"])
        form = f"the paper's form {mean(miou['paper']):.1f}; " if not before else ""
        told = (
            f"mIoU {mean(miou[f'{before}fpr']):.1f} against {mean(miou[f'{before}wood']):.1f} of W-OoD on "
            f"{dataset.name}{in_seeds(gains)}; {form}the better control {control:.1f}."
        )
        found.append(Claim(sentence, told, verdict(gains)))
    overall = above(miou["fpr"], miou["continued"], miou["halo"])
    for place, name in enumerate(names):
        gains = above(figures["fpr"][place], figures["continued"][place], figures["halo"][place])
        more = above(gains, overall)
        told = (
            f"{change(gains)} above the better control on {dataset.name}, {change(overall)} over all classes; "
            f"more{in_seeds(more)}."
        )
        paper = getattr(TABLE_4["fpr"], name) - getattr(TABLE_4["cam"], name)
        sentence = f"Co-occurring classes gain most: {name} {paper:.1f}, all classes 4.8."
        found.append(Claim(sentence, told, verdict(more)))
    whole, cut = above(recall["fpr"], recall["continued"]), above(recall["wood"], recall["continued"])
    told = (
        f"recall at matched area on {dataset.name}: trained on {mean(recall['continued']):.1f}, W-OoD "
        f"{mean(recall['wood']):.1f}, FPR {mean(recall['fpr']):.1f}."
    )
    agrees = verdict(whole) if max(cut) < 0 else False
    found.append(Claim("FPR leaves objects whole where W-OoD suppresses parts of them (Figure 3).", told, agrees))
    sentence = "It beats CLIMS with AdvCAM (59.7 for 56.6), if not on boat."
    found.append(Claim(sentence, "CLIMS needs a CLIP on disk, which is not here.", None))
    return found
