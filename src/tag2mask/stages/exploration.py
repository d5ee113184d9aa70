"""What the explorer asks of the network: what prototypes suppress in every image, and maps of any image and class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tag2mask.checkpoints import load_prototypes
from tag2mask.config import FPRConfig, RunConfig
from tag2mask.data import TaggedImages
from tag2mask.data.masks import IGNORE, Masks, open_masks
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.fpr import Prototypes, activated_pixels
from tag2mask.hosts import HostOutput
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.maps.merge import class_activation, merged_output
from tag2mask.maps.store import quantised
from tag2mask.presets import method_config
from tag2mask.progress import Reporter
from tag2mask.stages.evidence import suppressed
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.suppressed import on_grid
from tag2mask.stages.tags import read_training_tags, tags_of_pools
from tag2mask.stages.train import load_method

BATCH = 16
BACKGROUND, UNLABELLED = "background", "not labelled"
NOT_SUPPRESSED = -1


@dataclass(frozen=True)
class ClassMaps:
    """Localization maps of one image for every class, tagged or not.

    Attributes:
        maps: (C, h, w) uint8 on the map's own grid, each divided by its own maximum.
        peaks: (C,) that maximum; probabilities: (C,), the sigmoid of the logits.
    """

    maps: npt.NDArray[np.uint8]
    peaks: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


class Network:
    """The network of one seed, with one method's weights at a time. For one thread alone."""

    def __init__(self, config: RunConfig, run: Path, seed: int) -> None:
        device = set_up_torch(config.threads, config.device)
        if not any((run / "cache").glob("*/manifest.json")):  # looking at a run shall not fill the disk
            config = replace(config, cache_gigabytes=0)
        self.run = run
        try:
            self.setup: SeedSetup = set_up_seed(config, run, seed, device, Reporter(quiet=True))
        except InputError:  # a cache that no longer fits reads every photo, of which one may be unreadable
            if not config.cache_gigabytes:
                raise
            config = replace(config, cache_gigabytes=0)
            self.setup = set_up_seed(config, run, seed, device, Reporter(quiet=True))
        self.config = config
        self._loaded: tuple[str, Prototypes | None] | None = None

    def use(self, method: str) -> Prototypes | None:
        """Give the host a method's weights; returns the prototypes that its maps need, if any."""
        if self._loaded is None or self._loaded[0] != method:
            self._loaded = None
            self._loaded = (method, load_method(self.setup, method, self.run))
        self.setup.host.eval()
        return self._loaded[1]

    def maps(self, image: int, method: str) -> ClassMaps:
        """Maps of an image of the set."""
        return self._maps(self.setup.inputs, image, method)

    def maps_of_new(self, photo: Image.Image, method: str) -> ClassMaps:
        """Maps of a photo that is not in the set."""
        classes = self.setup.images.classes
        images = TaggedImages(classes, ("new",), np.zeros((1, len(classes)), bool), lambda index: photo)
        inputs = PhotoInputs(self.setup.host, images, self.setup.inputs.views, self.setup.device)
        return self._maps(inputs, 0, method)

    @torch.no_grad()
    def _maps(self, inputs: PhotoInputs, image: int, method: str) -> ClassMaps:
        prototypes = self.use(method)
        settings = self.config.maps
        scales, logits = class_activation(
            self.setup.host, inputs, np.array([image]), settings.scales, settings.flip, prototypes
        )
        size = max((scale.shape[2:] for scale in scales), key=lambda s: s[0] * s[1])
        parts = [functional.interpolate(s, size, mode="bilinear", align_corners=False)[0] for s in scales]
        total = torch.stack(parts).sum(0)  # (C, h, w)
        peaks = total.amax(dim=(1, 2))
        maps = quantised((total / peaks.clamp(min=1e-12)[:, None, None]).cpu().numpy())
        return ClassMaps(maps, peaks.cpu().numpy(), logits[0].sigmoid().cpu().numpy())


