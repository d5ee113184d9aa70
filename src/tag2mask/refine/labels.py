"""Labels that are sure of themselves, out of two that err on different sides (PSA, IRN)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]

UNSURE = 255
"""Label of a pixel whose class is not known; nothing learns from it."""


def pair_labels(foreground_confident: Labels, background_confident: Labels) -> Labels:
    """One label map out of two that err on different sides (step A; for IRN two thresholds, each refined by a CRF).

    ======================  ======================  ==============
    foreground_confident    background_confident    label
    ======================  ======================  ==============
    c > 0                   anything                c
    0                       above 0                 255 (unsure)
    0                       0                       0 (background)
    ======================  ======================  ==============

    Args:
        foreground_confident: (H, W) uint8, 0 background; what is foreground here is so for certain.
        background_confident: (H, W) uint8; what is background here is so for certain.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: the two differ in shape.
    """
    if foreground_confident.shape != background_confident.shape:
        raise ValueError(f"label maps of {foreground_confident.shape} and {background_confident.shape}")
    unsure = (foreground_confident == 0) & (background_confident > 0)
    return np.where(unsure, UNSURE, foreground_confident).astype(np.uint8)
