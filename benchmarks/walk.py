"""The sparse random walk against squaring the dense transition matrix; ``python -m benchmarks.walk`` for growing grids.

Each form starts from an edge map and the maps of three classes, and ends with the maps after 256 steps. A photo of
500x375 has a grid of 94x125, whose dense matrix has 1.1 GB; the largest grid here is a quarter of that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tag2mask.config.affinity import IRNConfig
from tag2mask.refine.irn import refine_maps
from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.walk import edge_transition

BAR = 0.1
DESCRIPTION = "256 steps of the sparse random walk / squaring the dense matrix 8 times, grid 47x63, 3 classes"

CLASSES = 3
GRIDS = ((18, 23), (32, 32), (47, 63))
FULL_GRID = (94, 125)
REPEATS = 3
CONFIG = IRNConfig()

Floats = npt.NDArray[np.floating]
Form = Callable[[Floats, Floats], Floats]


def draw(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Maps (C, h, w) and edges (h, w), mostly faint."""
    generator = np.random.default_rng(0)
    return generator.random((CLASSES, *size)), generator.random(size) ** 4


def sparse(maps: Floats, edge: Floats) -> Floats:
    """As the package does it."""
    return refine_maps(maps, edge, CONFIG)


def dense(maps: Floats, edge: Floats) -> Floats:
    """As the family does it, in float32: the matrix to the power 256 by squaring, then the maps once through it."""
    transition = edge_transition(edge, PairGeometry(CONFIG.radius), CONFIG.beta).astype(np.float32).toarray()
    power = torch.from_numpy(transition)
    for _ in range(8):
        power = power @ power
    start = torch.from_numpy((maps**CONFIG.power * (1 - edge)).astype(np.float32)).flatten(1)  # (C, hw)
    return (start @ power).numpy().reshape(maps.shape)


FORMS: dict[str, Form] = {"sparse": sparse, "dense": dense}


def seconds(form: Form, maps: Floats, edge: Floats) -> float:
    """Time of one refinement: the median of some of the fast form, one of the slow one."""
    times = []
    for _ in range(REPEATS if form is sparse else 1):
        start = time.perf_counter()
        form(maps, edge)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory(what: str) -> int:
    """VmRSS (now) or VmHWM (at most so far) of this process in bytes, as Linux tells it.

    ``resource`` is of no use here: in a child its maximum begins at the size of the parent.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def print_growth(name: str, size: tuple[int, int]) -> None:
    """Refine once and print by how many bytes this process grew at most."""
    torch.set_num_threads(1)
    maps, edge = draw(size)
    FORMS[name](*draw((8, 8)))  # what the libraries take for themselves
    before = memory("VmRSS")
    FORMS[name](maps, edge)
    print(memory("VmHWM") - before)


def growth(name: str, size: tuple[int, int]) -> int:
    """Bytes that one refinement takes at most, measured by the system in a process of its own."""
    code = f"from benchmarks.walk import print_growth; print_growth({name!r}, {size})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def measure() -> float:
    """Sparse time / dense time on the largest grid, one thread each."""
    torch.set_num_threads(1)
    maps, edge = draw(GRIDS[-1])
    if not np.allclose(sparse(maps, edge), dense(maps, edge), atol=1e-4):
        return float("nan")
    return seconds(sparse, maps, edge) / seconds(dense, maps, edge)


def main() -> None:
    """Print time and memory for growing grids; on the last one the dense form would take minutes and gigabytes."""
    torch.set_num_threads(1)
    print(f"{'grid':>8} {'pixels':>7} {'sparse s':>9} {'dense s':>8} {'ratio':>6} {'sparse MB':>10} {'dense MB':>9}")
    for size in (*GRIDS, FULL_GRID):
        maps, edge = draw(size)
        fast, memory = seconds(sparse, maps, edge), growth("sparse", size) / 1e6
        slow, large = float("nan"), float("nan")
        if size != FULL_GRID:
            slow, large = seconds(dense, maps, edge), growth("dense", size) / 1e6
        grid = f"{size[0]}x{size[1]}"
        print(f"{grid:>8} {edge.size:>7} {fast:>9.3f} {slow:>8.3f} {fast / slow:>6.3f} {memory:>10.1f} {large:>9.1f}")


if __name__ == "__main__":
    main()
