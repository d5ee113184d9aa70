"""Colours of crops that change in training, as SEAM's recipe has it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from tag2mask.config import ViewsConfig
from tag2mask.data.views import jittered, random_crop
from tag2mask.errors import InputError

NOTHING, PUBLISHED = (0.0, 0.0, 0.0, 0.0), (0.3, 0.3, 0.3, 0.1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def crop(jitter: tuple[float, float, float, float], epoch: int = 0, index: int = 0) -> Tensor:
    return random_crop(picture(), 12, (15, 30), MEAN, STD, 3, epoch, index, jitter)


def test_without_jitter_nothing_changes() -> None:
    assert torch.equal(crop(NOTHING), random_crop(picture(), 12, (15, 30), MEAN, STD, 3, 0, 0))
    assert jittered(picture(), NOTHING, [0.9] * 5).tobytes() == picture().tobytes()


def test_the_middle_draw_changes_nothing() -> None:
    same = jittered(picture(), (0.3, 0.3, 0.3, 0.0), [0.5] * 4 + [0.0])
    assert np.abs(np.asarray(same).astype(int) - np.asarray(picture())).max() <= 1


@pytest.mark.parametrize(
    ("number", "enhancer"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.7), (0.75, 1.15)])
def test_each_change_alone(number: int, enhancer: type, draw: float, factor: float) -> None:
    shares = tuple(0.3 * (n == number) for n in range(4))
    ours = jittered(picture(), shares, [draw] * 4 + [0.0])  # type: ignore[arg-type]
    theirs = enhancer(picture()).enhance(factor)
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1


def test_hue_turns_both_ways() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    back, on = (jittered(red, (0, 0, 0, 1 / 3), [0.5, 0.5, 0.5, draw, 0.0]).getpixel((0, 0)) for draw in (0.0, 0.999999))
    assert back[2] > 240 and back[0] < 20 and on[1] > 240 and on[0] < 20


def test_every_order_comes_up() -> None:
    """All four at once, the order alone changes: the pictures differ."""
    found = {jittered(picture(), PUBLISHED, [0.9, 0.1, 0.95, 0.9, (n + 0.5) / 24]).tobytes() for n in range(24)}
    assert len(list(permutations(range(4)))) == 24 and len(found) > 12


def test_a_function_of_seed_epoch_and_index() -> None:
    """The same place and mirroring as without jitter, other colours."""
    view = crop(PUBLISHED)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(crop(PUBLISHED), view)
    assert not any(torch.equal(other, view) for other in (crop(NOTHING), crop(PUBLISHED, 1), crop(PUBLISHED, 0, 1)))
    assert torch.equal(crop(PUBLISHED) == 0, crop(NOTHING) == 0) or (crop(PUBLISHED) - crop(NOTHING)).abs().mean() < 1


@pytest.mark.parametrize("wrong", [(0.3, 0.3, 0.3, 0.6), (-0.1, 0.0, 0.0, 0.0), (2.0, 0.0, 0.0, 0.0)])
def test_jitter_out_of_range(wrong: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="views.colour_jitter"):
        ViewsConfig(kind="crop", colour_jitter=wrong)
