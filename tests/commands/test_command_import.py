"""Maps that another program has made, from its files to masks, through the real command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import DataConfig
from tag2mask.data import open_images
from tests.conftest import WriteFolder


def write_dictionaries(root: Path, out: Path) -> dict[str, np.ndarray]:
    """Files as IRN writes them, for the training photos: a pickled dictionary of class numbers and maps."""
    images = open_images(DataConfig(kind="folder", root=str(root)))
    bright = {}
    for index, name in enumerate(images.ids):
        width, height = images.image(index).size
        keys = np.flatnonzero(images.labels[index])
        maps = np.zeros((len(keys), height, width), np.float32)
        for position in range(len(keys)):
            maps[position, :, position * width // 4 : (position + 1) * width // 4] = 1 + position
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(out / f"{name}.npy", {"keys": keys, "high_res": maps})  # type: ignore[arg-type]
        bright[name] = np.where(maps.any(axis=0), keys[maps.argmax(axis=0)] + 1, 0) if len(keys) else maps.sum(axis=0)
    return bright


def test_imported_maps_become_masks(write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = write_folder(), tmp_path / "run"
    bright = write_dictionaries(root, tmp_path / "maps")
    data = ["--data.kind", "folder", "--data.root", str(root)]
    assert main(["import", str(tmp_path / "maps"), "--out", str(run), *data, "--quiet"]) == 0
    assert f"maps of {len(bright)} images" in capsys.readouterr().out
    assert main(["refine", str(run), "--with", "seed", "--methods", "imported", "--quiet"]) == 0
    for name, expected in bright.items():
        mask = np.asarray(Image.open(run / "seed0/imported/masks/train" / f"{name}.png"))
        assert (mask == expected).mean() > 0.97, name  # maps are interpolated at their borders


def test_a_missing_map_is_told_before_anything_is_written(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(), tmp_path / "run"
    write_dictionaries(root, tmp_path / "maps")
    (tmp_path / "maps" / "p03.npy").unlink()
    data = ["--data.kind", "folder", "--data.root", str(root)]
    assert main(["import", str(tmp_path / "maps"), "--out", str(run), *data, "--quiet"]) == 2
    assert "p03.npy" in capsys.readouterr().err
    assert not list(run.rglob("*.npz"))


def test_a_folder_that_holds_no_maps_is_told_in_one_sentence(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(), tmp_path / "run"
    (tmp_path / "empty").mkdir()
    expected = "; expected the maps that another program made, one <id>.npy or <id>.npz for each photo of the data.\n"
    cases = {root / "images": "holds photos (p", tmp_path / "empty": "holds no maps", tmp_path / "gone": "there is no folder"}
    for folder, what in cases.items():
        assert main(["import", str(folder), "--out", str(run), "--data.kind", "folder", "--data.root", str(root), "--quiet"]) == 2
        text = capsys.readouterr().err
        assert what in text and str(folder) in text and text.endswith(expected) and text.count("\n") == 1
    assert not list(run.rglob("*.npz"))


def test_the_help_names_the_option_that_each_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    helps = {}
    for name in ("import", "segment", "predict", "export"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        helps[name] = " ".join(capsys.readouterr().out.split())
    assert "take --methods imported, predict and export --method imported." in helps["import"]
    assert "--methods METHODS" in helps["segment"]
    assert all("--method METHOD" in helps[name] and "--methods" not in helps[name] for name in ("predict", "export"))


def test_a_run_on_other_data_is_refused(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, run = write_folder("a"), write_folder("b"), tmp_path / "run"
    write_dictionaries(first, tmp_path / "maps")
    assert main(["import", str(tmp_path / "maps"), "--out", str(run), "--data.kind", "folder", "--data.root", str(first), "--quiet"]) == 0
    assert main(["import", str(tmp_path / "maps"), "--out", str(run), "--data.kind", "folder", "--data.root", str(second), "--quiet"]) == 2
    assert "other data" in capsys.readouterr().err