@dataclass
class Findings:
    """What the pass gathers; see ``explore.statistics`` for the shapes of the arrays that it becomes."""

    logits: npt.NDArray[np.float32]
    pairs: list[tuple[int, int, int, int]] = field(default_factory=list)
    ranks: list[npt.NDArray[np.int16]] = field(default_factory=list)
    sources: list[tuple[int, int, int, int]] = field(default_factory=list)
    regions: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    causes: list[Counter[str]] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    def arrays(self, classes: int, negatives: int) -> dict[str, npt.NDArray[np.generic]]:
        """As they are stored."""
        uses: list[tuple[int, int, int, int]] = []
        for (c, image, _, _), grid in zip(self.pairs, self.ranks, strict=True):
            counts = np.bincount(grid[grid >= 0], minlength=negatives)
            uses += [(c, int(rank), image, int(counts[rank])) for rank in np.flatnonzero(counts)]
        table = np.array(sorted(uses, key=lambda u: (u[0], u[1], -u[3], u[2])), np.int32).reshape(-1, 4)
        pixels, photos = np.zeros((2, classes, negatives), np.int64)
        np.add.at(pixels, (table[:, 0], table[:, 1]), table[:, 3])
        np.add.at(photos, (table[:, 0], table[:, 1]), 1)
        names = sorted({name for found in self.causes for name in found})
        shares = [[found[name] / max(1, found.total()) for name in names] for found in self.causes]
        return {
            "pixels": pixels, "photos": photos, "uses": table, "logits": self.logits,
            "pairs": np.array(self.pairs, np.int32).reshape(-1, 4),
            "ranks": np.concatenate([np.zeros(0, np.int16), *(grid.ravel() for grid in self.ranks)]),
            "sources": np.array(self.sources, np.int32).reshape(-1, 4),
            "regions": np.concatenate([np.zeros(0, bool), *(region.ravel() for region in self.regions)]),
            "causes": np.array(shares, np.float32).reshape(len(self.sources), len(names)),
            "cause_names": np.array(names, dtype=np.str_), "unreadable": np.array(self.unreadable, np.int32),
        }  # fmt: skip


@torch.no_grad()
def look_at_all(
    network_of: Callable[[], Network], method: str, weights: str, prototypes_file: Path, findings: list[Findings]
) -> Iterator[tuple[int, int]]:
    """One pass over the images with the weights of the method ``weights``; yields (done, total) after each batch.

    Other work may use the network between two batches, even another seed's. What was found is put into ``findings``.
    A photo that cannot be read is left out and named there.
    """
    network = network_of()
    setup, fpr = network.setup, method_config(method, network.config.fpr)
    images = setup.images
    prototypes = load_prototypes(prototypes_file, setup.device)
    given = read_training_tags(network.run, setup)
    tags = tags_of_pools(network.config.tags, setup, given, fpr, network.run, Reporter(quiet=True))
    targets = torch.tensor(tags, dtype=torch.float32, device=setup.device)
    masks = open_masks(setup.data, images)
    lent = defaultdict(list)  # image -> its negatives
    for c, rank in prototypes.trimmed_valid.nonzero().tolist():
        lent[int(prototypes.trimmed_source[c, rank])].append((c, rank))
    found = Findings(np.zeros(images.labels.shape, np.float32))
    yield 0, len(images)
    for batch in setup.inputs.plain_batches(BATCH):
        network.use(weights)
        for readable, output, collected in outputs_of(network, fpr, batch, lent.keys(), found):
            labels = targets[torch.from_numpy(readable)]  # (B, C)
            found.logits[readable] = output.logits.cpu().numpy()
            chosen = suppressed(output, labels, prototypes, fpr)  # (B, C, h, w)
            for row, c in chosen.any(dim=3).any(dim=2).nonzero().tolist():
                ranks = nearest_negative(output.features[row], prototypes, c, fpr.distance == "cosine")
                grid = torch.where(chosen[row, c], ranks, NOT_SUPPRESSED).short().cpu().numpy()
                found.pairs.append((c, int(readable[row]), *grid.shape))
                found.ranks.append(grid)
            claimed_by = labels != 0
            for row, image in enumerate(readable.tolist()):
                if image not in lent:
                    continue
                regions = lit_regions(collected.maps[row : row + 1], claimed_by[row : row + 1], fpr)[0]  # (C, h, w)
                for c, rank in lent[image]:
                    region = regions[c].cpu().numpy()
                    found.sources.append((c, rank, *region.shape))
                    found.regions.append(region)
                    found.causes.append(names_under(region, masks, image))
        yield int(batch[-1]) + 1, len(images)
    findings.append(found)


