"""The class activation map, then every method from the same weights (section 3.2.3)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tag2mask import ranks
from tag2mask.checkpoints import load_prototypes, load_weights, save_prototypes, save_weights
from tag2mask.config import FPRConfig, RunConfig, TagsConfig
from tag2mask.data import open_images
from tag2mask.engine import check_batch, collect, fit
from tag2mask.errors import InputError
from tag2mask.fpr import Prototypes
from tag2mask.hosts.table import check_kind
from tag2mask.presets import method_config
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder
from tag2mask.stages import rivals
from tag2mask.stages.blocked import blocked_pairs
from tag2mask.stages.network import SeedSetup, data_of_seed
from tag2mask.stages.origin import TRAINING, WEIGHTS, Inputs, begin_training, hash_of, known_facts
from tag2mask.stages.tags import (
    TrainingTags,
    drops_suspects,
    find_suspects,
    hash_of_tags,
    tags_of_pools,
    training_tags,
)

SUPPORT = "fellows without a common tag, by all tags; of a quarter or none"
"""What ``fpr.support`` means, which no setting says: trainings of versions in which it meant another thing are not
gone on with."""
NO_SUSPECTS = "of photos that look as if the tag were missing none"
"""What ``fpr.suspects`` means, likewise."""
CLASSIFIER_ALONE = FPRConfig(region_weight=0.0, pixel_weight=0.0)


def check_before_training(config: RunConfig) -> None:
    """Tell mistakes in what training will need before anything is computed or written.

    Raises:
        InputError: no tags, an unknown host, a rival without what it brings, a block list with a fault, batches too
            small for the processes.
    """
    if config.data.labels == "none":
        raise InputError("data.labels is 'none', but training needs tags; leave it out, or name the file of tags.")
    check_kind(config.host)
    rivals.check(config)
    images = open_images(data_of_seed(config.data, config.seeds[0]))
    blocked_pairs(config, images)
    for phase in (config.classify, config.rectify):
        check_batch(min(len(images), phase.batch_size))


def prepare_tags(config: RunConfig, setup: SeedSetup, run: Path, report: Reporter, resume: bool) -> TrainingTags:
    """``training_tags``, with warnings, and with ``find_suspects`` where a method leaves suspects out of its pools.

    To be called before the host learns anything.
    """
    tags = training_tags(config, setup, run, report, resume)
    warn_of_tags(setup, tags, report)
    settings = {method: method_config(method, config.fpr) for method in config.methods}
    if any(needs_pools(method, fpr) and drops_suspects(config.tags, fpr) for method, fpr in settings.items()):
        find_suspects(setup, tags, run, report)
    return tags


def warn_of_tags(setup: SeedSetup, tags: TrainingTags, report: Reporter) -> None:
    """Name the classes that no tag teaches, and those that have no image to take negatives from."""
    names = setup.images.classes.names
    never = [name for name, present in zip(names, np.any(tags > 0, axis=0).tolist(), strict=True) if not present]
    always = [name for name, absent in zip(names, np.any(tags == 0, axis=0).tolist(), strict=True) if not absent]
    if never:
        report.warn(f"no photo is tagged {', '.join(never)}: nothing can be learnt of it.")
    if always:
        report.warn(f"every photo is tagged {', '.join(always)}: without a photo that lacks it there are no negatives.")


def train_classifier(
    config: RunConfig, setup: SeedSetup, tags: TrainingTags, run: Path, report: Reporter, resume: bool
) -> None:
    """Train the classifier whose class maps are the class activation map, or load it if it is finished."""
    folder = method_folder(run, setup.seed, "cam")
    if finished(run, folder, resume, training_inputs(setup, tags), report):
        load_weights(folder / WEIGHTS, setup.host)
        return
    with report.task(f"seed {setup.seed}: classifier (CAM)") as step:
        fit(
            setup.host, setup.inputs, tags, config.classify, CLASSIFIER_ALONE, setup.superclasses,
            setup.seed, folder, step, resume, side=False,
        )  # fmt: skip


def train_method(
    config: RunConfig, setup: SeedSetup, tags: TrainingTags, method: str, run: Path, report: Reporter, resume: bool
) -> None:
    """Train one method on from the class activation map; the host ends with the method's weights."""
    folder = method_folder(run, setup.seed, method)
    cam = method_folder(run, setup.seed, "cam") / WEIGHTS
    settings = method_config(method, config.fpr)
    inputs = {**training_inputs(setup, tags), "weights of the CAM": hash_of(cam)}
    inputs.update(facts_of_negatives(config.tags, method, settings))
    pool_tags = tags
    if needs_pools(method, settings) and drops_suspects(config.tags, settings):
        pool_tags = tags_of_pools(config.tags, setup, tags, settings, run, report)
        inputs["suspected tags"] = hash_of_tags(setup, pool_tags)
    if finished(run, folder, resume, inputs, report):
        load_weights(folder / WEIGHTS, setup.host)
        return
    if settings.superclass_trim and setup.superclasses is None:
        settings = replace(settings, superclass_trim=False)
        report.warn(f"{method}: the data has no super-classes, so negatives are not trimmed.")
    load_weights(cam, setup.host)
    if method == "training_free":
        bare = save_without_training(setup, pool_tags, settings, folder, report)
        warn_of_bare(setup, tags, method, bare, report)
        return
    extra = rivals.extra_loss(config, setup, tags, method, setup.seed + 1000, report)
    with report.task(f"seed {setup.seed}: {method}") as step:
        bare = fit(
            setup.host, setup.inputs, tags, config.rectify, settings, setup.superclasses,
            setup.seed + 1000, folder, step, resume, extra=extra, pool_labels=pool_tags,
        )  # fmt: skip
    warn_of_bare(setup, tags, method, bare, report)


