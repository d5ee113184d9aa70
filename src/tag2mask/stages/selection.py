"""What a declared budget of n annotated images is worth: the threshold that they choose, beside gtfree and oracle.

The images are drawn, many times over, from the photos that were trained on; the mIoU is that of all photos of a split.
Reads masks: those of n images would do for the threshold, all of them are needed to say how good it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.engine import set_up_torch
from tag2mask.manifests import write_result
from tag2mask.progress import Reporter
from tag2mask.runs import holding_run
from tag2mask.score import miou_by_level
from tag2mask.score.budget import annotated_images, budget_level, draw_images
from tag2mask.stages.evaluate import MethodScores, Truth, mean_and_deviation, score_method
from tag2mask.stages.localize import localize
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.pipeline import chosen_methods, read_settings, require_masks
from tag2mask.stages.table import TITLES, cell
from tag2mask.stages.train import load_method

DRAWS = 100
"""How many times the images are drawn."""


@holding_run
def measure_budget(
    run: Path, budgets: tuple[int, ...], methods: tuple[str, ...], split: str, report: Reporter
) -> dict[str, Any]:
    """mIoU at the threshold that n annotated training photos choose, averaged over draws, for each method and seed.

    Args:
        run: a trained run.
        budgets: values of n, 1 or more.
        methods: of the run; all if empty.
        split: the photos that are scored; those trained on if empty.

    Returns:
        What budget.json (of another split: budget.SPLIT.json) holds: for each method ``gtfree``, ``oracle`` and each
        n, mIoU as mean and deviation over seeds.

    Raises:
        InputError: without masks, for a method that is not in the run, for a budget out of range.
    """
    config = read_settings(run)
    device = set_up_torch(config.threads, config.device)
    chosen = chosen_methods(config, methods)
    rows: dict[str, dict[str, list[float]]] = {method: {} for method in chosen}
    images = 0
    for seed in config.seeds:
        trained_on = set_up_seed(config, run, seed, device, report)
        other = split and split != config.data.split
        scored = set_up_seed(config, run, seed, device, report, split) if other else trained_on
        draws = {n: draw_images(trained_on.images.labels, n, DRAWS, seed) for n in budgets}
        truth = {setup.data.split: Truth(require_masks(setup), setup.images) for setup in (trained_on, scored)}
        images = len(scored.images)
        for method in chosen:
            here = score(trained_on, method, run, truth, report)
            there = score(scored, method, run, truth, report) if other else here
            by_level = miou_by_level(there.histograms)
            gtfree = here.by_protocol["gtfree"].level
            found = {"gtfree": by_level[there.by_protocol["gtfree"].level - 1], "oracle": by_level.max()}
            for n, samples in draws.items():
                drawn, places = np.unique(samples, return_inverse=True)
                annotated = annotated_images(here.histograms, drawn)
                levels = [budget_level(annotated.rows(row), gtfree) for row in places.reshape(samples.shape)]
                found[str(n)] = by_level[np.array(levels) - 1].mean()
            for name, value in found.items():
                rows[method].setdefault(name, []).append(float(value))
    result = {
        "methods": {m: {name: mean_and_deviation(values) for name, values in row.items()} for m, row in rows.items()},
        "budgets": list(budgets),
        "draws": DRAWS,
        "seeds": list(config.seeds),
        "images": images,
        "split": split or config.data.split,
    }
    write_result(run / (f"budget.{split}.json" if split and split != config.data.split else "budget.json"), result)
    return result


def score(setup: SeedSetup, method: str, run: Path, truth: dict[str, Truth], report: Reporter) -> MethodScores:
    """Figures of a method on the photos of a set-up."""
    masks = truth[setup.data.split]
    prototypes = load_method(setup, method, run)
    config = read_settings(run)
    with report.task(f"seed {setup.seed}: {method} on {setup.data.split}") as step:
        return score_method(localize(setup, config.maps, masks.size_hw, step, prototypes), masks, setup.images.labels)


def markdown(result: dict[str, Any]) -> str:
    """A row for each method: gtfree, every budget, oracle."""
    seeds = len(result["seeds"])
    names = ["gtfree", *map(str, result["budgets"]), "oracle"]
    head = ["mIoU", "gtfree", *(f"budget {n}*" for n in result["budgets"]), "oracle*"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [
        "| " + " | ".join([TITLES[method], *(cell(row[name], seeds) for name in names)]) + " |"
        for method, row in result["methods"].items()
    ]
    lines.append(
        f"\n{result['images']} images, split {result['split']}, seeds {', '.join(map(str, result['seeds']))}, "
        f"{result['draws']} draws of the annotated images. * reads masks: budget n those of n images trained on."
    )
    return "\n".join(lines)