def outputs_of(
    network: Network, fpr: FPRConfig, batch: npt.NDArray[np.int64], lent: Collection[int], found: Findings
) -> Iterator[tuple[npt.NDArray[np.int64], HostOutput, HostOutput]]:
    """A batch, what the host makes of it, and what the prototype pass saw of it where it has an image of ``lent``.

    Where a photo cannot be read the images come one by one, and those that fail are noted as ``found.unreadable``.
    """
    try:
        inputs = network.setup.inputs.plain(batch)
        output = network.setup.host.trained_part(inputs, level_features=fpr.feature_space == "levels")
        lends = any(image in lent for image in batch.tolist())
        collected = as_collected(network, fpr, output, batch) if lends else output
    except InputError:
        if len(batch) == 1:
            found.unreadable.append(int(batch[0]))
            return
        for image in batch:
            yield from outputs_of(network, fpr, np.array([image]), lent, found)
        return
    yield batch, output, collected


def as_collected(network: Network, fpr: FPRConfig, output: HostOutput, batch: npt.NDArray[np.int64]) -> HostOutput:
    """What the prototype pass saw of a batch: ``output`` itself unless it merged several views."""
    if fpr.collect_scales == (1.0,) and not fpr.collect_flip:
        return output
    return merged_output(network.setup.host, network.setup.inputs, batch, fpr.collect_scales, fpr.collect_flip)


def lit_regions(maps: Tensor, claimed_by: Tensor, fpr: FPRConfig) -> Tensor:
    """The regions whose mean features become negatives, as ``fpr.collect_prototypes`` cuts them.

    Args:
        maps: (N, C, h, w); claimed_by: (N, C) boolean, classes that the image is tagged with, or may be.

    Returns:
        (N, C, h, w) boolean.
    """
    claimed = activated_pixels(maps, fpr.tagged_theta, fpr.collect_epsilon) & claimed_by[:, :, None, None]
    return activated_pixels(maps, fpr.theta, fpr.collect_epsilon) & ~claimed.any(dim=1, keepdim=True)


def nearest_negative(features: Tensor, prototypes: Prototypes, c: int, cosine: bool) -> Tensor:
    """Rank of the negative of class ``c`` that each pixel is nearest to: (D, h, w) -> (h, w) int64."""
    pixels, negatives = features.flatten(1).T, prototypes.trimmed[c].to(features)  # (hw, D), (K, D)
    if cosine:
        pixels, negatives = functional.normalize(pixels, dim=1), functional.normalize(negatives, dim=1)
    distance = torch.cdist(pixels, negatives)  # (hw, K)
    if prototypes.trimmed_factor is not None:
        distance = distance * prototypes.trimmed_factor[c].to(features)
    return distance.masked_fill(~prototypes.trimmed_valid[c], torch.inf).argmin(dim=1).view(features.shape[1:])


def names_under(region: npt.NDArray[np.bool_], masks: Masks | None, image: int) -> Counter[str]:
    """Map pixels of a region (h, w) by what the masks of the data show: a class, a context, background, or no label."""
    found: Counter[str] = Counter()
    if masks is None:
        return found
    mask = on_grid(masks.mask(image), region.shape).numpy()[region]
    context = np.zeros_like(mask)
    if masks.contexts is not None:
        context = on_grid(masks.context(image), region.shape).numpy()[region]
    for value, around in zip(mask.tolist(), context.tolist(), strict=True):
        if value == IGNORE:
            found[UNLABELLED] += 1
        elif value:
            found[masks.classes.names[value - 1]] += 1
        elif around and masks.contexts is not None:
            found[masks.contexts.names[around - 1]] += 1
        else:
            found[BACKGROUND] += 1
    return found
