"""The segmenter: a network that learns from pseudo masks and needs no tag afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tag2mask import ranks
from tag2mask.checkpoints import load_weights
from tag2mask.config import HostConfig, RunConfig, SegmentConfig, ViewsConfig
from tag2mask.data.pseudo_masks import open_pseudo_masks, write_mask
from tag2mask.engine import fit_labelled, steps_per_epoch
from tag2mask.errors import InputError
from tag2mask.hosts.inputs import frozen_fingerprint, level_settings
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.manifests import Manifest, write_result
from tag2mask.progress import Reporter, Step
from tag2mask.runs import mask_folder, method_folder, read_json
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.losses import segmentation_loss
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.predict import predict_labels
from tag2mask.settings import build
from tag2mask.stages.affinity import Total
from tag2mask.stages.inputs import open_inputs
from tag2mask.stages.masks import mask_path
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.origin import WEIGHTS, drop_damaged, facts_of, hash_of, remove, renew, set_aside
from tag2mask.stages.refine import REFINERS, Refiner, refine

WORTH = ("irn", "psa", "crf", "seed")
"""Which masks are learnt from unless told otherwise: the first that are there."""


def segmenter_folder(run: Path, seed: int, method: str, source: Refiner) -> Path:
    """Where a segmenter lies that has learnt from the masks of ``source``."""
    return method_folder(run, seed, method) / "segmenter" / source


def segmenter_sources(run: Path, seed: int, method: str) -> list[Refiner]:
    """Of which masks there are finished segmenters, the best kind first."""
    return [
        source
        for source in sorted(REFINERS, key=WORTH.index)
        if (segmenter_folder(run, seed, method, source) / "weights.safetensors").is_file()
    ]


def find_segmenter(run: Path, seed: int, method: str, source: Refiner | None = None) -> Path:
    """Folder of a finished segmenter; without ``source`` of the best kind of masks.

    Raises:
        InputError: there is none; it names those that there are, and the command that makes this one.
    """
    there = segmenter_sources(run, seed, method)
    if there and source in (None, *there):
        return segmenter_folder(run, seed, method, source or there[0])
    seeds = sorted(int(path.name[4:]) for path in run.glob("seed*") if path.name[4:].isdigit())
    if seeds and seed not in seeds:
        raise InputError(f"{run} has no seed {seed}; choose one that is there: {', '.join(map(str, seeds))}.")
    kind = f" from the masks of {source}" if source else ""
    every = [path.relative_to(run).parts for path in sorted(run.glob("seed*/*/segmenter/*/weights.safetensors"))]
    names = ", ".join(f"{known} from {masks} ({number})" for number, known, _, masks, _ in every)
    choice = f", or choose one that is there: {names}" if names else " first"
    options = f"{f' --from {source}' if source else ''} --methods {method}"
    raise InputError(
        f"{run} has no segmenter of {method}, seed {seed}{kind}; run `tag2mask segment {run}{options}`{choice}."
    )


def train_segmenter(
    config: RunConfig, setup: SeedSetup, run: Path, method: str, source: Refiner, report: Reporter
) -> Path:
    """Train on the pseudo masks of the split that the run was trained on; those that are missing are made first.

    Goes on where it was cut off, and does nothing where it is finished and its settings are the same. A finished one
    that has learnt from other masks is set aside.

    Raises:
        InputError: there is a finished one with other settings.
    """
    masks = refine(config, setup, setup, run, method, source, report)
    folder = segmenter_folder(run, setup.seed, method, source)
    facts = folder / "segmenter.json"
    finished, known = ranks.once(lambda: ready_to_train(config, run, masks.folder, folder, report))
    if finished:
        return folder
    torch.manual_seed(setup.seed)
    network = build_segmenter(config.segment, len(setup.images.classes)).to(setup.device)
    report.say(f"segmenter {config.segment.network}: initial weights {network.initial_weights}")
    known.update(
        initial_weights=network.initial_weights, classes=list(setup.images.classes.names), seed=setup.seed,
        frozen=frozen_fingerprint(network),
    )  # fmt: skip
    pseudo = open_pseudo_masks(masks.folder, setup.images.ids, len(setup.images.classes))
    views = training_views(config.segment)
    encoder = HostConfig(
        config.segment.encoder, config.segment.weights, output_stride=config.segment.output_stride
    )
    frozen = level_settings(encoder, network.level_names)
    if config.segment.freeze != "all":
        frozen["freeze"] = config.segment.freeze
    inputs = open_inputs(
        network, frozen, views, config.cache_gigabytes, setup.data, run, setup.images, setup.device, report
    )
    labelled = LabelledInputs(inputs, pseudo.mask, config.segment.scale_range, config.segment.hsv_jitter)
    optimiser = config.segment.optimiser
    if config.segment.steps:
        epochs = math.ceil(config.segment.steps / steps_per_epoch(len(labelled), optimiser))
        optimiser = replace(optimiser, epochs=epochs)
    groups = [(group.learning_rate, group.weight_decay, group.parameters) for group in network.parameter_groups()]
    ranks.once(lambda: write_result(facts, known))

    def loss(levels: list[Tensor], labels: Tensor) -> Total:
        return Total(segmentation_loss(network, levels, labels))

    with report.task(f"seed {setup.seed}: segmenter of {method}") as step:
        fit_labelled(
            network, labelled, loss, groups, optimiser, setup.seed, folder, step, resume=True,
            accumulate=config.segment.accumulate,
        )  # fmt: skip
    return folder


def ready_to_train(
    config: RunConfig, run: Path, masks: Path, folder: Path, report: Reporter
) -> tuple[bool, dict[str, Any]]:
    """Whether a segmenter is finished, and what is written of it; what stands on something else is out of the way."""
    facts = folder / "segmenter.json"
    training, test = described(config.segment, read_json(facts_of(masks), "description of the masks"))
    known = read_json(facts, "description of the segmenter") if facts.is_file() else {}
    drop_damaged(folder, report)
    finished = (folder / WEIGHTS).is_file()
    if known and known["training"] != training:
        if finished and known["training"]["segment"] != training["segment"]:
            raise InputError(
                f"{folder} holds a segmenter that was trained with other settings; delete that folder to train anew, "
                "or go back to its settings."
            )
        if finished:
            place = set_aside(run, folder)
            report.say(f"{folder}: the masks have changed, so it is trained anew; before: {place}.")
            known, finished = {}, False
    if known.get("training") != training and folder.exists():
        report.say(f"{folder}: the settings or masks have changed, so the unfinished training begins anew.")
        remove(folder)
        known = {}
    if known.get("test") != test:  # what is predicted changes, what was learnt does not
        remove(folder / "masks")
        known = {**known, "training": training, "test": test}
        write_result(facts, known)
    return finished, known


TEST_SETTINGS = ("test_scales", "flip", "crf", "tile", "overlap")
"""Settings of the prediction: a change of these does not touch what was trained."""


def described(config: SegmentConfig, masks: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a training stands on (settings, and how the masks were made), and the settings of prediction, as in JSON."""
    every: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    test = {name: every.pop(name) for name in TEST_SETTINGS}
    return {"segment": every, "masks": masks}, test


