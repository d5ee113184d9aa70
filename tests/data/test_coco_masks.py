"""Masks of classes from COCO's outlines: the rule of overlap and crowds, and damaged outlines."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import inspect
from tag2mask.data.coco import annotation_file
from tag2mask.data.coco_masks import unpacked
from tag2mask.data.masks import open_masks
from tag2mask.errors import InputError
from tests.data.layouts import write_coco

SIZE = (8, 12)
"""Height and width of the photo."""


def box(x: int, y: int, width: int, height: int) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def data(root: Path, *annotations: dict[str, Any], size: tuple[int, int] = SIZE) -> DataConfig:
    """One photo with the annotations; categories 3 kite, 5 leaf, 9 pond."""
    root.mkdir(exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(root / "a.png")
    categories = [{"id": i, "name": name} for i, name in ((3, "kite"), (5, "leaf"), (9, "pond"))]
    images = [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}]
    entries = [{"id": n, "image_id": 1, "category_id": 3, **a} for n, a in enumerate(annotations, start=1)]
    (root / "a.json").write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    return DataConfig(kind="coco", root=str(root), labels="a.json")


def mask(config: DataConfig) -> np.ndarray:
    masks = open_masks(config, open_images(config))
    assert masks is not None
    return masks.mask(0, SIZE)


def refusal(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        mask(config)
    return str(caught.value)


def test_smaller_regions_lie_on_larger_ones_whatever_their_order(tmp_path: Path) -> None:
    large, small = {"segmentation": box(0, 0, 8, 8)}, {"segmentation": box(2, 2, 3, 3), "category_id": 9}
    expected = np.zeros(SIZE, np.uint8)
    expected[:8, :8] = 1
    expected[2:5, 2:5] = 3
    np.testing.assert_array_equal(mask(data(tmp_path / "a", large, small)), expected)
    np.testing.assert_array_equal(mask(data(tmp_path / "b", small, large)), expected)


def test_of_equal_regions_the_higher_annotation_id_lies_on_top(tmp_path: Path) -> None:
    first = {"segmentation": box(0, 0, 4, 4), "id": 20, "category_id": 5}
    second = {"segmentation": box(2, 2, 4, 4), "id": 7, "category_id": 9}
    for number, order in enumerate([(first, second), (second, first)]):
        found = mask(data(tmp_path / str(number), *order))
        assert found[3, 3] == 2 and found[5, 5] == 3 and found[0, 0] == 2 and found[7, 7] == 0


def test_crowds_are_ignored_where_no_single_object_is(tmp_path: Path) -> None:
    counts = [0, 4 * 8, 8 * 8]  # the first four columns
    crowd = {"segmentation": {"counts": counts, "size": list(SIZE)}, "iscrowd": 1, "category_id": 5}
    found = mask(data(tmp_path, crowd, {"segmentation": box(2, 0, 6, 8)}))
    assert (found[:, :2] == 255).all() and (found[:, 2:8] == 1).all() and not found[:, 8:].any()
    config = DataConfig(kind="coco", root=str(tmp_path), labels="a.json")
    assert open_images(config).label_names(0) == ("kite", "leaf"), "yet they are tags"


def test_classes_that_are_not_in_use_are_ignored(tmp_path: Path) -> None:
    config = data(tmp_path, {"segmentation": box(0, 0, 8, 8)}, {"segmentation": box(2, 2, 3, 3), "category_id": 9})
    found = mask(replace(config, classes=("pond",)))
    assert found[0, 0] == 255 and found[3, 3] == 1 and found[7, 11] == 0


@given(pixels=st.lists(st.booleans(), min_size=96, max_size=96))
@settings(max_examples=60, deadline=None)
def test_both_forms_of_run_lengths_say_the_same(tmp_path_factory: pytest.TempPathFactory, pixels: list[bool]) -> None:
    from pycocotools import mask as run_lengths

    expected = np.array(pixels).reshape(SIZE)
    packed = run_lengths.encode(np.asfortranarray(expected, dtype=np.uint8))["counts"].decode()
    lengths = unpacked(packed)
    assert sum(lengths) == 96
    for number, counts in enumerate((packed, lengths)):
        root = tmp_path_factory.mktemp("lengths") / str(number)
        found = mask(data(root, {"segmentation": {"counts": counts, "size": list(SIZE)}}))
        np.testing.assert_array_equal(found.astype(bool), expected)


@given(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=12))
def test_unpacking_undoes_the_packing_of_pycocotools(lengths: list[int]) -> None:
    from pycocotools import mask as run_lengths

    height = sum(lengths)
    packed = run_lengths.frPyObjects({"size": [height, 1], "counts": lengths}, height, 1)["counts"].decode()
    assert unpacked(packed) == lengths


@given(st.text(max_size=30))
def test_unpacking_takes_any_text(text: str) -> None:
    assert all(isinstance(length, int) for length in unpacked(text))


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ({"counts": [1, 2], "size": list(SIZE)}, "annotation id 1: the run lengths do not add up to 96 pixels"),
        ({"counts": [97, -1], "size": list(SIZE)}, "do not add up"),
        ({"counts": "99", "size": list(SIZE)}, "do not add up"),
        ({"counts": "\u00ff", "size": list(SIZE)}, "do not add up"),
        ({"size": list(SIZE)}, "do not add up"),
        ({"counts": [96], "size": [12, 8]}, "the run lengths are of the size [12, 8], the image is [8, 12] (H, W)"),
        ([[1, 2, 3, 4, 5]], "a polygon is no list of pairs x, y"),
        ([3], "a polygon is no list of pairs"),
        ([[1, 2, "3", 4, 5, 6]], "a polygon holds '3'"),
        ([[1, 2, 1e9, 4, 5, 6]], "a polygon reaches 1e+09, far outside the image of 12x8"),
        ("0", "segmentation is neither polygons nor run lengths"),
    ],
)
def test_faults_of_outlines(tmp_path: Path, segmentation: object, expected: str) -> None:
    text = refusal(data(tmp_path, {"segmentation": segmentation}))
    assert expected in text and "a.json, annotation id 1: " in text


def test_missing_outlines_and_sizes(tmp_path: Path) -> None:
    config = data(tmp_path / "a", {"segmentation": box(0, 0, 3, 3)}, {})
    assert "annotation id 2: there is no outline" in refusal(config)
    boxes = data(tmp_path / "b", {"bbox": [0, 0, 3, 3]}, {"segmentation": []})
    assert open_masks(boxes, open_images(boxes)) is None, "boxes alone"
    assert "height and width are 0 and 0" in refusal(data(tmp_path / "c", {"segmentation": box(0, 0, 3, 3)}, size=(0, 0)))
    turned = refusal(data(tmp_path / "d", {"segmentation": box(0, 0, 3, 3)}, size=(12, 8)))
    assert "the mask is 8x12 (width x height), the upright image 12x8" in turned
    dots = mask(data(tmp_path / "e", {"segmentation": [[1, 1, 2, 2], *box(4, 4, 2, 2)]}))
    assert dots.sum() == 4, "two points cover nothing"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((8.0, 12.0), ""), ((10**12, 12), "height and width are 0 and 12"), ((50_000, 50_000), "height and width are 50000 and 50000")],
)  # fmt: skip
def test_sizes_that_a_file_states(tmp_path: Path, size: tuple[Any, Any], expected: str) -> None:
    """They come from the file, so they take no memory before they are believed."""
    config = data(tmp_path, {"segmentation": box(1, 1, 3, 2)})
    path = annotation_file(config)
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["height"], image["width"] = size
    path.write_text(json.dumps(content))
    if expected:
        assert expected in refusal(config)
    else:
        assert mask(config).shape == size


def test_a_crowd_flag_as_text(tmp_path: Path) -> None:
    assert set(np.unique(mask(data(tmp_path / "a", {"segmentation": box(1, 1, 3, 2), "iscrowd": "0"})))) == {0, 1}
    assert set(np.unique(mask(data(tmp_path / "b", {"segmentation": box(1, 1, 3, 2), "iscrowd": "1"})))) == {0, 255}


def test_masks_of_ones_own_come_first(tmp_path: Path) -> None:
    config = data(tmp_path, {"segmentation": box(0, 0, 3, 3)})
    assert open_masks(replace(config, masks="none"), open_images(config)) is None
    (tmp_path / "png").mkdir()
    Image.fromarray(np.full(SIZE, 2, np.uint8)).save(tmp_path / "png" / "a.png")
    assert (mask(replace(config, masks="png")) == 2).all()


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data(tmp_path, {"segmentation": box(0, 0, 3, 3)})
    images = open_images(config)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(InputError, match=r"pip install 'tag2mask\[coco\]'"):
        open_masks(config, images)
    assert open_masks(replace(config, masks="none"), images) is None


def test_checksums_are_those_of_the_content(tmp_path: Path) -> None:
    """They do not depend on the order of the file, and change with a pixel or a tag."""
    root = write_coco(tmp_path / "coco")
    config = DataConfig(kind="coco", root=str(root))
    first = inspect(config)
    assert first.findings == [finding for finding in first.findings if finding.severity == "warning"]
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value[::-1] if isinstance(value, list) else value for key, value in content.items()}))
    again = inspect(config)
    assert (again.labels_sha256, again.masks_sha256) == (first.labels_sha256, first.masks_sha256)
    content["annotations"][0]["segmentation"][0][0] += 4
    path.write_text(json.dumps(content))
    moved = inspect(config)
    assert moved.labels_sha256 == first.labels_sha256 and moved.masks_sha256 != first.masks_sha256
    content["annotations"][0]["category_id"] = 90
    path.write_text(json.dumps(content))
    assert inspect(config).labels_sha256 != first.labels_sha256


def test_masks_can_be_read_in_another_process(tmp_path: Path) -> None:
    config = DataConfig(kind="coco", root=str(write_coco(tmp_path / "coco")))
    masks = open_masks(config, open_images(config).subset([3, 2]))
    assert masks is not None
    again = pickle.loads(pickle.dumps(masks))  # our own, as a worker process gets it
    np.testing.assert_array_equal(again.mask(1), masks.mask(1))
    assert (again.mask(1)[:, 0] == 255).all(), "the crowd"
