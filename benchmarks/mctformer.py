"""Fused, refined maps of MCTformer against the bare forward pass of the same timm transformer.

The path: DeiT-S with 20 class tokens, all attention taken out, class maps, their fusion and their refinement. The bare
network: timm's own DeiT-S with its one class token, which never shows its attention. Same photo, same size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import timm
import torch

from tag2mask.hosts.mctformer import MctformerHost
from tag2mask.presets import PRESETS

BAR = 1.2
DESCRIPTION = "fused maps of MCTformer, DeiT-S, 20 classes, 224 and 448 pixels, one thread / bare forward pass"

CLASSES = 20
REPEATS = 15


def measure() -> float:
    """The larger of the medians at the sizes of both published versions; both run in turn, so load meets both."""
    threads, flushed = torch.get_num_threads(), torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    try:
        return max(ratio("mctformer"), ratio("mctformer_plus"))
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(not flushed)


@torch.no_grad()
def ratio(preset: str) -> float:
    """Median of path time / forward time at a preset's size, in one view."""
    config = PRESETS[preset]
    size = config.views.size
    host = MctformerHost(replace(config.host, weights="none"), CLASSES).eval()
    model = timm.create_model(config.host.backbone, pretrained=False, num_classes=0, img_size=size).eval()
    photo = torch.randn(1, 3, size, size)

    def path() -> object:
        return host.localization_part(host.frozen_part(photo))

    def bare() -> object:
        return model(photo)

    path(), bare()  # both have run once: first touches of memory are no part of the work
    return statistics.median(seconds(path) / seconds(bare) for _ in range(REPEATS))


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes the processor; with one thread that is its time on a machine of its own."""
    start = time.process_time()
    work()
    return time.process_time() - start
