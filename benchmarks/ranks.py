"""Two processes that collect prototypes together against one that does it alone, each process with one core."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tag2mask.launch import run_members

BAR = 1 / 1.7
DESCRIPTION = "seconds to collect prototypes from photos: two processes on two cores / one on one (default settings)"
IMAGES = 256
ROUNDS = 3


def collect_and_note(out: str) -> None:
    """Collect prototypes from photos, without a cache, and write the shortest time in seconds."""
    import time
    from contextlib import nullcontext
    from dataclasses import replace

    import torch

    from tag2mask import ranks
    from tag2mask.config import CooccurConfig, DataConfig
    from tag2mask.engine import collect
    from tag2mask.launch import is_member
    from tag2mask.presets import PRESETS
    from tag2mask.progress import Reporter
    from tag2mask.stages.network import set_up_seed

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with ranks.joined() if is_member(os.environ) else nullcontext():
        data = DataConfig(cooccur=CooccurConfig(images=IMAGES))
        config = replace(PRESETS["laptop"], data=data, cache_gigabytes=0)
        setup = set_up_seed(config, Path(out).parent / "run", 0, torch.device("cpu"), Reporter(quiet=True))
        targets = torch.tensor(setup.images.labels, dtype=torch.float32)
        times = []
        for _ in range(ROUNDS + 1):
            ranks.wait()
            start = time.perf_counter()
            collect(setup.host, setup.inputs, targets, config.fpr, setup.superclasses, 0)
            ranks.wait()
            times.append(time.perf_counter() - start)
        if ranks.rank() == 0:
            Path(out).write_text(str(min(times[1:])))


def seconds(count: int) -> float:
    """The time of ``count`` processes."""
    with tempfile.TemporaryDirectory(prefix="tag2mask-benchmark-") as folder:
        out = str(Path(folder) / "seconds")
        command = [sys.executable, "-c", f"from benchmarks.ranks import collect_and_note; collect_and_note({out!r})"]
        os.environ["OMP_NUM_THREADS"] = "1"
        if count == 1:
            subprocess.run(command, check=True)
        elif run_members(command, count):
            raise RuntimeError("a process has ended before its time")
        return float(Path(out).read_text())


def measure() -> float:
    """Seconds of two over seconds of one; both see the same photos."""
    return seconds(2) / seconds(1)
