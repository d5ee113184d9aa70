"""A scale that is finished in a moment: a few small scenes, a network with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tag2mask.config import (
    CooccurConfig,
    DataConfig,
    HostConfig,
    OptimiserConfig,
    RunConfig,
    SegmentConfig,
    ViewsConfig,
)
from tag2mask.presets import PRESETS, for_host
from tag2mask.progress import Reporter
from tag2mask.reproduce.items import reproduce
from tag2mask.reproduce.scales import DataSet, Scale


class TinySet(DataSet):
    """Eight scenes."""

    def settings(self, host: str = "cam", seed: int = 0) -> RunConfig:
        config = replace(
            PRESETS["demo"],
            data=self.data, seeds=(seed,), threads=1, views=ViewsConfig(size=64),
            host=HostConfig(backbone="test_resnet", weights="none", side=8),
            classify=OptimiserConfig(epochs=1, batch_size=4), rectify=OptimiserConfig(epochs=1, batch_size=4),
            segment=SegmentConfig(
                encoder="test_efficientnet", weights="none", size=64,
                optimiser=OptimiserConfig(epochs=1, batch_size=4),
            ),
        )  # fmt: skip
        return for_host(config, host) if host != "cam" else config


@pytest.fixture
def tiny_scale() -> Scale:
    data = DataConfig(cooccur=CooccurConfig(images=8, size=64))
    return Scale("laptop", (TinySet("scenes", data, "demo", "val"),), (0, 1), "")


QUIET = Reporter(quiet=True)


def run_items(names: tuple[str, ...], scale: Scale, out: Path) -> dict[str, str]:
    results = reproduce(names, scale, out, "gtfree", 1, f"tag2mask reproduce {' '.join(names)}", QUIET)
    return {result.name: result.markdown() for result in results}
