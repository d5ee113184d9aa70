"""The training loop: epochs, prototype passes, checkpoints, exact resume.

Every random choice is a function of (seed, epoch, image), and learning rates are functions of the step. So the state
of a run is its weights, its optimiser's moments and the prototypes of its last collection; a run that is killed at any
moment and resumed ends with the same weights, bit for bit on a CPU with the same number of threads.

Several processes (``tag2mask.ranks``) share every batch and every prototype pass; the first one writes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask import ranks
from tag2mask.checkpoints import load_prototypes, load_state, save_prototypes, save_state, save_weights
from tag2mask.config import FPRConfig, OptimiserConfig
from tag2mask.data.order import epoch_batches
from tag2mask.errors import InputError
from tag2mask.fpr.objective import fill_pools, fpr_loss, prototypes_of
from tag2mask.fpr.pools import PrototypePools
from tag2mask.fpr.prototypes import Prototypes
from tag2mask.hosts import Host, HostOutput
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.maps.merge import merged_output
from tag2mask.processes import available_cores, cores_are_shared, keep_freed_memory
from tag2mask.progress import Step
from tag2mask.runs import append_lines, keep_lines

IMAGES_FOR_SCALES = 32
"""Images from which the scale of the backbone's levels is measured."""
COLLECTED_AT_ONCE = 64
"""Images of a prototype pass that go through the network together."""
WARM_UP_SHARE = 0.15
"""Share of the steps in which the one-cycle schedule rises."""


def set_up_torch(threads: int, device: str) -> torch.device:
    """Choose device and thread count; denormal numbers count as zero, as they make CPUs crawl.

    Each process of a machine has a GPU of its own, or its share of the cores.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if threads or ranks.local_world() > 1 or cores_are_shared():
        torch.set_num_threads(threads or available_cores())
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda" and ranks.world() > 1:
            chosen = torch.device("cuda", ranks.local_rank())
            torch.cuda.set_device(chosen)
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
    share = WARM_UP_SHARE if config.schedule == "onecycle" else config.warm_up / max(1, config.epochs)
    rise = share * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


class ExtraLoss(Protocol):
    """What a method minimises beside the host's losses and the terms of Eq. 9; a module, where it learns something."""

    def __call__(self, host: Host, output: HostOutput, batch: np.ndarray, labels: Tensor, epoch: int) -> Tensor:
        """The host's output for a training batch (B,) of image numbers with labels (B, C) -> a scalar."""
        ...


def build_optimiser(
    host: Host, config: OptimiserConfig, side: bool, extra: ExtraLoss | None = None
) -> torch.optim.Optimizer:
    """AdamW or SGD over what the host says, and over what an extra loss learns, at the classifier's rate."""
    groups = host.parameter_groups(config, side)
    if isinstance(extra, nn.Module) and any(True for _ in extra.parameters()):
        groups.append({"params": list(extra.parameters()), "lr": config.learning_rate})
    return new_optimiser([{**group, "base": group["lr"]} for group in groups], config)


