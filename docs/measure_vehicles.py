"""Print how many true pixels of vehicles, and of their wheels, are pushed down in the first step, as a Markdown table.

Run ``python docs/measure_vehicles.py RUN`` on a run of the built-in scenes, where car, bus and train are a super-class.
Seen with the weights of the class activation map; reads masks. Wheels are the dark pixels of cars and buses.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tag2mask.config import FPRConfig
from tag2mask.engine import collect, set_up_torch
from tag2mask.fpr import compared_pixels
from tag2mask.progress import Reporter
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.pipeline import read_settings, require_masks
from tag2mask.stages.tags import read_training_tags, tags_of_pools
from tag2mask.stages.train import load_method

VEHICLES, WHEELED = ("car", "bus", "train"), ("car", "bus")
DARK = 60
"""A pixel is dark when no channel is above this, of 255."""
OUTSIDE: dict[str, Any] = {"suspects": "keep", "support": "off", "refill": 1}
NONE: dict[str, Any] = {**OUTSIDE, "tagged_theta": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": NONE,
    "explained": {**NONE, "explained_trim": True},
    "given": {**NONE, "superclass_trim": True},
    "outside": OUTSIDE,
    "outside and support": {"suspects": "keep"},
    "the default": {},
    "given, on top of the default": {"superclass_trim": True},
}


@torch.no_grad()
def measure(setup: SeedSetup, targets: torch.Tensor, fpr: FPRConfig) -> tuple[float, float, float]:
    """Percent of the vehicles' pixels and of their wheels that are pushed down, and negatives of a class on average."""
    prototypes = collect(setup.host, setup.inputs, targets, fpr, setup.superclasses, setup.seed + 1000)
    masks, names = require_masks(setup), setup.images.classes.names
    down, total = np.zeros(2), np.zeros(2)
    for batch in setup.inputs.plain_batches(32):
        output = setup.host.trained_part(setup.inputs.plain(batch), level_features=fpr.feature_space == "levels")
        present = (targets[torch.from_numpy(batch)] > 0) & (output.maps.amax(dim=(2, 3)) > 0)
        thresholds = fpr.theta, fpr.margin, fpr.pixel_epsilon
        suppressed = compared_pixels(output.features, output.maps, present, prototypes, *thresholds)[0]  # (N, C, h, w)
        for row, index in enumerate(batch.tolist()):
            mask = masks.mask(index)  # (H, W)
            dark = np.asarray(setup.images.image(index)).max(axis=2) <= DARK  # (H, W)
            full = torch.nn.functional.interpolate(suppressed[row : row + 1].float(), mask.shape, mode="nearest")[0] > 0
            for name in VEHICLES:
                c = names.index(name)
                own = mask == c + 1
                wheels = own & dark & (name in WHEELED)
                for kind, pixels in enumerate((own, wheels)):
                    down[kind] += (full[c].cpu().numpy() & pixels).sum()
                    total[kind] += pixels.sum()
    shares = 100 * down / total.clip(min=1)
    return shares[0], shares[1], float(prototypes.trimmed_valid.sum(1).float().mean())


def main() -> None:
    """A row for each setting: mean and deviation over the seeds of the run."""
    run, report = Path(sys.argv[1]), Reporter(quiet=True)
    config = read_settings(run)
    device = set_up_torch(config.threads, config.device)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SETTINGS}
    for seed in config.seeds:
        setup = set_up_seed(config, run, seed, device, report)
        load_method(setup, "cam", run)
        tags = read_training_tags(run, setup)
        for name, options in SETTINGS.items():
            fpr = replace(config.fpr, **options)
            pools = tags_of_pools(config.tags, setup, tags, fpr, run, report)
            rows[name].append(measure(setup, torch.tensor(pools, dtype=torch.float32, device=device), fpr))
    print("| setting | true vehicle pixels pushed down* | wheels pushed down* | negatives of a class |")
    print("|---|---|---|---|")
    for name, values in rows.items():
        mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=1 if len(values) > 1 else 0)
        print(f"| {name} | {mean[0]:.1f} ±{deviation[0]:.1f} % | {mean[1]:.1f} ±{deviation[1]:.1f} % | {mean[2]:.1f} |")


if __name__ == "__main__":
    main()
