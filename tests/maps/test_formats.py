from __future__ import annotations

import json
import os
import sys
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.data.classes import VOC_NAMES, Classes, palette
from tag2mask.data.pseudo_masks import PseudoMasks, open_pseudo_masks, write_mask
from tag2mask.errors import InputError
from tag2mask.stages.formats import VOC_RESULTS, link_or_copy, write_coco, write_mmsegmentation, write_voc_archive

IDS = ("2007_000032", "trip/p07", "über/Grüße", "00012", "1e3")
PETS = Classes(("cat", "dog's", "Öhr"), ("animal", "animal", "indoor"))


def no_step(done: int, total: int, note: str = "") -> None: ...


class Album:
    """Five images, JPEG and PNG, with masks of three classes and unsure pixels; the third mask is background alone."""

    def __init__(self, root: Path) -> None:
        self.root, self.masks_folder = root / "images", root / "masks"
        self.images, self.values = [], []
        for number, image_id in enumerate(IDS):
            size = (9 + number, 14 - number)
            random = np.random.default_rng(number)
            mask = (
                random.choice(np.array([0, 0, 0, 1, 3, 255], np.uint8), size)
                if number != 2
                else np.zeros(size, np.uint8)
            )
            write_mask(self.masks_folder / f"{image_id}.png", mask)
            path = self.root / f"{image_id}.{'png' if number == 3 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
            self.images.append(path)
            self.values.append(mask)

    def masks(self, class_count: int = 3) -> PseudoMasks:
        return open_pseudo_masks(self.masks_folder, IDS, class_count)


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path / "album")


