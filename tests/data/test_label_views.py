from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.data.views import hsv_shifted, random_crop_of_both, zoomed, zoomed_labels

IGNORE = 255
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PLAIN = (1.0, 1.0)
"""No change of scale."""


def pair(width: int, height: int) -> tuple[Image.Image, np.ndarray]:
    """A picture whose red is its column and whose green is its row, and a mask that says the same modulo 200."""
    rows, columns = np.indices((height, width))
    pixels = np.stack([columns + 100, rows + 100, 50 + 0 * rows], axis=2).astype(np.uint8)
    return Image.fromarray(pixels), ((rows * 7 + columns) % 200).astype(np.uint8)


def view(
    width: int, height: int, index: int = 0, epoch: int = 0, *, size: int = 40, scales: tuple[float, float] = PLAIN, jitter: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    image, labels = pair(width, height)
    return random_crop_of_both(image, labels, size, scales, MEAN, STD, 3, epoch, index, jitter)


@pytest.mark.parametrize("shape", [(70, 60), (30, 60), (20, 25), (40, 40)])
def test_photo_and_mask_are_cropped_and_mirrored_together(shape: tuple[int, int]) -> None:
    seen_mirrored, places = set(), set()
    for index in range(24):
        pixels, labels = view(*shape, index)
        assert pixels.shape == (3, 40, 40) and labels.shape == (40, 40) and labels.dtype == torch.uint8
        inside = labels != IGNORE
        assert not pixels[:, ~inside].any(), "outside the photo is the mean colour"
        assert int(inside.sum()) == min(40, shape[0]) * min(40, shape[1])
        levels = (pixels * 0.25 + 0.5)[:, inside] * 255  # (3, pixels inside)
        columns, rows = levels[0].round().long() - 100, levels[1].round().long() - 100
        assert torch.equal((rows * 7 + columns) % 200, labels[inside].long())
        seen_mirrored.add(bool(columns[0] > columns[1]))
        places.add((int(rows[0]), int(columns.min())))
    assert seen_mirrored == {False, True}
    assert len(places) > (5 if shape == (70, 60) else 0)


def test_a_view_is_a_function_of_seed_epoch_and_index() -> None:
    torch.manual_seed(1)
    first = view(70, 60, 5, 2, scales=(0.5, 2.0), jitter=10)
    torch.manual_seed(2)
    np.random.seed(9)
    again = view(70, 60, 5, 2, scales=(0.5, 2.0), jitter=10)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], view(70, 60, 5, 3, scales=(0.5, 2.0))[1])
    assert not torch.equal(first[1], view(70, 60, 6, 2, scales=(0.5, 2.0))[1])


def test_scales_reach_both_ends_of_their_range() -> None:
    views = [view(100, 100, index, size=400, scales=(0.5, 2.0))[1] for index in range(60)]
    sides = sorted(int((labels != IGNORE).any(dim=1).sum()) for labels in views)
    assert 50 <= sides[0] < 60 and 190 < sides[-1] <= 200
    assert 110 < np.median(sides) < 140


def test_resized_masks_have_no_new_labels() -> None:
    image, _ = pair(50, 50)
    labels = np.where(np.indices((50, 50))[1] > 20, 9, 3).astype(np.uint8)
    _, target = random_crop_of_both(image, labels, 40, (0.7, 0.7), MEAN, STD, 0, 0, 1)
    assert set(target.unique().tolist()) <= {3, 9, IGNORE}


def test_colours_move_and_labels_do_not() -> None:
    plain, coloured = view(60, 60, 4), view(60, 60, 4, jitter=10)
    assert torch.equal(plain[1], coloured[1])
    inside = plain[1] != IGNORE
    moved = ((plain[0] - coloured[0])[:, inside] * 0.25 * 255).abs()
    assert 0 < moved.max() < 40


def test_hue_goes_round_and_value_is_clipped() -> None:
    red = Image.new("RGB", (1, 1), (200, 20, 20))
    assert hsv_shifted(red, 0, 0, 0).getpixel((0, 0)) == (200, 20, 20)
    assert hsv_shifted(red, 0, 0, 255).getpixel((0, 0))[0] == 255  # type: ignore[index]
    r, g, b = hsv_shifted(red, -10, 0, 0).getpixel((0, 0))  # type: ignore[misc]
    assert r == 200 and b > g + 30, "below red lies magenta"


def test_labels_zoom_with_their_photos() -> None:
    rows, columns = np.indices((48, 48))
    labels = torch.from_numpy(((rows // 12) * 4 + columns // 12).astype(np.uint8)).expand(4, 48, 48)
    photos = labels[:, None].float()
    indices = np.array([0, 1, 2, 7])
    (moved,), target = zoomed([photos], 1.5, 1, 2, indices), zoomed_labels(labels, 1.5, 1, 2, indices)
    flat = moved[:, 0] == moved[:, 0].round()  # away from the borders of the patches
    assert flat.float().mean() > 0.7
    assert (target[flat] == moved[:, 0][flat]).float().mean() > 0.995
    assert not torch.equal(target, labels)
    assert zoomed_labels(labels, 1.0, 1, 2, indices) is labels


def test_a_mask_of_another_size_is_a_programming_mistake() -> None:
    image, labels = pair(20, 30)
    with pytest.raises(ValueError, match="30x20"):
        random_crop_of_both(image, labels.T, 40, PLAIN, MEAN, STD, 0, 0, 0)
