"""Folders, files and options in each other's places, through the command line: one sentence, before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.conftest import WriteFolder


@pytest.fixture
def quick(tiny: list[str]) -> list[str]:
    return [*tiny, "--classify.epochs", "1", "--rectify.epochs", "1"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize("content", ["classify: {epochs: 7}\n", "data: {masks: none}\nclassify: {epochs: 7}\n"])
def test_the_layout_is_guessed_beside_a_file_of_settings(
    write_folder: WriteFolder, tmp_path: Path, tiny: list[str], content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, config = write_folder(), tmp_path / "small.yaml"
    config.write_text(content)
    assert main(["check", str(root), "--config", str(config)]) == 0
    assert "16 images, 3 classes" in capsys.readouterr().out, "all splits"
    config.write_text(f"{content}segment: {{size: 8}}\n")  # told after the data are
    assert "segment.size is 8" in refusal(capsys, "run", str(root), "--out", str(tmp_path / "run"), *tiny, "--config", str(config))


def test_a_file_of_settings_that_says_the_kind_or_the_split_is_followed(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, config = write_folder(), tmp_path / "small.yaml"
    config.write_text("data: {kind: folder, root: elsewhere, split: val, masks: none}\n")
    assert main(["check", str(root), "--config", str(config)]) == 0
    assert "4 images, 3 classes" in capsys.readouterr().out
    config.write_text("data: {split: val, masks: none}\n")
    assert main(["check", str(root), f"--config={config}"]) == 0
    assert "4 images, 3 classes" in capsys.readouterr().out
    config.write_text("data: {kind: voc, root: elsewhere}\n")
    assert main(["check", str(root), "--config", str(config)]) == 1
    assert "ImageSets" in capsys.readouterr().out


def test_values_that_are_called_like_the_folder(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder("photos")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--quiet", "photos", "--host.weights", "photos"]) == 0
    assert "16 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "how"), [("photos", "is"), ("photos/runs/a", "lies in"), ("elsewhere/../photos", "is")]
)
def test_a_run_is_kept_apart_from_the_photos(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, out: str, how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_folder("photos")
    monkeypatch.chdir(tmp_path)
    expected = f"--out {out} {how} the data folder photos; choose a folder beside it for the run."
    assert refusal(capsys, "run", "photos", "--out", out) == expected
    for command in ("train", "run", "import photos"):
        given = [*command.split(), f"--out={out}", "--data.kind", "folder", "--data.root", "photos"]
        assert refusal(capsys, *given) == expected
    assert "expected one argument" in refusal(capsys, "run", "photos", "--out")
    assert not (tmp_path / "photos" / "runs").exists() and not list(tmp_path.rglob("settings.yaml"))


def test_a_folder_without_any_layout_a_run_and_a_file(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, run, root = tmp_path / "empty", tmp_path / "old", write_folder()
    empty.mkdir()
    for command in (["check", str(empty)], ["run", str(empty), "--out", str(tmp_path / "run")]):
        text = refusal(capsys, *command)
        assert text.startswith(f"{empty} has no table of tags (labels.csv, ") and "VOC's ImageSets" in text
    run.mkdir()
    (run / "settings.yaml").touch()
    (run / "versions.json").touch()
    for folders in ((), ("seed0/cam/x", "seed0/fpr/x")):  # pictures of a run are no classes
        for folder in folders:
            (run / folder).mkdir(parents=True)
            (run / folder).with_suffix(".png").touch()
        for command in (["check", str(run)], ["run", str(run), "--out", str(tmp_path / "run")]):
            assert refusal(capsys, *command).startswith(f"{run} is the folder of a run")
    expected = f"{root / 'labels.csv'} is a file; give the folder of the data set, such as '{root}'."
    assert refusal(capsys, "check", str(root / "labels.csv")) == expected
    (root / "labels.csv").rename(root / "mine.csv")
    assert main(["check", str(root), "--data.labels", "mine.csv"]) == 0


def test_a_table_by_another_name_beside_folders(
    write_folder: WriteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folders are not the classes, and a user's own settings.yaml makes no run of them."""
    root = write_folder()
    (root / "settings.yaml").write_text("classify: {epochs: 3}\n")
    for place, number in (("harbour", "1"), ("meadow", "2")):
        (root / place).mkdir()
        shutil.copy(next((root / "images").glob("*.png")), root / place / f"{number}.png")
    shutil.rmtree(root / "images")
    (root / "labels.csv").unlink()
    (root / "mine.csv").write_text("image,split,labels\nharbour/1.png,train,boat\nmeadow/2.png,train,cow\n")
    (root / "classes.txt").unlink(missing_ok=True)
    for option in ([], ["--data.labels", "mine.csv"]):
        main(["check", str(root), "--data.masks", "none", *option])
        shown = capsys.readouterr().out
        assert ("\nboat " in shown, "\nharbour " in shown) == (bool(option), not option), shown


def test_a_run_among_the_photos_that_is_there_goes_on(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder()
    run = tmp_path / "run"
    options = [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "fpr"]
    assert main(["train", "--out", str(run), *options]) == 0
    run.rename(root / "run")
    assert main(["train", "--out", str(root / "run"), *options, "--resume"]) == 0


@pytest.mark.parametrize("command", ["demo", "train", "run", "sweep", "import", "reproduce"])
def test_out_must_be_a_folder_that_can_be_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("afile").touch()
    expected = "--out afile: afile is a file, and a folder is needed; choose another name."
    assert refusal(capsys, command, "--out", "afile") == expected
    assert f"{tmp_path / 'afile'} is a file" in refusal(capsys, command, "--out=afile/run")
    assert [path.name for path in tmp_path.iterdir()] == ["afile"]
    if Path("/proc/self").exists():
        text = refusal(capsys, command, "--out", "/proc/x/y")
        assert text.startswith("--out /proc/x/y cannot be created (") or "/proc/x/y may not be written" in text


def test_the_hint_for_photos_knows_their_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kit" / "ImageSets").mkdir(parents=True)
    text = refusal(capsys, "train", str(tmp_path / "kit"), "--out", str(tmp_path / "run"))
    assert f"say --data.kind voc --data.root {tmp_path / 'kit'}, or run `tag2mask run {tmp_path / 'kit'}`" in text
    assert "data.kind" not in refusal(capsys, "check", str(tmp_path / "kit"), "more", "--data.kind", "voc")


def test_training_on_the_built_in_scenes_is_said(
    tmp_path: Path, quick: list[str], scenes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [option for option in quick if option != "--quiet"]
    config = tmp_path / "small.yaml"
    config.write_text("data: {cooccur: {images: 14, size: 64}}\n")
    for number, (options, told) in enumerate([(["--host.weights", "nowhere"], 1), ([*scenes], 0), (["--config", str(config)], 0)]):
        capsys.readouterr()
        main(["train", "--out", str(tmp_path / f"run{number}"), *loud, *options, "--methods", "[]", "--host.backbone", "resnit"])
        assert capsys.readouterr().err.count("no --data: the built-in scenes\n") == told
