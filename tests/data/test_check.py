from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data import open_images
from tag2mask.data.check import Finding, check
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.errors import InputError


def sizes_of(config: DataConfig) -> dict[str, tuple[int, int]]:
    images = open_images(config)
    return {image_id: images.image(index).size[::-1] for index, image_id in enumerate(images.ids)}


@pytest.fixture
def masked(album: DataConfig) -> DataConfig:
    for image_id, size_hw in sizes_of(replace(album, split="all")).items():
        write_mask(Path(album.root) / "masks" / f"{image_id}.png", np.ones(size_hw, np.uint8))
    return album


def test_a_sound_set_has_no_findings(masked: DataConfig, devkit: DataConfig) -> None:
    assert check(masked) == []
    assert check(DataConfig(cooccur=CooccurConfig(images=2))) == []
    assert check(replace(devkit, classes=("dog", "train"))) == []


def test_classes_never_or_always_present_are_warnings(album: DataConfig) -> None:
    root = Path(album.root)
    (root / "classes.txt").write_text("cat\ndog\nowl\n")
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,cat;dog\n")
    for name in ("c.png", "trip/d.jpg"):
        (root / "images" / name).unlink()
    found = check(album)
    assert [finding.severity for finding in found] == ["warning", "warning"]
    assert "every image of the split is tagged 'cat'" in found[0].what
    assert "no image of the split is tagged 'owl'" in found[1].what
    assert all(finding.where == str(root / "labels.csv") for finding in found)
    assert len(open_images(album)) == 2  # a warning does not stop anyone


def test_names_that_are_probably_slips_are_warnings(album: DataConfig) -> None:
    root = Path(album.root)
    (root / "classes.txt").unlink()
    (root / "labels.csv").write_text('image,labels\na.jpg,cat\nb.jpg,Cat\nc.png,"cat,dog"\n')
    found = [str(finding) for finding in check(album)]
    assert any("'Cat' and 'cat' differ by capitals alone" in text for text in found)
    assert any("one class is called 'cat,dog'; join several tags by `;`" in text for text in found)


def test_every_finding_at_once_in_order_of_file_and_row(
    masked: DataConfig, picture: Callable[..., Path]
) -> None:
    root = Path(masked.root)
    (root / "superclasses.yaml").write_text("animal: [cat]\n")
    (root / "labels.csv").write_text(
        "image,labels\n"
        "a.jpg,cat\n"  # 2: its mask has another size
        "b.jpg,dgo\n"  # 3: unknown class
        "broken.jpg,cat\n"  # 4: sound header and end, damaged between
        "../out.jpg,cat\n"  # 5
        "gone.jpg,cat;bird\n"  # 6: two findings
        "c.png,dog,cat\n"  # 7: ragged
        "a.jpg,dog\n"  # 8: twice
        "zero.jpg,dog\n"  # 9
        "c.png,dog\n"  # 10: its mask is RGB
        "trip/d.jpg,dog\n"  # 11: its mask has a value too many
    )
    broken = picture(root / "images" / "broken.png", size=(40, 40))
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / "images" / "broken.jpg").write_bytes(content)
    (root / "images" / "zero.jpg").touch()
    broken.unlink()
    write_mask(root / "masks" / "a.png", np.zeros((12, 8), np.uint8))
    picture(root / "masks" / "c.png")
    write_mask(root / "masks" / "trip" / "d.png", np.full((8, 12), 7, np.uint8))

    found = check(masked)
    assert all(isinstance(finding, Finding) and finding.todo for finding in found)
    expected = [
        ("superclasses.yaml", "class 'dog' has no super-class"),
        ("row 3", "unknown class 'dgo'"),
        ("row 4", "damaged"),
        ("row 5", "points outside"),
        ("row 6", "no image file"),
        ("row 6", "unknown class 'bird'"),
        ("row 7", "3 cells"),
        ("row 8", "already in"),
        ("row 9", "empty (0 bytes)"),
        ("a.png", "the mask is 8x12 (width x height), the upright image 12x8"),
        ("c.png", "colour or deep picture (mode RGB)"),
        ("d.png", "values 7"),
    ]
    assert len(found) == len(expected)
    for finding, (where, what) in zip(found, expected, strict=True):
        assert finding.severity == "error"
        assert where in finding.where and what in finding.what
    with pytest.raises(InputError, match="class 'dog' has no super-class.* And 7 more: run `tag2mask check"):
        open_images(masked)


