"""IRN and PSA: learn which pixels belong together from what the CRF is sure of, then let the maps walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tag2mask import ranks
from tag2mask.atomic import Written
from tag2mask.checkpoints import load_weights
from tag2mask.config import CRF_PRESETS, IRNConfig, OptimiserConfig, PSAConfig, RunConfig
from tag2mask.data.pseudo_masks import UNSURE, PseudoMasks, write_mask
from tag2mask.engine import fit_labelled
from tag2mask.errors import InputError
from tag2mask.hosts.inputs import PhotoInputs, level_settings
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.hosts.levels import LevelsHost
from tag2mask.manifests import Manifest
from tag2mask.maps.store import load_maps, quantised, save_maps
from tag2mask.processes import over_images
from tag2mask.progress import Reporter, Step
from tag2mask.refine.crf import DenseCRF, soft_energies
from tag2mask.refine.irn import IRNet, IRNOutput, edge_map, irn_loss, refine_maps
from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.psa import AffinityNet, affinity_labels, psa_loss, refine_scores, with_background
from tag2mask.stages.inputs import open_inputs
from tag2mask.stages.localize import map_path
from tag2mask.stages.mask_work import nearest, reduced
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.origin import drop_damaged

Walker = Literal["irn", "psa"]
BACKGROUND_LEVEL = 128
"""PSA's background walks along; a map is stored as its share of the best class and the background at the pixel, which
the class wins from one half on."""


class Total(NamedTuple):
    """What is minimised."""

    total: Tensor


class AffinityStage(nn.Module):
    """IRN's or PSA's trained half, with the scale of the levels it reads: backbones differ by orders of magnitude."""

    level_scale: Tensor

    def __init__(self, kind: Walker, levels: LevelsHost, irn: IRNConfig, psa: PSAConfig) -> None:
        super().__init__()
        self.kind: Walker = kind
        self.register_buffer("level_scale", torch.ones(len(levels.channels)))
        if kind == "irn":
            self.network: IRNet | AffinityNet = IRNet(levels.channels, levels.strides, irn)
            self.stride, self.geometry = self.network.edge_stride, PairGeometry(irn.training_radius)
        else:
            deepest = len(psa.channels)
            self.network = AffinityNet(levels.channels[-deepest:], psa)
            self.stride, self.geometry = levels.strides[-deepest], PairGeometry(psa.radius)

    def measure_scales(self, levels: list[Tensor]) -> None:
        """Take the levels' scale (root mean square) from a batch, before training."""
        self.level_scale.copy_(torch.stack([level.square().mean().sqrt() for level in levels]).clamp(min=1e-12))

    def forward(self, levels: list[Tensor]) -> Any:
        """Levels (N, D, h, w) -> ``IRNOutput``, or features (N, D, H, W)."""
        scaled = [level / scale for level, scale in zip(levels, self.level_scale, strict=True)]
        return self.network(scaled if self.kind == "irn" else scaled[-len(self.network.projections) :])  # type: ignore

    def parameter_groups(
        self, optimiser: OptimiserConfig, displacement_rate: float
    ) -> list[tuple[float, float, list[nn.Parameter]]]:
        """(learning rate, weight decay, parameters); IRN's displacement branch has a rate of its own."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            own = displacement_rate if name.startswith(("network.displacement", "network.coarse")) else 1.0
            groups.setdefault(optimiser.learning_rate * own, []).append(parameter)
        return [(rate, optimiser.weight_decay, parameters) for rate, parameters in groups.items()]

    def loss(self, levels: list[Tensor], labels: Tensor) -> Total:
        """Labels (N, S, S) uint8 of the photo, 255 unsure -> what is minimised."""
        output = self(levels)
        grid = output.edge if self.kind == "irn" else output
        rows, columns = (
            (torch.arange(count, device=labels.device) * self.stride + self.stride // 2).clamp(max=side - 1)
            for count, side in zip(grid.shape[2:], labels.shape[1:], strict=True)
        )
        small = labels[:, rows[:, None], columns]  # (N, h, w): each cell by its centre, the last ones may lie outside
        with torch.autocast(grid.device.type, enabled=False):
            if self.kind == "irn":
                moved = None if output.displacement is None else output.displacement.float()
                return Total(irn_loss(IRNOutput(output.edge.float(), moved), small, self.geometry).total)
            return Total(psa_loss(output.float(), small, self.geometry).total)


def open_levels(config: RunConfig, setup: SeedSetup, run: Path, report: Reporter) -> PhotoInputs:
    """The frozen backbone's levels of a split's photos."""
    torch.manual_seed(setup.seed)  # a backbone without weights must be the same for every split
    levels = LevelsHost(config.host).to(setup.device)
    frozen = level_settings(config.host, levels.level_names)
    return open_inputs(
        levels, frozen, config.refine.views, config.cache_gigabytes, setup.data, run, setup.images, setup.device, report
    )


def affinity_network(kind: Walker, config: RunConfig, setup: SeedSetup, inputs: PhotoInputs) -> AffinityStage:
    """An untrained network for inputs of ``open_levels``; the same for the same seed."""
    if not isinstance(inputs.host, LevelsHost):
        raise ValueError(f"the inputs are of a {type(inputs.host).__name__}; make them with open_levels")
    torch.manual_seed(setup.seed)
    return AffinityStage(kind, inputs.host, config.refine.irn, config.refine.psa).to(setup.device)


def train_affinity(
    kind: Walker, config: RunConfig, setup: SeedSetup, inputs: PhotoInputs, certain: PseudoMasks, folder: Path,
    report: Reporter,
) -> None:  # fmt: skip
    """Train on the labels that are certain; goes on where it was cut off, and does nothing where it is finished."""
    ranks.once(lambda: drop_damaged(folder, report))
    if ranks.once((folder / "weights.safetensors").is_file):
        return
    network = affinity_network(kind, config, setup, inputs)
    least = network.stride * (2 * network.geometry.radius - 1)
    if config.refine.views.size < least:
        raise InputError(
            f"refine.views.size is {config.refine.views.size}; expected at least {least}, as {kind.upper()} compares "
            f"pixels of a grid of stride {network.stride} within a radius of {network.geometry.radius}."
        )
    labelled = LabelledInputs(inputs, certain.mask, config.refine.scales)
    first, _ = labelled.training(np.arange(min(len(labelled), config.refine.optimiser.batch_size)), setup.seed, 0)
    network.measure_scales(first)
    with report.task(f"seed {setup.seed}: {kind.upper()}") as step:
        optimiser = config.refine.optimiser
        groups = network.parameter_groups(optimiser, config.refine.irn.displacement_rate)
        fit_labelled(
            network, labelled, network.loss, groups, optimiser, setup.seed, folder, step, resume=True,
            finish=partial(store_mean_displacement, network, inputs),
        )  # fmt: skip


@torch.no_grad()
def store_mean_displacement(network: AffinityStage, inputs: PhotoInputs) -> None:
    """The mean displacement over the photos becomes what IRN subtracts, where it has learnt any."""
    if not (isinstance(network.network, IRNet) and network.network.has_displacement):
        return

    def scaled() -> Iterator[list[Tensor]]:
        for batch in inputs.plain_batches(16):
            levels = inputs.plain(batch)
            yield [level / scale for level, scale in zip(levels, network.level_scale, strict=True)]

    network.network.store_mean_displacement(scaled())


@dataclass(frozen=True)
class PowersJob:
    """PSA's own labels of one image."""

    index: int
    read_image: Callable[[int], Image.Image]
    maps: Path
    out: Path
    psa: PSAConfig
    longest: int
    """Longest side at which the CRFs see a photo, in pixels."""


