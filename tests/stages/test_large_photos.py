"""Photos above ``refine.crf_longest``: the CRF sees them reduced, their masks keep their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import CRF_PRESETS, PSAConfig
from tag2mask.maps.store import save_maps
from tag2mask.stages.affinity import PowersJob, write_power_labels
from tag2mask.stages.mask_work import MaskJob, nearest, reduced, write_job_masks

SIZE = (90, 131)
"""Height and width of the photo."""


def read_image(index: int) -> Image.Image:
    """A red disc before grey noise."""
    noise = np.random.default_rng(index).integers(90, 160, (*SIZE, 3), dtype=np.uint8)
    noise[disc()] = (220, 60, 40)
    return Image.fromarray(noise)


def disc() -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return (rows - 50) ** 2 + (columns - 60) ** 2 < 28**2


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """The map of class 3, blurred beyond the disc."""
    rows, columns = np.indices(SIZE)
    score = 255 * np.exp(-((rows - 50) ** 2 + (columns - 60) ** 2) / (2 * 28**2))
    save_maps(tmp_path / "maps.npz", np.array([3]), score[None].astype(np.uint8), np.ones(5, np.float32))
    return tmp_path / "maps.npz"


def crf_mask(maps: Path, longest: int) -> np.ndarray:
    folder = maps.parent / str(longest)
    job = MaskJob(
        0, read_image, maps, (128, 200, 60), folder / "mask.png", folder / "certain.png", CRF_PRESETS["irn"], longest=longest
    )
    write_job_masks(job)
    assert Image.open(folder / "certain.png").size == SIZE[::-1]
    return np.array(Image.open(folder / "mask.png"))


def power_labels(maps: Path, longest: int) -> np.ndarray:
    out = maps.parent / f"labels{longest}.png"
    write_power_labels(PowersJob(0, read_image, maps, out, PSAConfig(), longest))
    return np.array(Image.open(out))


@pytest.mark.parametrize("make", [crf_mask, power_labels])
def test_a_reduced_photo_has_nearly_the_same_mask(make, maps: Path) -> None:  # type: ignore[no-untyped-def]
    whole, as_it_is, half = (make(maps, longest) for longest in (1000, 131, 66))
    assert np.array_equal(as_it_is, whole), "a photo that is not larger is left alone"
    assert half.shape == SIZE and set(np.unique(half)) <= {0, 4, 255}
    agreement = (half == whole).mean()
    assert 0.95 < agreement < 1, "the reduced photo was seen"


def test_the_longest_side_is_bounded() -> None:
    for size in ((131, 90), (90, 131), (1000, 3)):
        photo = Image.new("RGB", size, "red")
        small = reduced(photo, 50)
        assert max(small.shape) == 50 and (small == (255, 0, 0)).all()
        assert small.shape[0] / small.shape[1] == pytest.approx(size[1] / size[0], rel=0.02) or 1 in small.shape
        assert np.array_equal(reduced(photo, 1000), np.asarray(photo))


def test_nearest_labels_there_and_back() -> None:
    labels = np.arange(12).reshape(3, 4)
    large = nearest(labels, (9, 12))
    assert np.array_equal(large, labels.repeat(3, axis=0).repeat(3, axis=1))
    assert np.array_equal(nearest(large, (3, 4)), labels)
    assert nearest(labels, (2, 7)).shape == (2, 7)
