"""Datasets of the library ``datasets`` on disk."""

from __future__ import annotations

import io
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from tag2mask.config.data import ColumnsConfig, DataConfig
from tag2mask.data import huggingface, open_images
from tag2mask.data.check import check, inspect
from tag2mask.data.masks import open_masks
from tag2mask.errors import InputError
from tests.data.layouts import COLOURS, own_photos

NAMES = sorted(COLOURS)
Save = Callable[..., DataConfig]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def png(picture: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves one's own photos with the given columns of tags; gives the settings."""

    def write(feature: Any = None, tags: list[Any] | None = None, label: str = "labels", split: bool = True, **more: Any) -> DataConfig:
        rows = own_photos()
        label_feature = feature or datasets.List(datasets.ClassLabel(names=NAMES))
        columns = {
            "image": [png(photo) for _, _, photo, _ in rows], "mask": [png(Image.fromarray(mask)) for *_, mask in rows],
            label: tags or [[NAMES.index(name) for name in names] for _, names, _, _ in rows],
        }  # fmt: skip
        columns |= {name: values for name, (values, _) in more.items()}
        features = {"image": datasets.Image(), "mask": datasets.Image(), label: label_feature}
        features |= {name: kind for name, (_, kind) in more.items()}
        whole = datasets.Dataset.from_dict(columns, datasets.Features(features))
        root = tmp_path / f"saved{len(list(tmp_path.iterdir()))}"
        found = datasets.DatasetDict(train=whole.select(range(8)), val=whole.select(range(8, 12))) if split else whole
        found.save_to_disk(str(root))
        return DataConfig(kind="huggingface", root=str(root))

    return write


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected(start: int = 0, stop: int = 8) -> list[set[str]]:
    return [set(names) for _, names, _, _ in own_photos()[start:stop]]


def tags(config: DataConfig) -> list[set[str]]:
    images = open_images(config)
    return [set(images.label_names(index)) for index in range(len(images))]


def test_class_labels_in_lists(save: Save) -> None:
    config = save()
    images = open_images(config)
    assert images.classes.names == tuple(NAMES) and images.ids[:2] == ("0000000", "0000001")
    assert tags(config) == expected() and tags(replace(config, split="val")) == expected(8, 12)
    np.testing.assert_array_equal(np.asarray(images.image(3)), np.asarray(own_photos()[3][2]))
    again = pickle.loads(pickle.dumps(images.subset([5, 3])))
    np.testing.assert_array_equal(np.asarray(again.image(1)), np.asarray(images.image(3)))
    assert [finding for finding in check(config) if finding.severity == "error"] == []


def test_other_forms_of_tags(save: Save) -> None:
    text, names = datasets.Value("string"), [";".join(names) for _, names, _, _ in own_photos()]
    assert tags(save(text, names, label="tags")) == expected()
    lists = save(datasets.List(text), [list(names) for _, names, _, _ in own_photos()])
    assert tags(lists) == expected() and open_images(lists).classes.names == tuple(NAMES)
    (Path(lists.root) / "classes.txt").write_text("train\nboat\nperson\n")
    assert open_images(lists).classes.names == ("train", "boat", "person")
    single = save(datasets.ClassLabel(names=["background", "boat", "cow"]), [0, 1, 2, -1] * 3, label="label")
    assert open_images(single).classes.names == ("boat", "cow")
    assert tags(single) == [set(), {"boat"}, {"cow"}, set()] * 2


def test_names_of_every_split_count(save: Save) -> None:
    config = save(datasets.Value("string"), ["boat"] * 11 + ["yak"])
    assert open_images(config).classes.names == ("boat", "yak")


def test_masks_in_a_column(save: Save) -> None:
    config = replace(save(), split="val")
    images = open_images(config)
    masks = open_masks(config, images.subset([2, 0]))
    assert masks is not None
    np.testing.assert_array_equal(masks.mask(0), own_photos()[10][3])
    assert open_masks(replace(config, masks="none"), images) is None
    assert inspect(config).masks_sha256
    chosen = replace(config, classes=("train",))
    other = open_masks(chosen, open_images(chosen))
    assert other is not None and set(np.unique(other.mask(2))) <= {0, 255, 1}
    names = save(datasets.Value("string"), ["boat"] * 12)
    with pytest.raises(InputError, match="the masks need this file to say which value is which class"):
        open_masks(names, open_images(names))


def test_ids_from_a_column(save: Save) -> None:
    config = save(file_name=([f"trip/p{n}.x" for n in range(12)], datasets.Value("string")))
    assert open_images(config).ids[:2] == ("trip/p0.x", "trip/p1.x")
    other = replace(config, columns=ColumnsConfig(id="number"))
    assert "data.columns.id: there is no such column 'number'" in message(other)
    twice = save(id=([1] * 12, datasets.Value("int64")))
    assert "record 1: the image id '1' is already in" in message(twice) and "give each its own name" in message(twice)
    outside = save(id=(["../x"] * 12, datasets.Value("string")))
    assert "record 0: '../x' points outside" in message(outside)


def test_faults_of_columns(save: Save) -> None:
    two = save(photo=([png(Image.new("RGB", (4, 4)))] * 12, datasets.Image()))
    assert "there are 2 columns of pictures (image, photo); name the one of the photos in data.columns.image" in message(two)
    assert open_images(replace(two, columns=ColumnsConfig(image="photo"))).image(0).size == (4, 4)
    assert "there is no such column 'text'; name one of" in message(replace(two, columns=ColumnsConfig(image="text")))
    none = save(label="colours")
    assert "there is no column of tags; the columns are image, mask, colours" in message(none)
    assert tags(replace(none, columns=ColumnsConfig(labels="colours"))) == expected()
    numbers = save(datasets.Value("int64"), [1] * 12)
    assert "record 0, labels: 1 is neither a class label nor a name; cast it to ClassLabel" in message(numbers)
    nothing = save(datasets.Value("string"), [""] * 12)
    assert "column labels: no record has a tag" in message(nothing)


def test_faults_of_records(save: Save, tmp_path: Path) -> None:
    rows = [png(Image.new("RGB", (4, 4)))] * 12
    rows[2], rows[4] = {"bytes": b"\xff\xd8\xff", "path": None}, None  # type: ignore[call-overload]
    config = replace(save(photo=(rows, datasets.Image())), columns=ColumnsConfig(image="photo"), masks="none")
    images = open_images(config)
    with pytest.raises(InputError, match="record 2, photo: (the picture is damaged|this is not a picture)"):
        images.image(2)
    with pytest.raises(InputError, match="record 4, photo: there is no picture"):
        images.image(4)
    errors = [finding for finding in check(config) if finding.severity == "error"]
    assert [finding.where.split(", ")[1] for finding in errors] == ["record 2", "record 4"]


def test_faults_of_folders(save: Save, tmp_path: Path) -> None:
    config = save()
    assert "there is no split 'test'; set data.split to one of train, val" in message(replace(config, split="test"))
    plain = save(split=False)
    assert len(open_images(plain)) == len(open_images(replace(plain, split="all"))) == 12
    assert "the dataset has no splits, so none 'val'" in message(replace(plain, split="val"))
    assert "there is no such folder" in message(replace(config, root=str(tmp_path / "gone")))
    (tmp_path / "empty").mkdir()
    assert "this is no dataset on disk" in message(replace(config, root=str(tmp_path / "empty")))
    damaged = tmp_path / "damaged"
    shutil.copytree(plain.root, damaged)
    (damaged / "data-00000-of-00001.arrow").write_bytes(b"none")
    assert "this is no dataset on disk" in message(replace(plain, root=str(damaged)))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    huggingface.load_split.cache_clear()
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'tag2mask[hf]'" in message(DataConfig(kind="huggingface", root=str(tmp_path)))
