"""The CRF of pseudo labels against the compiled one: 500x375 scenes, background and two classes, ten steps.

The field runs the CRF twice for each image, once on labels that are sure of the foreground and once on labels that are
sure of the background. Ours does both on one pair of lattices; pydensecrf is called twice. Lattice building is counted.
"""

from __future__ import annotations

import statistics
import time
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import Image
from threadpoolctl import threadpool_limits

from tag2mask.config import CooccurConfig
from tag2mask.data.cooccur import render_scene
from tag2mask.errors import InputError
from tag2mask.refine import CRFConfig, DenseCRF, hard_energies

BAR = 2.0
DESCRIPTION = "CPU time of the CRF's two passes on one lattice / two calls of pydensecrf2, 500x375, 3 labels"

WIDTH, HEIGHT, LABELS = 500, 375, 3
IMAGES = 8
SURE_OF_FOREGROUND, SURE_OF_BACKGROUND = 0.6, 0.3
"""Shares of a map's maximum below which a pixel is background."""


def measure() -> float:
    """Median over scenes of processor time, ours / theirs, both in turn on the same unaries.

    Raises ``InputError`` where pydensecrf is not installed.
    """
    if find_spec("pydensecrf") is None:
        raise InputError(
            "The benchmark crf cannot be measured without pydensecrf: pip install pydensecrf2 (needs a C++ compiler)."
        )
    ratios = []
    with threadpool_limits(1):
        for index in range(-1, IMAGES):  # the first warms up
            image, passes = scene(max(0, index))
            theirs = processor_seconds(image, passes, "pydensecrf")
            ours = processor_seconds(image, passes, "numpy")
            ratios.append(ours / theirs)
    return statistics.median(ratios[1:])


def processor_seconds(
    image: npt.NDArray[np.uint8], passes: list[npt.NDArray[np.float32]], backend: str
) -> float:
    """What all passes over an image cost, with everything that is prepared for it."""
    start = time.process_time()
    DenseCRF(image, CRFConfig(), backend).infer_many(passes)
    return time.process_time() - start


def scene(index: int) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.float32]]]:
    """A generated scene (H, W, 3) uint8, and the energies (L, H, W) of its two passes, from smooth maps."""
    image = render_scene(CooccurConfig(images=IMAGES, size=WIDTH), index).image[:HEIGHT]
    generator = np.random.default_rng(index)
    maps = np.stack([smooth_map(generator) for _ in range(LABELS - 1)])  # (L - 1, H, W)
    passes = []
    for background in (SURE_OF_FOREGROUND, SURE_OF_BACKGROUND):
        labels = np.concatenate([np.full((1, HEIGHT, WIDTH), background), maps]).argmax(axis=0)  # (H, W)
        passes.append(hard_energies(labels, LABELS))
    return np.ascontiguousarray(image), passes


def smooth_map(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """(H, W) like a class activation map: coarse, resized smoothly, maximum 1."""
    coarse = Image.fromarray(generator.normal(size=(HEIGHT // 64, WIDTH // 64)).astype(np.float32))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))  # (H, W)
    return np.maximum(smooth, 0) / smooth.max()
