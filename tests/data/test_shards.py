"""Tar files in WebDataset's form, in a folder and by URL."""

from __future__ import annotations

import functools
import http.server
import io
import json
import pickle
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import check, inspect
from tag2mask.data.masks import open_masks
from tag2mask.data.readers import with_split
from tag2mask.errors import InputError
from tests.data.layouts import COLOURS, own_photos

Members = dict[str, bytes]


def encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form)
    return buffer.getvalue()


def write_tar(path: Path, members: Members, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def samples(start: int, stop: int) -> Members:
    """Photos in JPEG with tags in turn as JSON and as text, and masks; a note that belongs to no photo."""
    members: Members = {"README.txt": b"about"}
    for number, (name, tags, photo, mask) in enumerate(own_photos()[start:stop]):
        key = f"trip/{name}" if number == 1 else name
        members[f"{key}.jpg"] = encoded(photo, "JPEG")
        if number % 2:
            members[f"{key}.json"] = json.dumps({"labels": list(tags), "note": 3}).encode()
        else:
            members[f"{key}.txt"] = "\n".join(tags).encode()
        members[f"{key}.png"] = encoded(Image.fromarray(mask), "PNG")
    return members


@pytest.fixture
def shards(tmp_path: Path) -> DataConfig:
    root = tmp_path / "shards"
    for name, start, stop in (("train-000", 0, 5), ("train-001", 5, 8), ("val-000", 8, 12)):
        write_tar(root / f"{name}.tar", samples(start, stop))
    return DataConfig(kind="shards", root=str(root))


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tags(config: DataConfig) -> list[tuple[str, ...]]:
    images = open_images(config)
    return [images.label_names(index) for index in range(len(images))]


def expected(start: int, stop: int) -> list[tuple[str, ...]]:
    return [tuple(sorted(names)) for _, names, _, _ in own_photos()[start:stop]]


def test_photos_and_tags_of_a_split(shards: DataConfig) -> None:
    images = open_images(shards)
    assert images.ids == ("p00", "trip/p01", "p02", "p03", "p04", "p05", "trip/p06", "p07")
    assert images.classes.names == tuple(sorted(COLOURS))
    assert tags(shards) == expected(0, 8) and tags(with_split(shards, "val")) == expected(8, 12)
    assert len(open_images(replace(shards, split="all"))) == 12
    again = pickle.loads(pickle.dumps(images.subset([6])))
    width, height = own_photos()[6][2].size
    assert again.image(0).size == (width, height) and again.image(0).mode == "RGB"
    assert [finding for finding in check(replace(shards, masks="none")) if finding.severity == "error"] == []


@pytest.mark.parametrize("form", ["train/a.tar", "train_3.tar", "train.tar"])
def test_names_of_files(tmp_path: Path, form: str) -> None:
    write_tar(tmp_path / form, samples(0, 3))
    assert len(open_images(DataConfig(kind="shards", root=str(tmp_path)))) == 3


def test_masks_beside_the_photos(shards: DataConfig) -> None:
    with pytest.raises(InputError, match="classes.txt: the masks need this file"):
        open_masks(shards, open_images(shards))
    (Path(shards.root) / "classes.txt").write_text("boat\nperson\ntrain\n")
    images = open_images(shards)
    masks = open_masks(shards, images.subset([6, 0]))
    assert masks is not None
    np.testing.assert_array_equal(masks.mask(0), own_photos()[6][3])
    assert inspect(shards).masks_sha256
    assert open_masks(replace(shards, masks="none"), images) is None
    write_tar(Path(shards.root) / "train-002.tar", {"z.png": encoded(Image.new("RGB", (4, 4)), "PNG"), "z.txt": b""})
    with pytest.raises(InputError, match=r"train-002.tar/z.png: there is no mask for this photo, as for 1 of 9"):
        open_masks(shards, open_images(shards))
    assert open_images(shards).image(8).size == (4, 4), "a PNG without a JPEG beside it is the photo"


def test_a_list_of_classes_orders_them(shards: DataConfig) -> None:
    (Path(shards.root) / "classes.txt").write_text("train\nperson\nboat\nyak\n")
    assert open_images(shards).classes.names == ("train", "person", "boat", "yak")
    (Path(shards.root) / "classes.txt").write_text("train\nperson\n")
    assert "train-000.tar/p00.jpg: unknown class 'boat'" in message(shards)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'{"labels": "boat;cow"}', ("boat", "cow")),
        ("a.json", b'["cow", " boat "]', ("boat", "cow")),
        ("a.json", b'{"tags": []}', ()),
        ("a.txt", b" boat ;cow\r\ncow\n", ("boat", "cow")),
        ("a.txt", b"", ()),
        ("a.json", b"{", "a.json: this is not JSON"),
        ("a.json", b"[" * 100_000, "a.json: this is not JSON"),
        ("a.json", b'{"label": []}', "a.json: there is not one key of `labels` and `tags`"),
        ("a.json", b'{"labels": [3]}', "a.json: [3] is not a list of names"),
        ("a.txt", b"\xff", "a.txt: the text is not UTF-8"),
        ("a.cls", b"3", "t.tar/a: there is neither a.json nor a.txt for the photo"),
    ],
)  # fmt: skip
def test_forms_and_faults_of_tags(tmp_path: Path, name: str, content: bytes, expected: tuple[str, ...] | str) -> None:
    photo = encoded(Image.new("RGB", (4, 4)), "JPEG")
    write_tar(tmp_path / "t.tar", {"a.jpg": photo, name: content, "b.jpg": photo, "b.txt": b"boat;cow"})
    config = DataConfig(kind="shards", root=str(tmp_path), split="t")
    if isinstance(expected, str):
        assert expected in message(config)
    else:
        assert tags(config)[0] == expected


