from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.data.classes import (
    VOC_NAMES,
    VOC_SUPERCLASSES,
    Classes,
    palette,
    read_classes,
    read_superclasses,
)
from tag2mask.errors import InputError


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "names"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@given(st.lists(st.text("abcé ñ", min_size=1).map(str.strip).filter(bool), unique=True, max_size=6))
def test_index_finds_each_name_in_any_unicode_form(names: list[str]) -> None:
    classes = Classes(tuple(names))
    assert len(classes) == len(names)
    for position, name in enumerate(names):
        assert classes.index(name, "here") == position
        assert classes.index(f" {unicodedata.normalize('NFD', name)}\t", "here") == position


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Hores", "did you mean 'horse'"),
        ("HORSE", "did you mean 'horse'"),
        ("cat,horse", "several names are joined by `;`"),
        ("cat|horse", "several names are joined by `;`"),
        ("zebra crossing", "the classes are cat, horse"),
    ],
)
def test_unknown_class_names_the_place_and_advises(name: str, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        Classes(("cat", "horse")).index(name, "labels.csv, row 7")
    assert str(caught.value) == f"labels.csv, row 7: unknown class {name!r}; {advice}."


def test_superclass_ids_count_from_the_first() -> None:
    assert Classes(("cat", "car", "dog"), ("animal", "vehicle", "animal")).superclass_ids() == (0, 1, 0)
    assert Classes(("cat",)).superclass_ids() is None


def test_classes_refuse_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="repeat"):
        Classes(("caf\u00e9", "cafe\u0301"))
    with pytest.raises(ValueError, match="super-classes"):
        Classes(("cat", "dog"), ("animal",))


@pytest.mark.parametrize(
    "content", ["cat\ndog\n", "cat\r\ndog\r\n\r\n", b"\xef\xbb\xbf cat \ndog", "cat\rdog\r"]
)
def test_read_classes(tmp_path: Path, content: str | bytes) -> None:
    assert read_classes(written(tmp_path, content)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names: the file is empty"),
        (" \n\n", "names: the file is empty"),
        ("cat\n\ndog\n", "row 2: a blank line"),
        ("cat\ndog\ncat\n", "row 3: class 'cat' is already in row 1"),
        ("caf\u00e9\ncafe\u0301\n", "row 2: class 'caf\u00e9' is already in row 1"),
        ("Background\ncat\n", "row 1: background is no class"),
        ("cat;dog\n", "row 1: class name 'cat;dog' holds a `;`"),
        ("cat\nca\u0301n\n".encode() + b"\xe9cole\n", "row 3: the text is not UTF-8"),
    ],
)
def test_read_classes_names_the_row(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_classes(written(tmp_path, content))
    assert message in str(caught.value)


def test_missing_file_and_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.txt: there is no such file"):
        read_classes(tmp_path / "gone.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_classes(tmp_path)


def test_read_superclasses(tmp_path: Path) -> None:
    path = written(tmp_path, "animal: [dog, caf\u00e9]\nvehicle:\n  - car\n")
    assert read_superclasses(path, ("caf\u00e9", "car", "dog")) == ("animal", "vehicle", "animal")
    # of a selection: the other classes of the data may stand in the file
    assert read_superclasses(path, ("car",), known=("caf\u00e9", "car", "dog")) == ("vehicle",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("animal: [cat]", "class 'car' has no super-class"),
        (
            "animal: [cat, carr]\nvehicle: [car]",
            "super-class 'animal': unknown class 'carr'; did you mean 'car'",
        ),
        ("animal: [cat]\nvehicle: [car, cat]", "super-class 'vehicle': class 'cat' is already in 'animal'"),
        ("animal: [cat, no]\nvehicle: [car]", "False is not a text; put class names such as no"),
        ("animal: cat\nvehicle: [car]", "super-class 'animal': this is not a list"),
        ("- cat\n- car", "no super-classes found"),
        ("animal: [cat]\nvehicle: [car", "row 2: this is not YAML"),
        ("", "the file is empty"),
    ],
)
def test_read_superclasses_names_the_fault(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_superclasses(written(tmp_path, content), ("car", "cat"))
    assert message in str(caught.value)


def test_voc_names_and_superclasses_cover_each_other() -> None:
    assert len(VOC_NAMES) == 20
    assert VOC_NAMES[0] == "aeroplane" and VOC_NAMES[14] == "person" and VOC_NAMES[-1] == "tvmonitor"
    assert sorted(name for members in VOC_SUPERCLASSES.values() for name in members) == list(VOC_NAMES)


def test_palette_is_the_colour_map_of_voc() -> None:
    colours = palette(255)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for value, colour in known.items():
        assert tuple(colours[value]) == colour
    assert len({tuple(colour) for colour in colours}) == 256
    np.testing.assert_array_equal(palette(20), colours[:21])
