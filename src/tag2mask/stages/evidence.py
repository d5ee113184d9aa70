"""What the negative prototypes are and what they suppress: the pictures behind the figures (the paper's Figure 6)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.config import FPRConfig, RunConfig
from tag2mask.engine import collect
from tag2mask.fpr import Prototypes, relative_activation, suppressed_pixels
from tag2mask.hosts import HostOutput
from tag2mask.manifests import write_described
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.tags import read_training_tags, tags_of_pools

IMAGES_FOR_A_CLASS = 4
"""Pictures of suppressed pixels kept for each class, those with the largest share of them."""
GRID = 48
"""Side of the stored maps, in cells; photos differ in size, the stored maps do not."""
NOT_SUPPRESSED = 255


@torch.no_grad()
def collect_evidence(config: RunConfig, setup: SeedSetup, run: Path, report: Reporter) -> None:
    """Write ``evidence.npz`` beside the prototypes of the method ``fpr``.

    Seen with the weights that the host has: give it those of the class activation map, and it is what the first
    rectification step saw. Arrays, with h = w = ``GRID``: ``source`` (R, 2) [class, image], in the order of confidence;
    ``source_map`` (R, h, w) uint8, the class's relative activation there; ``shown`` (S, 2) [class, image] and
    ``nearest`` (S, h, w) uint8: for each suppressed pixel the rank of its nearest negative prototype, 255 elsewhere.
    """
    folder = method_folder(run, setup.seed, "fpr")
    fpr = config.fpr
    if not fpr.needs_prototypes() or not folder.is_dir():
        return
    tags = tags_of_pools(config.tags, setup, read_training_tags(run, setup), fpr, run, report)
    targets = torch.tensor(tags, dtype=torch.float32, device=setup.device)
    prototypes = collect(setup.host, setup.inputs, targets, fpr, setup.superclasses, setup.seed + 1000)
    setup.host.eval()

    def output_of(batch: np.ndarray) -> HostOutput:
        return setup.host.trained_part(setup.inputs.plain(batch), level_features=fpr.feature_space == "levels")

    valid, sources = prototypes.trimmed_valid, prototypes.trimmed_source
    source = [(c, int(sources[c, k])) for c, k in valid.nonzero().tolist()]
    source_maps = []
    for c, image in source:
        output = output_of(np.array([image]))
        source_maps.append(on_grid(relative_activation(output.maps)[:1, c : c + 1] * 255, "bilinear"))
    shares: list[tuple[int, float, int]] = []  # (class, suppressed share of the picture, image)
    with report.task("suppressed pixels") as step:
        for batch in setup.inputs.plain_batches(32):
            output = output_of(batch)
            share = suppressed(output, targets[torch.from_numpy(batch)], prototypes, fpr).float().mean((2, 3))  # (N, C)
            shares += [(c, share[row, c].item(), int(batch[row])) for row, c in share.nonzero().tolist()]
            step(int(batch[-1]) + 1, len(setup.images))
    chosen: list[tuple[int, int]] = []
    for c in range(len(setup.images.classes)):
        ranked = sorted((-share, image) for owner, share, image in shares if owner == c)
        chosen += [(c, image) for _, image in ranked[:IMAGES_FOR_A_CLASS]]
    nearest = []
    for c, image in chosen:
        output = output_of(np.array([image]))
        pixels = suppressed(output, targets[image : image + 1], prototypes, fpr)[0, c]  # (h, w)
        ranks = nearest_rank(output.features, prototypes.trimmed[c], valid[c], fpr.distance == "cosine")
        shown = torch.where(pixels, ranks, NOT_SUPPRESSED)[None, None].float()
        nearest.append(on_grid(shown, "nearest"))
    content = io.BytesIO()
    np.savez_compressed(
        content,
        source=np.array(source, np.int64).reshape(-1, 2),
        source_map=np.array(source_maps, np.uint8),
        shown=np.array(chosen, np.int64).reshape(-1, 2),
        nearest=np.array(nearest, np.uint8),
    )
    write_described(folder / "evidence.npz", content.getvalue())


def suppressed(output: HostOutput, labels: Tensor, prototypes: Prototypes, fpr: FPRConfig) -> Tensor:
    """Phi of a batch, (N, C, h, w) boolean, by the settings of the method."""
    present = (labels > 0) & (output.maps.amax(dim=(2, 3)) > 0)
    return suppressed_pixels(
        output.features, output.maps, present, prototypes, fpr.theta, fpr.margin, fpr.pixel_epsilon,
        cosine=fpr.distance == "cosine",
    )  # fmt: skip


def nearest_rank(features: Tensor, negatives: Tensor, valid: Tensor, cosine: bool) -> Tensor:
    """Rank of the nearest negative at each pixel of one image: (1, D, h, w), (K, D), (K,) -> (h, w) int64."""
    pixels = features[0].flatten(1).T  # (hw, D)
    if cosine:
        pixels, negatives = functional.normalize(pixels, dim=1), functional.normalize(negatives, dim=1)
    distance = torch.cdist(pixels, negatives).masked_fill(~valid, torch.inf)  # (hw, K)
    return distance.argmin(dim=1).view(features.shape[2:])  # (h, w)


def on_grid(values: Tensor, mode: str) -> np.ndarray:
    """(1, 1, h, w) -> (GRID, GRID) uint8."""
    options = {"align_corners": False} if mode == "bilinear" else {}
    return functional.interpolate(values, (GRID, GRID), mode=mode, **options)[0, 0].byte().cpu().numpy()
