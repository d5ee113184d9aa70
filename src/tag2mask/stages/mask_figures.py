"""Figures of finished masks, stage by stage: maps, CRF, IRN, segmenter. Reads the truth; nothing learns from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tag2mask import ranks
from tag2mask.config import RefineConfig, RunConfig
from tag2mask.data.pseudo_masks import open_pseudo_masks
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder
from tag2mask.score import MaskCounts, MaskScores, mask_scores, paired_difference
from tag2mask.stages.evaluate import Truth, mean_and_deviation
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.refine import REFINERS, Refiner, refine
from tag2mask.stages.segment import learnt_from_these_masks, predict_split, segmenter_sources
from tag2mask.stages.table import stage_title

FIGURES = ("miou", "precision", "recall", "fdr", "unsure")


def score_seed(
    config: RunConfig, setup: SeedSetup, training: SeedSetup, truth: Truth, run: Path, methods: tuple[str, ...],
    report: Reporter, segmenters_alone: bool = False,
) -> dict[str, dict[str, MaskCounts]]:  # fmt: skip
    """Pixel counts of every stage that a run has, by method and stage; masks of the split that are missing are made.

    Args:
        segmenters_alone: leave the stages out that are told tags.

    Returns:
        method -> stage -> counts; a segmenter's stage is ``segmenter:irn`` after its masks.
    """
    counted: dict[str, dict[str, MaskCounts]] = {}
    for method in methods:
        if not method_folder(run, setup.seed, method).is_dir():  # imported maps, which are of one seed
            continue
        counted[method] = {}
        for refiner in () if segmenters_alone else ranks.once(partial(refiners_of, run, setup.seed, method)):
            folder = refine(config, setup, training, run, method, refiner, report).folder
            counted[method][refiner] = count_masks(setup, folder, truth)
        for source in ranks.once(partial(segmenter_sources, run, setup.seed, method)):
            if not learnt_from_these_masks(run, training, method, source):
                report.warn(
                    f"the segmenter of {method} has learnt from other masks than those of {source} as they are now; it "
                    "is left out."
                )
                continue
            with report.task(f"seed {setup.seed}: segmenter of {method}") as step:
                folder = predict_split(setup, run, method, source, step, report)
            counted[method][f"segmenter:{source}"] = count_masks(setup, folder, truth)
    return counted


def refiners_of(run: Path, seed: int, method: str) -> list[Refiner]:
    """The refinements that a method of a run has, for any split; plain masks always."""
    home = method_folder(run, seed, method)
    return [refiner for refiner in REFINERS if refiner == "seed" or (home / refiner / "masks").is_dir()]


def count_masks(setup: SeedSetup, folder: Path, truth: Truth) -> MaskCounts:
    """Pixel counts of a folder of masks; of processes that share them, the first has those of all."""
    masks = open_pseudo_masks(folder, setup.images.ids, len(setup.images.classes))
    counts = MaskCounts(len(setup.images.classes), len(setup.images))
    for index in ranks.mine(range(len(setup.images))):
        counts.add(index, masks.mask(index), truth[index][0])
    ranks.streamed([counts], counts.take_in)
    return counts


def summarise_stages(
    results: dict[int, dict[str, dict[str, MaskCounts]]], split: str, refine: RefineConfig
) -> dict[str, Any]:
    """What stages.json holds: mean and deviation over seeds, and paired differences of the default with training on.

    A stage stands there when every seed that has the method has the stage.

    Args:
        results: seed -> method -> stage -> counts.
        refine: settings, for the protocol: `fixed` where a threshold of theirs is not the rule's.
    """
    seeds = sorted(results)
    scores: dict[int, dict[str, dict[str, MaskScores]]] = {
        seed: {m: {stage: mask_scores(c) for stage, c in stages.items()} for m, stages in methods.items()}
        for seed, methods in results.items()
    }
    first = scores[seeds[0]]
    table: dict[str, dict[str, Any]] = {}
    for method, stages in first.items():
        own = [scores[seed][method] for seed in seeds if method in scores[seed]]
        table[method] = {
            stage: {name: mean_and_deviation([getattr(seed[stage], name) for seed in own]) for name in FIGURES}
            for stage in stages
            if all(stage in seed for seed in own)
        }
    differences: dict[str, dict[str, Any]] = {}
    for seed, methods in results.items():
        ours, control = methods.get("fpr", {}), methods.get("continued", {})
        differences[str(seed)] = {
            stage: vars(paired_difference(ours[stage].image_counts(), control[stage].image_counts(), seed=seed))
            for stage in ours
            if stage in control
        }
    images = next(iter(next(iter(first.values())).values())).images
    return {
        "stages": table, "fpr_minus_continued": differences, "seeds": seeds, "split": split, "images": images,
        "protocol": "fixed" if refine.threshold or refine.walk_threshold else "gtfree",
    }  # fmt: skip


def markdown(summary: dict[str, Any]) -> str:
    """A row of mIoU for each method, a column for each stage; below it what each stage gains or loses.

    CRF against the maps, IRN and PSA against the CRF from which they learn, a segmenter against its masks.
    """
    stages = list(dict.fromkeys(stage for table in summary["stages"].values() for stage in table))
    lines = [
        "| mIoU | " + " | ".join(stage_title(stage) for stage in stages) + " |",
        "|---" * (len(stages) + 1) + "|",
    ]
    for method, table in summary["stages"].items():
        cells = []
        for stage in stages:
            figure = table.get(stage, {}).get("miou")
            several = len(summary["seeds"]) > 1
            known = figure is not None and figure["mean"] is not None
            cells.append(f"{figure['mean']:.1f}" + (f" ±{figure['std']:.1f}" if several else "") if known else "–")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
        changes = [f"{change:+.1f}" if (change := gain(table, stage)) is not None else "" for stage in stages]
        lines.append("| gain or loss | " + " | ".join(changes) + " |")
    seeds = ", ".join(map(str, summary["seeds"]))
    lines += [
        "",
        f"mIoU of masks; protocol {summary['protocol']}: no mask was read but to score; {summary['images']} images, "
        f"split {summary['split']}, seeds {seeds}. Maps, CRF and walks are told the tags of a photo, the segmenter is "
        "not.",
    ]
    return "\n".join(lines)


def gain(table: dict[str, Any], stage: str) -> float | None:
    """mIoU of a stage minus that of what it starts from; None for maps, and where one of the two is missing."""
    before = {"crf": "seed", "irn": "crf", "psa": "crf"}.get(stage, stage.removeprefix("segmenter:"))
    if before == stage or before not in table or stage not in table:
        return None
    return float(table[stage]["miou"]["mean"] - table[before]["miou"]["mean"])
