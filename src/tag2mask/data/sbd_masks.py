"""Masks of SBD from its MATLAB files, for evaluation alone: no module that trains may import this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tag2mask.data.files import fault
from tag2mask.data.masks import IGNORE


def read_sbd_mask(path: Path) -> np.ndarray:
    """The classes of the pixels in ``cls/<id>.mat``, the field ``Segmentation`` of ``GTcls``.

    Returns:
        (H, W) uint8: 0 background, c + 1 class c of VOC.

    Raises:
        InputError: names the file when it is no such file.
    """
    from scipy.io import loadmat

    advice = "take the file `cls/<id>.mat` from SBD's archive again"
    try:
        content = loadmat(path, variable_names=["GTcls"])
        mask = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make its reader raise nearly anything
        raise fault(path, f"this is not a mask of SBD ({type(error).__name__})", advice) from None
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.size == 0 or mask.min() < 0 or mask.max() > IGNORE:
        raise fault(path, f"GTcls.Segmentation is {mask.shape} {mask.dtype}, not class numbers (H, W)", advice)
    return mask.astype(np.uint8)
