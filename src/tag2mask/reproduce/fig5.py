"""Figure 5: positive and negative prototypes by epoch, in one common embedding, so that movement means something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from tag2mask.checkpoints import load_prototypes, read_tensors
from tag2mask.data import open_images
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import COLOURS, picture
from tag2mask.reproduce.over_seeds import spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import DataSet, Scale
from tag2mask.runs import method_folder
from tag2mask.stages.network import data_of_seed

CLASSES = ("horse", "train", "boat")
"""Of the paper; others where a set lacks them."""
METHODS = ("paper", "fpr")
SENTENCES = (
    "Positive and negative prototypes move apart as training goes on.",
    "New positive prototypes move away from the initial negative ones.",
    "Most negative prototypes are close to the decision boundary (supposed in section 4.4).",
)


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM of the first seed."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{scale.seeds[0]}",
            replace(dataset.settings("cam", scale.seeds[0]), methods=METHODS), frozenset(),
        )
        for dataset in scale.sets[:1]
    ]  # fmt: skip


def prototypes_by_epoch(folder: Path, c: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positives (K, D) and negatives (Kn, D) of a class at each collection."""
    found = []
    for path in sorted((folder / "prototypes").glob("epoch*.safetensors")):
        one = load_prototypes(path)
        found.append((one.positive[c, one.positive_valid[c]].numpy(), one.trimmed[c, one.trimmed_valid[c]].numpy()))
    return found


