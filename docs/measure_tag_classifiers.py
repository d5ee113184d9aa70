"""Print what the classifiers of tags cost (`fpr.suspects`, `tag2mask audit`): seconds and peak memory of one fit.

Run ``python docs/measure_tag_classifiers.py [PHOTOS FEATURES CLASSES]``, 10000 3072 20 unless said otherwise: pooled
features are mean and maximum of each channel, so 3072 of 1536 channels. Features are random, some tell the classes.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from tag2mask.noise import fit_classifiers


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """One fit on one thread."""
    photos, features, classes = map(int, sys.argv[1:]) if len(sys.argv) > 1 else (10_000, 3_072, 20)
    random = np.random.default_rng(0)
    tags = random.random((photos, classes)) < 0.1
    rows = random.standard_normal((photos, features), dtype=np.float32)  # (N, D)
    rows[:, :classes] += 2 * tags
    before, start = peak_gigabytes(), time.monotonic()
    fit_classifiers(rows, tags, seed=0)
    seconds = time.monotonic() - start
    more = peak_gigabytes() - before
    print(f"{photos} photos, {features} features ({rows.nbytes / 1e9:.2f} GB), {classes} classes: "
          f"{seconds:.0f} s, {more:.1f} GB more at the peak")  # fmt: skip


if __name__ == "__main__":
    main()
