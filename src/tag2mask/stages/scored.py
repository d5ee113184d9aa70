"""Figures of one method's maps: class activation maps as they come, maps by another attribution as they are stored."""

from __future__ import annotations

from pathlib import Path

from tag2mask.config import RunConfig
from tag2mask.progress import Reporter
from tag2mask.stages.attribution import parts_of, stored_image_maps
from tag2mask.stages.evaluate import MethodScores, Truth, score_method
from tag2mask.stages.localize import localize
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.refine import maps_of
from tag2mask.stages.train import load_method


def score_maps(
    config: RunConfig, setup: SeedSetup, run: Path, name: str, truth: Truth, report: Reporter
) -> MethodScores:
    """Score the maps of a method, ``fpr``, or those by another attribution, ``fpr/advcam``.

    The latter are slow to make, so they are stored, those that are missing now, and read back. They are stored at 192
    pixels at most; their own grid is 10 to 30 cells wide and they are smooth, so figures do not change (0.01 on MSRC).
    """
    labels = setup.images.labels
    if parts_of(name)[1] == "cam":
        prototypes = load_method(setup, name, run)
        with report.task(f"seed {setup.seed}: figures of {name}") as step:
            return score_method(localize(setup, config.maps, truth.size_hw, step, prototypes), truth, labels)
    folder = maps_of(config, setup, run, name, report)
    with report.task(f"seed {setup.seed}: figures of {name}") as step:
        return score_method(stored_image_maps(setup.images, folder, step), truth, labels)
