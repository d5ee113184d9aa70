"""Masks from stored localization maps: the threshold by the rule without masks, and perhaps a dense CRF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tag2mask import ranks
from tag2mask.atomic import Written
from tag2mask.config import RefineConfig
from tag2mask.data import TaggedImages
from tag2mask.manifests import Manifest
from tag2mask.maps.store import load_maps
from tag2mask.processes import over_images
from tag2mask.progress import Step
from tag2mask.score import LEVELS, ScoreHistograms, absent_floor, choose_level, peak_stride
from tag2mask.stages.localize import map_path
from tag2mask.stages.mask_work import MaskJob, write_job_masks


def rule_level(images: TaggedImages, maps: Path, step: Step) -> int:
    """Threshold level 1..255 of protocol ``gtfree``, chosen on the stored maps of all images."""
    histograms = ScoreHistograms(len(images.classes), images=len(images))
    stride = peak_stride(*images.labels.shape)
    tags = images.labels[::stride]
    peaks = np.zeros(tags.shape, np.float32)
    for index, name in ranks.mine(enumerate(images.ids)):
        stored = load_maps(map_path(maps, name))
        histograms.add(index, stored.classes.astype(np.int64), stored.maps, None)
        if index % stride == 0:
            peaks[index // stride] = stored.peaks
        step(index + 1, len(images))
    floor = absent_floor(ranks.total(peaks), tags)
    ranks.streamed(histograms.parts(), histograms.take_in)
    return ranks.once(lambda: choose_level(histograms, "gtfree", floor=floor))


def mask_path(folder: Path, image_id: str) -> Path:
    """File of an image's mask."""
    return folder / f"{image_id}.png"


def write_masks(images: TaggedImages, maps: Path, folder: Path, level: int, step: Step) -> None:
    """Write a palette PNG for every image whose maps are in ``maps``: 0 background, c + 1 for class c.

    Masks that exist are written again, as the threshold belongs to the whole set.
    """
    manifest = Manifest(folder, ranks.rank())
    for index, name in ranks.mine(enumerate(images.ids)):
        job = MaskJob(index, images.reader, map_path(maps, name), (level,), mask_path(folder, name))
        manifest.add(job.mask, *write_job_masks(job))
        step(index + 1, len(images))
    ranks.wait_for_all(step, len(images))


def write_refined_masks(
    images: TaggedImages, maps: Path, folder: Path, level: int, config: RefineConfig, step: Step,
    certain: Path | None = None,
) -> None:  # fmt: skip
    """The same with a dense CRF, in parallel; images that have their masks are left alone.

    Args:
        certain: folder of masks that hold what is certain, 255 elsewhere; None for none.
    """
    described = Manifest(folder, ranks.rank())
    sure_described = Manifest(certain, ranks.rank()) if certain else None
    levels = (level, share_of(level, config.foreground), share_of(level, config.background)) if certain else (level,)

    def made(name: str) -> bool:
        sure = sure_described is None or certain is None or sure_described.holds(mask_path(certain, name))
        return sure and described.holds(mask_path(folder, name))

    def jobs() -> Iterator[MaskJob]:
        for index in missing:
            name = images.ids[index]
            yield MaskJob(
                0, images.alone(index), map_path(maps, name), levels, mask_path(folder, name),
                mask_path(certain, name) if certain else None, config.crf_settings, config.crf_backend,
                config.crf_longest,
            )  # fmt: skip

    every = ranks.once(lambda: [index for index, name in enumerate(images.ids) if not made(name)])
    missing, done = list(ranks.mine(every)), len(images) - len(every)
    step(done, len(images))

    def received(job: MaskJob, written: list[Written]) -> None:
        described.add(job.mask, written[0])
        if job.certain is not None and sure_described is not None:
            sure_described.add(job.certain, written[1])

    over_images(write_job_masks, jobs(), len(missing), config.processes, step, done, received)
    ranks.wait_for_all(step, len(images))


def complete(images: TaggedImages, folder: Path) -> bool:
    """Whether a folder has the mask of every image, as it was written."""
    manifest = Manifest(folder)
    return all(manifest.holds(mask_path(folder, name)) for name in images.ids)


def share_of(level: int, factor: float) -> int:
    """A threshold level 1..255 times a factor."""
    return min(LEVELS - 1, max(1, round(level * factor)))