def new_optimiser(groups: list[dict[str, Any]], config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over groups of ``params``, with their rate as ``lr`` and ``base``, perhaps ``weight_decay``."""
    if config.kind == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def fit(
    host: Host, inputs: PhotoInputs, labels: np.ndarray, config: OptimiserConfig, fpr: FPRConfig,
    superclasses: tuple[int, ...] | None, seed: int, folder: Path, step: Step, resume: bool, side: bool = True,
    extra: ExtraLoss | None = None, pool_labels: np.ndarray | None = None,
) -> list[int]:  # fmt: skip
    """Train the host's trained half in place for ``config.epochs`` epochs.

    Args:
        inputs: the images, cached or not.
        labels: (N, C), 1 tagged, 0 not tagged, -1 unknown.
        superclasses: a number for each class, or None.
        folder: gets ``weights.safetensors`` when done, ``state.safetensors`` after each epoch, ``metrics.jsonl``
            with a line for each epoch, ``prototypes.safetensors`` and, of every collection, ``prototypes/``.
        step: progress.
        resume: go on from ``state.safetensors``, if there.
        side: train the side branch, where the host has one. Without, it is left out, and its batch norms get the
            statistics of the images at the end, so that it may join from there.
        extra: a further loss.
        pool_labels: what the prototype pass takes for ``labels``, where that is not the same.

    Returns:
        Classes that have no negative prototype to begin with, for a warning that names them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = ranks.rank() == 0
    device = inputs.device
    targets = torch.tensor(labels, dtype=torch.float32, device=device)  # (N, C)
    pooled = targets if pool_labels is None else torch.tensor(pool_labels, dtype=torch.float32, device=device)
    optimiser = build_optimiser(host, config, side, extra)
    learning = nn.ModuleList([host, extra]) if isinstance(extra, nn.Module) else host
    state_path, metrics_path = folder / "state.safetensors", folder / "metrics.jsonl"
    start = load_state(state_path, learning, optimiser) if ranks.once(lambda: resume and state_path.is_file()) else 0
    if first:
        keep_lines(metrics_path, start)
    prototypes: Prototypes | None = None
    if not side and start == 0:
        host.prepare(inputs.training(np.arange(min(len(labels), IMAGES_FOR_SCALES)), seed, 0))
    if fpr.remember > 0 and not (
        fpr.needs_prototypes() and fpr.support == "drop" and features_stand_still(host, inputs, fpr)
    ):
        fpr = replace(fpr, remember=0)
    together = ranks.Learning(learning)
    for epoch in range(start, config.epochs):
        if fpr.needs_prototypes() and (epoch % fpr.collect_every == 0 or prototypes is None):
            collected_at = epoch - epoch % fpr.collect_every
            if epoch == collected_at:
                if prototypes is None and epoch > 0 and fpr.remember > 0:  # resumed just before a collection
                    prototypes = last_prototypes(folder, epoch - fpr.collect_every, device)
                prototypes = collect(host, inputs, pooled, fpr, superclasses, seed, prototypes)
                if first:
                    (folder / "prototypes").mkdir(exist_ok=True)
                    save_prototypes(prototypes_at(folder, epoch), prototypes)
                    save_prototypes(folder / "prototypes.safetensors", prototypes)
            else:  # resumed between two collections
                prototypes = load_prototypes(folder / "prototypes.safetensors", device)
        line = train_epoch(
            host, together, inputs, targets, optimiser, config, fpr, prototypes, seed, epoch, step, side, extra
        )
        if first:
            append_lines(metrics_path, [line])
            save_state(state_path, learning, optimiser, epoch + 1)
    if not side:
        batches = epoch_batches(len(targets), config.batch_size, seed, config.epochs)
        host.finish(inputs.training(batch, seed, config.epochs) for batch in batches)
    if first:
        save_weights(folder / "weights.safetensors", host)
    ranks.wait()
    if not fpr.needs_prototypes():
        return []
    return load_prototypes(prototypes_at(folder, 0), device).without_negatives()


class StepTerms(NamedTuple):
    """Terms of a training step: those of Eq. 9, and the sum of all others."""

    total: Tensor
    others: Tensor
    """What the host and an extra loss add."""
    classification: Tensor
    region: Tensor
    pixel: Tensor
    suppressed_share: Tensor


def train_epoch(
    host: Host, together: ranks.Learning, inputs: PhotoInputs, targets: Tensor, optimiser: torch.optim.Optimizer,
    config: OptimiserConfig, fpr: FPRConfig, prototypes: Prototypes | None, seed: int, epoch: int, step: Step,
    side: bool, extra: ExtraLoss | None = None,
) -> dict[str, float]:  # fmt: skip
    """One epoch of classification and rectification; returns the means of its terms."""
    seed_dropout(seed, epoch)
    host.train()
    host.freeze_batch_norm(learning=epoch < config.batch_norm_until * config.epochs)
    level_features = fpr.needs_prototypes() and fpr.feature_space == "levels"
    steps = steps_per_epoch(len(targets), config) * config.epochs
    classifiers = {id(weight) for weight in host.classifier_parameters()}
    clipped = [p for group in optimiser.param_groups for p in group["params"] if id(p) not in classifiers]

    def losses(batch: np.ndarray) -> StepTerms:
        labels = targets[torch.from_numpy(batch)]
        output, own = host.training_part(inputs.training(batch, seed, epoch), labels, side, level_features)
        with torch.autocast(inputs.device.type, enabled=False):  # distances and exponentials want all their digits
            output = HostOutput(*(tensor.float() for tensor in output))
            terms = fpr_loss(*output, labels, prototypes, fpr, steps, host.maps)
            more = terms.total.new_zeros(()) if own is None else own.float()
            if extra is not None:
                more = more + extra(host, output, batch, labels, epoch)
            return StepTerms(terms.total + more, more.detach(), *terms[1:])

    return optimise(losses, together, len(targets), optimiser, clipped, config, seed, epoch, step)


def seed_dropout(seed: int, epoch: int) -> None:
    """What dropout draws from: a function of the epoch, so that resuming is exact, and different in every process."""
    own = (seed, epoch, ranks.rank()) if ranks.rank() else (seed, epoch)
    torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))


def check_batch(photos: int) -> None:
    """Raise ``InputError`` where a batch has fewer photos than there are processes to share it."""
    if photos < ranks.world():
        raise InputError(
            f"a batch has {photos} of the photos and {ranks.world()} processes are to share it; use fewer --devices, "
            "or a larger batch_size."
        )