def learnt_from_these_masks(run: Path, training: SeedSetup, method: str, source: Refiner) -> bool:
    """Whether a finished segmenter has learnt from the masks as they are now."""
    facts = read_json(segmenter_folder(run, training.seed, method, source) / "segmenter.json", "segmenter")
    masks = facts_of(mask_folder(run, training.seed, method, source, training.data.split))
    return masks.is_file() and bool(facts["training"]["masks"] == read_json(masks, "description of the masks"))


def training_views(config: SegmentConfig) -> ViewsConfig:
    """The views of the segmenter's training, as inputs take them."""
    return ViewsConfig(kind=config.view, size=config.size, zoom=config.zoom)


def load_segmenter(folder: Path, device: torch.device) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """A trained network, and what ``segmenter.json`` says of it."""
    facts = read_json(folder / "segmenter.json", "segmenter")
    if "classes" not in facts:
        raise InputError(f"{folder} holds a segmenter whose training did not begin; run `tag2mask segment` again.")
    settings = {**facts["training"]["segment"], **facts["test"]}
    config = build(SegmentConfig, settings, str(folder / "segmenter.json"), "segment.")
    if config.freeze == "none":  # then every weight is stored, and where they began is of no more use
        config = replace(config, weights="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(facts["seed"])  # frozen stages are not stored, and may be random
        network = build_segmenter(config, len(facts["classes"])).to(device)
    if frozen_fingerprint(network) != facts["frozen"]:
        raise InputError(
            f"{folder}: the frozen encoder's weights ({config.weights}) are not those that the segmenter was trained "
            f"with ({facts['initial_weights']}); put these back."
        )
    network.initial_weights = facts["initial_weights"]
    load_weights(folder / "weights.safetensors", network)
    return network.eval(), facts


def predict_split(
    setup: SeedSetup, run: Path, method: str, source: Refiner, step: Step, report: Reporter,
    indices: Sequence[int] | None = None,
) -> Path:  # fmt: skip
    """Masks of a split by a segmenter, without tags, or of the images at ``indices``; those that exist are kept."""
    home = segmenter_folder(run, setup.seed, method, source)
    folder = mask_folder(run, setup.seed, method, f"segmenter:{source}", setup.data.split)
    wanted = range(len(setup.images)) if indices is None else indices
    renew(facts_of(folder), {}, {"weights": hash_of(home / WEIGHTS), "photos": setup.photos}, [folder], report)
    manifest = Manifest(folder, ranks.rank())
    missing = ranks.once(lambda: [i for i in wanted if not manifest.holds(mask_path(folder, setup.images.ids[i]))])
    done = len(wanted) - len(missing)
    step(done, len(wanted))
    if missing:
        network, _ = load_segmenter(home, setup.device)
        for number, index in ranks.mine(enumerate(missing, 1)):
            mask = predict_labels(network, setup.images.image(index), network.config, setup.device)
            path = mask_path(folder, setup.images.ids[index])
            manifest.add(path, write_mask(path, mask))
            step(done + number, len(wanted))
    ranks.wait_for_all(step, len(wanted))
    return folder

