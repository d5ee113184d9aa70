"""AdvCAM of a photo against the forward and backward passes that it cannot do without.

The default network, its trained half and its frozen half, from the pixels on. A photo with two tags climbs for nine
iterations with its mirror image: nine forward passes and eight backward passes of four images. The bare count is that
many passes of the same network on the same batch, from the pixels to the class maps and back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.laptop import temporary_folder
from tag2mask.config import AdvcamConfig, CooccurConfig, DataConfig
from tag2mask.engine import set_up_torch
from tag2mask.maps.advcam import climb
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.network import set_up_seed

BAR = 1.15
DESCRIPTION = "AdvCAM, two classes and their mirror images, 9 iterations / its bare passes, one thread"

ITERATIONS = 9
REPEATS = 5


def measure() -> float:
    """Median of climbing time / time of the passes; both run in turn, so that load on the machine meets both."""
    data = DataConfig(cooccur=CooccurConfig(images=2, size=320))
    config = replace(PRESETS["laptop"], data=data, cache_gigabytes=0)
    with temporary_folder() as folder:
        setup = set_up_seed(config, Path(folder), 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
        host = setup.host.eval()
        image = setup.inputs.pixels(np.array([0]), 1.0)  # (1, 3, S, S)
        classes = torch.arange(2)
        batch = image.expand(4, -1, -1, -1).contiguous(memory_format=torch.channels_last)  # (4, 3, S, S)

        def climbing() -> None:
            climb(host, image, classes, ITERATIONS, True, AdvcamConfig())

        def passes() -> None:
            for iteration in range(ITERATIONS):
                x = batch.detach().requires_grad_()
                _, maps = host.attribution_part(host.frozen_part(x))
                if iteration < ITERATIONS - 1:
                    torch.autograd.grad(maps.sum(), x)

        climbing(), passes()  # both have run once: first touches of memory are no part of the work
        return statistics.median(seconds(climbing) / seconds(passes) for _ in range(REPEATS))


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes the processor; with one thread that is its time on a machine of its own."""
    start = time.process_time()
    work()
    return time.process_time() - start