def write_power_labels(job: PowersJob) -> Written:
    """Two CRFs on scores behind background planes of different power; what is certain, 255 elsewhere."""
    stored = load_maps(job.maps)
    if not len(stored.classes):
        return write_mask(job.out, np.zeros(stored.maps.shape[1:], np.uint8))
    image = reduced(job.read_image(job.index), job.longest)  # (h, w, 3)
    crf = DenseCRF(image, CRF_PRESETS["psa"])
    maps = stored.maps.astype(np.float32) / 255
    if image.shape[:2] != maps.shape[1:]:
        maps = on_grid(maps, image.shape[:2])  # (P, H, W) -> (P, h, w)
    powers = (job.psa.certain_foreground, job.psa.certain_background)
    much, little = crf.infer_many([soft_energies(with_background(maps, power)) for power in powers])
    values = np.zeros(256, np.uint8)
    values[UNSURE] = UNSURE
    values[1 : len(stored.classes) + 1] = stored.classes + 1
    labels = nearest(affinity_labels(much, little), stored.maps.shape[1:])  # (H, W)
    return write_mask(job.out, values[labels])


@dataclass(frozen=True)
class WalkJob:
    """One image's walk."""

    kind: Walker
    maps: Path
    out: Path
    guide: np.ndarray
    """IRN: edges (h, w). PSA: features (D, h, w)."""
    irn: IRNConfig
    psa: PSAConfig


