from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.maps.imported import ImportSummary, import_maps, read_maps
from tag2mask.maps.store import load_maps, quantised, save_maps
from tag2mask.score import absent_floor

Array = np.ndarray


def enlarged(plane: Array, size_hw: tuple[int, int]) -> Array:
    """Bilinear, align_corners=False, one pixel after the other."""
    (h, w), (height, width) = plane.shape, size_hw
    out = np.zeros(size_hw)
    for y in range(height):
        for x in range(width):
            row = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            column = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            i, j = int(row), int(column)
            k, m = min(i + 1, h - 1), min(j + 1, w - 1)
            upper = plane[i, j] * (1 - column + j) + plane[i, m] * (column - j)
            lower = plane[k, j] * (1 - column + j) + plane[k, m] * (column - j)
            out[y, x] = upper * (1 - row + i) + lower * (row - i)
    return out


def expected_maps(planes: Array, size_hw: tuple[int, int]) -> Array:
    """Each map: negative values to 0, enlarged, divided by its maximum, as levels."""
    full = np.stack([enlarged(np.maximum(plane, 0), size_hw) for plane in planes])
    return np.rint(255 * full / (full.max(axis=(1, 2), keepdims=True) + 1e-5))


def at_most_a_level_apart(found: Array, expected: Array) -> None:
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def random_planes(count: int, height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, height, width)).astype(np.float32)


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content)
    return path


def test_all_forms_of_one_image_give_the_same_maps(tmp_path: Path) -> None:
    planes = random_planes(3, 10, 15)
    expected = expected_maps(planes, (10, 15))
    every = random_planes(20, 10, 15, seed=1)
    every[[4, 7, 19]] = planes
    irn = {"keys": torch.tensor([4, 7, 19]), "cam": torch.zeros(3, 3, 4), "high_res": planes}
    forms: dict[str, Any] = {
        "irn": irn,
        "tensors": irn | {"high_res": torch.from_numpy(planes), "keys": np.array([4, 7, 19], np.uint8)},
        "list": irn | {"keys": [4, 7, 19], "high_res": planes.astype(np.float64)},
        "psa": {4: planes[0], 7: planes[1], 19: planes[2]},
        "seam": {np.int64(19): planes[2], np.int64(4): planes[0], np.int64(7): planes[1]},
        "array": every,
    }
    tags = np.isin(np.arange(20), [4, 7, 19])
    for name, content in forms.items():
        stored = read_maps(save(tmp_path / f"{name}.npy", content), 20, (10, 15), tags)
        order = np.argsort(stored.classes)
        assert stored.classes[order].tolist() == [4, 7, 19]
        assert stored.classes.dtype == np.int16 and stored.peaks.dtype == np.float32
        at_most_a_level_apart(stored.maps[order], expected)
        np.testing.assert_allclose(stored.peaks[[4, 7, 19]], planes.max(axis=(1, 2)), rtol=1e-6)
        assert np.count_nonzero(stored.peaks) == 3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_maps_at_stride_4_are_enlarged(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    planes = random_planes(2, (height - 1) // 4 + 1, (width - 1) // 4 + 1, seed)
    planes[:, 0, 0] = 2
    content = {"keys": torch.tensor([0, 2]), "cam": torch.from_numpy(planes)}
    path = save(tmp_path_factory.mktemp("maps") / "a.npy", content)
    at_most_a_level_apart(read_maps(path, 3, (height, width)).maps, expected_maps(planes, (height, width)))


def test_values_lie_between_nothing_and_the_own_maximum(tmp_path: Path) -> None:
    planes = np.stack([np.full((4, 6), -1.0), np.full((4, 6), 300.0), np.eye(4, 6) * 0.2])
    stored = read_maps(save(tmp_path / "a.npy", planes), 3, (4, 6))
    assert [plane.max() for plane in stored.maps] == [0, 255, 255]
    np.testing.assert_allclose(stored.peaks, [0, 300, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "content", [{}, {"keys": torch.zeros(0, dtype=torch.int64)}, {"keys": np.zeros(0), "high_res": np.zeros((0, 4, 6))}]
)
def test_images_without_a_tag(tmp_path: Path, content: Any) -> None:
    stored = read_maps(save(tmp_path / "a.npy", content), 20, (4, 6))
    assert stored.maps.shape == (0, 4, 6) and len(stored.classes) == 0 and not stored.peaks.any()


PLANE = np.ones((4, 6), np.float32)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"keys": np.array([0, 3]), "high_res": np.stack([PLANE, PLANE])}, "class numbers are 0, 3; expected different ones from 0 to 2"),
        ({"keys": np.array([1, 1]), "high_res": np.stack([PLANE, PLANE])}, "class numbers are 1, 1"),
        ({2**80: PLANE}, "expected different ones from 0 to 2"),
        ({-1: PLANE}, "class numbers are -1"),
        ({"keys": np.array([1]), "high_res": np.stack([PLANE, PLANE])}, "`keys` names 1 classes, `high_res` has 2 maps"),
        ({"keys": np.array([1.0]), "high_res": PLANE}, "`keys` is no list of class numbers"),
        ({"keys": [[1], [1, 2]], "high_res": PLANE}, "`keys` is no list of class numbers"),
        ({"keys": np.array([1])}, "neither `high_res` nor `cam`"),
        ({"keys": np.array([1]), "high_res": "none"}, "`high_res` is str"),
        ({"keys": np.array([1]), "high_res": np.full((1, 4, 6), "a")}, "elements of type 'U1'; expected numbers"),
        ({"keys": np.array([1]), "high_res": np.zeros((1, 0, 6))}, "(1, 0, 6) float64; expected numbers of shape"),
        ({0: PLANE, 1: PLANE[:2, :3]}, "different sizes"),
        ({"heat": PLANE, "class": 3}, "the keys 'heat', 'class'; expected keys, cam and high_res"),
        ({True: PLANE}, "the keys True"),
        ({0: np.where(PLANE > 0, np.nan, 0)}, "not finite"),
        ({0: np.ones((6, 4))}, "the maps are 4x6 (width x height), the upright image is 6x4"),
        ({0: np.ones((7, 7))}, "the maps are 7x7"),
        (np.ones((20, 4, 6)), "the array is of 20 maps; expected 3"),
        (np.ones((3, 4, 6)).astype(complex), "the array is (3, 4, 6) complex128"),
        ("text", "the array is () <U4"),
        ([1, "a", None, {}], "several objects"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_right(tmp_path: Path, content: Any, said: str) -> None:
    if isinstance(content, list):
        content = np.array(content, object)
    path = save(tmp_path / "a.npy", content)
    with pytest.raises(InputError) as caught:
        read_maps(path, 3, (4, 6))
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((24, 32), (375, 500)),
        ((94, 125), (375, 500)),
        ((23, 31), (375, 500)),
        ((384, 512), (375, 500)),
        ((1, 1), (3, 3)),
    ],
)
def test_grids_of_any_stride_are_taken(tmp_path: Path, grid: tuple[int, int], size: tuple[int, int]) -> None:
    assert read_maps(save(tmp_path / "a.npy", {0: np.ones(grid)}), 1, size).maps.shape == (1, *size)


