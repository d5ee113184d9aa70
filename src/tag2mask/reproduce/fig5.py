"""Figure 5: positive and negative prototypes by epoch, in one common embedding, so that movement means something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor

from tag2mask.checkpoints import load_prototypes, read_tensors
from tag2mask.data import open_images
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import COLOURS, picture
from tag2mask.reproduce.over_seeds import in_seeds, spread, verdict
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
    """The plain CAM of the first set."""
    dataset = scale.sets[0]
    return [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=METHODS), frozenset()
        )
        for seed in scale.seeds
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
    found = {s: out / "runs" / dataset.name / "cam" / f"seed{s}" for s in scale.seeds}
    homes = [method_folder(run, s, m) for s, run in found.items() for m in METHODS]
    if not all((home / "weights.safetensors").is_file() for home in homes):
        claims = with_untold((), SENTENCES, (dataset.name,))
        return Result("fig5", "Figure 5: prototypes by epoch", command, claims=claims)
    names = open_images(data_of_seed(dataset.data, seed)).classes.names
    chosen = ([n for n in CLASSES if n in names] + [n for n in names if n not in CLASSES])[:3]
    moves = {m: [movement(method_folder(run, s, m), names, chosen) for s, run in found.items()] for m in METHODS}
    rows, numbers = [], {}
    with picture(out, "fig5", 4 * len(chosen), 7.4, nrows=len(METHODS), ncols=len(chosen), squeeze=False) as axes:
        for row, method in enumerate(METHODS):
            for column, name in enumerate(chosen):
                values = moves[method][0][name].silhouette
                numbers[f"{method}, {name}"] = values
                rows.append((scale.titles[method], name, *(spread([v], 2) for v in values)))
                home = method_folder(found[seed], seed, method)
                draw(axes[row, column], prototypes_by_epoch(home, names.index(name)))
                axes[row, column].set_title(f"{name}, {scale.titles[method]}", fontsize=9)
    ends = {m: [{n: one.ends for n, one in own.items()} for own in moves[m]] for m in METHODS}
    away = {m: [{n: one.from_first_negatives for n, one in own.items()} for own in moves[m]] for m in METHODS}
    width = max(len(row) for row in rows) - 2
    table = Table(
        f"{dataset.name}, seed {seed}: mean silhouette of positive against negative prototypes in the features' own "
        "space, by epoch; 1 is far apart.", ("method", "class", *(f"epoch {e + 1}" for e in range(width))),
        tuple((*row, *[""] * (width + 2 - len(row))) for row in rows),
    )  # fmt: skip
    claims = (
        moved(SENTENCES[0], ends, scale, "silhouette"),
        moved(SENTENCES[1], away, scale, "cosine distance to the nearest of them"),
        near_the_boundary(found, scale.papers_form, dataset),
    )
    figures: dict[str, Any] = {
        "seed": seed, "set": dataset.name, "silhouette": numbers, "first and last silhouette, by seed": ends,
        "distance of the first and last positives to the first negatives, by seed": away,
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


class Movement(NamedTuple):
    """Of the prototypes of a class in one training."""

    silhouette: list[float]
    """Of positives against negatives, by epoch."""
    from_first_negatives: tuple[float, float]
    """Cosine distance of the first and of the last positives to the first negatives."""

    @property
    def ends(self) -> tuple[float, float]:
        """The first silhouette and the last."""
        return self.silhouette[0], self.silhouette[-1]


def movement(folder: Path, names: tuple[str, ...], chosen: list[str]) -> dict[str, Movement]:
    """How the prototypes of some classes move in the training whose folder this is."""
    found = {}
    for name in chosen:
        epochs = prototypes_by_epoch(folder, names.index(name))
        initial, first, last = epochs[0][1], epochs[0][0], epochs[-1][0]
        away = (to_first_negatives(first, initial), to_first_negatives(last, initial))
        found[name] = Movement([separation(*pair) for pair in epochs], away)
    return found


def moved(
    sentence: str, pairs: dict[str, list[dict[str, tuple[float, float]]]], scale: Scale, what: str
) -> Claim:
    """Whether a figure grows for every class in the paper's form, in each seed.

    Args:
        pairs: by method and seed, (first, last) of each class.
    """
    told = []
    for method, seeds in pairs.items():
        mean = {n: np.mean([own[n] for own in seeds], axis=0) for n in seeds[0]}
        classes = (f"{n} {spread([a], 2)} to {spread([b], 2)}" for n, (a, b) in mean.items())
        told.append(f"{scale.titles[method]}: {', '.join(classes)}")
    grown = [float(np.min([last - first for first, last in own.values()])) for own in pairs[scale.papers_form]]
    several = f"mean of {len(grown)} seeds" if len(grown) > 1 else "one seed"
    ours = f"{what}, {several}: {'; '.join(told)}. It grows for each class in the paper's form{in_seeds(grown)}."
    return Claim(sentence, ours, verdict(grown), scale.sets[0].name)


def near_the_boundary(runs: dict[int, Path], form: str, dataset: DataSet) -> Claim:
    """Section 4.4 supposes that most negatives lie near the decision boundary, where the class map is 0.

    Args:
        runs: folders by seed.
        form: the method that is the paper's.
    """
    found = [class_map_at_prototypes(run, seed, form) for seed, run in runs.items()]
    known = [one for one in found if one is not None and len(one[0]) and len(one[1]) and one[0].median() > 0]
    if len(known) < len(found):
        told = f"the prototypes of {dataset.name} are not what its classifier acts on, or some have none."
        return Claim(SENTENCES[2], told, None, dataset.name)
    near = [float((negative.abs() < positive.median() / 2).float().mean()) for positive, negative in known]
    above_half = [share - 0.5 for share in near]
    medians = [np.mean([float(one[kind].median()) for one in known]) for kind in (0, 1)]
    told = (
        f"in units of the class map the median negative lies at {medians[1]:.1f}, the median positive at "
        f"{medians[0]:.1f}; {100 * np.mean(near):.0f} % of the negatives are within half of the latter of 0; "
        f"{dataset.name}, first prototypes of the paper's form; more than half{in_seeds(above_half)}."
    )
    return Claim(SENTENCES[2], told, verdict(above_half), dataset.name)


def class_map_at_prototypes(run: Path, seed: int, form: str) -> tuple[Tensor, Tensor] | None:
    """Mean class map where the first positives (P,) and negatives (N,) lie; None if they are of other features."""
    weight = read_tensors(method_folder(run, seed, "cam") / "weights.safetensors")[0].get("classifier.weight")
    first = load_prototypes(method_folder(run, seed, form) / "prototypes" / "epoch001.safetensors")
    if weight is None or weight.shape[1] != first.negative.shape[-1]:
        return None
    classifier = weight.flatten(1)  # (C, D)
    return (
        torch.einsum("ckd,cd->ck", first.positive, classifier)[first.positive_valid],
        torch.einsum("ckd,cd->ck", first.negative, classifier)[first.negative_valid],
    )


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
