"""COCO's files of annotations: tags, ids, where files may lie, and what can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.classes import COCO_NAMES, COCO_SUPERCLASSES, built_in_superclasses
from tag2mask.data.coco_index import read_coco
from tag2mask.data.files import DataError
from tag2mask.data.readers import with_split
from tag2mask.errors import InputError
from tests.data.layouts import tags_of, write_coco

Content = dict[str, Any]


@pytest.fixture
def coco(tmp_path: Path) -> DataConfig:
    return DataConfig(kind="coco", root=str(write_coco(tmp_path / "coco")))


@pytest.fixture
def own(tmp_path: Path) -> DataConfig:
    """JSON of one's own: two photos, two classes whose ids are not in the order of their entries."""
    root = tmp_path / "own"
    (root / "images" / "trip").mkdir(parents=True)
    for name in ("a.jpg", "trip/b.png"):
        Image.new("RGB", (6, 4)).save(root / "images" / name)
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 4, "width": 6}, {"id": 2, "file_name": "trip/b.png", "height": 4, "width": 6}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 4}, {"id": 2, "image_id": 2, "category_id": 4}],
        "categories": [{"id": 7, "name": "kite"}, {"id": 4, "name": "Möwe"}],
    }
    (root / "mine.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return DataConfig(kind="coco", root=str(root), labels="mine.json")


def edited(config: DataConfig, edit: Callable[[Content], Any]) -> DataConfig:
    path = Path(config.root) / config.labels
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return config


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tags_are_the_categories_of_the_annotations_crowds_included(coco: DataConfig) -> None:
    images = open_images(coco)
    assert images.classes.names == COCO_NAMES
    expected = [set(tags_of(number)) for number in range(12)]
    expected[2] |= {"train"}  # the crowd
    assert [set(images.label_names(index)) for index in range(12)] == expected
    assert images.ids[0] == "COCO_train2014_000000000009" and images.image(1).size == (40, 40)
    assert sum(not tags for tags in expected) == 2, "a photo without annotations is there, without a tag"


@pytest.mark.parametrize("split", ["val", "val2014"])
def test_splits_by_name_with_or_without_the_year(coco: DataConfig, split: str) -> None:
    assert open_images(with_split(coco, split)).ids[0] == "COCO_val2014_000000000042"


def test_superclasses_of_coco(coco: DataConfig) -> None:
    groups = open_images(coco).classes.superclasses
    assert groups is not None and len(set(groups)) == 12
    assert groups[COCO_NAMES.index("hot dog")] == "food" and groups[0] == "person"
    chosen = open_images(replace(coco, classes=("train", "boat", "dog"))).classes
    assert chosen.superclasses == ("vehicle", "vehicle", "animal")
    assert [len(members) for members in COCO_SUPERCLASSES.values()] == [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7]
    assert built_in_superclasses(("cat", "boat")) is None, "two names of one's own may be COCO's by chance"
    assert built_in_superclasses(("boat", "cat"), partly=True) == ("vehicle", "animal")


def test_json_of_ones_own(own: DataConfig) -> None:
    images = open_images(own)
    assert images.classes.names == ("Möwe", "kite"), "the order of the ids"
    assert images.ids == ("a", "trip/b")
    assert images.labels.tolist() == [[False, False], [True, False]]
    assert images.classes.superclasses is None


def test_supercategories_of_ones_own_count_if_they_differ(own: DataConfig) -> None:
    def groups(*names: str) -> tuple[str, ...] | None:
        config = edited(own, lambda c: [k.update(supercategory=n) for k, n in zip(c["categories"], names, strict=True)])
        return open_images(config).classes.superclasses

    assert groups("toy", "bird") == ("bird", "toy")
    assert groups("things", "things") is None, "one over everything would take every negative away"
    assert groups("toy", "") is None


def test_where_photos_and_files_may_lie(own: DataConfig, coco: DataConfig) -> None:
    root = Path(own.root)
    (root / "images").rename(root / "shots")
    assert "there is no image file" in message(own)
    assert open_images(replace(own, images="shots")).ids == ("a", "trip/b")
    (root / "train").mkdir()
    (root / "mine.json").rename(root / "train" / "_annotations.coco.json")
    (root / "shots").rename(root / "train" / "photos")
    with pytest.raises(InputError, match="there is no file|names no file"):
        open_images(replace(own, labels="gone.json"))
    assert len(open_images(replace(own, labels="", images="{split}/photos"))) == 2
    (Path(coco.root) / "annotations" / "instances_train2017.json").write_text("{}")
    assert "several years for the split 'train'; set data.split to train2014 or train2017" in message(coco)
    assert "set data.split to one of train2014, train2017, val2014" in message(replace(coco, split="test"))


def test_another_split_must_be_another_file_with_the_same_classes(own: DataConfig, coco: DataConfig) -> None:
    with pytest.raises(InputError, match=r"so there is none 'val'; write \{split\} in its name"):
        with_split(own, "val")
    path = Path(coco.root) / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["categories"][3]["name"] = "scooter"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="class numbers would not mean the same"):
        with_split(coco, "val")
    assert with_split(replace(coco, classes=("boat",)), "val").split == "val"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda c: c.pop("images"), "mine.json: there is no list 'images'"),
        (lambda c: c["images"].clear(), "mine.json: it has no images"),
        (lambda c: c["categories"].clear(), "mine.json: it has no categories"),
        (lambda c: c.update(images={}), "mine.json, key 'images': this is not a list"),
        (lambda c: c["images"].append(3), "mine.json, image 3: '3' is no table"),
        (lambda c: c["images"][0].update(id=2), "mine.json, image 2: the image id 2 is already that of 'a.jpg'"),
        (lambda c: c["images"][1].update(file_name=" "), "mine.json, image 2: file_name is ' '"),
        (lambda c: c["images"][1].update(file_name="../b.png"), "mine.json, image id 2: '../b.png' points outside"),
        (lambda c: c["images"][1].update(file_name="a.jpg"), "image id 2: the image id 'a' is already in"),
        (lambda c: c["images"][1].update(file_name="trip/c.png"), "mine.json, image id 2: there is no image file"),
        (lambda c: c["images"][0].pop("id"), "mine.json, image 1: id is None; write a whole number"),
        (lambda c: c["categories"][1].update(name="kite"), "mine.json, category 2: the category 'kite' is there twice"),
        (lambda c: c["categories"][1].update(id=7), "category 2: the category id 7 is already that of 'kite'"),
        (lambda c: c["categories"][0].update(name="Background"), "category 1: background is no class"),
        (lambda c: c["categories"][0].update(name=None), "category 1: name is None"),
        (lambda c: c["annotations"][1].update(category_id=9), "annotation 2: there is no category with the id 9"),
        (lambda c: [a.update(image_id=1) for a in c["annotations"]], "annotation 1: there is no image with the id 1, as of 2 annotations"),
        (lambda c: c["annotations"].append([]), "annotation 3: '[]' is no table"),
        (lambda c: c["annotations"][0].update(image_id=None), "annotation 1: image_id is None"),
    ],
)  # fmt: skip
def test_faults_of_entries(own: DataConfig, edit: Callable[[Content], Any], expected: str) -> None:
    assert expected in message(edited(own, edit))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "mine.json: the file is empty"),
        (b"[]", "mine.json: this is not a JSON object"),
        (b'{"info": {"images": 1}, "images": [', "this is not JSON (it is cut off)"),
        (b'{"images": [{"id": 1, "file_name": "a"} 3]}', "mine.json, row 1, character 41: this is not JSON (expected ',')"),
        (b'{"images": [],\n "images": []}', "the key 'images' stands there twice"),
        (b'{"images"\n: [{"id": 1, "file_name": "\xff"}]}', "mine.json, image 1: the text is not UTF-8"),
        (b"\xff\xfe{\x00", "this is not a JSON object"),
        (b'{"images": []}\n{"images": []}', "mine.json, row 2, character 1: this is not JSON (there is more after its end)"),
    ],
)
def test_faults_of_files(own: DataConfig, content: bytes, expected: str) -> None:
    (Path(own.root) / "mine.json").write_bytes(content)
    assert expected in message(own)