def test_findings_of_one_kind_are_complete(album: DataConfig) -> None:
    rows = "".join(f"gone{number}.jpg,cat\n" for number in range(300))
    (Path(album.root) / "labels.csv").write_text(f"image,labels\n{rows}")
    errors = [finding for finding in check(album) if finding.severity == "error"]
    assert [finding.where.rpartition(" ")[2] for finding in errors] == [str(row) for row in range(2, 302)]


def test_sizes_are_those_of_the_upright_picture(album: DataConfig, picture: Callable[..., Path]) -> None:
    root = Path(album.root)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(root / "images" / "a.jpg", size=(12, 8), exif=exif)
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog\n")
    for name in ("c.png", "trip/d.jpg"):
        (root / "images" / name).unlink()
    write_mask(root / "masks" / "b.png", np.ones((8, 12), np.uint8))
    write_mask(root / "masks" / "a.png", np.ones((12, 8), np.uint8))
    assert check(album) == []
    write_mask(root / "masks" / "a.png", np.ones((8, 12), np.uint8))
    (finding,) = check(album)
    assert finding.where == str(root / "masks" / "a.png")
    assert "rotate the mask" in finding.todo


def test_faults_of_masks_do_not_hide_those_of_contexts(masked: DataConfig) -> None:
    root = Path(masked.root)
    (root / "masks" / "a.png").unlink()
    (root / "masks_stuff").mkdir()
    found = check(masked)
    assert [Path(finding.where).name for finding in found] == ["a.png", "classes_stuff.txt"]
    (root / "classes_stuff.txt").write_text("grass\n")
    write_mask(root / "masks_stuff" / "a.png", np.full((8, 12), 2, np.uint8))
    write_mask(root / "masks_stuff" / "b.png", np.ones((8, 12), np.uint8))
    found = check(masked)
    assert [finding.what for finding in found] == [
        "there is no mask for this image",
        "the mask has the values 2; expected 0 to 1, or 255 for pixels to ignore",
        "there is no mask for this image",
    ]
    assert Path(found[2].where) == root / "masks_stuff" / "c.png"


def test_a_bad_list_of_classes_does_not_hide_the_rows(masked: DataConfig) -> None:
    root = Path(masked.root)
    (root / "classes.txt").write_text("cat\ncat\n")
    (root / "images" / "b.jpg").unlink()
    found = check(masked)
    assert [(Path(finding.where.split(",")[0]).name, finding.severity) for finding in found] == [
        ("classes.txt", "error"),
        ("labels.csv", "error"),
    ]


@pytest.mark.parametrize("kind", ["folder", "voc"])
def test_a_set_that_is_not_there_is_one_finding(tmp_path: Path, kind: str) -> None:
    for root in (tmp_path, tmp_path / "gone"):
        (finding,) = check(DataConfig(kind=kind, root=str(root)))  # type: ignore[arg-type]
        assert finding.severity == "error"
        assert finding.where.startswith(str(root))


def test_findings_of_voc(devkit: DataConfig) -> None:
    root = Path(devkit.root)
    (root / "Annotations" / "2007_000001.xml").write_text("<annotation>")
    (root / "JPEGImages" / "2007_000002.jpg").write_bytes(b"")
    (root / "SegmentationClass").mkdir()
    found = [
        finding for finding in check(replace(devkit, classes=("dog", "train"))) if finding.severity == "error"
    ]
    assert [finding.what.partition(" (")[0] for finding in found] == [
        "this is not XML",
        "the file is empty",
        "there is no mask for this image",
    ]


def test_opening_decodes_nothing_and_check_everything(
    album: DataConfig, picture: Callable[..., Path]
) -> None:
    path = picture(Path(album.root) / "images" / "c.png", size=(40, 40))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # header and end stay as they were
    path.write_bytes(content)
    images = open_images(album)
    (finding,) = [finding for finding in check(album) if finding.severity == "error"]
    assert finding.where == f"{Path(album.root) / 'labels.csv'}, row 4, {path}"
    with pytest.raises(InputError, match=r"c.png: the picture is damaged"):
        images.image(2)


@pytest.mark.parametrize("split", ["train", "val"])
def test_development_sets_are_sound(shared_data: Path, split: str) -> None:
    found = check(DataConfig(kind="folder", root=str(shared_data / "msrc"), split=split))
    assert [finding.where.rpartition(" ")[2] for finding in found] == (["341"] if split == "train" else [])
    assert all("the same file, byte for byte, as that of" in finding.what for finding in found)  # so it was published
    animals = ("cat", "cow", "dog", "horse", "person", "sheep")
    config = DataConfig(kind="voc", root=str(shared_data / "voc_animals"), split=split, classes=animals)
    assert check(config) == []
