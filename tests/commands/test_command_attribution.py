from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tag2mask.atomic import Written
from tag2mask.cli import main
from tag2mask.maps.store import load_maps
from tag2mask.stages import localize as stage

FAST = ["--quiet", "--method", "advcam", "--maps.advcam.iterations", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], scenes: list[str]) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--out", str(run), *tiny, *scenes, "--methods", "halo,training_free,fpr"]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def maps_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_maps_lie_beside_those_of_cam_and_other_settings_make_them_anew(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = run / "seed0" / "fpr"
    assert main(["localize", str(run), "--quiet", "--methods", "fpr"]) == 0
    assert main(["localize", str(run), "--methods", "fpr", *FAST]) == 0
    cam, advcam = maps_in(home / "maps" / "train"), maps_in(home / "advcam" / "maps" / "train")
    assert str(home / "advcam" / "maps" / "train") in capsys.readouterr().out
    assert list(cam) == list(advcam) and len(cam) == 14 and cam != advcam
    assert len(list((home / "advcam" / "masks" / "train").glob("*.png"))) == 14
    for name in cam:
        plain = load_maps(home / "maps" / "train" / name)
        climbed = load_maps(home / "advcam" / "maps" / "train" / name)
        np.testing.assert_array_equal(plain.classes, climbed.classes)
        np.testing.assert_allclose(plain.peaks, climbed.peaks, rtol=1e-2, atol=1e-4)  # kept features are float16
        assert plain.maps.shape == climbed.maps.shape
    manifest = json.loads((home / "advcam" / "maps" / "train.json").read_text())
    assert manifest["settings"]["method"] == "advcam" and manifest["settings"]["advcam"]["iterations"] == 3
    stored = yaml.safe_load((run / "settings.yaml").read_text())["maps"]
    assert stored["method"] == "cam" and stored["advcam"]["iterations"] == 3, "how AdvCAM works is the run's now"

    assert main(["localize", str(run), "--methods", "fpr", "--quiet", "--method", "advcam"]) == 0
    assert maps_in(home / "advcam" / "maps" / "train") == advcam
    again = ["localize", str(run), "--methods", "fpr", "--method", "advcam", "--maps.advcam.scales", "0.5,1"]
    assert main(again) == 0
    assert "the settings have changed, so it is made anew" in capsys.readouterr().err
    assert maps_in(home / "advcam" / "maps" / "train") != advcam and maps_in(home / "maps" / "train") == cam


def test_figures_and_refined_masks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--quiet"]) == 0
    before = (run / "summary.json").read_bytes()
    assert main(["evaluate", str(run), *FAST]) == 0
    assert "of maps by advcam" in capsys.readouterr().out
    assert (run / "summary.json").read_bytes() == before
    plain, climbed = (json.loads((run / f"summary{s}.json").read_text()) for s in ("", ".advcam"))
    assert climbed["attribution"] == "advcam" and list(climbed["methods"]) == ["cam", "halo", "fpr"]
    for method, table in climbed["methods"].items():
        assert {p: set(f) for p, f in table.items()} == {p: set(f) for p, f in plain["methods"][method].items()}
    assert climbed["methods"]["fpr"] != plain["methods"]["fpr"]
    details = json.loads((run / "details.advcam.json").read_text())
    gain = details["differences"]["0"]["halo"]["matched"]
    assert {"difference", "low", "high"} <= set(gain), "with its interval"

    assert main(["evaluate", str(run), "--quiet", "--split", "val", "--methods", "fpr", "--method", "advcam"]) == 0
    assert "split val" in capsys.readouterr().out
    assert main(["refine", str(run), "--quiet", "--with", "crf", "--methods", "fpr/advcam"]) == 0
    assert len(list((run / "seed0/fpr/advcam/crf/masks/train").glob("*.png"))) == 14
    assert not (run / "seed0/fpr/crf").exists()


