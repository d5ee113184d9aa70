from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.data.classes import palette
from tag2mask.data.masks import Masks
from tag2mask.data.pseudo_masks import PseudoMasks, open_pseudo_masks, read_pseudo_mask, write_mask
from tag2mask.errors import InputError

VALUES = np.array([[0, 1, 2], [255, 2, 1]], dtype=np.uint8)


def test_write_mask_is_what_voc_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mask.png"
    write_mask(path, VALUES)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        np.testing.assert_array_equal(np.asarray(image), VALUES)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette(255)[VALUES])
        assert image.convert("RGB").getpixel((0, 1)) == (224, 224, 192)


def test_write_mask_replaces_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mask.png"
    write_mask(path, VALUES)
    write_mask(path, VALUES[::-1].copy())
    np.testing.assert_array_equal(np.asarray(Image.open(path)), VALUES[::-1])

    def cut_off(*_: object) -> None:
        raise OSError("the power went")

    monkeypatch.setattr("tag2mask.atomic.os.replace", cut_off)  # all is written, nothing in its place yet
    with pytest.raises(OSError, match="power"):
        write_mask(path, VALUES)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), VALUES[::-1])


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_write_mask_refuses_other_arrays(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_mask(tmp_path / "mask.png", mask)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    class_count = data.draw(st.sampled_from([1, 20, 254]))
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    values = st.one_of(st.integers(0, class_count), st.just(255))
    cells = data.draw(st.lists(values, min_size=height * width, max_size=height * width))
    mask = np.array(cells, dtype=np.uint8).reshape(height, width)
    path = tmp_path_factory.mktemp("masks") / "a.png"
    write_mask(path, mask)
    read = read_pseudo_mask(path, class_count, (height, width))
    np.testing.assert_array_equal(read, mask)
    assert read.dtype == np.uint8


def test_grey_masks_and_two_valued_ones_are_numbers_too(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_pseudo_mask(tmp_path / "grey.png", 2, (2, 3)), VALUES)
    Image.fromarray(VALUES == 2).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_pseudo_mask(tmp_path / "bits.png", 2, (2, 3)), VALUES == 2)


def refusal(path: Path, class_count: int = 2, size_hw: tuple[int, int] | None = (2, 3)) -> str:
    with pytest.raises(InputError) as caught:
        read_pseudo_mask(path, class_count, size_hw)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_masks_that_cannot_be_right_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert "no such file" in refusal(path)
    write_mask(path, VALUES)
    assert "the values 2; expected 0 to 1, or 255" in refusal(path, class_count=1)
    assert "the mask is 3x2" in refusal(path, size_hw=(4, 6))
    assert "rotate the mask" in refusal(path, size_hw=(3, 2))
    write_mask(path, np.arange(12, dtype=np.uint8).reshape(3, 4) + 100)
    assert "100, 101, 102, 103, 104 ..." in refusal(path, size_hw=(3, 4))
    content = path.read_bytes()
    for length in range(0, len(content) - 12, 7):  # the last 12 bytes only say that this is the end
        path.write_bytes(content[:length])
        refusal(path, class_count=250)
    Image.fromarray(palette(255)[VALUES]).save(path)
    assert "mode RGB" in refusal(path)
    Image.fromarray(VALUES).save(path, format="JPEG")
    assert "JPEG" in refusal(path)


def test_ids_stay_strings_in_any_folder_and_unicode_form(tmp_path: Path) -> None:
    ids = ("2007_000032", "trip/p07", "über/Grüße", "00012", "1e3")
    for number, image_id in enumerate(ids):
        write_mask(tmp_path / f"{unicodedata.normalize('NFD', image_id)}.png", np.full((2, 3), number, np.uint8))
    masks = open_pseudo_masks(tmp_path, ids, 20)
    assert masks.ids == ids and len(masks) == 5
    assert [masks.mask(index, (2, 3)).max() for index in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="p07.png: the mask is 3x2"):
        masks.mask(1, (2, 4))


def test_what_is_missing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    ids = [f"2008_{number:06d}" for number in range(30)]
    for image_id in ids[::3]:
        (tmp_path / f"{image_id}.png").write_bytes(b"not looked at yet")
    with pytest.raises(InputError, match=r"2008_000001.png: there is no pseudo mask for this image, as for 20 of 30"):
        open_pseudo_masks(tmp_path, ids, 20)
    with pytest.raises(InputError, match="as for 30 of 30"):
        open_pseudo_masks(tmp_path / "no folder", ids, 20)
    assert open_pseudo_masks(tmp_path, ids[::3], 20).ids == tuple(ids[::3])


def test_pseudo_masks_are_not_the_truth() -> None:
    assert not issubclass(PseudoMasks, Masks) and not issubclass(Masks, PseudoMasks)
