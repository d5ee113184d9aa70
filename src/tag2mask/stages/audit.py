"""Suspected errors of the tags: a ranking by classifiers that did not see them, and what is needed to judge them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tag2mask.checkpoints import load_weights
from tag2mask.config import DataConfig
from tag2mask.data import TaggedImages
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.fpr.activation import activated_pixels, relative_activation
from tag2mask.fpr.regions import region_features
from tag2mask.noise import Suspicion, positive_likeness, second_opinion, suspicion
from tag2mask.noise.suspects import Kind
from tag2mask.progress import Reporter, Step
from tag2mask.runs import holding_run, method_folder, write_text
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.tags import tag_probabilities

RULE = "confident learning"
COLUMNS = ("image", "class", "kind", "score", "probability", "likeness", "cleanlab", "box", "rule", "decision")
"""Columns of suspects.csv and of the decisions that are made of it."""
FEW = 20
"""Photos of a class below which classifiers learn too little to find most errors of its tags."""
NEIGHBOURS = 3
"""Labelled examples shown beside a suspect."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the picture, from 0 to 1."""


@dataclass(frozen=True)
class Neighbour:
    """A labelled example whose region is near that of a suspect."""

    image: int
    box: Box
    distance: float
    """L2 between the two region features."""


@dataclass(frozen=True)
class Suspect:
    """A tag that is probably missing or wrong."""

    image: int
    class_index: int
    kind: Kind
    score: float
    """0 to 1, the ranking."""
    probability: float
    """Of the class, by classifiers that were fitted without this image."""
    likeness: float
    """Share of the labelled regions of the class that are less typical of it than this one."""
    cleanlab: bool | None
    """Whether cleanlab flags it as well; None where that is not installed."""
    box: Box
    """Where the class map fires."""
    neighbours: tuple[Neighbour, ...]
    """Nearest first; fewer where the class has fewer tags without suspicion."""


@dataclass(frozen=True)
class Audit:
    """What was found of one seed."""

    data: DataConfig
    images: TaggedImages
    suspects: tuple[Suspect, ...]
    """The first of the ranking."""
    flagged: dict[Kind, int]
    """How many there are of each kind, shown or not."""
    not_judged: tuple[str, ...]
    """Classes that were hardly learnt: nothing is said of their tags."""
    rows: tuple[tuple[str, ...], ...]
    """The suspects as they stand in suspects.csv, in the order of ``COLUMNS``."""

    @property
    def caution(self) -> str:
        """What an audit without a suspect does not show, as a sentence; empty where there were photos enough."""
        counts = self.images.labels.sum(0)  # (C,)
        judged = [name not in self.not_judged for name in self.images.classes.names]
        few = [self.images.classes.names[c] for c in np.flatnonzero(judged & (counts < FEW)).tolist()]
        if not few or any(self.flagged.values()):
            return ""
        return f"Fewer than {FEW} photos are tagged {', '.join(few)}: with so few the audit can miss most errors."


@dataclass(frozen=True)
class Regions:
    """What the class maps say of some pairs of image and class."""

    row: npt.NDArray[np.int64]
    """(N, C) position of a pair, -1 if it was not asked for."""
    features: Tensor
    """(R, D) mean feature of the pixels where the map fires."""
    boxes: tuple[Box, ...]

    def of(self, images: npt.NDArray[np.integer], class_index: int) -> Tensor:
        """Features of a class in some images: (len(images), D)."""
        return self.features[torch.from_numpy(self.row[images, class_index])]


@holding_run
def audit_run(run: Path, seed: int | None, limit: int, report: Reporter) -> Audit:
    """Rank suspected missing and wrong tags of a run's images and write ``audit/suspects.csv``.

    Args:
        seed: of the run; its first one if None.
        limit: how many suspects are kept, of both kinds together.
    """
    config = read_settings(run)
    seed = config.seeds[0] if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"--seed {seed} is not in this run; it has {', '.join(map(str, config.seeds))}.")
    if limit < 1:
        raise InputError(f"--limit is {limit}; expected 1 or more suspects.")
    weights = method_folder(run, seed, "cam") / "weights.safetensors"
    if not weights.is_file():
        raise InputError(
            f"there is no trained CAM at {weights}; run `tag2mask train` first, or finish it with --resume."
        )
    device = set_up_torch(config.threads, config.device)
    setup = set_up_seed(config, run, seed, device, report)
    tags = setup.images.labels
    with report.task("classifiers that did not see the tag") as step:
        probabilities = tag_probabilities(setup, tags, step)
    found = suspicion(probabilities, tags)
    every = found.ranked()
    pairs = every[:limit]
    load_weights(weights, setup.host)
    with report.task("regions of the class maps") as step:
        regions = class_regions(setup, pairs, config.fpr.positive_theta, step)
    suspects = describe(found, probabilities, pairs, regions, config.fpr.prototypes, seed)
    wrong = sum(found.kind(image, c) == "wrong" for image, c in every.tolist())
    rows = tuple(csv_row(setup.images, suspect) for suspect in suspects)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(run / "audit" / "suspects.csv", text.getvalue())
    flagged: dict[Kind, int] = {"missing": len(every) - wrong, "wrong": wrong}
    names = setup.images.classes.names
    not_judged = tuple(names[c] for c in np.flatnonzero(~found.learnt).tolist())
    return Audit(setup.data, setup.images, suspects, flagged, not_judged, rows)


