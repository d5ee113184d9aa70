"""Which pixel's label a cell of the grid gets when IRN or PSA learns, at sizes that no stride divides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tag2mask.config import HostConfig, IRNConfig, PSAConfig
from tag2mask.hosts.levels import LevelsHost
from tag2mask.refine.irn import irn_loss
from tag2mask.refine.psa import psa_loss
from tag2mask.stages.affinity import AffinityStage


@pytest.mark.parametrize("kind", ["irn", "psa"])
@pytest.mark.parametrize("size", [64, 65, 70, 71])
def test_the_label_of_a_cell_is_that_of_its_centre(kind: str, size: int) -> None:
    torch.manual_seed(size)
    host = LevelsHost(HostConfig(backbone="test_efficientnet", weights="none")).eval()
    irn = IRNConfig(edge_channels=4, displacement_channels=0, training_radius=3)
    stage = AffinityStage(kind, host, irn, PSAConfig(channels=(4, 4, 8), radius=3)).eval()  # type: ignore[arg-type]
    labels = torch.from_numpy(np.random.default_rng(size).choice([0, 1, 2, 255], (2, size, size)).astype(np.uint8))
    with torch.no_grad():
        levels = host.frozen_part(torch.rand(2, 3, size, size))
        output = stage(levels)
        height, width = (output.edge if kind == "irn" else output).shape[2:]
        assert height == width == -(-size // stage.stride)
        small = torch.zeros(2, height, width, dtype=torch.uint8)
        for row in range(height):
            for column in range(width):
                y, x = (min(cell * stage.stride + stage.stride // 2, size - 1) for cell in (row, column))
                small[:, row, column] = labels[:, y, x]
        expected = irn_loss(output, small, stage.geometry) if kind == "irn" else psa_loss(output, small, stage.geometry)
        found = stage.loss(levels, labels).total
    assert found == pytest.approx(expected.total.item()) and found > 0
