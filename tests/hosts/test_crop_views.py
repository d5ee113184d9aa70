from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tag2mask.data.views import mirrored_draws, random_crop, to_tensor, zoomed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


def crop(image: Image.Image, size: int, long: tuple[int, int], epoch: int = 0, index: int = 0) -> Tensor:
    return random_crop(image, size, long, MEAN, STD, 3, epoch, index)


def windows(whole: Tensor, size: int) -> list[Tensor]:
    """Every window of ``size`` x ``size``; a side that is shorter lies at every place on a canvas of zeros."""
    _, height, width = whole.shape
    found = []
    for top in range(min(0, height - size), max(1, height - size + 1)):
        for left in range(min(0, width - size), max(1, width - size + 1)):
            canvas = torch.zeros(3, size, size)
            for y in range(size):
                for x in range(size):
                    if 0 <= y + top < height and 0 <= x + left < width:
                        canvas[:, y, x] = whole[:, y + top, x + left]
            found.append(canvas)
    return found


@pytest.mark.parametrize("size", [8, 14, 20])
def test_crop_is_a_window_of_the_resized_photo_or_of_its_mirror_image(size: int) -> None:
    """8: inside on both sides; 14: higher than the photo; 20: larger than the photo."""
    image = picture(30, 20)
    whole = to_tensor(image.resize((15, 10), Image.Resampling.BICUBIC), MEAN, STD)
    plain, mirrored = windows(whole, size), windows(whole.flip(2), size)
    chosen = set()
    for epoch in range(40):
        view = crop(image, size, (15, 15), epoch)
        assert view.shape == (3, size, size)
        matches = [(m, n) for m, some in enumerate((plain, mirrored)) for n, w in enumerate(some) if torch.equal(w, view)]
        assert len(matches) == 1
        chosen.add(matches[0])
    assert {m for m, _ in chosen} == {0, 1}, "both mirrorings occur"
    assert len(chosen) > 10, "places differ"


def test_padding_is_the_mean_colour() -> None:
    view = crop(picture(16, 8), 32, (16, 16))
    outside = (view == 0).all(dim=0)  # (32, 32)
    assert outside.sum() == 32 * 32 - 16 * 8


def test_long_side_covers_its_range_and_ends() -> None:
    image = Image.new("RGB", (40, 20), "white")
    widths = set()
    for epoch in range(200):
        inside = (crop(image, 64, (10, 14), epoch) != 0).any(dim=0)
        widths.add((int(inside.any(0).sum()), int(inside.any(1).sum())))
    assert widths == {(10, 5), (11, 6), (12, 6), (13, 6), (14, 7)}


def test_crop_is_a_function_of_seed_epoch_and_index() -> None:
    image = picture(30, 20)
    view = crop(image, 12, (15, 30))
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(crop(image, 12, (15, 30)), view)
    others = [
        crop(image, 12, (15, 30), epoch=1),
        crop(image, 12, (15, 30), index=1),
        random_crop(image, 12, (15, 30), MEAN, STD, 4, 0, 0),
    ]
    assert not any(torch.equal(other, view) for other in others)


def test_photo_of_one_pixel() -> None:
    image = Image.new("RGB", (1, 1), (255, 0, 0))
    view = crop(image, 4, (1, 1))
    assert int((view != 0).any(dim=0).sum()) == 1
    assert crop(Image.new("RGB", (200, 1), "white"), 4, (20, 20)).shape == (3, 4, 4)


def test_half_of_the_photos_are_mirrored_each_in_some_epochs() -> None:
    draws = np.stack([mirrored_draws(0, epoch, np.arange(200)) for epoch in range(20)])
    assert 0.45 < draws.mean() < 0.55
    assert ((draws.mean(0) > 0) & (draws.mean(0) < 1)).all()
    assert mirrored_draws(0, 4, np.array([17, 3])).tolist() == draws[4, [17, 3]].tolist()


def test_zoom_acts_alike_on_every_level() -> None:
    """A linear ramp says where each pixel came from; levels of two sizes must agree on it."""
    indices = np.arange(30)
    levels = []
    for side in (16, 8):
        ramp = (torch.arange(side) + 0.5) / side
        levels.append(torch.stack([ramp.expand(side, side), ramp.expand(side, side).T]).expand(30, 2, side, side))
    large, small = zoomed(levels, 1.25, 0, 0, indices)
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(pooled[:, :, 2:-2, 2:-2], small[:, :, 2:-2, 2:-2], atol=1e-5, rtol=1e-5)
    step = (small[:, 0, 4, 5] - small[:, 0, 4, 3]) / 2 * 8  # width of a pixel, in pixels of the level before
    assert step.min() >= 1 / 1.25 - 1e-4 and step.max() <= 1.25 + 1e-4 and step.std() > 0.05


def test_no_zoom_changes_nothing() -> None:
    level = torch.randn(2, 3, 5, 5)
    assert zoomed([level], 1.0, 0, 0, np.array([0, 1]))[0] is level