@torch.no_grad()
def class_regions(setup: SeedSetup, pairs: npt.NDArray[np.int64], theta: float, step: Step) -> Regions:
    """Regions of every tagged class and of ``pairs`` (R, 2) [image, class], by the host's present weights.

    A map that fires nowhere has the whole picture as its region.
    """
    setup.host.eval()
    wanted = setup.images.labels.copy()  # (N, C)
    wanted[pairs[:, 0], pairs[:, 1]] = True
    row = np.full(wanted.shape, -1, np.int64)
    row[wanted] = np.arange(wanted.sum())
    features: list[Tensor] = []
    boxes: list[Box] = []
    for batch in setup.inputs.plain_batches(32):
        output = setup.host.trained_part(setup.inputs.plain(batch), level_features=True)
        activated = activated_pixels(output.maps, theta)  # (N, C, h, w)
        activated |= ~activated.any(dim=3, keepdim=True).any(dim=2, keepdim=True)
        here = torch.from_numpy(wanted[batch]).to(setup.device)
        features.append(region_features(output.features, activated)[0][here].float().cpu())
        relative = relative_activation(output.maps)[here].cpu().numpy()  # (R, h, w)
        boxes += [box_of(map_, fires) for map_, fires in zip(relative, activated[here].cpu().numpy(), strict=True)]
        step(int(batch[-1]) + 1, len(setup.images))
    return Regions(row, torch.cat(features), tuple(boxes))


def box_of(values: npt.NDArray[np.floating], fires: npt.NDArray[np.bool_]) -> Box:
    """The smallest box around the connected part of ``fires`` (h, w) in which ``values`` (h, w) is largest."""
    part = np.zeros_like(fires)
    part.flat[np.where(fires, values, -1).argmax()] = True
    size = 0
    while part.sum() > size:
        size = int(part.sum())
        wide = np.pad(part, 1)
        part = fires & (part | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:])
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    height, width = fires.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def describe(
    found: Suspicion, probabilities: npt.NDArray[np.float64], pairs: npt.NDArray[np.int64], regions: Regions,
    prototypes: int, seed: int,
) -> tuple[Suspect, ...]:  # fmt: skip
    """The suspects at ``pairs`` (R, 2), in that order, each with its likeness and its nearest labelled examples."""
    agreed = second_opinion(probabilities, found.tags)
    suspects: dict[tuple[int, int], Suspect] = {}
    for c in np.unique(pairs[:, 1]).tolist():
        images = pairs[pairs[:, 1] == c, 0]  # (S,)
        examples = np.flatnonzero(found.tags[:, c] & ~found.flagged[:, c])  # tags without suspicion, (P,)
        asked, known = regions.of(images, c), regions.of(examples, c)
        likeness = positive_likeness(asked, known, prototypes, seed)
        distances = torch.cdist(asked, known)  # (S, P)
        nearest = distances.argsort(dim=1, stable=True)[:, :NEIGHBOURS]
        for place, image in enumerate(images.tolist()):
            neighbours = tuple(
                Neighbour(int(examples[n]), regions.boxes[regions.row[examples[n], c]], distances[place, n].item())
                for n in nearest[place].tolist()
            )
            suspects[image, c] = Suspect(
                image, c, found.kind(image, c), float(found.score[image, c]), float(probabilities[image, c]),
                likeness[place].item(), None if agreed is None else bool(agreed[image, c]),
                regions.boxes[regions.row[image, c]], neighbours,
            )  # fmt: skip
    return tuple(suspects[image, c] for image, c in pairs.tolist())


def csv_row(images: TaggedImages, suspect: Suspect) -> tuple[str, ...]:
    """A suspect in the order of ``COLUMNS``; its box in pixels of the upright photo: left top right bottom."""
    width, height = images.image(suspect.image).size
    box = (round(share * side) for share, side in zip(suspect.box, (width, height) * 2, strict=True))
    agreed = {None: "", True: "yes", False: "no"}[suspect.cleanlab]
    return (
        images.ids[suspect.image], images.classes.names[suspect.class_index], suspect.kind, f"{suspect.score:.4f}",
        f"{suspect.probability:.4f}", f"{suspect.likeness:.3f}", agreed, " ".join(map(str, box)), RULE, "",
    )  # fmt: skip