def save_without_training(
    setup: SeedSetup, tags: TrainingTags, settings: FPRConfig, folder: Path, report: Reporter
) -> list[int]:
    """One prototype pass over the class activation map; its weights and these prototypes are the method.

    Returns:
        Classes that have no negative prototype.
    """
    ranks.once(lambda: folder.mkdir(parents=True, exist_ok=True))
    targets = torch.tensor(tags, dtype=torch.float32, device=setup.device)
    with report.task(f"seed {setup.seed}: prototypes") as step:
        prototypes = collect(setup.host, setup.inputs, targets, settings, setup.superclasses, setup.seed + 1000)
        step(1, 1)
    ranks.once(lambda: save_prototypes(folder / "prototypes.safetensors", prototypes))
    ranks.once(lambda: save_weights(folder / WEIGHTS, setup.host))
    return prototypes.without_negatives()


def warn_of_bare(setup: SeedSetup, tags: TrainingTags, method: str, bare: list[int], report: Reporter) -> None:
    """Name the classes of which no negative prototype is kept; of those that are in every photo it has been told."""
    names = [setup.images.classes.names[c] for c in bare if np.any(tags[:, c] == 0)]
    if names:
        report.warn(
            f"{method}: no negative prototype is kept of {', '.join(names)}: such maps are not rectified. What would "
            "help: photos without the class that show its surroundings, more with it, correct tags (tag2mask audit)."
        )


def load_method(setup: SeedSetup, method: str, run: Path) -> Prototypes | None:
    """Give the host a method's weights; returns the prototypes that its maps need at inference, if any."""
    folder = method_folder(run, setup.seed, method)
    load_weights(folder / WEIGHTS, setup.host)
    return load_prototypes(folder / "prototypes.safetensors", setup.device) if method == "training_free" else None


def needs_pools(method: str, settings: FPRConfig) -> bool:
    """Whether a method has prototypes."""
    return method == "training_free" or settings.needs_prototypes()


def facts_of_negatives(config: TagsConfig, method: str, settings: FPRConfig) -> Inputs:
    """What a training says of ``fpr.support`` and ``fpr.suspects``, where they have a part in it."""
    if not needs_pools(method, settings):
        return {}
    tests = [SUPPORT] if settings.support != "off" else []
    if drops_suspects(config, settings):
        tests.append(NO_SUSPECTS)
    return {"tests of negatives": "; ".join(tests)} if tests else {}


def of_earlier_tests(run: Path, config: RunConfig) -> bool:
    """Whether a run holds a training that the present version would do anew for its tests of negatives alone."""
    for seed, method in itertools.product(config.seeds, config.methods):
        known = known_facts(method_folder(run, seed, method) / TRAINING).get("from", {})
        now = facts_of_negatives(config.tags, method, method_config(method, config.fpr))
        if known and known.get("tests of negatives") != now.get("tests of negatives"):
            return True
    return False


def training_inputs(setup: SeedSetup, tags: TrainingTags) -> Inputs:
    """What a training is made of, beside the settings, which a run does not change."""
    return {"backbone": setup.backbone, "photos": setup.photos, "tags": hash_of_tags(setup, tags)}


def finished(run: Path, folder: Path, resume: bool, inputs: Inputs, report: Reporter) -> bool:
    """Whether there are final weights to go on from; without --resume that is an error, so nothing is lost."""
    return ranks.once(lambda: _finished(run, folder, resume, inputs, report))


def _finished(run: Path, folder: Path, resume: bool, inputs: Inputs, report: Reporter) -> bool:
    if not resume and any((folder / name).is_file() for name in (WEIGHTS, "state.safetensors")):
        raise InputError(
            f"{folder} holds a training already; add --resume to go on from it, or choose another --out."
        )
    begin_training(run, folder, inputs, report)
    return (folder / WEIGHTS).is_file()
