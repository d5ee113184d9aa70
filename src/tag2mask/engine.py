"""The training loop: epochs, prototype passes, checkpoints, exact resume.

Every random choice is a function of (seed, epoch, image), and learning rates are functions of the step. So the state
of a run is its weights and its optimiser's moments; a run that is killed at any moment and resumed ends with the same
weights, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tag2mask.config import FPRConfig, OptimiserConfig
from tag2mask.data.order import epoch_batches
from tag2mask.errors import InputError
from tag2mask.fpr.objective import collect_prototypes, fpr_loss
from tag2mask.fpr.prototypes import Prototypes
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.maps.merge import merged_output
from tag2mask.progress import Step
from tag2mask.runs import append_lines, keep_lines

IMAGES_FOR_SCALES = 32
"""Images from which the scale of the backbone's levels is measured."""
WARM_UP_SHARE = 0.15
"""Share of the steps in which the one-cycle schedule rises."""


def set_up_torch(threads: int, device: str) -> torch.device:
    """Choose device and thread count; denormal numbers count as zero, as they make CPUs crawl."""
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} is not to be had here ({error}); use `auto` or `cpu`."
        ) from error
    return chosen


def rate_factor(config: OptimiserConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at a step."""
    if config.schedule == "poly":
        return (1 - step / steps) ** config.poly_power
    rise = WARM_UP_SHARE * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def build_optimiser(host: CamHost, config: OptimiserConfig, side: bool) -> torch.optim.Optimizer:
    """AdamW or SGD over the trained half: backbone stages at their own rate, all else at the classifier's.

    Without ``side``, the side branch is left as it is.
    """
    backbone = host.backbone_parameters()
    new = [*host.main_parameters(), *(host.side_parameters() if side else ())]
    groups = [
        {"params": backbone, "lr": config.backbone_rate, "base": config.backbone_rate},
        {"params": new, "lr": config.learning_rate, "base": config.learning_rate},
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def fit(
    host: CamHost, inputs: PhotoInputs, labels: np.ndarray, config: OptimiserConfig, fpr: FPRConfig,
    superclasses: tuple[int, ...] | None, seed: int, folder: Path, step: Step, resume: bool, side: bool = True,
) -> list[int]:  # fmt: skip
    """Train the host's trained half in place for ``config.epochs`` epochs.

    Args:
        inputs: the images, cached or not.
        labels: (N, C), 1 tagged, 0 not tagged, -1 unknown.
        superclasses: a number for each class, or None.
        folder: gets ``weights.safetensors`` when done, ``state.safetensors`` after each epoch, ``metrics.jsonl``
            with a line for each epoch, ``prototypes.safetensors``.
        step: progress.
        resume: go on from ``state.safetensors``, if there.
        side: train the side branch, where the host has one. Without, it is left out, and its batch norms get the
            statistics of the images at the end, so that it may join from there.

    Returns:
        Classes that keep no negative prototype, for a warning that names them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = inputs.device
    targets = torch.tensor(labels, dtype=torch.float32, device=device)  # (N, C)
    optimiser = build_optimiser(host, config, side)
    state_path, metrics_path = folder / "state.safetensors", folder / "metrics.jsonl"
    start = load_state(state_path, host, optimiser) if resume and state_path.is_file() else 0
    keep_lines(metrics_path, start)
    prototypes: Prototypes | None = None
    bare: list[int] = []
    steps_per_epoch = max(1, len(labels) // config.batch_size)
    steps = steps_per_epoch * config.epochs
    if not side and start == 0 and (host.neck is not None or host.side is not None):
        host.measure_scales(inputs.training(np.arange(min(len(labels), IMAGES_FOR_SCALES)), seed, 0))
    for epoch in range(start, config.epochs):
        if fpr.needs_prototypes() and (epoch % fpr.collect_every == 0 or prototypes is None):
            collected_at = epoch - epoch % fpr.collect_every
            if epoch == collected_at:
                prototypes = collect(host, inputs, targets, fpr, superclasses, seed)
                save_prototypes(folder / "prototypes.safetensors", prototypes)
            else:  # resumed between two collections
                prototypes = load_prototypes(folder / "prototypes.safetensors", device)
            bare = prototypes.without_negatives()
        line = train_epoch(
            host,
            inputs,
            targets,
            optimiser,
            config,
            fpr,
            prototypes,
            seed,
            epoch,
            steps_per_epoch,
            steps,
            step,
            side,
        )
        append_lines(metrics_path, [line])
        save_state(state_path, host, optimiser, epoch + 1)
    if not side:
        batches = epoch_batches(len(targets), config.batch_size, seed, config.epochs)
        host.eval()
        host.measure_side(inputs.training(batch, seed, config.epochs) for batch in batches)
    save_weights(folder / "weights.safetensors", host)
    return bare


def train_epoch(
    host: CamHost, inputs: PhotoInputs, targets: Tensor, optimiser: torch.optim.Optimizer, config: OptimiserConfig,
    fpr: FPRConfig, prototypes: Prototypes | None, seed: int, epoch: int, steps_per_epoch: int, steps: int, step: Step,
    side: bool,
) -> dict[str, float]:  # fmt: skip
    """One epoch; returns the means of its terms."""
    host.train()
    host.freeze_batch_norm(neck=epoch >= config.batch_norm_until * config.epochs)
    clipped = [p for group in optimiser.param_groups for p in group["params"]]
    classifiers = {id(weight) for weight in host.classifier_parameters()}
    clipped = [p for p in clipped if id(p) not in classifiers]
    sums = torch.zeros(5)
    for number, batch in enumerate(epoch_batches(len(targets), config.batch_size, seed, epoch)):
        done = epoch * steps_per_epoch + number
        factor = rate_factor(config, done, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor
        level_features = fpr.needs_prototypes() and fpr.feature_space == "levels"
        output = host.trained_part(inputs.training(batch, seed, epoch), side, level_features)
        terms = fpr_loss(
            output.features, output.maps, output.logits, targets[torch.from_numpy(batch)], prototypes, fpr, steps,
            host.classifier,
        )  # fmt: skip
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        if config.clip_norm and clipped:
            nn.utils.clip_grad_norm_(clipped, config.clip_norm)
        optimiser.step()
        sums += torch.stack([term.detach().float().cpu() for term in terms])
        step(done + 1, steps, f"loss {terms.total.item():.3f}")
    means = (sums / steps_per_epoch).tolist()
    if not all(math.isfinite(value) for value in means):
        raise InputError(
            f"the loss is no longer a number in epoch {epoch + 1}; lower the learning rate or the weights of the terms."
        )
    names = ("total", "classification", "region", "pixel", "suppressed_share")
    return {"epoch": epoch + 1, **{name: round(value, 6) for name, value in zip(names, means, strict=True)}}


@torch.no_grad()
def collect(
    host: CamHost, inputs: PhotoInputs, targets: Tensor, fpr: FPRConfig, superclasses: tuple[int, ...] | None, seed: int
) -> Prototypes:  # fmt: skip
    """The prototype pass over all images, without augmentation, at the scales and mirrorings that ``fpr`` asks for."""
    host.eval()

    def batches() -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        for batch in inputs.plain_batches(64):
            numbers = torch.from_numpy(batch)
            yield batch, targets[numbers.to(targets.device)], numbers.to(targets.device)

    def network(batch: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        level_features = fpr.feature_space == "levels"
        return merged_output(host, inputs, batch, fpr.collect_scales, fpr.collect_flip, level_features)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer distinct regions than clusters
        return collect_prototypes(network, batches(), fpr, superclasses, seed)


def trained_tensors(host: CamHost) -> dict[str, Tensor]:
    """Parameters and buffers of the trained half, by name; the frozen half is given by the settings."""
    return {k: v for k, v in host.state_dict().items() if not k.startswith("frozen_stages.")}


def save_weights(path: Path, host: CamHost) -> None:
    """Write the trained half's weights, atomically."""
    write_tensors(path, trained_tensors(host), {})


def load_weights(path: Path, host: CamHost) -> None:
    """Read weights that ``save_weights`` wrote; an ``InputError`` names what does not fit."""
    if not path.is_file():
        raise InputError(
            f"there are no weights at {path}; run `tag2mask train` first, or name another method."
        )
    tensors, _ = read_tensors(path)
    wanted = trained_tensors(host)
    wrong = [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
    if wrong:
        raise InputError(
            f"{path} does not fit the network of the settings: {wrong[0]!r} is missing or of another shape."
        )
    host.load_state_dict(tensors, strict=False)


def save_state(path: Path, host: CamHost, optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """Weights and optimiser moments after ``epoch`` epochs, atomically."""
    tensors = {f"host.{name}": tensor for name, tensor in trained_tensors(host).items()}
    for number, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"epoch": str(epoch)})


def load_state(path: Path, host: CamHost, optimiser: torch.optim.Optimizer) -> int:
    """Restore what ``save_state`` wrote; returns the number of finished epochs."""
    tensors, metadata = read_tensors(path)
    epoch = int(metadata["epoch"])
    host.load_state_dict({k[5:]: v for k, v in tensors.items() if k.startswith("host.")}, strict=False)
    state = optimiser.state_dict()
    state["state"] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, field = name.split(".")
            like = parameters[int(number)]
            if (
                tensor.shape == like.shape
            ):  # in its memory format, as without interruption: the same kernels, the same bits
                tensor = torch.empty_like(like).copy_(tensor)
            state["state"].setdefault(int(number), {})[field] = tensor
    optimiser.load_state_dict(state)
    return epoch


def save_prototypes(path: Path, prototypes: Prototypes) -> None:
    """Write prototypes and the numbers of their source images, atomically."""
    tensors = {name: value for name, value in vars(prototypes).items() if isinstance(value, Tensor)}
    write_tensors(path, tensors, {"spread": json.dumps(prototypes.spread)})


def load_prototypes(path: Path, device: torch.device | str = "cpu") -> Prototypes:
    """Read what ``save_prototypes`` wrote."""
    if not path.is_file():
        raise InputError(f"there are no prototypes at {path}; train a method that uses them.")
    tensors, metadata = read_tensors(path)
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Prototypes(**on_device, spread=float(json.loads(metadata["spread"])))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, then rename it: it is whole, or not there."""
    partial = path.with_name(path.name + ".partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata
    )
    os.replace(partial, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that ``write_tensors`` wrote; nothing in it is executed."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and train again.") from error