def test_coco_tools_decode_what_the_masks_say(album: Album, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    path, steps = tmp_path / "new" / "masks.json", []
    write_coco(
        album.masks(), PETS, album.images, album.root, path, lambda done, total, note="": steps.append((done, total))
    )
    assert steps == [(n, 5) for n in range(1, 6)]
    data = coco.COCO(str(path))
    capsys.readouterr()  # it prints
    assert [picture["name"] for picture in data.dataset["images"]] == list(IDS)
    assert [picture["file_name"] for picture in data.dataset["images"]] == [
        "2007_000032.jpg", "trip/p07.jpg", "über/Grüße.jpg", "00012.png", "1e3.jpg",
    ]  # fmt: skip
    assert data.loadCats(data.getCatIds()) == [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {"id": 2, "name": "dog's", "supercategory": "animal"},
        {"id": 3, "name": "Öhr", "supercategory": "indoor"},
    ]
    for picture, mask in zip(data.loadImgs(data.getImgIds()), album.values, strict=True):
        assert (picture["height"], picture["width"]) == mask.shape
        annotations = data.loadAnns(data.getAnnIds(imgIds=[picture["id"]], iscrowd=False))
        assert [each["category_id"] for each in annotations] == sorted(set(mask.ravel().tolist()) - {0, 255})
        again = np.where(mask == 255, 255, 0)
        for each in annotations:
            region = data.annToMask(each)
            again += each["category_id"] * region
            rows, columns = np.nonzero(mask == each["category_id"])
            left, top = columns.min(), rows.min()
            assert each["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert each["area"] == len(rows) and isinstance(each["area"], int)
        np.testing.assert_array_equal(again, mask)
    numbers = [each["id"] for each in data.dataset["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))  # 0 means «no match» where COCO scores


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_mask_survives_run_lengths(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    decode = pytest.importorskip("pycocotools.mask").decode
    root = tmp_path_factory.mktemp("coco")
    mask = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    mask[mask == 3] = 254 - seed
    write_mask(root / "a.png", mask)
    names = Classes(tuple(f"c{number}" for number in range(254)))
    write_coco(open_pseudo_masks(root, ["a"], 254), names, [root / "a.png"], root, root / "a.json", no_step)
    content = json.loads((root / "a.json").read_text())
    again = sum(each["category_id"] * decode(each["segmentation"]).astype(int) for each in content["annotations"])
    np.testing.assert_array_equal(again + np.zeros_like(mask), mask)


def test_coco_without_its_package(album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"pip install 'tag2mask\[coco\]'"):
        write_coco(album.masks(), PETS, album.images, album.root, tmp_path / "a.json", no_step)
    assert not (tmp_path / "a.json").exists()


def test_masks_of_another_size_than_their_image_are_not_written(album: Album, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    write_mask(album.masks_folder / "trip/p07.png", np.zeros((4, 4), np.uint8))
    for write in (
        lambda: write_coco(album.masks(), PETS, album.images, album.root, tmp_path / "a.json", no_step),
        lambda: write_mmsegmentation(album.masks(), PETS, album.images, "train", tmp_path / "mm", no_step),
    ):
        with pytest.raises(InputError, match=r"p07.png: the mask is 4x4"):
            write()
    assert not (tmp_path / "a.json").exists() and not list(tmp_path.glob("mm/*.py"))


def test_photos_that_are_turned_by_exif_have_masks_as_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    write_mask(tmp_path / "masks" / "a.png", np.ones((6, 4), np.uint8))
    masks = open_pseudo_masks(tmp_path / "masks", ["a"], 3)
    write_mmsegmentation(masks, PETS, [tmp_path / "a.jpg"], "train", tmp_path / "mm", no_step)
    assert Image.open(tmp_path / "mm/ann_dir/train/a.png").size == (4, 6)


def config_of(path: Path) -> dict[str, Any]:
    """The config as mmengine runs it, which fills in the folder first."""
    text = path.read_text(encoding="utf-8").replace("{{ fileDirname }}", str(path.parent))
    found: dict[str, Any] = {}
    exec(text, found)
    return found


def listed(dataset: dict[str, Any]) -> list[tuple[Path, Path]]:
    """Images and masks as ``BaseSegDataset`` finds them: line by line, prefix + line + suffix."""
    root = Path(dataset["data_root"])
    lines = (root / dataset["ann_file"]).read_text(encoding="utf-8").splitlines()
    images, masks = (root / dataset["data_prefix"][key] for key in ("img_path", "seg_map_path"))
    return [(images / (line + dataset["img_suffix"]), masks / (line + dataset["seg_map_suffix"])) for line in lines]


def test_mmsegmentation_finds_every_image_with_its_mask(album: Album, tmp_path: Path) -> None:
    folder = tmp_path / "mm"
    for split in ("train_aug", "val"):
        write_mmsegmentation(album.masks(), PETS, album.images, split, folder, no_step)
        assert (folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").splitlines() == list(IDS)
    moved = folder.rename(tmp_path / "moved")
    content = config_of(moved / "dataset_train_aug.py")
    assert content["metainfo"] == {
        "classes": ["background", "cat", "dog's", "Öhr"],
        "palette": [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]],
    }
    assert content["dataset"]["type"] == "ConcatDataset"  # there are JPEG and PNG files
    found = {}
    for part in content["dataset"]["datasets"]:
        assert part["type"] == "BaseSegDataset" and part["metainfo"] == content["metainfo"]
        assert part["reduce_zero_label"] is False and part["ignore_index"] == 255
        found |= {
            image.relative_to(moved / "img_dir/train_aug").as_posix(): (image, mask) for image, mask in listed(part)
        }
    assert len(found) == len(IDS)
    for source, values in zip(album.images, album.values, strict=True):
        image, mask = found[source.relative_to(album.root).as_posix()]
        assert image.read_bytes() == source.read_bytes()
        with Image.open(mask) as picture:
            assert picture.mode == "L"  # every backend reads grey as numbers
            np.testing.assert_array_equal(np.asarray(picture), values)


def test_mmsegmentation_with_one_kind_of_image(album: Album, tmp_path: Path) -> None:
    masks = open_pseudo_masks(album.masks_folder, IDS[:2], 3)
    for _ in range(2):  # again, over what is there
        config = write_mmsegmentation(masks, PETS, album.images[:2], "train", tmp_path / "mm", no_step)
    content = config_of(config)
    assert content["dataset"]["type"] == "BaseSegDataset" and content["dataset"]["ann_file"] == "splits/train.txt"
    assert all(image.is_file() and mask.is_file() for image, mask in listed(content["dataset"]))
    files = [path.name for path in (tmp_path / "mm").rglob("*") if path.is_file()]
    assert sorted(files) == [
        "2007_000032.jpg",
        "2007_000032.png",
        "dataset_train.py",
        "p07.jpg",
        "p07.png",
        "train.txt",
    ]
    for split in ("a/b", "", "..", "a b"):
        with pytest.raises(InputError, match="expected a name of letters"):
            write_mmsegmentation(masks, PETS, album.images[:2], split, tmp_path / "mm", no_step)


@pytest.mark.parametrize("without", [(), ("link",), ("link", "symlink")])
def test_links_where_they_can_be_and_copies_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...]
) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "new" / "b.jpg"
    source.write_bytes(b"photo")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("not on this disk")

    for name in without:
        monkeypatch.setattr(os, name, refuse)
    for _ in range(2):
        link_or_copy(source, target)
        assert target.read_bytes() == b"photo" and [path.name for path in target.parent.iterdir()] == ["b.jpg"]
    assert target.is_symlink() == (without == ("link",))
    assert target.samefile(source) == (len(without) < 2)
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "gone.jpg", target)


VOC = Classes(VOC_NAMES)


def voc_masks(folder: Path, ids: tuple[str, ...]) -> PseudoMasks:
    for number, image_id in enumerate(ids):
        mask = np.random.default_rng(number).integers(0, 21, (5, 7 + number)).astype(np.uint8)
        write_mask(folder / f"{image_id}.png", mask)
    return open_pseudo_masks(folder, ids, 20)


def test_archive_of_the_test_server(tmp_path: Path) -> None:
    ids = ("2008_000006", "2008_000011", "2007_000032", "über")
    masks = voc_masks(tmp_path / "masks", ids)
    write_voc_archive(masks, VOC, tmp_path / "new" / "results.tgz", no_step)
    with tarfile.open(tmp_path / "new" / "results.tgz", "r:gz") as archive:
        assert archive.getnames() == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{image_id}.png" for image_id in sorted(ids)
        ]
        for index, image_id in enumerate(ids):
            file = archive.extractfile(f"{VOC_RESULTS}/{image_id}.png")
            assert file is not None
            with Image.open(file) as picture:
                assert (picture.format, picture.mode) == ("PNG", "P")
                np.testing.assert_array_equal(np.asarray(picture), masks.mask(index))
                np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette(20)[masks.mask(index)])


def test_the_same_masks_give_the_same_archive(tmp_path: Path) -> None:
    ids = ("2008_000006", "2008_000011", "2007_000032")
    first = voc_masks(tmp_path / "masks", ids)
    write_voc_archive(first, VOC, tmp_path / "a.tgz", no_step)
    for index, path in enumerate(first.paths):
        write_mask(tmp_path / "other" / path.name, first.mask(index))
        os.utime(tmp_path / "other" / path.name, (index, index))
    second = open_pseudo_masks(tmp_path / "other", ids[::-1], 20)
    write_voc_archive(second, VOC, tmp_path / "b.tgz", no_step)
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tgz").read_bytes()
    write_mask(tmp_path / "other" / "2008_000006.png", np.zeros((5, 7), np.uint8))
    write_voc_archive(second, VOC, tmp_path / "b.tgz", no_step)
    assert (tmp_path / "a.tgz").read_bytes() != (tmp_path / "b.tgz").read_bytes()


def test_archive_has_exactly_the_list_and_a_class_for_each_pixel(tmp_path: Path) -> None:
    ids, path = ("2008_000006", "2008_000011"), tmp_path / "a.tgz"
    masks = voc_masks(tmp_path / "masks", ids)

    def refusal(masks: PseudoMasks, classes: Classes = VOC) -> str:
        with pytest.raises(InputError) as caught:
            write_voc_archive(masks, classes, path, no_step)
        assert not path.exists()
        return str(caught.value)

    assert "20 classes of PASCAL VOC" in refusal(masks, Classes(VOC_NAMES[::-1]))
    assert "names 1 images twice" in refusal(open_pseudo_masks(tmp_path / "masks", (*ids, ids[0]), 20))
    voc_masks(tmp_path / "masks", ("trip/other",))
    assert "trip/other.png is not in the list, as 1 of 3 masks" in refusal(masks)
    (tmp_path / "masks" / "trip" / "other.png").unlink()
    write_mask(tmp_path / "masks" / "2008_000011.png", np.array([[0, 255], [3, 3]], np.uint8))
    assert "2008_000011.png: 25.0% of the pixels are unsure" in refusal(masks)
    write_mask(tmp_path / "masks" / "2008_000011.png", np.array([[0, 21]], np.uint8))
    assert "the values 21; expected 0 to 20" in refusal(masks)


def test_archive_of_files_in_another_unicode_form(tmp_path: Path) -> None:
    voc_masks(tmp_path / "masks", (unicodedata.normalize("NFD", "über"),))
    write_voc_archive(open_pseudo_masks(tmp_path / "masks", ("über",), 20), VOC, tmp_path / "a.tgz", no_step)
    with tarfile.open(tmp_path / "a.tgz") as archive:
        assert archive.getnames() == [f"{VOC_RESULTS}/über.png"]


def test_masks_and_images_that_do_not_go_together(album: Album, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 masks of 3 classes; 4 images"):
        write_mmsegmentation(album.masks(), PETS, album.images[:4], "train", tmp_path, no_step)
    with pytest.raises(ValueError, match="5 masks of 4 classes; 5 images, 3 classes"):
        write_coco(album.masks(4), PETS, album.images, album.root, tmp_path / "a.json", no_step)
