"""From localization maps to pseudo masks: dense CRF, IRN, PSA.

    maps -> CRF at three thresholds -> masks, and what is certain -> IRN or PSA learns it -> maps walk -> CRF -> masks

Every arrow leaves files behind; what is there is not computed again, unless its settings have changed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tag2mask import ranks
from tag2mask.config import RefineConfig, RunConfig
from tag2mask.data.pseudo_masks import open_pseudo_masks
from tag2mask.errors import InputError
from tag2mask.processes import over_images
from tag2mask.progress import Reporter
from tag2mask.runs import mask_folder, method_folder, read_json, write_json
from tag2mask.score import LEVELS, level_of
from tag2mask.stages.affinity import (
    BACKGROUND_LEVEL,
    PowersJob,
    Walker,
    open_levels,
    train_affinity,
    walk_maps,
    write_power_labels,
)
from tag2mask.stages.attribution import map_settings, maps_config, parts_of
from tag2mask.stages.localize import map_path, store_maps
from tag2mask.stages.masks import mask_path, rule_level, write_masks, write_refined_masks
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.train import load_method

Refiner = Literal["seed", "crf", "irn", "psa"]
REFINERS: tuple[Refiner, ...] = get_args(Refiner)
"""Where masks come from: the maps at a threshold, or a refinement of them."""


@dataclass(frozen=True)
class Refinement:
    """Masks of one seed, method and split."""

    seed: int
    method: str
    refiner: Refiner
    folder: Path
    threshold: float
    """Share of a map's maximum; of the walked maps for IRN and PSA."""


def maps_of(config: RunConfig, setup: SeedSetup, run: Path, method: str, report: Reporter) -> Path:
    """The folder of stored maps of a split; those that are missing are written first.

    ``method``: perhaps with an attribution, ``fpr/advcam``. Its settings may change later, unlike those of class
    activation maps, and maps by others are void.
    """
    folder = method_folder(run, setup.seed, method) / "maps" / setup.data.split
    trained, attribution = parts_of(method)
    maps = maps_config(config.maps, method)
    if attribution != "cam":
        renew(facts_of(folder), map_settings(maps), [folder], report)
    if ranks.once(lambda: any(not map_path(folder, name).is_file() for name in setup.images.ids)):
        prototypes = load_method(setup, trained, run)
        ranks.once(lambda: forget(run, setup, method))
        with report.task(f"seed {setup.seed}: maps of {method}") as step:
            store_maps(setup, maps, folder, step, prototypes=prototypes)
    return folder


def forget(run: Path, setup: SeedSetup, method: str) -> None:
    """Remove what stands on a folder of maps that is not complete: thresholds are of the whole set."""
    home, split = method_folder(run, setup.seed, method), setup.data.split
    for refiner in REFINERS:
        masks = output(run, setup, method, refiner)
        facts_of(masks).unlink(missing_ok=True)
        remove(masks)
    for stale in (home / "crf" / "certain" / split, home / "irn" / "maps" / split, home / "psa" / "maps" / split):
        facts_of(stale).unlink(missing_ok=True)
        remove(stale)


def remove(folder: Path) -> None:
    """Delete a folder, if it is there; what cannot be deleted is an error, or it would be trusted later."""
    if folder.exists():
        shutil.rmtree(folder)


def refine(
    config: RunConfig, setup: SeedSetup, training: SeedSetup, run: Path, method: str, refiner: Refiner, report: Reporter
) -> Refinement:
    """Write the masks of one seed, method and split, and whatever they stand on.

    Args:
        setup: of the split whose masks are wanted.
        training: of the split that the run was trained on, where IRN and PSA learn.
    """
    if refiner == "seed":
        return seed_masks(config, setup, run, method, report)
    if refiner == "crf":
        return crf_masks(config, setup, run, method, report, setup is training)
    return walked_masks(config, setup, training, run, method, refiner, report)


