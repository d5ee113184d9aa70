"""How well prototypes of a sample cover all positives of a class, for scale.md: `python docs/measure_kmeans.py`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

CHANNELS, CLUSTERS, COUNT = 256, 40, 10
DRAWS = 3
BLOCK = 20_000


def draw(rows: int, seed: int) -> np.ndarray:
    """(rows, CHANNELS): clusters of different size and width along shared directions, without negative values."""
    fixed, generator = np.random.default_rng(5), np.random.default_rng(seed)
    centres = fixed.normal(size=(CLUSTERS, CHANNELS)) * fixed.uniform(0.3, 1.2, (CLUSTERS, 1))
    widths = fixed.uniform(0.5, 1.5, (CLUSTERS, 1))
    directions = fixed.normal(size=(20, CHANNELS)) / 4
    chosen = generator.choice(CLUSTERS, rows, p=fixed.dirichlet(np.full(CLUSTERS, 0.7)))
    noise = widths[chosen] * generator.normal(size=(rows, CHANNELS)) * 0.3
    return np.maximum(centres[chosen] + noise + generator.normal(size=(rows, 20)) @ directions, 0)


def spread(points: np.ndarray, centres: np.ndarray) -> float:
    """Summed squared distance of all points to the nearest centre."""
    total = 0.0
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        squares = (block**2).sum(1)[:, None] - 2 * block @ centres.T + (centres**2).sum(1)  # (n, K)
        total += float(squares.min(1).sum())
    return total


def exact(points: np.ndarray, seed: int) -> np.ndarray:
    """Centroids as ``fpr.prototypes.cluster`` computes them for a few rows."""
    return KMeans(COUNT, n_init=1, max_iter=10, random_state=seed).fit(points).cluster_centers_


def by_mini_batches(points: np.ndarray, seed: int) -> np.ndarray:
    """The same for many rows."""
    return MiniBatchKMeans(COUNT, n_init=1, random_state=seed).fit(points).cluster_centers_


def streamed(points: np.ndarray, seed: int) -> np.ndarray:
    """Rows in the order in which they come."""
    kmeans = MiniBatchKMeans(COUNT, n_init=1, random_state=seed)
    for start in range(0, len(points) - COUNT, 512):
        kmeans.partial_fit(points[start : start + 512])
    return kmeans.cluster_centers_


def main() -> None:
    """Print a line for each way and number of rows."""
    ways: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], int]] = {
        "exact over all": (exact, 10**9), "exact, 512": (exact, 512), "mini-batches, 2048": (by_mini_batches, 2048),
        "exact, 2048": (exact, 2048), "mini-batches, 10000": (by_mini_batches, 10_000), "stream": (streamed, 10**9),
    }  # fmt: skip
    threadpool_limits(1)
    for rows in (4_000, 10_000, 100_000):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for seed in range(DRAWS):
            points = draw(rows, seed)
            for name, (way, sample) in ways.items():
                start = time.process_time()
                centres = way(points[:sample], seed)
                seconds = time.process_time() - start
                found[name].append((spread(points, centres), seconds))
        for name, results in found.items():
            whole = found["exact over all"]
            ratio = np.mean([own / best for (own, _), (best, _) in zip(results, whole, strict=True)])
            print(f"{rows:>7} {name:<20} {ratio:.3f} {1000 * np.mean([s for _, s in results]):7.0f} ms")


if __name__ == "__main__":
    main()
