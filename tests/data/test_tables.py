"""TSV and Parquet tables, and a folder for each class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import check
from tag2mask.data.masks import open_masks
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.data.relabel import Change, label_file, relabelled
from tag2mask.errors import InputError
from tests.data.layouts import class_mask, draw

Write = Callable[..., Path]


def parquet(album: DataConfig, **columns: Any) -> DataConfig:
    root = Path(album.root)
    (root / "labels.csv").unlink(missing_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "labels.parquet")
    return album


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_images(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tabs_between_the_cells(album: DataConfig) -> None:
    root = Path(album.root)
    (root / "labels.csv").rename(root / "labels.tsv")
    assert "one column" in message(album), "commas"
    text = (root / "labels.tsv").read_text().replace(",", "\t")
    (root / "labels.tsv").write_text(text)
    images = open_images(album)
    assert images.ids == ("a", "b", "c") and images.labels.tolist() == [[True, False], [True, True], [False, False]]
    assert "a.jpg,train,dog\n" in relabelled(album, [Change("a", "cat", False), Change("a", "dog", True)])
    (root / "labels.csv").write_text(text)
    assert "there are labels.csv and labels.tsv; name one of them in data.labels" in message(album)
    assert len(open_images(replace(album, labels="labels.tsv"))) == 3


@pytest.mark.parametrize("tags", [["cat", "dog;cat", None], [["cat"], ["dog", "cat"], []]])
def test_parquet_with_texts_or_lists(album: DataConfig, tags: list[Any]) -> None:
    images = open_images(parquet(album, image=["a.jpg", "b.jpg", "c.png"], Tags=tags, note=[1, 2, 3]))
    assert images.ids == ("a", "b", "c") and images.labels.tolist() == [[True, False], [True, True], [False, False]]
    text = relabelled(album, [Change("c", "dog", True)])
    assert text == "image,Tags\na.jpg,cat\nb.jpg,dog;cat\nc.png,dog\n"


def test_splits_in_parquet(album: DataConfig) -> None:
    config = parquet(album, image=["a.jpg", "b.jpg"], labels=["cat", "dog"], split=["train", "val"])
    assert open_images(replace(config, split="val")).ids == ("b",)
    assert "no row has the split 'test'; set data.split to one that there is (train, val)" in message(replace(config, split="test"))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"photo": ["a.jpg"], "labels": ["cat"]}, "labels.parquet, the columns: the column image is missing"),
        ({"image": ["a.jpg"]}, "the column labels (or tags) is missing"),
        ({"image": [None, "a.jpg"], "labels": ["cat", "dog"]}, "labels.parquet, row 1: the cell of column image is empty"),
        ({"image": ["a.jpg", "z.jpg"], "labels": ["cat", "dog"]}, "labels.parquet, row 2: there is no image file"),
        ({"image": ["a.jpg"], "labels": ["cow"]}, "labels.parquet, row 1: unknown class 'cow'"),
        ({"image": ["a.jpg"], "labels": [["cat;dog"]]}, "row 1: column labels holds 'cat;dog' in a list"),
        ({"image": [3], "labels": ["cat"]}, "row 1: column image holds 3; write a text"),
        ({"image": [], "labels": []}, "labels.parquet: the table has no rows"),
    ],
)  # fmt: skip
def test_faults_of_parquet(album: DataConfig, columns: dict[str, Any], expected: str) -> None:
    assert expected in message(parquet(album, **columns))


def test_no_parquet(album: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(album, labels="mine.parquet")
    assert "mine.parquet: there is no such file" in message(config)
    (Path(album.root) / "mine.parquet").write_bytes(b"image,labels\n")
    assert "mine.parquet: this is not a Parquet file" in message(config)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'tag2mask[parquet]'" in message(config)


cells = st.text(st.characters(codec="utf-8", exclude_characters=";\0", exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda t: t.strip() == t)


@given(tags=st.lists(st.lists(cells, max_size=3), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_csv_tsv_and_parquet_say_the_same(tmp_path_factory: pytest.TempPathFactory, tags: list[list[str]]) -> None:
    import csv

    from tag2mask.data.folder import read_folder
    from tag2mask.data.rows import Row

    root = tmp_path_factory.mktemp("tables")
    rows = [{"image": f"{n}.jpg", "labels": ";".join(names)} for n, names in enumerate(tags)]
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        with (root / f"t{suffix}").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", "labels"], delimiter=mark)
            writer.writeheader()
            writer.writerows(rows)
    columns = {"image": [row["image"] for row in rows], "labels": pyarrow.array(tags, pyarrow.list_(pyarrow.string()))}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "t.parquet")
    found = []
    for suffix in (".csv", ".tsv", ".parquet"):
        source = read_folder(DataConfig(kind="folder", root=str(root), labels=f"t{suffix}"))
        found.append((source.names, [(entry.id, entry.names) for entry in source.entries if isinstance(entry, Row)]))
    assert found[0] == found[1] == found[2]


# A folder for each class


@pytest.fixture
def shelves(tmp_path: Path, picture: Write) -> DataConfig:
    root = tmp_path / "shelves"
    for seed, name in enumerate(("boat/a.jpg", "boat/b.JPG", "cow/c.png", "cow/old/d.png", "background/e.jpg")):
        picture(root / name, seed=seed)
    (root / "person").mkdir()
    (root / "person" / "a.jpg").write_bytes((root / "boat" / "a.jpg").read_bytes())
    (root / "boat" / "Thumbs.db").touch()
    return DataConfig(kind="classes", root=str(root))


def test_folders_are_tags_and_a_picture_in_two_has_both(shelves: DataConfig) -> None:
    images = open_images(shelves)
    assert images.classes.names == ("boat", "cow", "person")
    assert {i: images.label_names(n) for n, i in enumerate(images.ids)} == {
        "boat/a": ("boat", "person"), "boat/b": ("boat",), "cow/c": ("cow",), "cow/old/d": ("cow",), "background/e": (),
    }  # fmt: skip
    assert [finding for finding in check(shelves) if "tagged" not in finding.what] == []


def test_one_name_with_other_pictures_is_another_photo(shelves: DataConfig, picture: Write) -> None:
    picture(Path(shelves.root) / "person" / "b.JPG", seed=50)
    images = open_images(shelves)
    assert images.label_names(images.ids.index("boat/b")) == ("boat",)
    assert images.label_names(images.ids.index("person/b")) == ("person",)
    (finding,) = [finding for finding in check(shelves) if "different pictures" in finding.what]
    assert finding.severity == "warning" and finding.what.startswith("1 file names occur")


def test_a_dangling_link_of_the_name_of_a_picture_is_one_finding(shelves: DataConfig, tmp_path: Path) -> None:
    (Path(shelves.root) / "cow" / "a.jpg").symlink_to(Path(shelves.root) / "gone.jpg")
    (finding,) = [finding for finding in check(shelves) if finding.severity == "error"]
    assert "cow/a.jpg" in finding.where and "there is no such file" in finding.what


def test_splits_have_the_classes_of_all(shelves: DataConfig, picture: Write) -> None:
    root = Path(shelves.root)
    for split, name in (("train", "boat/a.jpg"), ("train", "cow/b.jpg"), ("val", "yak/c.jpg"), ("val", "boat/d.jpg")):
        picture(root.parent / "halves" / split / name, seed=hash(name) % 100)
    halves = replace(shelves, root=str(root.parent / "halves"))
    for split, ids in (("train", ("boat/a", "cow/b")), ("val", ("yak/c", "boat/d"))):
        images = open_images(replace(halves, split=split))
        assert images.classes.names == ("boat", "cow", "yak") and set(images.ids) == set(ids)
    assert "set data.split to train or val" in message(replace(halves, split="all")), "`train` and `val` are no classes"
    assert "set data.split to one of train, val" in message(replace(halves, split="test"))
    assert "make it, with a folder for each class" in message(replace(shelves, split="val"))
    (root / "classes.txt").write_text("person\ncow\nboat\nyak\n")
    assert open_images(shelves).classes.names == ("person", "cow", "boat", "yak")


def test_masks_beside_the_folders(shelves: DataConfig) -> None:
    images = open_images(shelves)
    assert open_masks(shelves, images) is None
    for image_id in images.ids:
        write_mask(Path(shelves.root) / "masks" / f"{image_id}.png", class_mask((12, 8), draw(0, ())[1], ()))
    with pytest.raises(InputError, match="classes.txt: the masks need this file"):
        open_masks(shelves, images)
    (Path(shelves.root) / "classes.txt").write_text("boat\ncow\nperson\n")
    masks = open_masks(shelves, open_images(shelves))
    assert masks is not None and masks.mask(0).shape == (8, 12)
    with pytest.raises(InputError, match="data.kind is 'classes', whose tags are in no table"):
        label_file(shelves)


def test_faults_of_folders(shelves: DataConfig, picture: Write, tmp_path: Path) -> None:
    root = Path(shelves.root)
    picture(root / "loose.jpg")
    assert "loose.jpg: the picture lies in no folder of a class; move it into one, or into `background`" in message(shelves)
    (root / "loose.jpg").unlink()
    (root / "cow" / "e.jpg").write_bytes((root / "background" / "e.jpg").read_bytes())
    assert "the picture lies in 'background' and in 'cow'; keep one of the two" in message(shelves)
    (root / "cow" / "e.jpg").write_bytes(b"")
    assert "cow/e.jpg: the file is empty" in message(shelves)
    (root / "cow" / "e.jpg").unlink()
    (root / "cow" / "notes.txt").write_text("moo")
    assert any(f.where.endswith("notes.txt") and f.severity == "warning" for f in check(shelves))
    (root / "classes.txt").write_text("boat\ncow\n")
    assert "unknown class 'person'" in message(shelves)
    (tmp_path / "empty").mkdir()
    assert "there is no folder of a class" in message(replace(shelves, root=str(tmp_path / "empty")))
    (tmp_path / "empty" / "cow").mkdir()
    assert "hold no picture" in message(replace(shelves, root=str(tmp_path / "empty")))
    assert "there is no such folder" in message(replace(shelves, root=str(tmp_path / "gone")))
