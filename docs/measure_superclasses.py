"""Print what super-classes that are found, not given, are worth on the built-in scenes, as Markdown tables.

Run ``python docs/measure_superclasses.py RUN OUT`` on a trained run of the scenes; masks are read for the figures.

Found: classes are confused where a class that is not tagged scores higher in photos with another one, and alike where
their positive prototypes lie near each other. Average-link clusters, cut at the largest gap between merges. The method
is then trained from the CAM of RUN with them in place of those that the scenes are made with. The runs in OUT hold its
weights and figures; their settings cannot name the super-classes, which are printed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measure_vehicles import NONE, measure
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from tag2mask.config import RunConfig
from tag2mask.engine import collect, set_up_torch
from tag2mask.fpr import Prototypes
from tag2mask.progress import Reporter
from tag2mask.stages import pipeline
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.sweep import prepare
from tag2mask.stages.table import cell
from tag2mask.stages.tags import find_suspects, read_training_tags, tags_of_pools
from tag2mask.stages.train import load_method, train_method

Matrix = npt.NDArray[np.float64]
SETTINGS: dict[str, dict[str, Any]] = {
    "found": {**NONE, "remember": 0, "lift_fewer": 0.0},
    "found, on top of the default": {},
}


@dataclass(frozen=True)
class Found(SeedSetup):
    """A seed with super-classes of its own in place of the data's."""

    groups: tuple[int, ...] = ()

    @property
    def superclasses(self) -> tuple[int, ...]:
        return self.groups


@torch.no_grad()
def confusions(setup: SeedSetup, tags: npt.NDArray[np.bool_]) -> Matrix:
    """How much higher a class scores in photos with another one than in photos with neither, (C, C), both ways."""
    logits = np.empty(tags.shape)
    for batch in setup.inputs.plain_batches(32):
        logits[batch] = setup.host.trained_part(setup.inputs.plain(batch)).logits.cpu().numpy()
    result = np.zeros((tags.shape[1], tags.shape[1]))
    for c, d in np.ndindex(*result.shape):
        absent = ~tags[:, c]
        if c != d:
            result[c, d] = logits[absent & tags[:, d], c].mean() - logits[absent & ~tags[:, d], c].mean()
    return (result + result.T) / 2


def distances(prototypes: Prototypes) -> Matrix:
    """L2 distance between the means of the classes' positive prototypes, (C, C)."""
    weights = (prototypes.positive_valid * prototypes.positive_weight).unsqueeze(2)  # (C, K, 1)
    centres = (prototypes.positive * weights).sum(1) / weights.sum(1)  # (C, D)
    result: Matrix = torch.cdist(centres, centres).double().cpu().numpy()
    return (result + result.T) / 2


def clusters(apart: Matrix) -> tuple[int, ...]:
    """Average-link clusters of a matrix (C, C) of how far apart classes are, cut at the largest gap between merges."""
    condensed = squareform(apart - np.diag(np.diag(apart)), checks=False)
    tree = linkage(condensed - condensed.min(), "average")
    cut = int(np.argmax(np.diff(tree[:, 2])))
    return tuple(fcluster(tree, tree[cut : cut + 2, 2].mean(), "distance").tolist())


def standard(matrix: Matrix) -> Matrix:
    """Mean 0 and deviation 1 off the diagonal."""
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    return (matrix - others.mean()) / others.std()


def main() -> None:
    """The groups of each seed, then a row for each setting: mean and deviation over the seeds of the run."""
    run, out, report = Path(sys.argv[1]), Path(sys.argv[2]), Reporter(quiet=True)
    base = pipeline.read_settings(run)
    device = set_up_torch(base.threads, base.device)
    cells: dict[str, RunConfig] = {}
    for name, options in SETTINGS.items():
        fpr = replace(base.fpr, superclass_trim=True, **options)
        cells[name] = replace(base, methods=("fpr",), fpr=fpr)
        prepare(run, out / name, cells[name], cam_is_shared=True)
    agreement: dict[str, list[float]] = {"confusions": [], "positives": [], "both": []}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SETTINGS}
    for seed in base.seeds:
        setup = set_up_seed(base, run, seed, device, report)
        tags = read_training_tags(run, setup)
        for name in SETTINGS:
            find_suspects(setup, tags, out / name, report)
        load_method(setup, "cam", run)
        targets = torch.tensor(tags, dtype=torch.float32, device=device)
        positives = distances(collect(setup.host, setup.inputs, targets, base.fpr, None, seed + 1000))
        confused = confusions(setup, tags > 0)
        kinds = {
            "confusions": -confused, "positives": positives, "both": standard(positives) - standard(confused),
        }  # fmt: skip
        groups = {kind: clusters(apart) for kind, apart in kinds.items()}
        for kind, found in groups.items():
            agreement[kind].append(adjusted_rand_score(setup.superclasses, found))
        names = setup.images.classes.names
        members = [[n for n, g in zip(names, groups["both"], strict=True) if g == one] for one in set(groups["both"])]
        print(f"seed {seed}:", "; ".join(", ".join(group) for group in members), flush=True)
        for name, config in cells.items():
            other = Found(**{**vars_of(setup), "groups": groups["both"]})
            load_method(setup, "cam", run)
            pools = tags_of_pools(config.tags, setup, tags, config.fpr, out / name, report)
            rows[name].append(measure(other, torch.tensor(pools, dtype=torch.float32, device=device), config.fpr))
            train_method(config, other, tags, "fpr", out / name, report, resume=False)
    print("adjusted Rand index:", {kind: [round(value, 2) for value in each] for kind, each in agreement.items()})
    print("| super-classes | matched* | gtfree | negatives of a class | true vehicle pixels pushed down* | wheels* |")
    print("|---|---|---|---|---|---|")
    for name, values in rows.items():
        figures = pipeline.evaluate_run(out / name, ("fpr",), "", report)["methods"]["fpr"]
        scores = [cell(figures[kind]["miou"], len(base.seeds)) for kind in ("matched", "gtfree")]
        (vehicles, wheels, negatives), deviation = np.mean(values, axis=0), spread(values)
        shares = f"{vehicles:.1f} ±{deviation[0]:.1f} % | {wheels:.1f} ±{deviation[1]:.1f} %"
        print(f"| {name} | {scores[0]} | {scores[1]} | {negatives:.1f} | {shares} |")


def spread(values: list[tuple[float, float, float]]) -> npt.NDArray[np.float64]:
    """Sample standard deviation over the seeds; 0 of one."""
    deviation: npt.NDArray[np.float64] = np.std(values, axis=0, ddof=1 if len(values) > 1 else 0)
    return deviation


def vars_of(setup: SeedSetup) -> dict[str, Any]:
    """The fields of a setup."""
    return {name: getattr(setup, name) for name in SeedSetup.__dataclass_fields__}


if __name__ == "__main__":
    main()
