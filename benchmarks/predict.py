"""From a decoded photo to its palette mask against the bare network: 500x375 photos, 20 classes and background.

The path: resizing, normalising, the network, bringing the logits to the photo's size, arg-max, the mask as a palette
image. The bare network: its forward pass on one tensor of the size that the path gives it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from tag2mask.config.segment import SEGMENT_PRESETS
from tag2mask.data.classes import palette
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.predict import predict_labels

BAR = 1.3
DESCRIPTION = "a photo to its palette mask, decoded, without CRF / bare forward pass, small network, one thread"

WIDTH, HEIGHT = 500, 375
CLASSES = 20
REPEATS = 31


def measure() -> float:
    """Median of path time / forward time; both run in turn, so that load on the machine meets both."""
    threads, flushed = torch.get_num_threads(), torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    try:
        config = replace(SEGMENT_PRESETS["small"], weights="none", flip=False)
        network = build_segmenter(config, CLASSES).eval()
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        pixels = torch.randn(1, 3, config.size, config.size).contiguous(memory_format=torch.channels_last)
        colours = palette(255).tobytes()
        device = torch.device("cpu")

        def path() -> Image.Image:
            mask = Image.fromarray(predict_labels(network, photo, config, device))
            mask.putpalette(colours)
            return mask

        def bare() -> torch.Tensor:
            with torch.no_grad():
                return network(pixels)

        path(), bare()  # both have run once: first touches of memory are no part of the work
        return statistics.median(seconds(path) / seconds(bare) for _ in range(REPEATS))
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(not flushed)


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes the processor; with one thread that is its time on a machine of its own."""
    start = time.process_time()
    work()
    return time.process_time() - start
