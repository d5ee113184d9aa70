"""`tag2mask check`: what a person would not see in a table of tags."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.conftest import WriteFolder


def told(capsys: pytest.CaptureFixture[str], root: Path, *options: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["check", str(root), "--data.masks", "none", *options]) == code
    return capsys.readouterr().out


def test_check_sees_a_name_with_a_slip(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    (root / "classes.txt").unlink()
    table = (root / "labels.csv").read_text()
    for slip in ("kitte", "kiet"):
        (root / "labels.csv").write_text(table.replace("kite", slip, 1))
        shown = told(capsys, root)
        assert "warning: " in shown and f"1 of 16 images is tagged {slip!r}, and" in shown and shown.endswith("\n0 errors, 1 warning\n")
    assert "here 2 methods" in shown, "the cost is that of `tag2mask run`"
    (root / "labels.csv").unlink()
    assert main(["check", "--data.kind", "folder", "--data.root", str(root)]) == 1
    assert "columns called image and labels" in capsys.readouterr().out


def test_names_of_classes_joined_by_a_comma_are_an_error(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder()
    (root / "classes.txt").unlink()
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace("kite;leaf", '"kite, leaf"', 1))
    shown = told(capsys, root, code=1)
    assert "error: " in shown and "unknown class 'kite, leaf'; several names are joined by `;`" in shown and ", row " in shown
    assert "16 images, 3 classes" in shown and shown.endswith("\n1 error, 0 warnings\n")
    assert main(["run", str(root), "--out", str(tmp_path / "run")]) == 2
    assert "unknown class 'kite, leaf'" in capsys.readouterr().err and not (tmp_path / "run").exists()
    (root / "labels.csv").write_text(table.replace("kite;leaf", '"kite, grass"', 1))
    assert "warning: " in told(capsys, root), "which may be a name"


def test_splits_are_counted_and_odd_ones_told(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    table = (root / "labels.csv").read_text()
    shown = told(capsys, root)
    assert "rows by their split: train: 12, val: 4\n" in shown and "0 warnings" in shown
    (root / "labels.csv").write_text(table.replace("train", "trian", 2).replace("val", "fold", 1))
    for options in ([], ["--data.split", "train"]):
        shown = told(capsys, root, *options)
        assert "rows by their split: trian: 2, train: 10, fold: 1, val: 3\n" in shown and "2 warnings" in shown
        assert "2 rows have the split 'trian', which a run on 'train' does not read; did you mean 'train'\n" in shown
        assert "1 row has the split 'fold', which a run on 'train' does not read; it is read with --data.split fold\n" in shown
    assert "the split 'fold'" not in told(capsys, root, "--data.split", "fold")
    (root / "labels.csv").write_text(table.replace("train", "val"))
    shown = told(capsys, root)
    assert "no row has the split 'train', which `tag2mask run` trains on" in shown and "(val)" in shown
    rows = [line.split(",") for line in table.splitlines()]
    (root / "labels.csv").write_text("".join(f"{image},{labels}\n" for image, _, labels in rows))
    shown = told(capsys, root)
    assert "by their split" not in shown and "the split" not in shown and "0 warnings" in shown


def test_photos_that_are_not_in_the_table(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    (root / "other").mkdir()
    for name in ("p99.jpg", "other/p98.JPG", ".hidden.jpg", "notes.txt"):
        shutil.copy(root / "images" / "p00.jpg", root / name)
    (root / "masks").rename(root / "truth")
    (root / "masks").mkdir()
    shutil.copy(root / "images" / "p00.jpg", root / "masks")
    capsys.readouterr()
    assert main(["check", str(root), "--data.masks", "truth/"]) == 0
    shown = capsys.readouterr().out
    todo = "add rows; a row without tags makes a photo count as one that shows none of the classes"
    assert f"warning: {root}: 2 photos (p99.jpg, ...) are not in labels.csv and will not be used; {todo}\n" in shown
    (root / "p99.jpg").unlink()
    shutil.rmtree(root / "truth")
    assert f"warning: {root}: 1 photo (other/p98.JPG) is not in labels.csv and will not be used; " in told(capsys, root)
    shutil.rmtree(root / "other")
    for options in ([], ["--data.split", "val"]):
        assert "not in labels.csv" not in told(capsys, root, *options)


def test_masks_are_spoken_of_where_there_are_some(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    for options, line in ([[], True], [["--data.masks", "none"], False]):
        capsys.readouterr()
        assert main(["check", str(root), *options]) == 0
        captured = capsys.readouterr()
        assert ("masks sha256 " in captured.out) == line and "photos: 16/16" in captured.err
    (root / "masks" / "p00.png").unlink()
    assert main(["check", str(root)]) == 1
    assert "masks sha256 - (not all are fit)" in capsys.readouterr().out