class Album:
    """Files of maps of five images, ids as people have them, in three forms."""

    ids = ("2007_000032", "trip/p07", "über/Grüße", "00012", "2008_000001")
    tags = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]], bool)
    sizes = ((20, 30), (30, 20), (16, 16), (25, 33), (300, 400))

    def __init__(self, root: Path) -> None:
        self.folder, self.out = root / "theirs", root / "ours"
        self.planes = []
        for number, (image_id, tags, size) in enumerate(zip(self.ids, self.tags, self.sizes, strict=True)):
            classes = np.flatnonzero(tags)
            planes = np.abs(random_planes(len(classes), *size, seed=number))
            self.planes.append(planes)
            path = self.folder / f"{unicodedata.normalize('NFD', image_id)}.npy"
            if number == 4:
                path.parent.mkdir(parents=True, exist_ok=True)
                levels = quantised(planes / planes.max())
                save_maps(path.with_suffix(".npz"), classes, levels, np.array([0.5, 0.25, 2.0]))
            elif number % 2:
                save(path, {int(c): plane for c, plane in zip(classes, planes, strict=True)})
            else:
                save(path, {"keys": torch.from_numpy(classes), "cam": torch.zeros(0), "high_res": planes})

    def convert(self) -> ImportSummary:
        self.steps: list[tuple[int, int]] = []
        return import_maps(
            self.folder,
            self.ids,
            self.tags,
            self.sizes.__getitem__,
            self.out,
            lambda done, total, note="": self.steps.append((done, total)),
        )