def walk_maps(
    kind: Walker, config: RunConfig, setup: SeedSetup, inputs: PhotoInputs, weights: Path, maps: Path, out: Path,
    step: Step,
) -> None:  # fmt: skip
    """Let the stored maps of every image walk and store the result; images that have one are left alone."""
    network = affinity_network(kind, config, setup, inputs)
    load_weights(weights, network)
    network.eval()
    manifest, ids = Manifest(out, ranks.rank()), setup.images.ids
    every = ranks.once(lambda: [i for i, name in enumerate(ids) if not manifest.holds(map_path(out, name))])
    missing = list(ranks.mine(every))
    done = len(ids) - len(every)
    step(done, len(ids))

    def jobs() -> Iterator[WalkJob]:
        for index in missing:
            name = setup.images.ids[index]
            guide = guide_of(network, inputs, index)
            yield WalkJob(kind, map_path(maps, name), map_path(out, name), guide, config.refine.irn, config.refine.psa)

    def received(job: WalkJob, written: Written) -> None:
        manifest.add(job.out, written)

    over_images(walk_image, jobs(), len(missing), config.refine.processes, step, done, received)
    ranks.wait()


@torch.no_grad()
def guide_of(network: AffinityStage, inputs: PhotoInputs, index: int) -> np.ndarray:
    """What stops a walk in one photo: IRN's edges (h, w) of photo and mirror image, or PSA's features (D, h, w)."""
    plain = network(inputs.plain(np.array([index])))
    if network.kind == "psa":
        features: np.ndarray = plain[0].cpu().numpy()
        return features
    mirrored = network(inputs.plain(np.array([index]), mirrored=True))
    return edge_map(plain.edge[0], mirrored.edge[0])


def walk_image(job: WalkJob) -> Written:
    """Walk one image's maps and store them as shares of the image's highest value; returns what the file holds."""
    stored = load_maps(job.maps)
    size = stored.maps.shape[1:]
    if not len(stored.classes):
        return save_maps(job.out, stored.classes, stored.maps, np.zeros_like(stored.peaks))
    maps = stored.maps.astype(np.float64) / 255
    grid = job.guide.shape[-2:]
    if job.kind == "irn":
        walked = refine_maps(on_grid(maps, grid), job.guide.astype(np.float64), job.irn)  # (P, h, w)
        scores = resized(walked, size)  # (P, H, W)
        scores /= max(scores.max(), np.finfo(np.float32).tiny)
    else:
        planes = on_grid(with_background(maps, job.psa.background), grid)  # (1 + P, h, w)
        walked = refine_scores(planes, torch.from_numpy(job.guide)[None], job.psa)
        scores = resized(walked, size)  # (1 + P, H, W)
        highest = scores[1:].max(axis=0) + scores[0]  # (H, W): the best class and the background share a pixel
        scores = scores[1:] / np.maximum(highest, np.finfo(np.float32).tiny)  # (P, H, W)
    peaks = np.zeros_like(stored.peaks)
    peaks[stored.classes] = scores.max(axis=(1, 2))
    return save_maps(job.out, stored.classes, quantised(scores), peaks)


def on_grid(maps: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Means over the cells of a grid, (P, H, W) -> (P, h, w)."""
    field = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None]  # (1, P, H, W)
    return functional.interpolate(field, grid, mode="area")[0].double().numpy()


def resized(walked: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(P, h, w) -> (P, H, W) float32, bilinear."""
    field = torch.from_numpy(walked.astype(np.float32))[None]
    return functional.interpolate(field, size, mode="bilinear", align_corners=False)[0].numpy()
