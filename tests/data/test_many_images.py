"""What keeps a set of millions small: sizes without pixels, readers of one image, masks packed up to a bound."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.kept_planes import OVERHEAD, KeptPlanes
from tests.data.layouts import own_photos, write_coco, write_voc


def folder_of(root: Path) -> DataConfig:
    (root / "images").mkdir(parents=True)
    rows = ["image,labels"]
    for number, (name, tags, photo, _) in enumerate(own_photos(8)):
        exif = Image.Exif()
        exif[0x0112] = number + 1  # every way that a camera can be held
        photo.save(root / "images" / f"{name}.{'png' if number == 6 else 'jpg'}", exif=exif)
        rows.append(f"{name}.{'png' if number == 6 else 'jpg'},{';'.join(tags)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return DataConfig(kind="folder", root=str(root))


@pytest.fixture(params=["folder", "voc", "coco", "shards", "cooccur"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> TaggedImages:
    if request.param == "folder":
        return open_images(folder_of(tmp_path / "photos"))
    if request.param == "voc":
        return open_images(DataConfig(kind="voc", root=str(write_voc(tmp_path))))
    if request.param == "coco":
        return open_images(DataConfig(kind="coco", root=str(write_coco(tmp_path / "coco"))))
    if request.param == "cooccur":
        return open_images(DataConfig(cooccur=CooccurConfig(images=4, size=32)))
    import io
    import tarfile

    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name, tags, photo, _ in own_photos(6):
            file = io.BytesIO()
            photo.save(file, "PNG")
            for suffix, content in (("jpg", file.getvalue()), ("txt", ";".join(tags).encode())):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return open_images(DataConfig(kind="shards", root=str(tmp_path)))


def test_sizes_are_those_of_the_upright_pictures(images: TaggedImages) -> None:
    chosen = images.subset(range(len(images))[::-1])
    for index in range(len(images)):
        assert images.size_hw(index) == images.image(index).size[::-1]
        assert chosen.size_hw(index) == chosen.image(index).size[::-1]


def test_a_reader_of_one_image_reads_it_in_another_process_and_knows_no_other(images: TaggedImages) -> None:
    chosen = images.subset(range(len(images))[::-1])
    for index in range(len(images)):
        sent = pickle.dumps(chosen.alone(index))
        assert np.array_equal(pickle.loads(sent)(0), chosen.image(index))
        names = [name.rpartition("/")[2].encode() for name in chosen.ids]
        assert sum(name in sent for name in names) <= 1


def test_sizes_are_told_without_decoding(tmp_path: Path) -> None:
    images = open_images(folder_of(tmp_path / "photos"))
    path = tmp_path / "photos" / "images" / "p00.jpg"
    size = images.size_hw(0)
    path.write_bytes(path.read_bytes()[:700])
    assert images.size_hw(0) == size


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 8))
def test_kept_planes_come_back_and_stay_within_their_bound(seed: int, room: int) -> None:
    random = np.random.default_rng(seed)
    planes = [random.integers(0, 4, random.integers(1, 40, 2)).astype(np.uint8) for _ in range(8)]
    kept = KeptPlanes(room * (OVERHEAD + 900))
    for number, plane in enumerate(planes):
        kept.keep(number, plane)
    found = [kept.get(number) for number in range(8)]
    assert all(back is None or np.array_equal(back, plane) for back, plane in zip(found, planes, strict=True))
    assert sum(back is not None for back in found) >= min(room, 8)
    assert sum(len(packed) + OVERHEAD for _, packed in kept._packed.values()) <= room * (OVERHEAD + 900)