def seed_masks(config: RunConfig, setup: SeedSetup, run: Path, method: str, report: Reporter) -> Refinement:
    """The maps at the threshold of the rule (or the settings' own), without refinement."""
    maps, folder = maps_of(config, setup, run, method, report), output(run, setup, method, "seed")
    renew(facts_of(folder), {"threshold": config.refine.threshold}, [folder], report)
    level = seed_level(config.refine, setup, maps, facts_of(folder), report)
    if ranks.once(lambda: all(mask_path(folder, name).is_file() for name in setup.images.ids)):
        return Refinement(setup.seed, method, "seed", folder, share(level))
    with report.task(f"seed {setup.seed}: masks of {method}") as step:
        write_masks(setup.images, maps, folder, level, step)
    return Refinement(setup.seed, method, "seed", folder, share(level))


def crf_masks(
    config: RunConfig, setup: SeedSetup, run: Path, method: str, report: Reporter, certain_too: bool
) -> Refinement:
    """The maps at their threshold through a dense CRF, and beside them what is certain at a higher and a lower one.

    ``certain_too``: where IRN or PSA may learn from it.
    """
    refine = config.refine
    maps, folder = maps_of(config, setup, run, method, report), output(run, setup, method, "crf")
    certain, facts = certain_folder(folder), facts_of(folder)
    renew(facts, crf_settings(refine), [folder, certain], report)
    level = seed_level(refine, setup, maps, facts, report)
    with report.task(f"seed {setup.seed}: CRF of {method}") as step:
        write_refined_masks(setup.images, maps, folder, level, refine, step, certain if certain_too else None)
    return Refinement(setup.seed, method, "crf", folder, share(level))


def walked_masks(
    config: RunConfig, setup: SeedSetup, training: SeedSetup, run: Path, method: str, walker: Walker, report: Reporter
) -> Refinement:
    """IRN or PSA: learn on the training split, walk, threshold, and a CRF if the settings say so."""
    refine, maps = config.refine, maps_of(config, setup, run, method, report)
    home, folder = method_folder(run, setup.seed, method) / walker, output(run, setup, method, walker)
    learnt = crf_masks(config, training, run, method, report, certain_too=True)
    renew(home / "training.json", training_settings(refine, walker), [home], report)
    inputs = open_levels(config, training, run, report)
    certain = certain_folder(learnt.folder)
    if walker == "psa" and refine.psa.labels == "powers":
        certain = home / "labels"
        write_all_power_labels(refine, training, maps_of(config, training, run, method, report), certain, report)
    labels = open_pseudo_masks(certain, training.images.ids, len(training.images.classes))
    train_affinity(walker, config, training, inputs, labels, home, report)
    if setup.data != training.data:
        inputs = open_levels(config, setup, run, report)
    walked, facts = home / "maps" / setup.data.split, facts_of(folder)
    every = {**training_settings(refine, walker), **walk_settings(refine, walker)}
    renew(facts_of(walked), every, [walked], report)
    with report.task(f"seed {setup.seed}: random walk of {method}") as step:
        walk_maps(walker, config, setup, inputs, home / "weights.safetensors", maps, walked, step)
    after = {"final_crf": refine.final_crf, "walk_threshold": refine.walk_threshold}
    renew(facts, {**every, **after}, [folder], report)  # a segmenter stands on all of them
    level = BACKGROUND_LEVEL
    if walker == "irn":
        given = refine.walk_threshold
        level = level_of(given) if given else seed_level(replace(refine, threshold=0.0), setup, walked, facts, report)
    with report.task(f"seed {setup.seed}: masks of {walker.upper()}") as step:
        if refine.final_crf:
            write_refined_masks(setup.images, walked, folder, level, refine, step)
        elif ranks.once(lambda: any(not mask_path(folder, name).is_file() for name in setup.images.ids)):
            write_masks(setup.images, walked, folder, level, step)
    return Refinement(setup.seed, method, walker, folder, share(level))


def output(run: Path, setup: SeedSetup, method: str, refiner: Refiner) -> Path:
    """Where the masks of a split lie."""
    return mask_folder(run, setup.seed, method, refiner, setup.data.split)


