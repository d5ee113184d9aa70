"""Random networks make denormal numbers, which crawl; the commands switch them off in ``set_up_torch``."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def denormal_numbers_are_zero(numbers_as_usual: None) -> None:
    torch.set_flush_denormal(True)
