"""Print how well `tag2mask audit` finds tags that were removed at random, as a Markdown table.

Run ``python docs/measure_audit.py RUN [RUN ...]``. Of each run the images, their tags and the network before training
are used, five times for each rate with other tags removed: nothing is trained but the audit's own classifiers.

AP: average precision of the ranking of all pairs without a tag. precision@k: share of removed tags among the first k,
the number that was removed. recall: share of the removed tags that are flagged. true: share of the pairs flagged as
missing that were removed; the others may be errors that the data had before. All in percent, mean and deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from tag2mask.engine import set_up_torch
from tag2mask.noise import out_of_fold_probabilities, second_opinion, suspicion
from tag2mask.progress import Reporter
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.tags import pooled_features

RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
SEEDS = 5
MEASURES = (
    "AP", "precision@k", "recall", "true", "AP, p alone", "recall, cleanlab", "true, cleanlab", "flagged missing",
    "flagged wrong",
)  # fmt: skip

Tags = npt.NDArray[np.bool_]


def without(tags: Tags, rate: float, seed: int) -> Tags:
    """Tags (N, C) less a random share of the true ones."""
    images, classes = np.nonzero(tags)
    gone = np.random.default_rng(seed).choice(len(images), round(rate * len(images)), replace=False)
    left = tags.copy()
    left[images[gone], classes[gone]] = False
    return left


def measure(features: npt.NDArray[np.floating], tags: Tags, left: Tags, seed: int) -> tuple[float, ...]:
    """``MEASURES`` of one removal, percent, the last two in tags; nan where there is nothing to divide by."""
    probabilities = out_of_fold_probabilities(features, left, seed=seed)
    found = suspicion(probabilities, left)
    other = second_opinion(probabilities, left)
    absent = ~left
    removed, score = tags[absent], found.score[absent]
    k = int(removed.sum())
    first = np.argsort(-score, kind="stable")[:k]
    own = share(removed, found.flagged[absent])
    theirs = (np.nan, np.nan) if other is None else share(removed, other[absent])
    ap, plain = (average_precision_score(removed, s) if k else np.nan for s in (score, probabilities[absent]))
    precision = removed[first].mean() if k else np.nan
    shares = 100 * np.array([ap, precision, *own, plain, *theirs])
    return (*shares.tolist(), float(found.flagged[absent].sum()), float(found.flagged[left].sum()))


def share(removed: Tags, flagged: Tags) -> tuple[float, float]:
    """Recall of the removed, and share of the flagged that was removed."""
    both = (removed & flagged).sum()
    return (both / removed.sum() if removed.any() else np.nan, both / flagged.sum() if flagged.any() else np.nan)


def cell(values: npt.NDArray[np.floating]) -> str:
    """Mean and deviation of what there is."""
    known = values[~np.isnan(values)]
    return f"{known.mean():.0f} ± {known.std():.0f}" if len(known) else "–"


def rows(run: Path) -> Iterator[str]:
    """The table's rows of one run."""
    config = read_settings(run)
    setup = set_up_seed(config, run, config.seeds[0], set_up_torch(config.threads, config.device), Reporter(quiet=True))
    features = pooled_features(setup, lambda done, total, note="": None)
    tags = setup.images.labels
    for rate in RATES:
        seeds = range(SEEDS)
        found = np.array([measure(features, tags, without(tags, rate, seed), seed) for seed in seeds])  # (S, M)
        name = f"{run.name}, {len(tags)} images" if rate == 0 else ""
        print(f"{run.name} {rate}", file=sys.stderr)
        yield f"| {name} | {100 * rate:.0f} % ({round(rate * tags.sum())}) | " + " | ".join(map(cell, found.T)) + " |"


def main(runs: list[str]) -> None:
    """Print the table."""
    print(f"| data | removed | {' | '.join(MEASURES)} |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for run in runs:
        for row in rows(Path(run)):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
