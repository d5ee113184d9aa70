"""Memory of the prototype pass over simulated images: features and class maps are drawn, there are no pixels.

``python -m benchmarks.collect_memory 1000 10000 100000 1000000`` prints the figures of each size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

BAR = 1.05
DESCRIPTION = "peak memory of collecting prototypes, 20,000 simulated images / 2,000"
SIZES = (2_000, 20_000)
CLASSES, CHANNELS, SIDE, BATCH = 20, 64, 8, 50
TAGGED = 0.15
"""Share of the images that have a class: 3 of 20, as in COCO. Every class's pools are full after 20,000 images."""


def measure() -> float:
    """Ratio of the peaks of two processes."""
    small, large = (collected(size)[0] for size in SIZES)
    return large / small


def collected(images: int) -> tuple[int, float]:
    """Peak memory in bytes and seconds of a fresh process that collects prototypes from ``images`` images."""
    code = f"from benchmarks.collect_memory import collect; collect({images})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    peak, seconds = run.stdout.split()
    return int(peak), float(seconds)


def collect(images: int) -> None:
    """Collect prototypes with the default settings; print the peak memory of this process in bytes, and the seconds."""
    import resource

    import torch

    from tag2mask.config import FPRConfig
    from tag2mask.fpr.objective import collect_prototypes

    torch.set_num_threads(1)

    def network(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features, class maps and logits of images, a function of the number of the first."""
        generator = torch.Generator().manual_seed(int(numbers[0]))
        features = torch.rand(len(numbers), CHANNELS, SIDE, SIDE, generator=generator)
        maps = torch.rand(len(numbers), CLASSES, SIDE, SIDE, generator=generator)
        return features, maps, maps.mean(dim=(2, 3))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for start in range(0, images, BATCH):
            numbers = torch.arange(start, min(start + BATCH, images))
            generator = torch.Generator().manual_seed(-1 - start)
            labels = torch.rand(len(numbers), CLASSES, generator=generator) < TAGGED
            yield numbers, labels.float(), numbers

    start = time.monotonic()
    with torch.no_grad():
        collect_prototypes(network, batches(), FPRConfig())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.monotonic() - start)


def main(sizes: list[int]) -> None:
    """Print a line for each size."""
    print(f"{'images':>9} {'peak MB':>9} {'seconds':>9}")
    for size in sizes:
        peak, seconds = collected(size)
        print(f"{size:>9} {peak / 1e6:>9.1f} {seconds:>9.1f}", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