def facts_of(masks: Path) -> Path:
    """The file that says how a folder of masks was made."""
    return masks.with_name(f"{masks.name}.json")


def certain_folder(masks: Path) -> Path:
    """Where a CRF's certain labels lie, beside its masks."""
    return masks.parent.parent / "certain" / masks.name


def seed_level(refine: RefineConfig, setup: SeedSetup, maps: Path, facts: Path, report: Reporter) -> int:
    """The threshold level of a folder of maps: the settings' own, or the rule's, which is kept in ``facts``."""
    if refine.threshold:
        return level_of(refine.threshold)
    known = ranks.once(lambda: read_json(facts, "description of the masks") if facts.is_file() else {})
    if "level" not in known:
        with report.task(f"seed {setup.seed}: threshold") as step:
            known["level"] = rule_level(setup.images, maps, step)
        ranks.once(lambda: write_json(facts, known))
    return int(known["level"])


WALK_SETTINGS = {"irn": ("radius", "beta", "steps", "power"), "psa": ("background", "beta", "steps")}
"""What acts on the walk alone: a change of these does not touch what was trained."""
INSTANCE_SETTINGS = ("background", "centroid_steps", "centre_radius", "smallest_fragment")
"""IRN's, for instances alone."""


def crf_settings(refine: RefineConfig) -> dict[str, Any]:
    """The settings on which the masks of the CRF stand, and what it is certain of."""
    every = asdict(refine)
    return {name: every[name] for name in ("threshold", "foreground", "background", "crf", "crf_longest")}


def training_settings(refine: RefineConfig, walker: Walker) -> dict[str, Any]:
    """The settings on which the training of IRN or PSA stands, as they come back from JSON."""
    every = asdict(refine)
    later = WALK_SETTINGS[walker] + (INSTANCE_SETTINGS if walker == "irn" else ())
    own = {name: value for name, value in every[walker].items() if name not in later}
    settings = {**crf_settings(refine), **{name: every[name] for name in ("views", "scales", "optimiser")}, walker: own}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def walk_settings(refine: RefineConfig, walker: Walker) -> dict[str, Any]:
    """The settings of the walk."""
    own = asdict(refine)[walker]
    return {f"walk.{name}": own[name] for name in WALK_SETTINGS[walker]}


def renew(facts: Path, settings: dict[str, Any], folders: list[Path], report: Reporter) -> None:
    """Remove what was made with other settings, and say so; afterwards ``facts`` has these."""

    def make_room() -> None:
        known = read_json(facts, "description of the masks") if facts.is_file() else {}
        if known.get("settings") == settings:
            return
        if known.get("settings") is not None:
            report.say(f"{folders[0]}: the settings have changed, so it is made anew.")
            for folder in folders:
                remove(folder)
        write_json(facts, {"settings": settings})

    ranks.once(make_room)


def write_all_power_labels(
    refine: RefineConfig, training: SeedSetup, maps: Path, folder: Path, report: Reporter
) -> None:
    """PSA's own labels for every image; those that exist are left alone."""
    images = training.images
    missing = [i for i, name in ranks.mine(enumerate(images.ids)) if not mask_path(folder, name).is_file()]
    done = len(range(ranks.rank(), len(images), ranks.world())) - len(missing)
    jobs = (
        PowersJob(
            0, images.alone(i), map_path(maps, images.ids[i]), mask_path(folder, images.ids[i]), refine.psa,
            refine.crf_longest,
        )
        for i in missing
    )
    with report.task(f"seed {training.seed}: labels of PSA") as step:
        over_images(write_power_labels, jobs, len(missing), refine.processes, step, done)
    ranks.wait()


def share(level: int) -> float:
    """A threshold level as a share."""
    return level / (LEVELS - 1)


def check_refiner(name: str) -> Refiner:
    """The refiner that the user names."""
    for refiner in REFINERS:
        if name == refiner:
            return refiner
    raise InputError(f"there is no refinement {name!r}; expected one of {', '.join(REFINERS)}.")
