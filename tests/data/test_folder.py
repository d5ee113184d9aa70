from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import check
from tag2mask.data.folder import open_folder
from tag2mask.errors import InputError

Form = Literal["NFC", "NFD"]


def table(album: DataConfig, content: str | bytes) -> DataConfig:
    path = Path(album.root) / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return album


def message(config: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        open_folder(config)
    return str(caught.value)


def test_rows_of_the_split_in_their_order(album: DataConfig) -> None:
    images = open_images(album)
    assert images.ids == ("a", "b", "c")
    assert images.classes.names == ("cat", "dog")
    assert images.classes.superclasses is None
    np.testing.assert_array_equal(images.labels, [[True, False], [True, True], [False, False]])
    expected = Image.open(Path(album.root) / "images" / "c.png").convert("RGB")
    np.testing.assert_array_equal(np.asarray(images.image(2)), np.asarray(expected))
    assert open_images(replace(album, split="val")).ids == ("trip/d",)
    assert open_images(replace(album, split="all")).ids == ("a", "b", "c", "trip/d")


def test_classes_without_a_list_are_all_names_of_all_splits(album: DataConfig) -> None:
    (Path(album.root) / "classes.txt").unlink()
    table(album, "image,split,tags\nimages/a.jpg,train,zebra\nimages/b.jpg,val,ant; zebra\n")
    for split in ("train", "val"):
        assert open_folder(replace(album, split=split)).classes.names == ("ant", "zebra")


def test_selection_of_classes_and_their_order(album: DataConfig) -> None:
    images = open_folder(replace(album, classes=("dog",)))
    assert images.classes.names == ("dog",)
    assert images.labels.tolist() == [[False], [True], [False]]
    assert open_folder(replace(album, classes=("dog", "cat"))).labels.tolist()[0] == [False, True]
    assert "data.classes: unknown class 'dgo'; did you mean 'dog'" in message(
        replace(album, classes=("dgo",))
    )
    assert "class 'dog' is named twice" in message(replace(album, classes=("dog", "dog")))


def test_superclasses(album: DataConfig) -> None:
    root = Path(album.root)
    (root / "superclasses.yaml").write_text("pet: [cat]\nguard: [dog]\n")
    assert open_folder(album).classes.superclasses == ("pet", "guard")
    (root / "other.yaml").write_text("animal: [dog]\n")
    other = replace(album, superclasses="other.yaml")
    assert open_folder(replace(other, classes=("dog",))).classes.superclasses == ("animal",)
    assert "other.yaml: class 'cat' has no super-class" in message(other)
    assert "gone.yaml: there is no such file" in message(replace(album, superclasses="gone.yaml"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfimage,labels\na.jpg,cat;dog\n", id="byte-order mark"),
        pytest.param(b"image,labels\r\na.jpg,cat;dog\r\n\r\n", id="CRLF"),
        pytest.param(b"image,labels\ra.jpg,cat;dog\r", id="CR"),
        pytest.param(b" Image , LABELS \n a.jpg , cat ; dog ;\n", id="white space and capitals"),
        pytest.param(b"id,tags,image\n7,dog;cat,images/a.jpg\n", id="tags, other columns and order"),
        pytest.param(b'image,labels\n"images/a.jpg","cat;dog"\n', id="quotes"),
        pytest.param(b"image,labels,,\nimages/a.jpg,cat;dog,,\n,,,\n", id="empty columns of a spreadsheet"),
        pytest.param(b"image,labels\nimages/a.jpg,cat;dog,,\n", id="empty cells beyond the header"),
        pytest.param(b"image,labels\nimages\\a.jpg,cat;dog\n", id="Windows path"),
        pytest.param(b"image,labels\n./images/./a.jpg,cat;dog;cat\n", id="dots and a tag twice"),
    ],
)
def test_the_same_table_as_programs_write_it(album: DataConfig, content: bytes) -> None:
    images = open_folder(table(album, content))
    assert images.ids == ("a",)
    assert images.label_names(0) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "labels.csv: the file is empty"),
        ("image,labels\n", "labels.csv: the table has no rows"),
        ("image,split\na.jpg,train\n", "row 1: the column labels (or tags) is missing (the columns are 'image'"),
        ("file,labels\na.jpg,cat\n", "row 1: the column image is missing"),
        ("image;labels\na.jpg;cat\n", "row 1: the columns are 'image;labels': one column; separate the columns by"),
        ("image,tags,labels\na.jpg,cat,cat\n", "row 1: there are both columns"),
        ("image,image,labels\na.jpg,a.jpg,cat\n", "row 1: there are 2 columns image"),
        ("image,labels\na.jpg\n", "row 2: the row has 1 cells, the header 2"),
        ("image,labels\na.jpg,cat,dog\n", "row 2: the row has 3 cells, the header 2; join several tags by `;`"),
        ("image,labels\n\n,cat\n", "row 3: the cell of column image is empty"),
        ("image,split,labels\na.jpg,,cat\n", "row 2: the cell of column split is empty"),
        ("image,split,labels\na.jpg,test,cat\n", "no row has the split 'train'; set data.split to one that there is (test)"),
        ('image,labels\na.jpg,cat\nb.jpg,"cat\nc.png,dog\n', "row 3: this is not CSV"),
        (b"image,labels\na.jpg,cat\nb\xe9.jpg,dog\n", "row 3: the text is not UTF-8"),
        ("image,labels\na.jpg,cta\n", "row 2: unknown class 'cta'; did you mean 'cat'"),
        ("image,labels\na.jpg,cat\na.jpg,dog\n", "row 3: the image id 'a' is already in"),
        ("image,labels\nimages/a.jpg,cat\na.jpg,dog\n", "row 3: the image id 'a' is already in"),
        ("image,labels\na.jpg,cat\na.png,dog\n", "row 3: the image id 'a' is already in"),
        ("image,split,labels\na.jpg,train,cat\na.jpg,val,cat\n", "row 3: the image id 'a' is already in"),
        ("image,labels\ngone.jpg,cat\n", "row 2: there is no image file"),
        ("image,labels\nA.JPG,cat\n", "row 2: there is no image file"),
        ("image,labels\n../a.jpg,cat\n", "row 2: '../a.jpg' points outside the data folder"),
        ("image,labels\nimages/../../a.jpg,cat\n", "row 2: 'images/../../a.jpg' points outside"),
        ("image,labels\n/etc/hosts,cat\n", "row 2: '/etc/hosts' points outside"),
        ("image,labels\nC:\\photos\\a.jpg,cat\n", "points outside"),
        ("image,labels\n..\\a.jpg,cat\n", "points outside"),
        ("image,labels\na\0.jpg,cat\n", "row 2: 'a\\x00.jpg' is no file name"),
        ("image,labels\n.,cat\n", "row 2: '.' is no file name"),
        ("image,labels\nimages,cat\n", "this is a folder, not a picture"),
    ],
)  # fmt: skip
def test_one_fault_one_sentence(album: DataConfig, content: str | bytes, expected: str) -> None:
    text = message(table(album, content))
    assert expected in text
    assert text.startswith(album.root) and text.count("; ") == 1 and text.endswith(".")
    assert "tag2mask check" not in text


