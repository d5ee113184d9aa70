from __future__ import annotations

import ast
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tag2mask.data
from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data import open_images
from tag2mask.data.masks import Masks, open_masks
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.errors import InputError

VALUES = np.array([[0, 1, 2], [255, 2, 1]], dtype=np.uint8)


def add_masks(config: DataConfig, folder: str, ids: tuple[str, ...], mask: np.ndarray = VALUES) -> Path:
    for image_id in ids:
        write_mask(Path(config.root) / folder / f"{image_id}.png", mask)
    return Path(config.root) / folder


def opened(config: DataConfig) -> Masks:
    masks = open_masks(config, open_images(config))
    assert masks is not None
    return masks


@pytest.fixture
def masked(album: DataConfig) -> DataConfig:
    add_masks(album, "masks", ("a", "b", "c", "trip/d"))
    return album


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_masks_survive_the_way_over_the_disk(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    cells = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=height * width, max_size=height * width)
    mask = np.array(data.draw(cells), dtype=np.uint8).reshape(height, width)
    root = tmp_path_factory.mktemp("album")
    Image.new("RGB", (width, height)).save(root / "a.png")
    (root / "labels.csv").write_text("image,labels\na.png,cat\n")
    (root / "classes.txt").write_text("cat\ndog\n")
    write_mask(root / "masks" / "a.png", mask)
    np.testing.assert_array_equal(opened(DataConfig(kind="folder", root=str(root))).mask(0), mask)


def test_masks_have_the_ids_and_order_of_the_images(masked: DataConfig) -> None:
    write_mask(Path(masked.root) / "masks" / "c.png", np.full((4, 5), 2, np.uint8))
    images = open_images(replace(masked, split="all")).subset([2, 0])
    masks = open_masks(masked, images)
    assert masks is not None
    assert masks.ids == images.ids == ("c", "a")
    assert len(masks) == 2
    assert masks.mask(0).tolist() == [[2] * 5] * 4  # at its own size
    np.testing.assert_array_equal(masks.mask(1), VALUES)
    assert masks.contexts is None
    with pytest.raises(ValueError, match="no contexts"):
        masks.context(0)


def test_grey_masks_are_numbers_too(masked: DataConfig) -> None:
    Image.fromarray(VALUES).save(Path(masked.root) / "masks" / "a.png")
    np.testing.assert_array_equal(opened(masked).mask(0), VALUES)
    Image.fromarray(VALUES == 1).save(Path(masked.root) / "masks" / "a.png")  # bilevel
    np.testing.assert_array_equal(opened(masked).mask(0), VALUES == 1)


def test_classes_that_are_not_in_use_are_ignored_pixels(masked: DataConfig) -> None:
    assert opened(replace(masked, classes=("dog",))).mask(0).tolist() == [[0, 255, 1], [255, 1, 255]]
    assert opened(replace(masked, classes=("dog", "cat"))).mask(0).tolist() == [[0, 2, 1], [255, 1, 2]]


def test_absence_of_masks_is_explicit(album: DataConfig, devkit: DataConfig) -> None:
    for config in (album, devkit):
        assert open_masks(config, open_images(config)) is None
    add_masks(album, "masks", ("a", "b", "c"))
    assert open_masks(album, open_images(album)) is not None
    hidden = replace(album, masks="none")
    assert open_masks(hidden, open_images(hidden)) is None
    small = DataConfig(cooccur=CooccurConfig(images=2, size=32), masks="none")
    assert open_masks(small, open_images(small)) is None
    wrong = replace(album, masks="truth")
    with pytest.raises(InputError, match="truth: data.masks names no folder"):
        open_masks(wrong, open_images(wrong))


def test_built_in_scenes_have_masks() -> None:
    config = DataConfig(cooccur=CooccurConfig(images=3, size=32))
    images = open_images(config)
    masks = open_masks(config, images)
    assert masks is not None and masks.contexts is not None
    assert masks.ids == images.ids
    assert masks.mask(1, (32, 32)).shape == masks.context(1, (32, 32)).shape == (32, 32)


def test_voc_folders(devkit: DataConfig) -> None:
    ids = ("2007_000001", "2007_000002", "2007_000003")
    add_masks(devkit, "SegmentationClass", ids, np.array([[0, 12, 19]], np.uint8))
    assert opened(replace(devkit, classes=("train", "dog"))).mask(1).tolist() == [[0, 2, 1]]
    add_masks(devkit, "SegmentationClassAug", ids, np.array([[255, 1, 20]], np.uint8))
    assert opened(devkit).mask(1).tolist() == [[255, 1, 20]]
    assert opened(replace(devkit, masks="SegmentationClass")).mask(1).tolist() == [[0, 12, 19]]


