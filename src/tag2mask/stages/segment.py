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

from tag2mask.checkpoints import load_weights
from tag2mask.config import HostConfig, RunConfig, SegmentConfig, ViewsConfig
from tag2mask.data.pseudo_masks import open_pseudo_masks, write_mask
from tag2mask.engine import fit_labelled, steps_per_epoch
from tag2mask.errors import InputError
from tag2mask.hosts.inputs import level_settings
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.progress import Reporter, Step
from tag2mask.runs import mask_folder, method_folder, read_json, write_json
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.losses import segmentation_loss
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.predict import predict_labels
from tag2mask.settings import build
from tag2mask.stages.affinity import Total
from tag2mask.stages.inputs import open_inputs
from tag2mask.stages.masks import mask_path
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.refine import REFINERS, Refiner, facts_of, refine, renew

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


def train_segmenter(
    config: RunConfig, setup: SeedSetup, run: Path, method: str, source: Refiner, report: Reporter
) -> Path:
    """Train on the pseudo masks of the split that the run was trained on; those that are missing are made first.

    Goes on where it was cut off, and does nothing where it is finished and its settings are the same.
    """
    masks = refine(config, setup, setup, run, method, source, report)
    folder = segmenter_folder(run, setup.seed, method, source)
    facts = folder / "segmenter.json"
    settings = {"segment": asdict(config.segment), "masks": read_json(facts_of(masks.folder), "description of masks")}
    renew(facts, plain(settings), [folder], report)
    if (folder / "weights.safetensors").is_file():
        return folder
    torch.manual_seed(setup.seed)
    network = build_segmenter(config.segment, len(setup.images.classes)).to(setup.device)
    report.say(f"segmenter {config.segment.network}: initial weights {network.initial_weights}")
    known = read_json(facts, "description of the segmenter")
    known.update(initial_weights=network.initial_weights, classes=list(setup.images.classes.names), seed=setup.seed)
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
    write_json(facts, known)

    def loss(levels: list[Tensor], labels: Tensor) -> Total:
        return Total(segmentation_loss(network, levels, labels))

    with report.task(f"seed {setup.seed}: segmenter of {method}") as step:
        fit_labelled(
            network, labelled, loss, groups, optimiser, setup.seed, folder, step, resume=True,
            accumulate=config.segment.accumulate,
        )  # fmt: skip
    return folder


def training_views(config: SegmentConfig) -> ViewsConfig:
    """The views of the segmenter's training, as inputs take them."""
    return ViewsConfig(kind=config.view, size=config.size, zoom=config.zoom)


def load_segmenter(folder: Path, device: torch.device) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """A trained network, and what ``segmenter.json`` says of it."""
    facts = read_json(folder / "segmenter.json", "segmenter")
    if "classes" not in facts:
        raise InputError(f"{folder} holds a segmenter whose training did not begin; run `tag2mask segment` again.")
    config = build(SegmentConfig, facts["settings"]["segment"], str(folder / "segmenter.json"), "segment.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(facts.get("seed", 0))  # frozen stages are not stored, and may be random
        network = build_segmenter(config, len(facts["classes"])).to(device)
    load_weights(folder / "weights.safetensors", network)
    return network.eval(), facts


def predict_split(
    setup: SeedSetup, run: Path, method: str, source: Refiner, step: Step, indices: Sequence[int] | None = None
) -> Path:
    """Masks of a split by a segmenter, without tags, or of the images at ``indices``; those that exist are kept."""
    home = segmenter_folder(run, setup.seed, method, source)
    folder = mask_folder(run, setup.seed, method, f"segmenter:{source}", setup.data.split)
    wanted = range(len(setup.images)) if indices is None else indices
    missing = [i for i in wanted if not mask_path(folder, setup.images.ids[i]).is_file()]
    step(len(wanted) - len(missing), len(wanted))
    if missing:
        network, _ = load_segmenter(home, setup.device)
        for number, index in enumerate(missing, 1):
            mask = predict_labels(network, setup.images.image(index), network.config, setup.device)
            write_mask(mask_path(folder, setup.images.ids[index]), mask)
            step(len(wanted) - len(missing) + number, len(wanted))
    return folder


def plain(value: Any) -> Any:
    """Settings as they come back from JSON."""
    return json.loads(json.dumps(value))