def test_a_folder_becomes_ours(tmp_path: Path) -> None:
    album = Album(tmp_path)
    assert album.convert() == ImportSummary(images=5, maps=7, untagged=0, without_map=0)
    assert album.steps == [(done, 10) for done in range(1, 11)]
    assert sorted(p.relative_to(album.out).as_posix() for p in album.out.rglob("*.*")) == sorted(
        f"{i}.npz" for i in album.ids
    )
    for image_id, tags, size, planes in zip(album.ids[:4], album.tags, album.sizes, album.planes, strict=False):
        stored = load_maps(album.out / f"{image_id}.npz")
        assert stored.classes.tolist() == np.flatnonzero(tags).tolist() and stored.maps.shape[1:] == size
        if len(planes):
            at_most_a_level_apart(stored.maps, np.rint(255 * planes / (planes.max(axis=(1, 2), keepdims=True) + 1e-5)))
    before, after = load_maps(album.folder / "2008_000001.npz"), load_maps(album.out / "2008_000001.npz")
    assert np.abs(before.maps.astype(int) - after.maps).mean() < 8 and after.peaks.tolist() == [0.5, 0.25, 2.0]


def test_no_floor_comes_from_imported_maps(tmp_path: Path) -> None:
    """The floor compares how high the maps of absent classes reach, which the files do not say."""
    album = Album(tmp_path)
    album.convert()
    peaks = np.stack([load_maps(album.out / f"{image_id}.npz").peaks for image_id in album.ids[:4]])
    assert (peaks > 0).tolist() == album.tags[:4].tolist()
    assert absent_floor(peaks, album.tags[:4]) == 1


def test_maps_of_other_classes_are_left_out_and_counted(tmp_path: Path) -> None:
    album = Album(tmp_path)
    save(album.folder / "2007_000032.npy", {1: np.ones((20, 30)), 2: np.ones((20, 30))})
    save(album.folder / "00012.npy", np.ones((3, 25, 33)))
    assert album.convert() == ImportSummary(images=5, maps=6, untagged=1, without_map=1)
    assert load_maps(album.out / "2007_000032.npz").classes.tolist() == [2]


def test_numbers_that_mean_other_classes_are_noticed(tmp_path: Path) -> None:
    album = Album(tmp_path)
    for image_id, tags, size in zip(album.ids, album.tags, album.sizes, strict=True):
        if not tags.all():  # as if 0 were background
            save(album.folder / f"{image_id}.npy", {(int(c) + 1) % 3: np.ones(size) for c in np.flatnonzero(tags)})
    album.tags = album.tags.copy()
    album.tags[3] = False
    with pytest.raises(InputError, match="6 of 7 maps are of classes that their image is not tagged with"):
        album.convert()
    assert not album.out.exists()


def test_all_faults_are_said_before_anything_is_written(tmp_path: Path) -> None:
    album = Album(tmp_path)
    (album.folder / "00012.npy").unlink()
    (album.folder / "2007_000032.npy").write_bytes(b"\x93NUMPY")
    save(album.folder / "trip/p07.npy", {1: np.ones((20, 30))})
    with pytest.raises(
        InputError, match="3 of 5 files of maps are missing or unfit, and nothing was written"
    ) as caught:
        album.convert()
    for part in (
        "00012.npy (or .npz): there is no such file",
        "2007_000032.npy is damaged",
        "p07.npy: the maps are 30x20",
    ):
        assert part in str(caught.value)
    assert not album.out.exists()


def test_of_many_faults_the_first_are_named(tmp_path: Path) -> None:
    ids = [f"2009_{number:06d}" for number in range(1464)]
    (tmp_path / "another.npy").touch()
    with pytest.raises(InputError, match="1464 of 1464 files .* And 1444 more.") as caught:
        import_maps(tmp_path, ids, np.ones((1464, 20), bool), lambda index: (4, 4), tmp_path / "out", lambda *_: None)
    assert "2009_000019" in str(caught.value) and "2009_000020" not in str(caught.value)


def test_folders_and_lengths(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.out = album.folder / "." / ""
    with pytest.raises(InputError, match="read and written at once"):
        album.convert()
    with pytest.raises(ValueError, match="5 ids, 4 rows of tags"):
        import_maps(album.folder, album.ids, album.tags[:4], album.sizes.__getitem__, tmp_path / "x", lambda *_: None)
    save_maps(album.folder / "a.npz", np.array([0]), np.ones((1, 4, 6), np.uint8), np.zeros(20))
    with pytest.raises(InputError, match="the maps are of 20 classes; the data have 3"):
        read_maps(album.folder / "a.npz", 3, (4, 6))