def test_a_file_with_other_capitals_or_suffix_is_suggested(album: DataConfig) -> None:
    assert "did you mean 'a.jpg'" in message(table(album, "image,labels\nimages/A.JPG,cat\n"))
    assert "did you mean 'a.jpg'" in message(table(album, "image,labels\na.jpeg,cat\n"))


def test_the_first_error_in_file_order_and_the_number_of_the_others(album: DataConfig) -> None:
    text = message(table(album, "image,labels\na.jpg,cat\ngone.jpg,dgo\nb.jpg\na.jpg,cat\n"))
    assert "row 3: there is no image file" in text
    assert text.endswith(f"And 3 more: run `tag2mask check {album.root}` to see them all.")


def test_missing_and_empty_pictures_are_found_before_any_is_read(album: DataConfig) -> None:
    path = Path(album.root) / "images" / "b.jpg"
    path.write_bytes(b"")
    assert f"labels.csv, row 3, {path}: the file is empty (0 bytes)" in message(album)
    path.unlink()
    path.mkdir()
    assert f"labels.csv, row 3, {path}: this is a folder" in message(album)
    path.rmdir()
    path.symlink_to("nowhere.jpg")
    assert "there is no such file" in message(album)


def test_opening_a_set_opens_no_picture(album: DataConfig) -> None:
    """Damaged ones are told of when they are read, and by `tag2mask check`."""
    path = Path(album.root) / "images" / "b.jpg"
    sound = path.read_bytes()
    for content, expected in ((b"GIF", "not a picture"), (sound[:-20], "cut off")):
        path.write_bytes(content)
        images = open_folder(album)
        with pytest.raises(InputError, match=rf"b.jpg: .*{expected}"):
            images.image(images.ids.index("b"))
        (finding,) = (finding for finding in check(album) if finding.severity == "error")
        assert f"row 3, {path}" in finding.where and expected in finding.what
    os.mkfifo(Path(album.root) / "images" / "pipe.jpg")  # whoever opens it waits for ever
    (Path(album.root) / "labels.csv").write_text("image,split,labels\nimages/pipe.jpg,train,cat\n")
    with pytest.raises(InputError, match="the file is empty"):
        open_folder(album)


