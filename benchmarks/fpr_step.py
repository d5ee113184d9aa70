"""A full training step of the default method against the same step with the classification loss alone."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from benchmarks.laptop import batches, laptop, temporary_folder
from tag2mask.config import FPRConfig, RunConfig
from tag2mask.engine import build_optimiser, collect
from tag2mask.fpr import Prototypes, fpr_loss
from tag2mask.presets import method_config
from tag2mask.stages.network import SeedSetup

BAR = 1.15
DESCRIPTION = "one training step with FPR / the same step with BCE alone (default settings, prototypes given)"
ROUNDS = 8


def step_seconds(
    setup: SeedSetup, config: RunConfig, fpr: FPRConfig, prototypes: Prototypes | None,
    optimiser: torch.optim.Optimizer, batch: np.ndarray, number: int,
) -> float:  # fmt: skip
    """Seconds of one step: augmented input, forward, loss, backward, optimiser."""
    start = time.perf_counter()
    labels = torch.tensor(setup.images.labels[batch], dtype=torch.float32)
    level_features = fpr.needs_prototypes() and fpr.feature_space == "levels"
    output = setup.host.trained_part(setup.inputs.training(batch, 0, number), level_features=level_features)
    terms = fpr_loss(output.features, output.maps, output.logits, labels, prototypes, fpr, 100)
    optimiser.zero_grad(set_to_none=True)
    terms.total.backward()
    optimiser.step()
    return time.perf_counter() - start


def measure() -> float:
    """Median over pairs of steps on the same batch, in turn."""
    with temporary_folder() as folder:
        config, setup = laptop(folder)
        targets = torch.tensor(setup.images.labels, dtype=torch.float32)
        prototypes = collect(setup.host, setup.inputs, targets, config.fpr, setup.superclasses, 0)
        alone = method_config("continued", config.fpr)
        optimiser = build_optimiser(setup.host, config.rectify, side=True)
        setup.host.train()
        setup.host.freeze_batch_norm(learning=False)
        ratios = []
        for number in range(ROUNDS):
            for batch in batches(config.rectify.batch_size):
                times = {
                    name: step_seconds(setup, config, fpr, prototypes, optimiser, batch, number)
                    for name, fpr in (("with", config.fpr), ("without", alone))
                }
                ratios.append(times["with"] / times["without"])
        return statistics.median(ratios[len(ratios) // 5 :])  # the first fifth warms up