def test_contexts(masked: DataConfig) -> None:
    root = Path(masked.root)
    (root / "classes_stuff.txt").write_text("grass\ncat\nwater\n")
    stuff = np.array([[0, 1, 2], [3, 3, 255]], dtype=np.uint8)
    add_masks(masked, "masks_stuff", ("a", "b", "c"), stuff)
    # an object class is no context, also where it is not among the classes in use
    for config in (masked, replace(masked, classes=("dog",))):
        masks = opened(config)
        assert masks.contexts is not None
        assert masks.contexts.names == ("grass", "water")
        assert masks.contexts.of_class is None
        assert masks.context(0).tolist() == [[0, 1, 0], [2, 2, 0]]
    (root / "classes_stuff.txt").unlink()
    with pytest.raises(InputError, match=r"classes_stuff.txt: there is no such file"):
        opened(masked)


@pytest.mark.parametrize("size_hw", [(3, 2), (2, 4)])
def test_another_size_than_expected_is_an_input_error(masked: DataConfig, size_hw: tuple[int, int]) -> None:
    masks = opened(masked)
    assert masks.mask(0, (2, 3)).shape == (2, 3)
    with pytest.raises(InputError, match="mask of 'a': the mask is 3x2") as caught:
        masks.mask(0, size_hw)
    assert ("rotate the mask" in str(caught.value)) == (size_hw == (3, 2))


def test_faults_of_mask_files(masked: DataConfig, picture: Callable[..., Path]) -> None:
    path = Path(masked.root) / "masks" / "b.png"
    sound = path.read_bytes()
    picture(path)
    with pytest.raises(InputError, match=r"b.png: the mask is a colour or deep picture \(mode RGB\)"):
        opened(masked).mask(1)
    Image.fromarray(VALUES).save(path, format="JPEG")
    with pytest.raises(InputError, match=r"b.png: the mask is a JPEG"):
        opened(masked).mask(1)
    path.write_bytes(sound[:-30])
    with pytest.raises(InputError, match=r"b.png: the picture is damaged"):
        opened(masked).mask(1)
    path.write_bytes(b"")
    (path.parent / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.png: there is no mask for this image.* And 1 more: run"):
        opened(masked)


def test_values_beyond_the_classes(masked: DataConfig) -> None:
    add_masks(masked, "masks", ("a",), np.array([[0, 2, 3, 9]], np.uint8))
    with pytest.raises(InputError, match=r"a.png: the mask has the values 3, 9; expected 0 to 2, or 255"):
        opened(masked).mask(0)


def test_masks_need_the_list_of_classes(masked: DataConfig) -> None:
    (Path(masked.root) / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"classes.txt: the masks need this file"):
        opened(masked)


def test_masks_match_in_any_unicode_form(masked: DataConfig, picture: Callable[..., Path]) -> None:
    root = Path(masked.root)
    picture(root / "images" / "über.jpg")
    (root / "labels.csv").write_text("image,labels\nüber.jpg,cat\n", encoding="utf-8")
    add_masks(masked, "masks", (unicodedata.normalize("NFD", "über"),))
    np.testing.assert_array_equal(opened(masked).mask(0), VALUES)


def test_images_do_not_depend_on_masks(masked: DataConfig, devkit: DataConfig) -> None:
    """The rule of the house: with the mask folders deleted, or poisoned, what training sees is the same."""
    add_masks(devkit, "SegmentationClass", ("2007_000001", "2007_000002", "2007_000003"))
    for config, folder in ((masked, "masks"), (devkit, "SegmentationClass")):
        before = open_images(config)
        pixels = [np.asarray(before.image(index)) for index in range(len(before))]
        path = Path(config.root) / folder
        for mask in path.glob("*.png"):
            mask.write_bytes(b"poison")
        poisoned = open_images(config)
        shutil.rmtree(path)
        for after in (poisoned, open_images(config)):
            assert (after.ids, after.classes) == (before.ids, before.classes)
            np.testing.assert_array_equal(after.labels, before.labels)
            for index, expected in enumerate(pixels):
                np.testing.assert_array_equal(np.asarray(after.image(index)), expected)


@pytest.mark.parametrize("module", ["__init__", "classes", "files", "folder", "images", "rows", "voc"])
def test_no_module_on_the_way_of_the_images_imports_masks(module: str) -> None:
    tree = ast.parse((Path(tag2mask.data.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    imported = {
        f"{getattr(node, 'module', '')}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported and not any("masks" in name or "check" in name for name in imported)


def test_msrc_masks(shared_data: Path) -> None:
    config = DataConfig(kind="folder", root=str(shared_data / "msrc"), split="val")
    images, masks = open_images(config), opened(config)
    assert masks.contexts is not None
    assert {"grass", "water", "sky", "road"} <= set(masks.contexts.names)
    assert not set(masks.contexts.names) & set(images.classes.names)
    for index in range(len(images)):
        width, height = images.image(index).size
        mask = masks.mask(index, (height, width))
        assert masks.context(index, (height, width)).max() <= len(masks.contexts.names)
        shown = {images.classes.names[value - 1] for value in np.unique(mask) if value not in (0, 255)}
        assert shown <= set(images.label_names(index))


def test_voc_animals_masks(shared_data: Path) -> None:
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    config = DataConfig(kind="voc", root=str(shared_data / "voc_animals"), split="val", classes=classes)
    masks = opened(config)
    assert set(np.unique(np.concatenate([masks.mask(index).ravel() for index in range(60)]))) <= {
        *range(7),
        255,
    }
