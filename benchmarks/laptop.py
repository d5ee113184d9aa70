"""The network of the default settings on generated pictures, for the benchmarks that time training."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tag2mask.config import CooccurConfig, DataConfig, RunConfig
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.network import SeedSetup, set_up_seed

IMAGES = 192


def laptop(folder: str) -> tuple[RunConfig, SeedSetup]:
    """The default settings of ``tag2mask train`` and their network, with its frozen features cached in ``folder``."""
    torch.set_num_threads(1)  # two threads on a machine that does something else measure that something else
    torch.set_flush_denormal(True)
    config = PRESETS["laptop"]
    config = replace(config, data=DataConfig(cooccur=CooccurConfig(images=IMAGES)))
    setup = set_up_seed(config, Path(folder), 0, torch.device("cpu"), Reporter(quiet=True))
    return config, setup


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the cache that goes with the benchmark."""
    return tempfile.TemporaryDirectory(prefix="tag2mask-benchmark-")


def batches(size: int) -> list[np.ndarray]:
    """Index batches over all images."""
    return np.split(np.arange(IMAGES), IMAGES // size)
