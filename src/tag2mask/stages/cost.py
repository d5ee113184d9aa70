"""What a run will take in disk and memory, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tag2mask.config import RunConfig
from tag2mask.data import TaggedImages
from tag2mask.errors import InputError
from tag2mask.hosts import Host
from tag2mask.hosts.inputs import cache_bytes
from tag2mask.hosts.table import build_host

MAP_BYTES = 12_000
"""Of a stored map of one class of one image: measured 9 to 12 kB on photos of 320 px, the largest grid that is kept."""
FILE_BYTES = 1_000
"""What a file of maps holds beside them."""
MASK_BYTES_PER_PIXEL = 0.02
"""Of a palette PNG: measured 0.01 to 0.02 on masks of VOC and MSRC."""
PROBE = 64
"""Side of the image that a network is tried on."""
IMAGE_BYTES = 800
"""Of memory for an image's row while a set is opened; 230 of them, its id and path, stay."""


@dataclass(frozen=True)
class Cost:
    """Bytes that a run of these settings takes on these images: estimates, but for the cache, which is exact."""

    cache: int | None
    """Frozen features of one split, as files; None where none are kept. For each seed."""
    cache_note: str
    """Why there is none, or what else to know."""
    maps: int
    """Localization maps of one method."""
    masks: int
    """Masks of one stage of one method."""
    weights: int
    """Weights and the state of the optimiser, of one method."""
    tags: int
    """Memory for ids, paths and tags."""
    pools: int
    """Memory for candidates of prototypes."""


def estimate_cost(config: RunConfig, images: TaggedImages, pixels: float) -> Cost:
    """The cost of one seed.

    Args:
        pixels: of a photo, on average.
    """
    count, classes = len(images), len(images.classes)
    try:
        host = build_host(replace(config.host, weights="none"), max(classes, 1)).eval()
    except InputError as error:
        cache, note, parameters, channels = None, f"not known: {error}", 0, 0
    else:
        cache, note = None, "none: the views are crops, or nothing is frozen, or cache_gigabytes is 0"
        if config.views.kind == "square" and len(host.frozen_stages) and config.cache_gigabytes:
            needed = cache_bytes(host, images, config.views)
            if needed <= config.cache_gigabytes * 1e9:
                cache, note = needed, f"for each seed and split, at most cache_gigabytes = {config.cache_gigabytes:g}"
            else:
                note = (
                    f"none: they would take {gigabytes(needed)}, more than cache_gigabytes = "
                    f"{config.cache_gigabytes:g}, so the frozen stages run in every epoch"
                )
        parameters = sum(p.numel() for p in host.parameters())
        trained = sum(p.numel() for p in host.parameters() if p.requires_grad)
        parameters += 2 * trained  # the optimiser's moments
        channels = pooled_channels(host, config)
    candidates = config.fpr.positive_capacity + config.fpr.negatives * config.fpr.refill
    return Cost(
        cache=cache,
        cache_note=note,
        maps=int(images.labels.sum()) * MAP_BYTES + count * FILE_BYTES,
        masks=int(count * pixels * MASK_BYTES_PER_PIXEL),
        weights=4 * parameters,
        tags=count * (classes + IMAGE_BYTES),
        pools=4 * classes * candidates * channels,
    )


@torch.no_grad()
def pooled_channels(host: Host, config: RunConfig) -> int:
    """How long a candidate for a prototype is: seen on a small empty image, as hosts and settings differ."""
    frozen = host.frozen_part(torch.zeros(1, 3, PROBE, PROBE))
    levels = config.fpr.feature_space == "levels"
    return host.trained_part(frozen, level_features=levels).features.shape[1]


def cost_lines(cost: Cost, config: RunConfig) -> list[str]:
    """The same for a person to read."""
    methods, seeds = len(config.methods) + 1, len(config.seeds)
    kept = "none" if cost.cache is None else gigabytes(cost.cache)
    note = cost.cache_note.removeprefix("none: ")
    return [
        f"disk: frozen features {kept} ({note})",
        f"disk: maps about {gigabytes(cost.maps)} a method, masks about {gigabytes(cost.masks)} a stage and method, "
        f"weights and state {gigabytes(cost.weights)} a method; here {methods} methods, {seeds} seed{'s'[: seeds > 1]}",
        f"memory that grows with the images: {gigabytes(cost.tags)} for names and tags; prototype pools "
        f"{gigabytes(cost.pools)}, the network and a batch come on top",
    ]


def gigabytes(count: float) -> str:
    """Bytes as a person says them."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"
