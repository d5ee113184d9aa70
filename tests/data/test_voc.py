from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.classes import VOC_NAMES
from tag2mask.data.voc import open_voc, voc_names
from tag2mask.errors import InputError

IDS = ("2007_000001", "2007_000002", "2007_000003")


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_voc(config)
    return str(caught.value)


def labels_in_json(config: DataConfig, content: object) -> DataConfig:
    text = content if isinstance(content, str) else json.dumps(content)
    (Path(config.root) / "mine.json").write_text(text, encoding="utf-8")
    return replace(config, labels="mine.json")


def test_boxes_are_tags_difficult_ones_included_and_parts_not(devkit: DataConfig) -> None:
    images = open_images(devkit)
    assert images.ids == IDS
    assert images.classes.names == VOC_NAMES
    assert [images.label_names(index) for index in range(3)] == [("dog", "person"), ("train",), ()]
    assert images.classes.superclasses is not None
    assert images.classes.superclasses[VOC_NAMES.index("train")] == "vehicle"
    assert images.image(1).size == (12, 8)
    assert open_images(replace(devkit, split="val")).ids == IDS[2:]


def test_selection_of_classes(devkit: DataConfig) -> None:
    images = open_voc(replace(devkit, classes=("train", "dog")))
    assert images.classes.names == ("train", "dog")
    assert images.classes.superclasses == ("vehicle", "animal")
    assert [images.label_names(index) for index in range(3)] == [("dog",), ("train",), ()]


def test_own_superclasses_come_first(devkit: DataConfig) -> None:
    (Path(devkit.root) / "superclasses.yaml").write_text("pet: [dog, cat]\n")
    assert open_voc(replace(devkit, classes=("cat", "dog"))).classes.superclasses == ("pet", "pet")


def test_labels_from_json(devkit: DataConfig) -> None:
    labels = {IDS[0]: ["dog"], IDS[1]: ["cat", "dog"], IDS[2]: []}
    config = labels_in_json(devkit, {"classes": ["background", "dog", "cat"], "labels": labels})
    images = open_voc(config)
    assert images.classes.names == ("dog", "cat")
    assert images.labels.tolist() == [[True, False], [True, True], [False, False]]
    assert voc_names(labels_in_json(devkit, {"labels": labels})) == VOC_NAMES


def test_own_names_from_a_list_of_classes(devkit: DataConfig) -> None:
    (Path(devkit.root) / "classes.txt").write_text("person\ndog\ntrain\nsled\n")
    images = open_voc(devkit)
    assert images.classes.names == ("person", "dog", "train", "sled")
    assert images.classes.superclasses is None


def test_photos_without_tags(devkit: DataConfig) -> None:
    """As in VOC's test set: the tags that are there are not read, and none need be there."""
    config = replace(devkit, labels="none", classes=("train", "dog"))
    (Path(devkit.root) / "Annotations" / f"{IDS[0]}.xml").write_text("damaged")
    assert open_voc(config).ids == IDS and not open_voc(config).labels.any()
    shutil.rmtree(Path(devkit.root) / "Annotations")
    images = open_voc(config)
    assert images.classes.names == ("train", "dog") and images.labels.shape == (3, 2)
    assert voc_names(config) == VOC_NAMES
    assert "no labels: there is neither" in message(devkit)