def test_a_file_is_parsed_once_and_again_when_it_changes(own: DataConfig) -> None:
    path = Path(own.root) / "mine.json"
    first = read_coco(path)
    assert read_coco(path) is first
    edited(own, lambda c: c["annotations"].pop())
    assert len(read_coco(path).number) == len(first.number) - 1


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1).map(str.strip).filter(
    lambda name: bool(name) and name.casefold() != "background"
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_index_is_what_a_plain_parser_reads(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any order of keys and entries, any names, any spaces: the places point to the annotations themselves."""
    classes = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    count = data.draw(st.integers(1, 4))
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, len(classes) - 1), st.booleans())
    pairs = data.draw(st.lists(pair, max_size=8))
    lists = {
        "images": [{"id": 10 * n, "file_name": f"{data.draw(names)}"} for n in range(count)],
        "annotations": [{"image_id": 10 * n, "note": data.draw(names), "category_id": c, "iscrowd": int(k)} for n, c, k in pairs],
        "categories": [{"name": name, "id": c} for c, name in enumerate(classes)],
        "info": {"images": [1], "text": data.draw(names)},
    }  # fmt: skip
    order = data.draw(st.permutations(list(lists)))
    text = json.dumps({key: lists[key] for key in order}, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    path = tmp_path_factory.mktemp("coco") / "any.json"
    path.write_text(text, encoding=data.draw(st.sampled_from(["utf-8", "utf-8-sig"])))
    try:
        index = read_coco(path)
    except DataError as error:
        assert "is there twice" in str(error), "names that are the same in another Unicode form"
        return
    content = path.read_bytes()
    assert len(index.ids) == count and not index.findings
    for image in range(count):
        here = index.annotations(image)
        assert [lists["annotations"].index(json.loads(content[slice(*index.span[a])])) >= 0 for a in here] == [True] * len(here)
        assert sorted(index.category[here.start : here.stop].tolist()) == sorted(c for n, c, _ in pairs if n == image)
    assert index.crowd.sum() == sum(k for *_, k in pairs)
