"""Images of one pixel, for the tests of negatives."""

from __future__ import annotations

import torch

from tag2mask.fpr import FPRConfig
from tests.paper import cases
from tests.paper.reference import Image


def flat_image(value: float, tag: int, logit: float, number: int) -> Image:
    """One pixel with the feature (value, 0), activated for the only class."""
    features = torch.tensor([value, 0.0], dtype=torch.float64)[:, None, None]
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    return Image(features, one, torch.tensor([logit], dtype=torch.float64), torch.tensor([tag]).double(), number)


def trains() -> list[Image]:
    """Trains look like 8 to 12, rails like 1 to 4. The surest negative, 10, is a train whose tag is missing."""
    shown = [flat_image(8 + i, 1, 0, i) for i in range(5)]
    shown.append(flat_image(10.2, 0, 9, 10))
    return [*shown, *(flat_image(1 + i, 0, 8 - i, 11 + i) for i in range(4))]


def sources(shown: list[Image], config: FPRConfig) -> list[int]:
    """Numbers of the images of which the first class keeps a negative."""
    found = cases.collected(shown, config)
    return found.trimmed_source[0, found.trimmed_valid[0]].tolist()
