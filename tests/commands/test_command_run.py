"""`tag2mask run`, from tags to a segmenter in one command, and `tag2mask demo --full`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tag2mask.cli import main
from tag2mask.stages import demo
from tests.stages.photos import REFINE, SEGMENT, Killed, changed, contents, times, write_photos

RESULTS = ("weights.safetensors", ".png", ".npz", "metrics.jsonl")


@pytest.fixture
def options(tiny: list[str]) -> list[str]:
    return [*tiny, *REFINE, *SEGMENT]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def run(photos: Path, out: Path, *options: str) -> int:
    return main(["run", str(photos), "--out", str(out), *options])


def test_from_tags_to_a_segmenter_and_the_same_again_does_nothing_new(
    photos: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, home = tmp_path / "run", "seed0/fpr"
    capsys.readouterr()
    assert run(photos, out, *options) == 0
    shown = capsys.readouterr().out
    assert "| fpr | " in shown and f"Segmenter: {out / home / 'segmenter/irn'}" in shown
    assert f"Next: tag2mask predict {out} PHOTOS" in shown
    for path in ("segmenter/irn/weights.safetensors", "irn/weights.safetensors", "irn/masks/train/trip/p3.png", "maps/train/p0.npz"):
        assert (out / home / path).is_file()
    for name in ("summary.json", "stages.json", "report.html"):
        assert (out / name).is_file()
    assert f"Report: {out / 'report.html'}" in shown
    assert list(json.loads((out / "stages.json").read_text())["stages"]) == ["fpr"]
    before, what = times(out), contents(out, *RESULTS)
    assert run(photos, out, *options) == 0
    again = changed(before, out)
    assert not [name for name in again if name.startswith(("seed0", "cache")) and "/gallery/" not in name and not name.endswith("evidence.npz")]
    assert contents(out, *RESULTS).keys() == what.keys()
    assert main(["predict", str(out), str(photos / "images"), "--out", str(tmp_path / "new"), "--quiet"]) == 0
    assert len(list((tmp_path / "new/masks").rglob("*.png"))) == 11


def test_without_any_refinement(photos: Path, tmp_path: Path, options: list[str]) -> None:
    assert run(photos, tmp_path / "run", *options, "--with", "seed") == 0
    content = json.loads((tmp_path / "run/stages.json").read_text())
    assert list(content["stages"]["fpr"]) == ["seed", "segmenter:seed"]


def test_cut_off_after_each_stage_it_goes_on(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without masks of the truth; a stage that is finished is not done again."""
    photos = write_photos(tmp_path / "photos", masks=False)
    assert run(photos, tmp_path / "whole", *options) == 0
    expected = contents(tmp_path / "whole", *RESULTS)
    assert not (tmp_path / "whole/stages.json").exists()
    for stage in ("refine_run", "segment_run", "prepare_report"):
        out = tmp_path / stage

        def cut_off(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(demo.pipeline, stage, cut_off)
            with pytest.raises(Killed):
                run(photos, out, *options)
        before = times(out / "seed0")
        assert run(photos, out, *options) == 0
        written = {name for name in changed(before, out / "seed0") if not name.endswith("manifest.jsonl")}
        assert all(before.get(name) is None for name in written), "only new files"
        assert contents(out, *RESULTS) == expected


def test_later_stages_may_change_but_nothing_that_is_trained(
    photos: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = [*options, "--with", "crf"]
    assert run(photos, out, *options) == 0
    before = times(out / "seed0")
    changes = ["--refine.crf", "psa", "--segment.optimiser.epochs", "1"]
    capsys.readouterr()
    assert run(photos, out, *options, *changes) == 2, "a finished segmenter is not trained over"
    assert "delete that folder to train anew" in capsys.readouterr().err
    shutil.rmtree(out / "seed0" / "fpr" / "segmenter")
    assert run(photos, out, *options, *changes) == 0
    parts = {Path(name).parts[1] for name in changed(before, out / "seed0") if name.startswith("fpr")}
    assert parts - {"gallery", "evidence.npz"} == {"crf", "segmenter"}
    capsys.readouterr()
    assert run(photos, out, *options, "--views.size", "96") == 2
    text = capsys.readouterr().err
    assert "views.size is not what" in text and text.count("\n") == 1


def test_mistakes_are_told_before_any_work(
    photos: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def error(folder: Path, *more: str) -> str:
        capsys.readouterr()
        assert run(folder, out, *options, *more) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    assert "there is no folder" in error(tmp_path / "gone")
    assert "there is no refinement 'crff'" in error(photos, "--with", "crff")
    assert "refine.crf is 'irnn'" in error(photos, "--refine.crf", "irnn")
    assert "segment.size is 8" in error(photos, "--segment.size", "8")
    shutil.rmtree(photos / "images")
    assert "p0.jpg" in error(photos)
    assert not out.exists()


def test_the_demo_goes_on_to_a_segmenter(
    tmp_path: Path, options: list[str], scenes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    capsys.readouterr()
    assert main(["demo", "--out", str(out), "--full", *options, *scenes, "--methods", "continued,fpr"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| mIoU | maps | + CRF | + IRN | segmenter, from IRN |") == 2, "train and val"
    for name, split in (("stages.json", "train"), ("stages.val.json", "val")):
        content = json.loads((out / name).read_text())
        assert content["split"] == split and list(content["stages"]) == ["continued", "fpr"]
        assert set(content["fpr_minus_continued"]["0"]) == {"seed", "crf", "irn", "segmenter:irn"}
    assert (out / "report.html").is_file()