def separation(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean silhouette of the two kinds, -1 to 1, in the features' own space; NaN where one of them has too few."""
    if len(positive) < 2 or len(negative) < 2:
        return float("nan")
    labels = [0] * len(positive) + [1] * len(negative)
    return float(silhouette_score(np.concatenate([positive, negative]), labels))


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """Embeddings of three classes, and how far apart the kinds are in the features' own space."""
    dataset, seed = scale.sets[0], scale.seeds[0]
    run = out / "runs" / dataset.name / "cam" / f"seed{seed}"
    if not all((method_folder(run, seed, m) / "weights.safetensors").is_file() for m in METHODS):
        return Result("fig5", "Figure 5: prototypes by epoch", command, claims=with_untold((), SENTENCES))
    names = open_images(data_of_seed(dataset.data, seed)).classes.names
    chosen = ([n for n in CLASSES if n in names] + [n for n in names if n not in CLASSES])[:3]
    rows, numbers = [], {}
    first_and_last: dict[str, list[tuple[float, float]]] = {m: [] for m in METHODS}
    away: dict[str, list[tuple[float, float]]] = {m: [] for m in METHODS}
    with picture(out, "fig5", 4 * len(chosen), 7.4, nrows=len(METHODS), ncols=len(chosen), squeeze=False) as axes:
        for row, method in enumerate(METHODS):
            for column, name in enumerate(chosen):
                epochs = prototypes_by_epoch(method_folder(run, seed, method), names.index(name))
                values = [separation(*pair) for pair in epochs]
                initial, (first, last) = epochs[0][1], (epochs[0][0], epochs[-1][0])
                away[method].append((to_first_negatives(first, initial), to_first_negatives(last, initial)))
                numbers[f"{method}, {name}"] = values
                rows.append((scale.titles[method], name, *(spread([v], 2) for v in values)))
                first_and_last[method].append((values[0], values[-1]))
                draw(axes[row, column], epochs)
                axes[row, column].set_title(f"{name}, {scale.titles[method]}", fontsize=9)
    width = max(len(row) for row in rows) - 2
    table = Table(
        f"{dataset.name}, seed {seed}: mean silhouette of positive against negative prototypes in the features' own "
        "space, by epoch; 1 is far apart.", ("method", "class", *(f"epoch {e + 1}" for e in range(width))),
        tuple((*row, *[""] * (width + 2 - len(row))) for row in rows),
    )  # fmt: skip
    claims = (
        moved(SENTENCES[0], first_and_last, chosen, scale, "silhouette"),
        moved(SENTENCES[1], away, chosen, scale, "cosine distance to the nearest of them"),
        near_the_boundary(run, seed, dataset),
    )
    figures: dict[str, Any] = {
        "seed": seed, "set": dataset.name, "silhouette": numbers,
        "distance of the first and last positives to the first negatives": away,
    }  # fmt: skip
    notes = (
        "Crosses: negatives, circles: positives; light: first epoch, dark: last. The default measures distances in "
        "levels of a frozen backbone, which stand still: there the choice of the negatives moves, not the space. No "
        "control stands here, as training on has no prototypes."
    )
    return Result(
        "fig5", "Figure 5: prototypes by epoch", command, (table,), claims, figures, ("fig5.png",), notes
    )  # fmt: skip


def to_first_negatives(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean cosine distance of positives (K, D) to their nearest negative (Kn, D), which no growth of features moves."""
    if not len(positive) or not len(negative):
        return float("nan")
    return float(cdist(positive, negative, "cosine").min(axis=1).mean())


def moved(
    sentence: str, pairs: dict[str, list[tuple[float, float]]], names: list[str], scale: Scale, what: str
) -> Claim:
    """Whether a figure, (first, last) for each class, grows for every class in the paper's form."""
    told = "; ".join(
        f"{scale.titles[method]}: "
        + ", ".join(f"{n} {spread([a], 2)} to {spread([b], 2)}" for n, (a, b) in zip(names, own, strict=True))
        for method, own in pairs.items()
    )
    return Claim(sentence, f"{what}, one seed: {told}.", verdict([last - first for first, last in pairs["paper"]]))


def near_the_boundary(run: Path, seed: int, dataset: DataSet) -> Claim:
    """Section 4.4 supposes that most negatives lie near the decision boundary, where the class map is 0."""
    weight = read_tensors(method_folder(run, seed, "cam") / "weights.safetensors")[0].get("classifier.weight")
    first = load_prototypes(method_folder(run, seed, "paper") / "prototypes" / "epoch001.safetensors")
    if weight is None or weight.shape[1] != first.negative.shape[-1]:
        return Claim(SENTENCES[2], f"the prototypes of {dataset.name} are not what its classifier acts on.", None)
    classifier = weight.flatten(1)  # (C, D)
    values = {
        name: torch.einsum("ckd,cd->ck", rows, classifier)[valid]  # (prototypes,), mean class map of their regions
        for name, rows, valid in (
            ("positive", first.positive, first.positive_valid), ("negative", first.negative, first.negative_valid)
        )
    }  # fmt: skip
    positive, negative = (float(values[name].median()) for name in ("positive", "negative"))
    near = float((values["negative"].abs() < positive / 2).float().mean())
    told = (
        f"in units of the class map the median negative lies at {negative:.1f}, the median positive at {positive:.1f}; "
        f"{100 * near:.0f} % of the negatives are within half of the latter of 0; {dataset.name}, seed {seed}, first "
        "prototypes of the paper's form."
    )
    return Claim(SENTENCES[2], told, near > 0.5 if positive > 0 and len(values["negative"]) else None)


def draw(axes: Any, epochs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """All epochs of a class in one embedding."""
    points = np.concatenate([part for pair in epochs for part in pair])
    if len(points) < 5:
        axes.set_axis_off()
        return
    perplexity = min(30, (len(points) - 1) / 3)
    embedded = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(points)
    start = 0
    for number, (positive, negative) in enumerate(epochs):
        alpha = 0.15 + 0.85 * (number + 1) / len(epochs)
        for part, colour, mark in ((positive, COLOURS["continued"], "o"), (negative, COLOURS["fpr"], "x")):
            own = embedded[start : start + len(part)]
            start += len(part)
            axes.scatter(own[:, 0], own[:, 1], s=22, color=colour, marker=mark, alpha=alpha, linewidths=1)
    axes.set_xticks([])
    axes.set_yticks([])
