from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.data.classes import Classes
from tag2mask.data.images import TaggedImages, decode_image, read_path, verify_header
from tag2mask.errors import InputError

ORIENTATION = 0x0112


@pytest.fixture
def three(tmp_path: Path, picture: Callable[..., Path]) -> TaggedImages:
    paths = tuple(picture(tmp_path / f"{k}.png", size=(4 + k, 5), seed=k) for k in range(3))
    labels = np.array([[True, False], [False, False], [True, True]])
    return TaggedImages(Classes(("cat", "dog")), ("0", "1", "2"), labels, partial(read_path, paths))


def test_tagged_images(three: TaggedImages) -> None:
    assert len(three) == 3
    assert [three.label_names(index) for index in range(3)] == [("cat",), (), ("cat", "dog")]
    assert [three.image(index).size for index in range(3)] == [(4, 5), (5, 5), (6, 5)]
    with pytest.raises(ValueError, match="read-only"):
        three.labels[0, 0] = False


@given(indices=st.lists(st.integers(-3, 2), max_size=5))
@settings(max_examples=30, deadline=None)
def test_subset_keeps_ids_labels_and_pictures_together(indices: list[int]) -> None:
    pictures = [Image.new("RGB", (2, 2), (k, 0, 0)) for k in range(3)]
    labels = np.array([[True, False], [False, False], [True, True]])
    # a reader knows its own indices alone, from 0
    reader = dict(enumerate(pictures)).__getitem__
    images = TaggedImages(Classes(("cat", "dog")), ("0", "1", "2"), labels, reader)
    subset = images.subset(indices)
    assert len(subset) == len(indices)
    for position, index in enumerate(indices):
        assert subset.ids[position] == images.ids[index]
        assert subset.label_names(position) == images.label_names(index)
        assert subset.image(position) is pictures[index]


def test_subset_refuses_an_index_out_of_range(three: TaggedImages) -> None:
    with pytest.raises(IndexError):
        three.subset([3])


def test_images_travel_to_worker_processes(three: TaggedImages) -> None:
    twin = pickle.loads(pickle.dumps(three.subset([2, 0])))
    assert twin.ids == ("2", "0")
    np.testing.assert_array_equal(np.asarray(twin.image(0)), np.asarray(three.image(2)))


@pytest.mark.parametrize("labels", [np.zeros((3, 1), bool), np.zeros((3, 2), np.uint8), np.zeros(6, bool)])
def test_labels_of_another_shape_or_type_are_refused(three: TaggedImages, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        TaggedImages(three.classes, three.ids, labels, three.reader)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :8] = 255  # a white mark in the top left corner of the upright picture
    # how a camera held that way stores the picture, written out from the definition of the EXIF tag
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=100)
    image = decode_image(path)
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 4


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.new("RGB", (6, 4), "red").save(path, exif=b"Exif\0\0 this is no TIFF header at all")
    assert decode_image(path).size == (6, 4)


def levels(*, dtype: type) -> np.ndarray:
    return np.tile(np.linspace(0, np.iinfo(dtype).max, 256).astype(dtype), (4, 1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_by_its_range(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(levels(dtype=np.uint16)).save(path)
    image = np.asarray(decode_image(path))
    assert image.shape == (4, 256, 3)
    np.testing.assert_array_equal(image, np.repeat(levels(dtype=np.uint8)[:, :, None], 3, axis=2))


def test_32_bit_integers_within_16_bits_scale_alike(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(levels(dtype=np.uint16).astype(np.int32)).save(path)
    np.testing.assert_array_equal(np.asarray(decode_image(path))[:, :, 0], levels(dtype=np.uint8))


@pytest.mark.parametrize("values", [np.full((2, 2), 70000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "strange.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(InputError, match="strange.tif: .*save it with 8 or 16 bits"):
        decode_image(path)


def test_grey_and_bilevel(tmp_path: Path) -> None:
    Image.fromarray(levels(dtype=np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / "grey.png"))[0, :, 1], np.arange(256))
    Image.new("1", (3, 2), 1).save(tmp_path / "bilevel.png")
    assert np.asarray(decode_image(tmp_path / "bilevel.png")).min() == 255


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (255, 0, 0, 0))
    half.save(tmp_path / "rgba.png")
    half.convert("LA").save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((0, 0), 1)
    palette.putpixel((1, 0), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    colour_key = Image.new("RGB", (2, 1), (255, 0, 0))
    colour_key.putpixel((1, 0), (9, 9, 9))
    colour_key.save(tmp_path / "key.png", transparency=(9, 9, 9))
    red, grey, white = (255, 0, 0), (76, 76, 76), (255, 255, 255)
    for name, first in (("rgba", red), ("la", grey), ("palette", red), ("key", red)):
        image = decode_image(tmp_path / f"{name}.png")
        assert image.mode == "RGB"
        assert [image.getpixel((0, 0)), image.getpixel((1, 0))] == [first, white], name


def test_palette_and_cmyk_keep_their_colours(tmp_path: Path) -> None:
    orange = Image.new("RGB", (8, 8), (250, 120, 10))
    orange.quantize(4).save(tmp_path / "palette.png")
    orange.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    for name in ("palette.png", "cmyk.jpg"):
        image = decode_image(tmp_path / name)
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - (250, 120, 10)).max() <= 4, name


@pytest.mark.parametrize("look", [decode_image, verify_header])
def test_what_is_no_picture_is_named(tmp_path: Path, look: Callable[[Path], object]) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    expected = {"empty": "is empty", "text": "not a picture", "folder": "a folder", "gone": "no such file"}
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            look(tmp_path / f"{name}.jpg")
        assert str(caught.value).startswith(str(tmp_path / f"{name}.jpg"))


@pytest.mark.parametrize("look", [decode_image, verify_header])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_picture_is_found_by_decoding_and_by_the_quick_look(
    tmp_path: Path, picture: Callable[..., Path], look: Callable[[Path], object], suffix: str, kept: float
) -> None:
    path = picture(tmp_path / f"cut{suffix}", size=(64, 64))
    look(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=f"cut{suffix}: "):
        look(path)


def test_quick_look_accepts_bytes_after_the_end(tmp_path: Path, picture: Callable[..., Path]) -> None:
    path = picture(tmp_path / "phone.jpg")
    path.write_bytes(path.read_bytes() + bytes(100))  # some phones append data of their own
    verify_header(path)
    assert decode_image(path).size == (12, 8)


def test_too_many_pixels(tmp_path: Path) -> None:
    header = struct.pack(">II5B", 60000, 60000, 8, 2, 0, 0, 0)
    good = BytesIO()
    Image.new("RGB", (1, 1)).save(good, format="PNG")
    content = good.getvalue()
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "huge.png").write_bytes(content[:16] + header + crc + content[33:])
    with pytest.raises(InputError, match=r"huge.png: the picture is too large"):
        verify_header(tmp_path / "huge.png")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_a_picture_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    sound = BytesIO()
    picture = Image.fromarray(np.arange(20 * 10 * 3, dtype=np.uint8).reshape(20, 10, 3))
    picture.save(sound, format=kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
    content = bytearray(sound.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "picture"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # a damaged size must not cost the tests a gigabyte
        try:
            image = decode_image(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert image.mode == "RGB"
