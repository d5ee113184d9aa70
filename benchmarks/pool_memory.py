"""Peak memory of filling the pools with 100,000 images against 1,000: a process each, measured by the system."""

from __future__ import annotations

import os
import subprocess
import sys

BAR = 1.05
DESCRIPTION = "peak memory of the pools, 100,000 images / 1,000 images (20 classes, 2048 channels)"
CLASSES, CHANNELS, BATCH = 20, 2048, 50


def fill(images: int) -> None:
    """Fill the pools with random regions and print the peak resident memory of this process, in bytes."""
    import resource

    import torch

    from tag2mask.config import FPRConfig
    from tag2mask.fpr import PrototypePools

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    config = FPRConfig()
    pools = PrototypePools(CLASSES, CHANNELS, config.positive_capacity, config.negatives * config.refill)
    regions = torch.rand(BATCH, CLASSES, CHANNELS, generator=generator)  # their values do not matter here
    for start in range(0, images, BATCH):
        labels = torch.rand(BATCH, CLASSES, generator=generator) < 0.08
        confidence = torch.rand(BATCH, CLASSES, generator=generator)
        pools.add(regions, torch.ones(BATCH, CLASSES), confidence, labels, torch.arange(start, start + BATCH))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def peak_bytes(images: int) -> int:
    """Peak memory of a fresh process that fills the pools, less that of one that only builds them."""
    code = f"from benchmarks.pool_memory import fill; fill({images})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout
    return int(output)


def measure() -> float:
    """Ratio of the growth over the smallest possible run, so that the interpreter and torch do not hide it."""
    bare = peak_bytes(BATCH)
    import torch

    from tag2mask.config import FPRConfig
    from tag2mask.fpr import PrototypePools

    config = FPRConfig()
    pools = PrototypePools(CLASSES, CHANNELS, config.positive_capacity, config.negatives * config.refill)
    own = sum(t.numel() * t.element_size() for p in (pools.positive, pools.negative) for t in vars(p).values()
              if isinstance(t, torch.Tensor))  # fmt: skip
    large, small = (max(0, peak_bytes(images) - bare) + own for images in (100_000, 1_000))
    return large / small
