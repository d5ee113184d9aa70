"""What `tag2mask check` tells besides faults: counts, pairs, copies, rare classes, checksums, cost, and the layout."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tag2mask.config import CooccurConfig, DataConfig, FPRConfig, HostConfig, RunConfig, ViewsConfig
from tag2mask.data import open_images
from tag2mask.data.check import check, inspect
from tag2mask.data.checksums import MaskDigest, label_digest
from tag2mask.data.classes import Classes
from tag2mask.data.facts import strongest_pairs, tag_lines
from tag2mask.data.images import TaggedImages
from tag2mask.data.layout import layout_of
from tag2mask.hosts.table import build_host
from tag2mask.stages.cost import cost_lines, estimate_cost, gigabytes
from tests.data.layouts import write_coco, write_voc

Write = Callable[..., Path]


def tagged(labels: np.ndarray, ids: tuple[str, ...] = ()) -> TaggedImages:
    names = tuple(f"c{n}" for n in range(labels.shape[1]))
    found = ids or tuple(f"i{n}" for n in range(len(labels)))
    return TaggedImages(Classes(names), found, labels.copy(), lambda index: None)  # type: ignore[arg-type, return-value]


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5))))
@settings(deadline=None)
def test_pairs_are_those_of_a_plain_count(labels: np.ndarray) -> None:
    images = tagged(labels)
    pairs = strongest_pairs(images, 100)
    counts = [pair.images for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    rows = [set(images.label_names(index)) for index in range(len(images))]
    names = images.classes.names
    expected = {frozenset((a, b)) for a in names for b in names if a < b and any({a, b} <= row for row in rows)}
    assert {frozenset((pair.rarer, pair.other)) for pair in pairs} == expected and len(pairs) == len(expected)
    for pair in pairs:
        both = sum({pair.rarer, pair.other} <= row for row in rows)
        assert pair.images == both and pair.share == both / sum(pair.rarer in row for row in rows)
        assert sum(pair.rarer in row for row in rows) <= sum(pair.other in row for row in rows)
    assert len(strongest_pairs(images, 1)) == min(1, len(pairs))
    assert all(isinstance(line, str) for line in tag_lines(images))


def test_lines_for_a_person() -> None:
    lines = tag_lines(tagged(np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool)))
    assert lines[0] == "4 images, 2 classes, 5 tags, 1.250 an image"
    assert lines[1] == "images by their number of tags: 0: 1, 1: 1, 2: 2"
    assert lines[2].startswith("1 without any tag: negatives of the classes")
    assert "  c1 + c0  2 images  100% of c1" in lines
    assert tag_lines(tagged(np.zeros((0, 2), bool)))[1] == "no image is sound"
    assert tag_lines(tagged(np.array([[1]], bool)))[0] == "1 image, 1 class, 1 tag, 1.000 an image"
    assert "  c0 + c1  1 image  100% of c0" in tag_lines(tagged(np.array([[1, 1]], bool)))


def test_checksums_are_over_the_bytes_that_they_say() -> None:
    labels = np.array([[1, 0], [1, 1]], bool)
    expected = hashlib.sha256(b"b\0c0\0c1\0\n" + "é".encode() + b"\0c0\0\n").hexdigest()
    assert label_digest(tagged(labels, ("é", "b"))) == expected
    masks = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.zeros((3, 2), np.uint8)]
    pieces = [b"b\x003x2\0" + masks[1].tobytes(), "é".encode() + b"\x002x3\0" + masks[0].tobytes()]
    wanted = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()
    for order in ([0, 1], [1, 0]):
        digest = MaskDigest(("é", "b"))
        for index in order:
            assert digest.hexdigest() == ""
            digest.add(index, np.asfortranarray(masks[index]))
        assert digest.hexdigest() == wanted


def test_pictures_that_are_there_twice(album: DataConfig) -> None:
    root = Path(album.root)
    (root / "images" / "b.jpg").write_bytes((root / "images" / "a.jpg").read_bytes())
    (finding,) = check(replace(album, split="all", masks="none"))
    assert finding.severity == "warning" and finding.where.endswith("labels.csv, row 3")
    assert finding.what.endswith("labels.csv, row 2, with other tags")
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,cat\nc.png,dog\n")
    assert check(album)[0].what.endswith("with the same tags")
    assert len(open_images(album)) == 3, "a warning does not stop anyone"


def test_classes_with_hardly_a_photo(album: DataConfig, picture: Write) -> None:
    root = Path(album.root)
    shutil.rmtree(root / "images")
    for number in range(100):
        picture(root / f"x{number}.png", size=(3, 2), seed=number)
    rows = "".join(f"x{n}.png,{'owl' if n < 4 else 'cat' if n < 50 else 'dog'}\n" for n in range(100))
    (root / "classes.txt").write_text("cat\ndog\nowl\n")
    (root / "labels.csv").write_text(f"image,labels\n{rows}")
    (finding,) = check(album)
    assert finding.what == "of 100 images 4 are tagged 'owl': too few to learn from" and finding.severity == "warning"


def test_inspection_tells_what_there_is(album: DataConfig) -> None:
    found = inspect(album)
    assert found.images is not None and found.pixels == 96 and found.masks_sha256 == ""
    assert found.labels_sha256 == label_digest(open_images(album))
    scenes = inspect(DataConfig(cooccur=CooccurConfig(images=3, size=64)))
    assert scenes.findings == [] and scenes.pixels == 4096 and len(scenes.labels_sha256) == 64
    assert inspect(replace(album, root="gone")).images is None


def test_cost_of_frozen_features_is_what_the_cache_takes() -> None:
    host = HostConfig(backbone="test_efficientnet", weights="none", side=8, side_levels=("blocks.2", "blocks.4"))
    config = RunConfig(host=host, views=ViewsConfig(size=64))
    images = tagged(np.ones((10, 3), bool))
    cost = estimate_cost(config, images, 5000)
    assert cost.cache is not None and cost.cache % 40 == 0 and cost.weights > 0
    assert cost.maps == 10 * 3 * 12_000 + 10 * 1_000
    assert "features" in cost_lines(cost, config)[0]
    small = estimate_cost(replace(config, cache_gigabytes=1e-6), images, 5000)
    assert small.cache is None and "more than cache_gigabytes = 1e-06" in small.cache_note
    crops = replace(config, views=ViewsConfig(kind="crop", size=64))
    assert estimate_cost(crops, images, 5000).cache is None
    unknown = estimate_cost(replace(config, host=replace(host, backbone="resnit")), images, 5000)
    assert unknown.cache is None and "resnit" in unknown.cache_note
    assert [gigabytes(n) for n in (12, 1500, 2.5e6, 7e9)] == ["12 bytes", "1.5 kB", "2.5 MB", "7.0 GB"]


@pytest.mark.parametrize("kind", ["cam", "seam", "mctformer"])
@pytest.mark.parametrize("space", ["levels", "trained"])
def test_cost_of_the_pools_is_what_their_candidates_take(kind: str, space: str) -> None:
    host = HostConfig(kind=kind, backbone="test_efficientnet", weights="none", side=8 if kind == "cam" else 0)
    if kind == "mctformer":
        host = replace(host, backbone="test_vit", freeze="none")
    config = RunConfig(host=host, views=ViewsConfig(size=64), fpr=FPRConfig(feature_space=space))  # type: ignore[arg-type]
    network = build_host(host, 3).eval()
    features = network.trained_part(network.frozen_part(torch.zeros(1, 3, 96, 96)), level_features=space == "levels").features
    candidates = config.fpr.positive_capacity + config.fpr.negatives * config.fpr.refill
    assert estimate_cost(config, tagged(np.ones((10, 3), bool)), 5000).pools == 4 * 3 * candidates * features.shape[1] > 0


@pytest.mark.parametrize("kind", ["voc", "coco", "folder", "classes", "huggingface", "shards"])
def test_the_layout_of_a_folder(tmp_path: Path, picture: Write, kind: str) -> None:
    root = tmp_path / "data"
    if kind == "voc":
        root = write_voc(root)
    elif kind == "coco":
        write_coco(root)
    elif kind == "classes":
        for name in ("train/boat/a.jpg", "train/cow/b.jpg"):
            picture(root / name)
    else:
        root.mkdir()
        name = {"folder": "labels.tsv", "huggingface": "dataset_dict.json", "shards": "train.tar"}[kind]
        (root / name).touch()
    assert layout_of(root) == kind
    picture(root / "images" / "a.jpg")
    assert layout_of(root) == kind, "one folder of pictures may be anything"
