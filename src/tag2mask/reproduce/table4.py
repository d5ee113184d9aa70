"""Table 4: two classes that go with their context, against W-OoD, which is given photos of such contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tag2mask.atomic import replacing
from tag2mask.config import CooccurConfig, RivalsConfig, WoodConfig
from tag2mask.data.cooccur import read_image
from tag2mask.report.published import TABLE_4, Cooccurring
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import RUNS_ARE_MISSING, Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import SCENES, DataSet, Scale
from tag2mask.reproduce.table1 import METHODS as ADVCAM_METHODS
from tag2mask.reproduce.table1 import advcam_cell

METHODS = ("continued", "halo", "wood", "paper", "fpr")
CLASSES = ("train", "boat")
SENTENCES = (
    "FPR beats W-OoD without its photos: 54.3 for 53.3.",
    "With AdvCAM as well: 59.7 for 58.8.",
    "W-OoD and FPR both tell an object from its context (Figure 3).",
    "FPR leaves objects whole where W-OoD suppresses parts of them (Figure 3).",
)
CLIMS = Claim(
    "It beats CLIMS with AdvCAM (59.7 for 56.6), if not on boat.", "CLIMS needs a CLIP, which is not here.", None
)
NO_CONTEXTS = "W-OoD is given photos of contexts, which are drawn for the built-in scenes alone."
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
        folder = draw_contexts(out.resolve() / "out_of_distribution")
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
            with replacing(path) as partial:
                photo.save(partial, "png")
    return folder


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """IoU of the two classes, and mIoU."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/table4", out, METHODS)
        if runs is None:
            continue
        entries = [Row(scale.titles[method], method, runs, method) for method in ("cam", *METHODS)]
        climbed = over_seeds(scale, f"{dataset.name}/advcam", out, ADVCAM_METHODS, ".advcam")
        with_wood = over_seeds(scale, f"{dataset.name}/table4_advcam", out, ("wood",), ".advcam")
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
            published = "–" if row.paper is None else " / ".join(f"{value:.1f}" for value in row.paper)
            lines.append((row.title, *map(spread, figures[row.name].values()), published))
        pictures.append(f"table4_{dataset.name}.png")
        across, height = len(places) + 1, 0.4 * len(entries) + 1
        with picture(
            out, f"table4_{dataset.name}", 5 * across, height, ncols=across, sharey=True, squeeze=False
        ) as panels:
            for place, name in enumerate([*names, "miou"]):
                drawn = [
                    Dots(row.title, row.method, figures[row.name][name], row.paper and getattr(row.paper, name))
                    for row in entries
                ]
                about = f"{'mIoU' if name == 'miou' else f'IoU of {name}'}, {protocol}; {dataset.name}"
                dots(panels[0, place], drawn, f"{about}, {len(runs.folders)} seeds")
        columns = ("IoU", *names, "mIoU", "leak", "recall, matched*", "paper: train / boat / mIoU")
        tables.append(Table(caption_of(runs.caption(dataset, protocol)), columns, tuple(lines)))
        means = {
            row.name: {name: float(np.mean(own)) for name, own in figures[row.name].items()} for row in entries
        }
        papers = {row.name: row.paper._asdict() for row in entries if row.paper is not None}
        apart = {
            row: {name: round(means[row][name] - value, 2) for name, value in paper.items() if name in means[row]}
            for row, paper in papers.items()
        }
        sets[dataset.name] = {"ours": means, "paper": papers, "difference": apart}
        claims += claims_of(figures, names, dataset)
    notes = (
        "W-OoD is given 80 scenes of contexts without their class, which FPR never sees. CLIMS needs a CLIP on disk "
        "and is not computed here: `--methods clims --rivals.clims.clip FOLDER`."
    )
    drawn_contexts = tuple(name for name in scale.names if name == SCENES)
    why = RUNS_ARE_MISSING if drawn_contexts else NO_CONTEXTS
    return Result(
        "table4", "Table 4: co-occurring classes", command, tuple(tables),
        (*with_untold(claims, (*SENTENCES, *map(gains_most, CLASSES)), drawn_contexts, why), CLIMS),
        {"protocol": protocol, "seeds": list(scale.seeds), "sets": sets}, tuple(pictures), notes,
    )  # fmt: skip