def test_rows_of_another_split_need_no_picture(album: DataConfig) -> None:
    (Path(album.root) / "images" / "trip" / "d.jpg").unlink()
    assert len(open_folder(album)) == 3
    assert "row 5: there is no image file" in message(replace(album, split="val"))


def test_a_picture_that_fails_later_is_named(album: DataConfig) -> None:
    images = open_folder(album)
    (Path(album.root) / "images" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a.jpg: there is no such file"):
        images.image(0)


def test_links_may_not_leave_the_root(
    album: DataConfig, tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., Path]
) -> None:
    outside = picture(tmp_path_factory.mktemp("outside") / "secret.jpg")
    images = Path(album.root) / "images"
    (images / "inner.jpg").symlink_to("a.jpg")
    assert open_folder(table(album, "image,labels\ninner.jpg,cat\n")).ids == ("inner",)
    (images / "outer.jpg").symlink_to(outside)
    assert "outer.jpg is a link that leaves the data folder" in message(
        table(album, "image,labels\nouter.jpg,cat\n")
    )
    (images / "way").symlink_to(outside.parent)
    assert "leaves the data folder" in message(table(album, "image,labels\nway/secret.jpg,cat\n"))


def test_a_root_that_is_a_link_is_no_way_out(
    album: DataConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("links") / "album"
    link.symlink_to(album.root)
    assert len(open_folder(replace(album, root=str(link)))) == 3


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_names_in_any_script_and_unicode_form(
    album: DataConfig, picture: Callable[..., Path], on_disk: Form, in_table: Form
) -> None:
    name, label = "Möwen am Südstrand/été 日本.jpg", "Möwe"
    root = Path(album.root)
    picture(root / "images" / unicodedata.normalize(on_disk, name))
    (root / "classes.txt").write_text(unicodedata.normalize(on_disk, f"cat\n{label}\n"), encoding="utf-8")
    table(album, unicodedata.normalize(in_table, f"image,labels\nimages/{name},{label}\n"))
    images = open_folder(album)
    assert images.ids == (unicodedata.normalize("NFC", "Möwen am Südstrand/été 日本"),)
    assert images.label_names(0) == ("Möwe",)
    assert images.image(0).size == (12, 8)


def test_two_unicode_forms_of_one_name_are_a_duplicate(
    album: DataConfig, picture: Callable[..., Path]
) -> None:
    for form in ("NFC", "NFD"):
        picture(Path(album.root) / "images" / unicodedata.normalize(form, "é.jpg"))
    rows = [unicodedata.normalize(form, "é.jpg,cat\n") for form in ("NFC", "NFD")]
    assert "row 3: the image id 'é' is already in" in message(table(album, f"image,labels\n{''.join(rows)}"))


def test_split_without_a_column(album: DataConfig) -> None:
    table(album, "image,labels\na.jpg,cat\n")
    assert len(open_folder(album)) == len(open_folder(replace(album, split="all"))) == 1
    assert "row 1: there is no column split to choose 'val' by" in message(replace(album, split="val"))


def test_other_table_and_missing_ones(album: DataConfig) -> None:
    (Path(album.root) / "mine.csv").write_text("image,labels\nb.jpg,dog\n")
    assert open_folder(replace(album, labels="mine.csv")).ids == ("b",)
    assert "gone.csv: there is no such file" in message(replace(album, labels="gone.csv"))
    gone = str(Path(album.root) / "gone")
    assert f"{gone}: there is no such folder; correct data.root" in message(replace(album, root=gone))


def test_without_any_tag_there_is_nothing_to_learn(album: DataConfig) -> None:
    (Path(album.root) / "classes.txt").unlink()
    assert "no image has a tag" in message(table(album, "image,labels\na.jpg,\nb.jpg,\n"))


@given(
    body=st.text('a.jpg/\\;,"\n\r\t\0 é~cat\ufeff', max_size=40), head=st.sampled_from(["image,labels\n", ""])
)
@settings(max_examples=150, deadline=None)
def test_any_table_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, head: str, body: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    Image.new("RGB", (2, 2)).save(root / "a.jpg")
    (root / "labels.csv").write_bytes((head + body).encode())
    try:
        images = open_folder(DataConfig(kind="folder", root=str(root)))
    except InputError as error:
        assert str(root) in str(error)
    else:
        assert images.ids == ("a",)


@pytest.mark.parametrize(("split", "count"), [("train", 295), ("val", 59)])
def test_msrc(shared_data: Path, split: str, count: int) -> None:
    images = open_images(DataConfig(kind="folder", root=str(shared_data / "msrc"), split=split))
    assert len(images) == count
    assert len(images.classes) == 14
    assert images.classes.superclasses is not None
    assert set(images.classes.superclasses) == {"animal", "vehicle", "person", "thing"}
    assert images.labels.any(axis=0).all()
    assert images.image(0).mode == "RGB"
