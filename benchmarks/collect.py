"""The prototype pass against the bare forward passes that it needs."""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.laptop import laptop, temporary_folder
from tag2mask.engine import collect

BAR = 1.10
DESCRIPTION = "collecting prototypes (default settings) / the forward passes over the same images"
ROUNDS = 8


def measure() -> float:
    """Median of paired measurements, on cached frozen features, where the forward passes cost least."""
    with temporary_folder() as folder:
        config, setup = laptop(folder)
        level_features = config.fpr.feature_space == "levels"
        targets = torch.tensor(setup.images.labels, dtype=torch.float32)
        ratios = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            setup.host.eval()
            with torch.no_grad():
                for batch in setup.inputs.plain_batches(64):
                    setup.host.trained_part(setup.inputs.plain(batch), level_features=level_features)
            middle = time.perf_counter()
            collect(setup.host, setup.inputs, targets, config.fpr, setup.superclasses, 0)
            ratios.append((time.perf_counter() - middle) / (middle - start))
        return statistics.median(ratios[1:])
