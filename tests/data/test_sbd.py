"""VOC with SBD: the computed list, and masks from both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import inspect
from tag2mask.data.classes import VOC_NAMES, Classes
from tag2mask.data.images import TaggedImages
from tag2mask.data.masks import open_masks
from tag2mask.data.published import AUGMENTED_TAGS, COCO_IMAGES, VOC_IMAGES, agreement
from tag2mask.data.relabel import Change, relabelled
from tag2mask.data.voc import voc_splits
from tag2mask.errors import InputError
from tests.data.layouts import SBD_TRAIN, SBD_VAL, VOC_AUGMENTED, VOC_TRAIN, VOC_VAL, tags_of, write_voc


@pytest.fixture
def voc(tmp_path: Path) -> DataConfig:
    return DataConfig(kind="voc", root=str(write_voc(tmp_path / "data")), split="train_aug")


def sbd_of(config: DataConfig) -> Path:
    return Path(config.root).parents[1] / "benchmark_RELEASE" / "dataset"


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    return str(caught.value)


def test_the_list_is_computed_and_tags_come_from_boxes(voc: DataConfig) -> None:
    images = open_images(voc)
    assert images.ids == VOC_AUGMENTED and len(VOC_AUGMENTED) == 11
    everything = sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL})
    expected = [set(tags_of(everything.index(image_id))) for image_id in images.ids]
    assert [set(images.label_names(index)) for index in range(len(images))] == expected
    assert not set(images.ids) & set(VOC_VAL) and set(VOC_TRAIN) <= set(images.ids)


def test_a_list_that_is_there_comes_first(voc: DataConfig) -> None:
    path = Path(voc.root) / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text("2011_003271\n2007_000032\n")
    assert open_images(voc).ids == ("2011_003271", "2007_000032")


@pytest.mark.parametrize("place", ["SBD", "../SBD", "../../elsewhere/sbd/dataset"])
def test_where_sbd_may_lie(voc: DataConfig, place: str) -> None:
    target = Path(voc.root) / place
    target.parent.mkdir(parents=True, exist_ok=True)
    sbd_of(voc).rename(target)
    sbd_of(voc).parent.rmdir()
    if "elsewhere" in place:
        text = message(voc)
        assert "train_aug.txt: there is no such list file; put SBD beside it or name its folder in data.sbd" in text
        voc = replace(voc, sbd=str(target.parent))
    assert open_images(voc).ids == VOC_AUGMENTED
    assert voc_splits(voc) == ["train", "train_aug", "trainval", "val"]


def test_masks_of_voc_where_it_has_them_else_of_sbd(voc: DataConfig) -> None:
    config = replace(voc, classes=("boat", "train"))
    images = open_images(config)
    masks = open_masks(config, images)
    assert masks is not None
    for index, image_id in enumerate(images.ids):
        mask = masks.mask(index, images.image(index).size[::-1])
        assert (mask[:2] == 255).all() == (image_id in VOC_TRAIN), "the border that VOC alone has"
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        if "boat" in images.label_names(index):
            assert (mask == 1).any()
        if not images.labels[index].any() and image_id not in VOC_TRAIN:
            assert set(np.unique(mask)) <= {0, 255}, "the person is of no class in use"
    assert inspect(config).masks_sha256
    only = replace(config, masks=str(sbd_of(voc) / "cls"), split="train")
    with pytest.raises(InputError, match="there is no mask for this image"):
        open_masks(only, open_images(only))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", "other", "colours", "large"])
def test_damaged_masks_of_sbd(voc: DataConfig, content: bytes | str) -> None:
    path = sbd_of(voc) / "cls" / "2010_000005.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other":
        savemat(path, {"GTinst": {"Segmentation": np.zeros((4, 4))}})
    else:
        value = np.zeros((4, 4, 3), np.uint8) if content == "colours" else np.full((4, 4), 300, np.uint16)
        savemat(path, {"GTcls": {"Segmentation": value}})
    images = open_images(voc)
    masks = open_masks(voc, images)
    assert masks is not None
    with pytest.raises(InputError, match=r"2010_000005.mat: .*take the file `cls/<id>.mat` from SBD's archive again"):
        masks.mask(images.ids.index("2010_000005"))
    (finding,) = [found for found in inspect(voc).findings if found.severity == "error"]
    assert finding.where == str(path)


def test_faults_of_lists(voc: DataConfig) -> None:
    assert "data.sbd names no folder with the lists" in message(replace(voc, sbd="nowhere"))
    (sbd_of(voc) / "val.txt").write_text("../x\n2012_000001\n")
    text = message(voc)
    assert f"{sbd_of(voc) / 'val.txt'}, row 1: '../x' points outside" in text and "1 more" in text
    (sbd_of(voc) / "val.txt").write_text("2012_000001\n")
    assert f"{sbd_of(voc) / 'val.txt'}, row 1: there is no file" in message(voc), "an image of which VOC has no boxes"
    above = str(Path(voc.root).parent)
    assert f"set data.root to {voc.root}" in message(replace(voc, root=above))


def test_corrected_labels_have_the_computed_list_too(voc: DataConfig) -> None:
    content = json.loads(relabelled(voc, [Change("2010_000005", "cow", True)]))
    assert content["classes"] == list(VOC_NAMES)
    assert set(content["labels"]) == {*VOC_AUGMENTED, *VOC_VAL}
    assert "cow" in content["labels"]["2010_000005"]


def test_published_counts() -> None:
    assert sum(AUGMENTED_TAGS.values()) == 16458 and AUGMENTED_TAGS["person"] == 4155
    assert VOC_IMAGES["trainval"] == VOC_IMAGES["train"] + VOC_IMAGES["val"]
    assert COCO_IMAGES["train2014"] == 82783


def counted(split: str, counts: dict[str, int], total: int) -> list[str]:
    labels = np.zeros((total, len(counts)), dtype=bool)
    for column, count in enumerate(counts.values()):
        labels[:count, column] = True
    images = TaggedImages(Classes(tuple(counts)), tuple(map(str, range(total))), labels, lambda index: None)  # type: ignore[arg-type, return-value]
    return agreement(DataConfig(kind="voc", root="x", split=split), images)


def test_agreement_with_the_published_counts() -> None:
    lines = counted("train_aug", AUGMENTED_TAGS, 10582)
    assert lines[:2] == [
        "PASCAL VOC 2012 train_aug, images: 10,582 published, 10,582 here; they agree",
        "PASCAL VOC 2012 train_aug, tags of 20 classes: 16,458 published, 16,458 here; they agree",
    ]
    assert lines[2].endswith("all 20 as published") and len(lines) == 3
    lines = counted("train_aug", AUGMENTED_TAGS | {"cow": 266}, 10582)
    assert "16,458 published, 16,457 here; they do not agree" in lines[1]
    assert "images of cow: 267 published, 266 here" in lines[2] and len(lines) == 3
    assert len(counted("train_aug", {"cow": 267, "boat": 468}, 10582)) == 3, "some classes"
    assert counted("val", {"cow": 2}, 1449)[0].endswith("they agree")
    assert counted("mine", {"cow": 2}, 5) == counted("val", {"yak": 2}, 5) == []
