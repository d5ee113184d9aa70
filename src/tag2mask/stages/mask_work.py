"""What is done for one image on the way from maps to masks. It needs no torch, so that worker processes start fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.atomic import Written
from tag2mask.config.crf import CRFConfig
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.maps.store import StoredMaps, load_maps
from tag2mask.refine.crf import DenseCRF, hard_energies
from tag2mask.refine.labels import pair_labels


@dataclass(frozen=True)
class MaskJob:
    """One image's masks."""

    index: int
    read_image: Callable[[int], Image.Image]
    maps: Path
    """Stored maps."""
    levels: tuple[int, ...]
    """Thresholds 1..255, one for each mask: of the mask itself, or also of certain foreground and of background."""
    mask: Path
    """Palette PNG to write."""
    certain: Path | None = None
    """With three thresholds: PNG for what both other passes agree on, 255 elsewhere."""
    crf: CRFConfig | None = None
    """Refine by a dense CRF over the photo; None for none."""
    backend: str = "numpy"
    longest: int = 1000
    """Longest side at which the CRF sees a photo, in pixels; a larger one is reduced."""


def write_job_masks(job: MaskJob) -> list[Written]:
    """Threshold the maps, refine the labels, write the masks; returns what the files hold, ``mask`` first."""
    stored = load_maps(job.maps)
    labels = [thresholded(stored, level) for level in job.levels]  # (H, W) each, 0 background, p + 1 the p-th map
    if job.crf is not None and len(stored.classes):
        image = reduced(job.read_image(job.index), job.longest)  # (h, w, 3)
        crf = DenseCRF(image, job.crf, job.backend)  # type: ignore[arg-type]
        small = [nearest(label, image.shape[:2]) for label in labels]  # (h, w) each
        energies = [hard_energies(label, len(stored.classes) + 1, job.crf.confidence) for label in small]
        labels = [nearest(q.argmax(axis=0), stored.maps.shape[1:]) for q in crf.infer_many(energies)]  # (H, W) each
    values = np.concatenate([[0], stored.classes.astype(np.int64) + 1]).astype(np.uint8)  # (P + 1,)
    masks = [values[label] for label in labels]
    written = [write_mask(job.mask, masks[0])]
    if job.certain is not None:
        written.append(write_mask(job.certain, pair_labels(masks[1], masks[2])))
    return written


def reduced(photo: Image.Image, longest: int) -> np.ndarray:
    """A photo as (h, w, 3) uint8 whose longest side is at most ``longest`` pixels; a smaller one as it is."""
    factor = longest / max(photo.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in photo.size)
        photo = photo.resize((width, height), Image.Resampling.BOX)
    return np.asarray(photo)


def nearest(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels at another size, (H, W) -> (h, w): each pixel takes the label at the place of its centre."""
    if labels.shape == size:
        return labels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def thresholded(stored: StoredMaps, level: int) -> np.ndarray:
    """(H, W) int: 0 where no map reaches ``level``, else 1 + the position of the largest map."""
    if not len(stored.classes):
        return np.zeros(stored.maps.shape[1:], np.int64)
    winner = stored.maps.argmax(axis=0) + 1  # (P, H, W) -> (H, W)
    return np.where(stored.maps.max(axis=0) >= level, winner, 0)