class Row(NamedTuple):
    """A row of the table: how it is called here and in ``TABLE_4``, and where its figures are."""

    title: str
    name: str
    runs: OverSeeds
    method: str

    @property
    def paper(self) -> Cooccurring | None:
        """Of the paper, which has one FPR where this program has two."""
        return TABLE_4.get("fpr" if self.name == "paper" else self.name)

    def figures(self, places: Sequence[int], protocol: str) -> dict[str, list[float]]:
        """By seed: IoU of each of the classes at ``places``, mIoU, leak, and recall at matched area."""
        iou = self.runs.by_class(self.method, protocol, "iou")[:, 1:]  # (seeds, C)
        found = {self.runs.classes[c]: list(iou[:, c]) for c in places}
        found |= {name: self.runs.values(self.method, protocol, name) for name in ("miou", "leak")}
        return found | {"recall": self.runs.values(self.method, "matched", "recall")}


def caption_of(caption: str) -> str:
    """With what leak means."""
    return f"{caption} Leak: share of a class's predictions that lie on its own context. Recall reads masks."


def claims_of(figures: dict[str, dict[str, list[float]]], names: list[str], dataset: DataSet) -> list[Claim]:
    """FPR without further photos against W-OoD with them; ``figures``: by row, what ``Row.figures`` says."""
    found = []
    for before, sentence in zip(("", "advcam+"), SENTENCES[:2], strict=True):
        if f"{before}wood" not in figures:
            continue
        own = {name: figures[f"{before}{name}"]["miou"] for name in ("fpr", "wood", "continued", "halo")}
        gains = above(own["fpr"], own["wood"], own["continued"], own["halo"])
        form = f"the paper's form {np.mean(figures['paper']['miou']):.1f}, " if not before else ""
        told = (
            f"mIoU {np.mean(own['fpr']):.1f}, W-OoD {np.mean(own['wood']):.1f} on {dataset.name}; {form}trained "
            f"on {np.mean(own['continued']):.1f}, halo {np.mean(own['halo']):.1f}; best{in_seeds(gains)}."
        )
        found.append(Claim(sentence, told, verdict(gains), dataset.name))
    gained = {name: above(*(figures[m][name] for m in ("fpr", "continued", "halo"))) for name in (*names, "miou")}
    for name in names:
        more = above(gained[name], gained["miou"])
        told = (
            f"{change(gained[name])} above the better control on {dataset.name}, {change(gained['miou'])} over all "
            f"classes; more{in_seeds(more)}."
        )
        found.append(Claim(gains_most(name), told, verdict(list(np.minimum(more, gained[name]))), dataset.name))
    for name, sentence in zip(("leak", "recall"), SENTENCES[2:4], strict=True):
        on, halo, wood, fpr = (np.array(figures[m][name]) for m in ("continued", "halo", "wood", "fpr"))
        told = (
            f"{'leak' if name == 'leak' else 'recall at matched area'} on {dataset.name}: trained on {on.mean():.1f}, "
            f"halo {halo.mean():.1f}, W-OoD {wood.mean():.1f}, FPR {fpr.mean():.1f}; "
        )
        if name == "leak":
            agreement = np.minimum(on, halo) - np.maximum(wood, fpr)
            told += f"both below both controls{in_seeds(list(agreement))}."
        else:
            agreement = np.minimum(fpr - np.maximum(on, halo), on - wood)
            told += f"FPR above both controls and W-OoD below training on{in_seeds(list(agreement))}."
        found.append(Claim(sentence, told, verdict(list(agreement)), dataset.name))
    return found


def gains_most(name: str) -> str:
    """The paper's sentence about a class."""
    gain, overall = (getattr(TABLE_4["fpr"], n) - getattr(TABLE_4["cam"], n) for n in (name, "miou"))
    return f"Co-occurring classes gain most: {name} {gain:.1f}, all classes {overall:.1f}."