def steps_per_epoch(images: int, config: OptimiserConfig) -> int:
    """Steps of an epoch; a last incomplete batch is left out, unless it is the only one."""
    return max(1, images // config.batch_size)


def optimise(
    losses: Callable[[np.ndarray], Any], together: ranks.Learning, images: int, optimiser: torch.optim.Optimizer,
    clipped: list[nn.Parameter], config: OptimiserConfig, seed: int, epoch: int, step: Step, accumulate: int = 1,
) -> dict[str, float]:  # fmt: skip
    """One epoch of any training.

    Args:
        losses: (B,) image numbers -> a named tuple of scalars, of which the first, ``total``, is minimised; means in
            it are those of ``tag2mask.shares``.
        together: what learns.
        clipped: parameters whose gradients' norm ``config.clip_norm`` bounds.

    Returns:
        ``epoch``, from 1, and the mean of every term.

    Raises:
        InputError: the loss is no longer a number, or a batch is too small to be shared.
    """
    check_batch(min(images, config.batch_size))
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
        parts = np.array_split(batch, min(accumulate, len(batch) // ranks.world()))
        values: Tensor | None = None
        for place, part in enumerate(parts, 1):
            with together.last_part(place == len(parts)):
                with torch.autocast(device.type, half, enabled=config.precision != "32"):
                    terms = together.losses(losses, part[ranks.rank() :: ranks.world()])
                weight = len(part) / len(batch)
                scaler.scale(terms.total if len(parts) == 1 else terms.total * weight).backward()
            own = torch.stack([term.detach().float().cpu() for term in terms]) * weight
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
    means = (ranks.total(sums.numpy()) / ranks.world() / steps_per_epoch(images, config)).tolist()
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
    start = load_state(state_path, module, optimiser) if ranks.once(lambda: resume and state_path.is_file()) else 0
    first, together = ranks.rank() == 0, ranks.Learning(module)
    if first:
        keep_lines(metrics_path, start)
    for epoch in range(start, config.epochs):
        module.train()
        seed_dropout(seed, epoch)

        def loss_of(batch: np.ndarray, epoch: int = epoch) -> Any:
            return losses(*inputs.training(batch, seed, epoch))

        line = optimise(loss_of, together, len(inputs), optimiser, everything, config, seed, epoch, step, accumulate)
        if first:
            append_lines(metrics_path, [line])
            save_state(state_path, module, optimiser, epoch + 1)
    if finish is not None:
        finish()
    if first:
        save_weights(folder / "weights.safetensors", module)
    ranks.wait()


def prototypes_at(folder: Path, epoch: int) -> Path:
    """Where the prototypes lie that were collected before an epoch, counted from 0."""
    return folder / "prototypes" / f"epoch{epoch + 1:03}.safetensors"


def last_prototypes(folder: Path, epoch: int, device: torch.device) -> Prototypes:
    """Those of ``prototypes_at``, which a training that is gone on with remembers from."""
    path = prototypes_at(folder, epoch)
    if not path.is_file():
        raise InputError(f"{path} is missing, and the training cannot go on without; delete {folder} and train again.")
    return load_prototypes(path, device)


def features_stand_still(host: Host, inputs: PhotoInputs, fpr: FPRConfig) -> bool:
    """Whether the features that prototypes are made of depend on nothing that learns."""
    host.eval()
    output = host.trained_part(inputs.plain(np.array([0])), level_features=fpr.feature_space == "levels")
    return not output.features.requires_grad


@torch.no_grad()
def collect(
    host: Host, inputs: PhotoInputs, targets: Tensor, fpr: FPRConfig, superclasses: tuple[int, ...] | None, seed: int,
    previous: Prototypes | None = None,
) -> Prototypes:  # fmt: skip
    """The prototype pass over all images, without augmentation, at the scales and mirrorings that ``fpr`` asks for.

    ``previous``, of the collection before, is what ``fpr.remember`` remembers from.

    Processes share the batches; their pools become one, from which the first makes the prototypes of all.
    """
    host.eval()

    def batches() -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        for batch in ranks.mine(inputs.plain_batches(COLLECTED_AT_ONCE)):
            numbers = torch.from_numpy(batch)
            yield batch, targets[numbers.to(targets.device)], numbers.to(targets.device)

    def network(batch: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        level_features = fpr.feature_space == "levels"
        return merged_output(host, inputs, batch, fpr.collect_scales, fpr.collect_flip, level_features)

    pools = fill_pools(network, batches(), fpr)

    def empty() -> PrototypePools:
        return PrototypePools(
            targets.shape[1], channels, fpr.positive_capacity, fpr.negatives * fpr.refill, targets.device
        )

    channels = ranks.largest(pools.positive.rows.shape[2] if pools else 0)  # a process without a batch does not know
    pools = pools or empty()
    ranks.merged(pools, empty)

    def prototypes() -> Prototypes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fewer distinct regions than clusters
            return prototypes_of(pools, targets != 0, fpr, superclasses, seed, previous).to("cpu")

    return ranks.once(prototypes).to(targets.device)