def test_where_labels_come_from_by_default(devkit: DataConfig) -> None:
    root = Path(devkit.root)
    (root / "labels.json").write_text(json.dumps({"labels": {key: ["cow"] for key in IDS}}))
    assert open_voc(devkit).label_names(1) == ("train",)
    (root / "Annotations").rename(root / "hidden")
    assert open_voc(devkit).label_names(1) == ("cow",)
    assert open_voc(replace(devkit, labels="hidden")).label_names(1) == ("train",)
    (root / "labels.json").unlink()
    assert "no labels: there is neither a folder Annotations nor a file labels.json" in message(devkit)
    assert "gone.json: data.labels names nothing" in message(replace(devkit, labels="gone.json"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "mine.json: the file is empty"),
        ('{"labels": {}', "mine.json, row 1: this is not JSON"),
        ([], "mine.json: this is not a JSON object"),
        ({}, "mine.json: there is no key labels"),
        ({"labels": {}}, "train.txt, row 1: "),
        ('{"labels": {"a": [], "a": []}}', "mine.json: the key 'a' stands there twice"),
        ({"classes": [], "labels": {}}, "mine.json, key 'classes': this is not a list of names"),
        ({"classes": ["dog", "dog"], "labels": {}}, "key 'classes': class 'dog' is named twice"),
        ({"classes": ["dog", "background"], "labels": {}}, "key 'classes': 'background' is no class"),
        ({"labels": {key: "dog" for key in IDS}}, f"key '{IDS[0]}': 'dog' is not a list of names"),
        (
            {"labels": {key: ["dgo"] for key in IDS}},
            f"key '{IDS[0]}': unknown class 'dgo'; did you mean 'dog'",
        ),
    ],
)
def test_faults_of_json(devkit: DataConfig, content: object, expected: str) -> None:
    assert expected in message(labels_in_json(devkit, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<annotation><object>", "2007_000002.xml, row 1: this is not XML"),
        ("", "2007_000002.xml, row 1: this is not XML"),
        ("<annotation><object><name>tarin</name></object></annotation>", "unknown class 'tarin'; did you mean 'train'"),
        ("<annotation><object/></annotation>", "2007_000002.xml: object 1 has no name"),
        (None, "train.txt, row 2: there is no file"),
    ],
)  # fmt: skip
def test_faults_of_boxes(devkit: DataConfig, content: str | None, expected: str) -> None:
    path = Path(devkit.root) / "Annotations" / "2007_000002.xml"
    path.unlink() if content is None else path.write_text(content)
    assert expected in message(devkit)


def test_boxes_in_the_encoding_that_the_file_states(devkit: DataConfig) -> None:
    (Path(devkit.root) / "classes.txt").write_text("möwe\nperson\ndog\n", encoding="utf-8")
    text = (
        '<?xml version="1.0" encoding="latin-1"?><annotation><object><name>möwe</name></object></annotation>'
    )
    (Path(devkit.root) / "Annotations" / "2007_000002.xml").write_bytes(text.encode("latin-1"))
    assert open_voc(devkit).label_names(1) == ("möwe",)


@pytest.mark.parametrize(
    "content",
    [
        "\n2007_000001\n\n 2007_000002 \n\n",
        "\ufeff2007_000001\r\n2007_000002\r\n",
        "2007_000001\r2007_000002",
    ],
)
def test_lists_with_blank_lines_and_other_line_ends(devkit: DataConfig, content: str) -> None:
    (Path(devkit.root) / "ImageSets/Segmentation/train.txt").write_bytes(content.encode())
    assert open_voc(devkit).ids == IDS[:2]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n\n", "train.txt: the file is empty"),
        ("2007_000001\n\n2007_000001\n", "train.txt, row 3: the image id '2007_000001' is already in"),
        ("2007_000001\n../x\n", "train.txt, row 2: '../x' points outside the data folder"),
        ("/JPEGImages/2007_000001.jpg /Masks/2007_000001.png\n", "row 1: '/JPEGImages/"),
        ("2007_000009\n", "row 1: there is no file"),
    ],
)
def test_faults_of_lists(devkit: DataConfig, content: str, expected: str) -> None:
    (Path(devkit.root) / "ImageSets/Segmentation/train.txt").write_text(content)
    assert expected in message(devkit)


def test_faults_of_pictures_and_folders(devkit: DataConfig, picture: Callable[..., Path]) -> None:
    photo = Path(devkit.root) / "JPEGImages" / "2007_000002.jpg"
    photo.write_bytes(b"")
    assert f"train.txt, row 2, {photo}: the file is empty" in message(devkit)
    photo.unlink()
    assert f"train.txt, row 2: there is no image file {photo}" in message(devkit)
    picture(photo.with_suffix(".png"), size=(5, 5))
    assert open_voc(devkit).image(1).size == (5, 5)
    assert "test.txt: there is no such list file; set data.split to one of train, val" in message(
        replace(devkit, split="test")
    )
    assert "there is no such folder" in message(replace(devkit, root=f"{devkit.root}/gone"))


ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")


@pytest.mark.parametrize(("split", "count"), [("train", 437), ("val", 445)])
def test_voc_animals(shared_data: Path, split: str, count: int) -> None:
    config = DataConfig(kind="voc", root=str(shared_data / "voc_animals"), split=split, classes=ANIMALS)
    images = open_images(config)
    assert len(images) == count
    assert images.classes.names == ANIMALS
    assert images.classes.superclasses == ("animal", "animal", "animal", "animal", "person", "animal")
    if split == "train":
        assert (images.labels.sum(axis=0).min(), images.labels.sum(axis=0).max()) == (62, 131)
