"""Who reads what, when: the order of an epoch and the draws of an image, as pure functions of (seed, epoch, index).

No random state runs through training, so a resumed run, or one on another number of machines, reads the same.
"""

from __future__ import annotations

import numpy as np


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``count`` image indices, (count,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The index batches of an epoch; a last incomplete batch is left out, unless it is the only one."""
    order = epoch_order(count, seed, epoch)
    full = count // batch_size
    return [order] if full == 0 else np.split(order[: full * batch_size], full)


def draws(seed: int, epoch: int, index: int, count: int) -> np.ndarray:
    """``count`` uniform numbers in [0, 1) that belong to one image in one epoch."""
    return np.random.default_rng((seed, epoch, index)).random(count)
