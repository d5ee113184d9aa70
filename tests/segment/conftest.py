"""Tiny segmentation networks, randomly initialised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tag2mask.config.segment import SEGMENT_PRESETS, SegmentConfig
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.network import SegmentationNetwork

CLASSES = 4
Build = Callable[..., SegmentationNetwork]


@pytest.fixture(autouse=True)
def denormal_numbers_are_zero(numbers_as_usual: None) -> None:
    """Random networks make denormal numbers, which crawl; the commands switch them off in ``set_up_torch``."""
    torch.set_flush_denormal(True)


def tiny_config(network: str, **settings: object) -> SegmentConfig:
    """The preset of that name with an encoder of half a million weights."""
    encoder = {"small": "test_efficientnet", "deeplab_v2": "test_resnet"}[network]
    options: dict[str, object] = {"encoder": encoder, "weights": "none", "crf": "", **settings}
    return replace(SEGMENT_PRESETS[network], **options)  # type: ignore[arg-type]


@pytest.fixture
def build() -> Build:
    """Builds a tiny network: name, then settings that differ from its preset. Logits are far from equal."""

    def tiny(network: str, **settings: object) -> SegmentationNetwork:
        torch.manual_seed(0)
        built = build_segmenter(tiny_config(network, **settings), CLASSES)
        for name, weight in built.head.named_parameters():
            if weight.shape[0] == CLASSES + 1 and name.endswith("weight"):
                torch.nn.init.normal_(weight, std=0.2)
        return built.eval()

    return tiny