def test_what_was_cut_off_goes_on_to_the_same_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "whole")
    folder = Path("seed0") / "halo" / "advcam" / "maps" / "train"
    assert main(["localize", str(tmp_path / "whole"), "--methods", "halo", *FAST]) == 0
    save: Callable[..., Written] = stage.save_maps
    written: list[str] = []

    def cut(path: Path, *rest: Any) -> Written:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path.name)
        return save(path, *rest)

    monkeypatch.setattr(stage, "save_maps", cut)
    assert main(["localize", str(run), "--methods", "halo", *FAST]) == 130
    monkeypatch.setattr(stage, "save_maps", save)
    times = {path.name: path.stat().st_mtime_ns for path in (run / folder).glob("*.npz")}
    assert sorted(times) == sorted(written) and len(times) == 5
    assert main(["localize", str(run), "--methods", "halo", *FAST]) == 0
    assert {name: (run / folder / name).stat().st_mtime_ns for name in times} == times
    assert maps_in(run / folder) == maps_in(tmp_path / "whole" / folder)


def test_what_cannot_be_is_told_in_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["localize", str(run), "--method", "gradcan"]) == 2
    assert "maps.method is 'gradcan'; expected one of cam, advcam, gradcam, gradcam++" in last_line(capsys)
    assert main(["localize", str(run), "--method", "advcam", "--maps.advcam.iterations", "0"]) == 2
    assert "maps.advcam.iterations is 0; expected at least 1" in last_line(capsys)
    assert main(["evaluate", str(run), "--stages", "--method", "advcam"]) == 2
    assert "--methods fpr/advcam" in last_line(capsys)
    assert main(["refine", str(run), "--methods", "training_free/advcam"]) == 2
    assert "training_free are class activation maps alone" in last_line(capsys)
    assert main(["refine", str(run), "--methods", "fpr/layer"]) == 2
    assert "there is no attribution 'layer'; expected one of cam, advcam" in last_line(capsys)
    assert main(["localize", str(run), "--methods", "training_free", "--method", "advcam"]) == 2
    assert "none of training_free has maps by advcam" in last_line(capsys)
    assert main(["evaluate", str(run), "--methods", "training_free", "--method", "advcam"]) == 2
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)
    assert main(["evaluate", str(run), "--methods", "fpr", "--method", "layercam"]) == 2
    assert "needs torchcam, which is not installed; run `pip install 'tag2mask[attribution]'`" in last_line(capsys)
    assert not (run / "seed0" / "fpr" / "layercam").exists()


def test_methods_of_the_library(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchcam")
    assert main(["evaluate", str(run), "--quiet", "--methods", "fpr", "--method", "gradcam++"]) == 0
    assert "of maps by gradcam++" in capsys.readouterr().out
    assert len(maps_in(run / "seed0" / "fpr" / "gradcam++" / "maps" / "train")) == 14


@pytest.mark.parametrize("mistake", [["--methods", "fqr"], ["--methods", "training_free"]])
def test_a_mistake_leaves_the_settings_alone(run: Path, mistake: list[str]) -> None:
    """Other settings of AdvCAM would void its maps, which take hours."""
    before = (run / "settings.yaml").read_bytes()
    assert main(["localize", str(run), *FAST, *mistake]) == 2
    assert (run / "settings.yaml").read_bytes() == before


def test_pictures_of_the_report_follow_the_runs_settings(run: Path) -> None:
    """Where AdvCAM is the run's way to localize: made anew with other settings; training_free has none of it."""
    folder = run / "seed0" / "{}" / "gallery"
    pictures = {m: Path(str(folder).format(m)) for m in ("fpr", "training_free")}
    assert main(["report", str(run), "--quiet"]) == 0
    cam = {method: maps_in(path) for method, path in pictures.items()}
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["maps"]["method"] = "advcam"
    found = []
    for iterations in (2, 4):
        settings["maps"]["advcam"]["iterations"] = iterations
        (run / "settings.yaml").write_text(yaml.safe_dump(settings))
        assert main(["report", str(run), "--quiet"]) == 0
        found.append(maps_in(pictures["fpr"]))
        assert maps_in(pictures["training_free"]) == cam["training_free"]
    assert cam["fpr"] != found[0] != found[1]
