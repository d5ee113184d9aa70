"""The training loop: epochs, prototype passes, checkpoints, exact resume.

Every random choice is a function of (seed, epoch, image), and learning rates are functions of the step. So the state
of a run is its weights and its optimiser's moments; a run that is killed at any moment and resumed ends with the same
weights, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask.checkpoints import load_prototypes, load_state, save_prototypes, save_state, save_weights
from tag2mask.config import FPRConfig, OptimiserConfig
from tag2mask.data.order import epoch_batches
from tag2mask.errors import InputError
from tag2mask.fpr.objective import Terms, collect_prototypes, fpr_loss
from tag2mask.fpr.prototypes import Prototypes
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.hosts.labelled import LabelledInputs
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
    return new_optimiser(groups, config)


def new_optimiser(groups: list[dict[str, Any]], config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over groups of ``params``, with their rate as ``lr`` and ``base``, perhaps ``weight_decay``."""
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
        line = train_epoch(host, inputs, targets, optimiser, config, fpr, prototypes, seed, epoch, step, side)
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
    fpr: FPRConfig, prototypes: Prototypes | None, seed: int, epoch: int, step: Step, side: bool,
) -> dict[str, float]:  # fmt: skip
    """One epoch of classification and rectification; returns the means of its terms."""
    host.train()
    host.freeze_batch_norm(neck=epoch >= config.batch_norm_until * config.epochs)
    level_features = fpr.needs_prototypes() and fpr.feature_space == "levels"
    steps = steps_per_epoch(len(targets), config) * config.epochs
    classifiers = {id(weight) for weight in host.classifier_parameters()}
    clipped = [p for group in optimiser.param_groups for p in group["params"] if id(p) not in classifiers]

    def losses(batch: np.ndarray) -> Terms:
        output = host.trained_part(inputs.training(batch, seed, epoch), side, level_features)
        with torch.autocast(inputs.device.type, enabled=False):  # distances and exponentials want all their digits
            return fpr_loss(
                output.features.float(), output.maps.float(), output.logits.float(), targets[torch.from_numpy(batch)],
                prototypes, fpr, steps, host.classifier,
            )  # fmt: skip

    return optimise(losses, len(targets), optimiser, clipped, config, seed, epoch, step)


def steps_per_epoch(images: int, config: OptimiserConfig) -> int:
    """Steps of an epoch; a last incomplete batch is left out, unless it is the only one."""
    return max(1, images // config.batch_size)


def optimise(
    losses: Callable[[np.ndarray], Any], images: int, optimiser: torch.optim.Optimizer, clipped: list[nn.Parameter],
    config: OptimiserConfig, seed: int, epoch: int, step: Step, accumulate: int = 1,
) -> dict[str, float]:  # fmt: skip
    """One epoch of any training.

    Args:
        losses: (B,) image numbers -> a named tuple of scalars, of which the first, ``total``, is minimised.
        clipped: parameters whose gradients' norm ``config.clip_norm`` bounds.

    Returns:
        ``epoch``, from 1, and the mean of every term.

    Raises:
        InputError: the loss is no longer a number.
    """
    done, steps = epoch * steps_per_epoch(images, config), steps_per_epoch(images, config) * config.epochs
    sums: Tensor | None = None
    names: tuple[str, ...] = ()
    device = optimiser.param_groups[-1]["params"][0].device
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "16")
    half = torch.float16 if config.precision == "16" else torch.bfloat16
    for number, batch in enumerate(epoch_batches(images, config.batch_size, seed, epoch), 1):
        factor = rate_factor(config, done + number - 1, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor
        optimiser.zero_grad(set_to_none=True)
        parts = [part for part in np.array_split(batch, accumulate) if len(part)]
        values: Tensor | None = None
        for part in parts:
            with torch.autocast(device.type, half, enabled=config.precision != "32"):
                terms = losses(part)
            scaler.scale(terms.total if len(parts) == 1 else terms.total * (len(part) / len(batch))).backward()
            own = torch.stack([term.detach().float().cpu() for term in terms]) * (len(part) / len(batch))
            names, values = terms._fields, own if values is None else values + own
        if config.clip_norm and clipped:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(clipped, config.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        assert values is not None  # a batch holds at least one image
        sums = values if sums is None else sums + values
        step(done + number, steps, f"loss {values[0].item():.3f}")
    assert sums is not None  # there is at least one batch
    means = (sums / steps_per_epoch(images, config)).tolist()
    if not all(math.isfinite(value) for value in means):
        raise InputError(
            f"the loss is no longer a number in epoch {epoch + 1}; lower the learning rate or the weights of the terms."
        )
    return {"epoch": epoch + 1, **{name: round(value, 6) for name, value in zip(names, means, strict=True)}}


def fit_labelled(
    module: nn.Module, inputs: LabelledInputs, losses: Callable[[list[Tensor], Tensor], Any],
    groups: Sequence[tuple[float, float, list[nn.Parameter]]], config: OptimiserConfig, seed: int, folder: Path,
    step: Step, resume: bool, accumulate: int = 1, finish: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Train a module in place against labels of pixels: a refiner against confident seeds, a segmenter against masks.

    Args:
        module: what is saved; its ``train()`` keeps frozen parts as they are.
        inputs: what it reads, with the labels.
        losses: what ``inputs.training`` returns -> a named tuple of scalars, of which ``total`` is minimised.
        groups: (learning rate, weight decay, parameters).
        folder, step, resume: as in ``fit``.
        accumulate: parts that a batch is cut into, whose gradients are added up, where it does not fit into memory.
        finish: called after the last epoch, before the weights are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = new_optimiser(
        [{"params": own, "lr": rate, "base": rate, "weight_decay": decay} for rate, decay, own in groups], config
    )
    everything = [parameter for _, _, parameters in groups for parameter in parameters]
    state_path, metrics_path = folder / "state.safetensors", folder / "metrics.jsonl"
    start = load_state(state_path, module, optimiser) if resume and state_path.is_file() else 0
    keep_lines(metrics_path, start)
    for epoch in range(start, config.epochs):
        module.train()
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))  # what dropout draws from

        def loss_of(batch: np.ndarray, epoch: int = epoch) -> Any:
            return losses(*inputs.training(batch, seed, epoch))

        line = optimise(loss_of, len(inputs), optimiser, everything, config, seed, epoch, step, accumulate)
        append_lines(metrics_path, [line])
        save_state(state_path, module, optimiser, epoch + 1)
    if finish is not None:
        finish()
    save_weights(folder / "weights.safetensors", module)


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
