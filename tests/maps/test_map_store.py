from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.errors import InputError
from tag2mask.maps.store import LONGEST_STORED_SIDE, load_maps, quantised, save_maps


def smooth(classes: int, height: int, width: int, seed: int = 0, cells: int = 24) -> np.ndarray:
    """Maps as networks make them: rectified noise on a coarse grid, enlarged, each divided by its maximum."""
    grid = np.random.default_rng(seed).normal(size=(classes, cells, max(1, cells * width // height))).clip(0)
    planes = [Image.fromarray(g.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR) for g in grid]
    return np.stack([np.asarray(p) / (np.asarray(p).max() + 1e-5) for p in planes])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(1, 40), st.integers(1, 192), st.integers(0, 9))
def test_small_maps_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, classes: int, height: int, width: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("maps") / "a.npz"
    planes = np.random.default_rng(seed).integers(0, 256, (classes, height, width), dtype=np.uint8)
    numbers = np.random.default_rng(seed).permutation(100)[:classes]
    save_maps(path, numbers, planes, np.zeros(3))
    stored = load_maps(path)
    np.testing.assert_array_equal(stored.maps, planes)
    np.testing.assert_array_equal(stored.classes, numbers)
    assert stored.maps.dtype == np.uint8 and stored.maps.shape == (classes, height, width)


def test_quantisation_is_within_half_a_level() -> None:
    values = np.linspace(0, 1, 10007)
    assert np.abs(quantised(values) / 255 - values).max() <= 1 / 510 + 1e-12
    assert quantised(np.array([-0.5, 0.0, 1.0, 1.5])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (193, 64), (1, 900), (900, 1)])
def test_large_maps_keep_size_and_values(tmp_path: Path, size: tuple[int, int]) -> None:
    maps = quantised(smooth(3, *size)) if min(size) > 1 else np.full((2, *size), 77, np.uint8)
    save_maps(tmp_path / "a.npz", np.arange(len(maps)), maps, np.zeros(3))
    stored = load_maps(tmp_path / "a.npz").maps
    assert stored.shape == maps.shape
    difference = np.abs(stored.astype(int) - maps)
    assert difference.mean() < 1.5 and np.percentile(difference, 99) < 12


def test_image_of_voc_takes_less_than_60_kilobytes(tmp_path: Path) -> None:
    for seed in range(5):
        save_maps(tmp_path / "a.npz", np.array([1, 4, 14]), quantised(smooth(3, 375, 500, seed)), np.zeros(3))
        assert (tmp_path / "a.npz").stat().st_size < 60_000


def test_nothing_larger_than_the_bound_is_stored(tmp_path: Path) -> None:
    save_maps(tmp_path / "a.npz", np.array([0]), np.zeros((1, 300, 1000), np.uint8), np.zeros(3))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert max(file["maps"].shape) == LONGEST_STORED_SIDE and file["size"].tolist() == [300, 1000]


@pytest.mark.parametrize("name", ["trip/day 1/a.npz", "Grüße.npz", "日本.npz", "a.b.npz"])
def test_names_and_folders(tmp_path: Path, name: str) -> None:
    save_maps(tmp_path / name, np.array([2]), np.full((1, 4, 5), 9, np.uint8), np.zeros(3))
    assert load_maps(tmp_path / name).maps.tolist() == np.full((1, 4, 5), 9).tolist()


def test_cut_off_before_the_rename_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old, new = tmp_path / "a.npz", np.full((1, 4, 5), 1, np.uint8), np.full((1, 4, 5), 2, np.uint8)

    def fail(source: object, target: object) -> None:
        raise OSError("the power is off")

    for before in (False, True):
        if before:
            save_maps(path, np.array([0]), old, np.zeros(3))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match="power"):
                save_maps(path, np.array([0]), new, np.zeros(3))
        assert path.exists() == before
    assert load_maps(path).maps.max() == 1
    save_maps(path, np.array([0]), new, np.zeros(3))
    assert load_maps(path).maps.max() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_maps(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    assert "tag2mask localize" in refusal(tmp_path / "gone.npz")


def test_file_that_is_damaged_anywhere(tmp_path: Path) -> None:
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    maps = quantised(smooth(2, 30, 40))
    save_maps(path, np.array([0, 3]), maps, np.zeros(3))
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        other.write_bytes(content[:length])
        assert "localize again" in refusal(other)
    unnoticed = 0
    for place in range(0, len(content), 5):
        other.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            np.testing.assert_array_equal(load_maps(other).maps, maps)
            unnoticed += 1  # a time stamp, say
        except InputError:
            pass
    assert unnoticed < len(content) / 10


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "trap.npz", classes=trap, maps=np.zeros((1, 2, 2), np.uint8), size=np.array([2, 2]))
    refusal(tmp_path / "trap.npz")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04\x95" + b"0" * 20)
    refusal(tmp_path / "pickle.npz")
    assert not (tmp_path / "executed").exists()


def test_archive_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    refusal(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refusal(tmp_path / "text.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / "array.npz").write_bytes(buffer.getvalue())
    refusal(tmp_path / "array.npz")


def test_maps_of_coco_fit_on_a_disk(tmp_path: Path) -> None:
    """82,783 images with 2.9 tags on average in less than 5 GB; maps as noisy as a grid of 40 x 30 cells can be."""
    random, total = np.random.default_rng(0), 0
    for seed in range(20):
        tags = random.permutation(80)[: min(8, random.poisson(2.9))]
        save_maps(tmp_path / "a.npz", tags, quantised(smooth(len(tags), 480, 640, seed, 30)) if len(tags) else np.zeros((0, 480, 640), np.uint8), random.random(80))
        total += (tmp_path / "a.npz").stat().st_size
    assert total / 20 * 82_783 < 5e9