def test_photos_with_dots_in_their_names_are_not_lost_without_a_word(tmp_path: Path) -> None:
    photo = encoded(Image.new("RGB", (4, 4)), "JPEG")
    members = {"a.jpg": photo, "a.txt": b"boat", "b.jpg": photo, "b.thumb.jpg": photo, "b.txt": b"cow", "c.mask.png": b"", "c.txt": b""}
    write_tar(tmp_path / "train.tar", members)
    config = DataConfig(kind="shards", root=str(tmp_path))
    assert len(open_images(config)) == 2, "a picture beside a photo is nobody's business"
    write_tar(tmp_path / "train.tar", members | {"trip.2021.jpg": photo, "trip.2021.txt": b"cow"})
    assert "train.tar/trip.2021.jpg: this is not the photo of 'trip' by its name" in message(config)


def test_a_split_with_marks_of_patterns_in_its_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "part[1]-0.tar", samples(0, 3))
    assert len(open_images(DataConfig(kind="shards", root=str(tmp_path), split="part[1]"))) == 3


def test_faults_of_archives(shards: DataConfig, tmp_path: Path) -> None:
    root = Path(shards.root)
    assert "there are no tar files of the split 'test'; name files such as train-000.tar after their split" in message(replace(shards, split="test"))
    path = root / "train-001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "train-001.tar: the archive is cut off" in message(shards)
    path.write_bytes(b"")
    assert "train-001.tar: this is not a plain tar file" in message(shards)
    write_tar(path, samples(0, 2))
    assert "train-001.tar/p00.jpg: the image id 'p00' is already in" in message(shards)
    write_tar(path, samples(5, 8), "w:gz")
    assert "train-001.tar: this is not a plain tar file" in message(shards)
    packed = write_tar(tmp_path / "packed" / "train.tar.gz", samples(0, 2), "w:gz")
    assert f"{packed}: compressed tar files cannot be read at any place; unpack them" in message(replace(shards, root=str(packed.parent)))
    write_tar(tmp_path / "odd" / "train.tar", {"../x.jpg": b"1", "../x.txt": b"cow"})
    assert "'../x' points outside the data folder" in message(replace(shards, root=str(tmp_path / "odd")))
    write_tar(tmp_path / "none" / "train.tar", {"a.txt": b"cow"})
    assert "train.tar: the archives hold no photo" in message(replace(shards, root=str(tmp_path / "none")))
    assert "there is no such folder" in message(replace(shards, root=str(tmp_path / "gone")))


def test_a_damaged_photo_is_told_when_it_is_read(tmp_path: Path) -> None:
    photo = encoded(Image.new("RGB", (4, 4)), "JPEG")
    write_tar(tmp_path / "train.tar", {"a.jpg": photo[:30], "a.txt": b"cow", "b.jpg": b"", "b.txt": b"", "c.jpg": photo, "c.txt": b""})
    config = DataConfig(kind="shards", root=str(tmp_path))
    images = open_images(config)
    with pytest.raises(InputError, match=r"train.tar/a.jpg: "):
        images.image(0)
    assert [Path(f.where).name for f in check(config) if f.severity == "error"] == ["a.jpg", "b.jpg"]
    (tmp_path / "train.tar").unlink()
    with pytest.raises(InputError, match=r"train.tar: the file cannot be read"):
        images.image(2)


@pytest.fixture
def serve(shards: DataConfig) -> Iterator[Callable[[], str]]:
    """The folder of the shards at an address of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    if shutil.which("curl") is None:
        pytest.skip("webdataset fetches by curl, which is not here")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=shards.root))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield lambda: f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_shards_by_url_are_fetched_once(serve: Callable[[], str], shards: DataConfig, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = replace(shards, root=f"{serve()}/train-{{000..001}}.tar", shard_cache=str(cache))
    assert tags(config) == expected(0, 8)
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(before) == 2
    open_images(config).image(7)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    with pytest.raises(InputError, match=r"so there is none 'val'; write \{split\} in it"):
        with_split(config, "val")
    both = replace(config, root=f"{serve()}/{{split}}-000.tar")
    assert "the tags of one split may not have them all" in message(both)
    (cache / "classes.txt").write_text("boat\nperson\ntrain\n")
    assert tags(with_split(both, "val")) == expected(8, 12)
    (Path(shards.root) / "page-000.tar").write_text("<html>")
    for name in ("page", "gone"):
        assert f"{name}-000.tar: the file cannot be fetched" in message(with_split(both, name))
    assert not list(cache.glob("*temp*")) and not list(cache.glob("*gone*")) and not list(cache.glob("*page*"))


def test_faults_of_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(kind="shards", root="http://127.0.0.1:9/a-{0..3}.tar")
    assert "there is no place to keep its files; name a folder in data.shard_cache" in message(config)
    cached = replace(config, shard_cache=str(tmp_path))
    assert "is of a kind that is not fetched; use http, https, hf, gs" in message(replace(cached, root="ftp://x/a.tar"))
    assert "there is no such folder" in message(replace(cached, root="pipe:touch /tmp/never")), "nothing is run"
    assert "has an unbalanced brace" in message(replace(cached, root="http://127.0.0.1:9/a-{0..3.tar"))
    monkeypatch.setitem(sys.modules, "webdataset.cache", None)
    assert "pip install 'tag2mask[tar]'" in message(cached)
