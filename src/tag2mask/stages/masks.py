"""Masks from stored localization maps, at the threshold that the rule without masks gives for the whole set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tag2mask.data.masks import write_mask
from tag2mask.maps.store import load_maps
from tag2mask.progress import Step
from tag2mask.score import LEVELS, ScoreHistograms, absent_floor, choose_level
from tag2mask.stages.localize import map_path
from tag2mask.stages.network import SeedSetup


def write_masks(setup: SeedSetup, maps: Path, folder: Path, step: Step) -> float:
    """Write a palette PNG for every image whose maps are in ``maps``: 0 background, c + 1 for class c.

    The threshold is that of protocol ``gtfree``, chosen on the maps of the whole set.

    Returns:
        The threshold, as a share of a map's maximum.
    """
    count = len(setup.images)
    histograms = ScoreHistograms(len(setup.images.classes), images=count)
    peaks = np.zeros(setup.images.labels.shape)  # (N, C)
    for index, name in enumerate(setup.images.ids):
        stored = load_maps(map_path(maps, name))
        histograms.add(index, stored.classes.astype(np.int64), stored.maps, None)
        peaks[index] = stored.peaks
        step(index + 1, 2 * count)
    level = choose_level(histograms, "gtfree", floor=absent_floor(peaks, setup.images.labels))
    for index, name in enumerate(setup.images.ids):
        stored = load_maps(map_path(maps, name))
        mask = np.zeros(stored.maps.shape[1:], np.uint8)  # (H, W)
        if len(stored.classes):
            winner = stored.classes[stored.maps.argmax(axis=0)] + 1  # (H, W)
            mask = np.where(stored.maps.max(axis=0) >= level, winner, 0).astype(np.uint8)
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mask(path, mask)
        step(count + index + 1, 2 * count)
    return level / (LEVELS - 1)
