"""From localization maps to pseudo masks: dense CRF, IRN, PSA.

    maps -> CRF at three thresholds -> masks, and what is certain -> IRN or PSA learns it -> maps walk -> CRF -> masks

Every arrow leaves files behind; what is there is not computed again, unless its settings or inputs have changed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tag2mask import ranks
from tag2mask.atomic import Written
from tag2mask.config import RefineConfig, RunConfig
from tag2mask.data import TaggedImages
from tag2mask.data.pseudo_masks import open_pseudo_masks
from tag2mask.errors import InputError
from tag2mask.manifests import Manifest
from tag2mask.processes import over_images
from tag2mask.progress import Reporter
from tag2mask.runs import mask_folder, method_folder, write_json
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
from tag2mask.stages.attribution import IMPORTED, map_settings, maps_config, parts_of
from tag2mask.stages.localize import map_path, store_maps
from tag2mask.stages.masks import complete, mask_path, rule_level, write_masks, write_refined_masks
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.origin import (
    PROTOTYPES,
    TRAINING,
    WEIGHTS,
    Inputs,
    facts_of,
    hash_of,
    identity,
    known_facts,
    remove,
    renew,
)
from tag2mask.stages.tags import fingerprint
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
    """The folder of stored maps of a split; those that are missing or damaged are written first.

    ``method``: perhaps with an attribution, ``fpr/advcam``.

    Raises:
        InputError: maps that another program made are missing or damaged.
    """
    folder = method_folder(run, setup.seed, method) / "maps" / setup.data.split
    trained, _ = parts_of(method)
    maps = maps_config(config.maps, method)
    inputs = map_inputs(setup, run, trained)
    if inputs is not None:
        renew(facts_of(folder), map_settings(maps), inputs, [folder], report)
    bad = ranks.once(lambda: lacking(setup.images, folder))
    if bad and trained == IMPORTED:
        raise InputError(
            f"{folder}: {bad} of {len(setup.images)} maps are missing, or not what was taken over; run `tag2mask "
            "import` again."
        )
    if bad:
        prototypes = load_method(setup, trained, run)
        ranks.once(lambda: forget(run, setup, method, report))
        with report.task(f"seed {setup.seed}: maps of {method}") as step:
            store_maps(setup, maps, folder, step, prototypes=prototypes)
    return folder


def map_inputs(setup: SeedSetup, run: Path, method: str) -> Inputs | None:
    """What the maps of a method are made of; None where that is not there, and its maps are all that there is."""
    home = method_folder(run, setup.seed, method)
    sources = {"weights": home / WEIGHTS, **({"prototypes": home / PROTOTYPES} if method == "training_free" else {})}
    if not all(path.is_file() for path in sources.values()):
        return None
    hashes = {name: hash_of(path) for name, path in sources.items()}
    return {**hashes, "backbone": setup.backbone, "photos": setup.photos, "tags": fingerprint(setup)[:16]}


def lacking(images: TaggedImages, folder: Path) -> int:
    """Images whose maps are not there, or not as they were written."""
    manifest = Manifest(folder)
    return sum(not manifest.holds(map_path(folder, name)) for name in images.ids)


def forget(run: Path, setup: SeedSetup, method: str, report: Reporter) -> None:
    """Remove what stands on a folder of maps that is not complete, and say so: thresholds are of the whole set."""
    home, split = method_folder(run, setup.seed, method), setup.data.split
    stale = [output(run, setup, method, refiner) for refiner in REFINERS]
    stale += [home / "crf" / "certain" / split, home / "irn" / "maps" / split, home / "psa" / "maps" / split]
    if any(folder.exists() for folder in stale):
        report.say(f"{home}: maps of {split} are made anew, so what was made of them is removed.")
    for folder in stale:
        facts_of(folder).unlink(missing_ok=True)
        remove(folder)


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
    facts = facts_of(folder)
    renew(facts, {"threshold": config.refine.threshold}, {"maps": identity(facts_of(maps))}, [folder], report)
    level = seed_level(config.refine, setup, maps, facts, report)
    if ranks.once(lambda: complete(setup.images, folder)):
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
    renew(facts, crf_settings(refine), {"maps": identity(facts_of(maps))}, [folder, certain], report)
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
    learnt_from = {"masks of the CRF": identity(facts_of(learnt.folder))}
    renew(home / TRAINING, training_settings(refine, walker), learnt_from, [home], report)
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
    made_from = {"weights": hash_of(home / WEIGHTS), "maps": identity(facts_of(maps))}
    renew(facts_of(walked), every, made_from, [walked], report)
    with report.task(f"seed {setup.seed}: random walk of {method}") as step:
        walk_maps(walker, config, setup, inputs, home / "weights.safetensors", maps, walked, step)
    after = {"final_crf": refine.final_crf, "walk_threshold": refine.walk_threshold}
    # A segmenter stands on all of the settings.
    renew(facts, {**every, **after}, {"maps": identity(facts_of(walked))}, [folder], report)
    level = BACKGROUND_LEVEL
    if walker == "irn":
        given = refine.walk_threshold
        level = level_of(given) if given else seed_level(replace(refine, threshold=0.0), setup, walked, facts, report)
    with report.task(f"seed {setup.seed}: masks of {walker.upper()}") as step:
        if refine.final_crf:
            write_refined_masks(setup.images, walked, folder, level, refine, step)
        elif not ranks.once(lambda: complete(setup.images, folder)):
            write_masks(setup.images, walked, folder, level, step)
    return Refinement(setup.seed, method, walker, folder, share(level))


def output(run: Path, setup: SeedSetup, method: str, refiner: Refiner) -> Path:
    """Where the masks of a split lie."""
    return mask_folder(run, setup.seed, method, refiner, setup.data.split)


def certain_folder(masks: Path) -> Path:
    """Where a CRF's certain labels lie, beside its masks."""
    return masks.parent.parent / "certain" / masks.name


def seed_level(refine: RefineConfig, setup: SeedSetup, maps: Path, facts: Path, report: Reporter) -> int:
    """The threshold level of a folder of maps: the settings' own, or the rule's, which is kept in ``facts``."""
    if refine.threshold:
        return level_of(refine.threshold)
    known = ranks.once(lambda: known_facts(facts))
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


def write_all_power_labels(
    refine: RefineConfig, training: SeedSetup, maps: Path, folder: Path, report: Reporter
) -> None:
    """PSA's own labels for every image; those that exist are left alone."""
    images = training.images
    manifest = Manifest(folder, ranks.rank())
    every = ranks.once(lambda: [i for i, n in enumerate(images.ids) if not manifest.holds(mask_path(folder, n))])
    missing, done = list(ranks.mine(every)), len(images) - len(every)
    jobs = (
        PowersJob(
            0, images.alone(i), map_path(maps, images.ids[i]), mask_path(folder, images.ids[i]), refine.psa,
            refine.crf_longest,
        )
        for i in missing
    )

    def received(job: PowersJob, written: Written) -> None:
        manifest.add(job.out, written)

    with report.task(f"seed {training.seed}: labels of PSA") as step:
        over_images(write_power_labels, jobs, len(missing), refine.processes, step, done, received)
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
