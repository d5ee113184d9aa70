"""`tag2mask export`: segmenters and masks for other tools."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import CooccurConfig, DataConfig
from tag2mask.data import open_images
from tag2mask.data.classes import VOC_NAMES
from tag2mask.stages.export import photo_files
from tag2mask.stages.network import data_of_seed
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.predict import Segmenter
from tests.conftest import draw_photo
from tests.stages.photos import (
    NAMES,
    NESTED,
    REFINE,
    SEGMENT,
    VAL,
    Killed,
    killed_at,
    photos,
    png,
    times,
    train,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with masks of a CRF and a segmenter. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("export"), tiny)
    assert main(["refine", str(run), "--with", "crf", *REFINE, "--quiet"]) == 0
    assert main(["segment", str(run), "--from", "crf", *SEGMENT, "--quiet"]) == 0
    return run


def export(run: Path, kind: str, out: Path, *options: str) -> int:
    return main(["export", str(run), "--to", kind, "--out", str(out), "--quiet", *(options or ("--masks", "crf"))])


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["export", *map(str, arguments), "--quiet"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


@pytest.mark.slow
def test_onnx_says_what_the_segmenter_says(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    capsys.readouterr()
    assert export(run, "onnx", tmp_path / "deep" / "model.onnx") == 0
    assert "largest difference from PyTorch in probability" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "deep" / "model.onnx"), providers=["CPUExecutionProvider"])
    network = Segmenter.load(run, device="cpu").network
    with torch.no_grad():
        for size in ((64, 64), (47, 90)):
            pixels = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
            mean, std = (np.float32(value).reshape(3, 1, 1) for value in (network.mean, network.std))
            expected = network(torch.from_numpy((pixels - mean) / std)).numpy()
            assert np.abs(session.run(None, {"images": pixels})[0] - expected).max() < 1e-3
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == ["background", *NAMES] and kept["initial_weights"] == "random"


@pytest.mark.parametrize("source", ["crf", "segmenter:crf"])
def test_coco_holds_the_masks(run: Path, tmp_path: Path, source: str) -> None:
    run_lengths = pytest.importorskip("pycocotools.mask")
    assert export(run, "coco", tmp_path / "masks.json", "--masks", source) == 0
    content = json.loads((tmp_path / "masks.json").read_text())
    expected = {name: size for name, size, _ in photos(run, "train")}
    assert [category["name"] for category in content["categories"]] == list(NAMES)
    assert {image["name"] for image in content["images"]} == expected.keys() >= {NESTED}
    folder = run / "seed0/fpr" / source.replace(":", "/") / "masks" / "train"
    for image in content["images"]:
        assert (run.parent / "photos" / image["file_name"]).is_file()
        assert (image["height"], image["width"]) == expected[image["name"]]
        mask = np.zeros(expected[image["name"]], np.uint8)
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                mask[run_lengths.decode(annotation["segmentation"]).astype(bool)] = annotation["category_id"]
        assert np.array_equal(mask, png(folder / f"{image['name']}.png"))


def test_a_folder_for_mmsegmentation_of_another_split(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mmseg"
    assert export(run, "mmseg", folder, "--masks", "segmenter:crf", "--split", "val") == 0
    names = (folder / "splits" / "val.txt").read_text().split()
    assert len(names) == VAL and set(names) == {name for name, _, _ in photos(run, "val")}
    for name in names:
        with Image.open(folder / "ann_dir" / "val" / f"{name}.png") as mask:
            assert np.array_equal(np.array(mask), png(run / "seed0/fpr/segmenter/crf/masks/val" / f"{name}.png"))
        assert len(list((folder / "img_dir" / "val").glob(f"{name}.*"))) == 1
    assert repr(NAMES[0]) in (folder / "dataset_val.py").read_text()


def test_a_folder_that_holds_something_else_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its masks may be somebody's own; a second split may join a first one."""
    folder = tmp_path / "mmseg"
    (folder / "ann_dir" / "train").mkdir(parents=True)
    (folder / "ann_dir" / "train" / "p0.png").write_text("by hand")
    text = error(capsys, run, "--to", "mmseg", "--out", folder, "--masks", "crf")
    assert f"--out {folder} holds files that no export for mmsegmentation wrote" in text and "new or empty" in text
    assert files(folder) == {"ann_dir/train/p0.png"}
    assert export(run, "mmseg", tmp_path / "other") == 0
    (tmp_path / "other" / "dataset_train.py").unlink()  # as if it had been cut off
    assert export(run, "mmseg", tmp_path / "other") == 0
    assert export(run, "mmseg", tmp_path / "other", "--masks", "segmenter:crf", "--split", "val") == 0
    assert {"dataset_train.py", "dataset_val.py"} <= files(tmp_path / "other")


def test_built_in_scenes_are_written_as_photos(tmp_path: Path, tiny: list[str], scenes: list[str]) -> None:
    pytest.importorskip("pycocotools")
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *tiny, *scenes, "--methods", "continued", "--seeds", "[0,1]"]) == 0
    assert main(["refine", str(run), "--with", "seed", "--quiet"]) == 0
    data = read_settings(run).data
    for seed in (0, 1):
        assert export(run, "coco", tmp_path / "masks.json", "--masks", "seed", "--seed", str(seed)) == 0
        content = json.loads((tmp_path / "masks.json").read_text())
        assert len(content["images"]) == 14
        images = open_images(data_of_seed(data, seed))
        for number, image in enumerate(content["images"]):
            with Image.open(run / f"seed{seed}" / "photos" / "train" / image["file_name"]) as photo:
                assert photo.size == (image["width"], image["height"]) == (64, 64)
                assert image["name"] == images.ids[number]
                assert np.array_equal(np.asarray(photo), np.asarray(images.image(number))), "each seed has its scenes"
    before = times(run / "seed0" / "photos")
    assert export(run, "mmseg", tmp_path / "mmseg", "--masks", "seed") == 0
    assert times(run / "seed0" / "photos") == before


def test_scenes_that_a_kill_cut_off_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(DataConfig(cooccur=CooccurConfig(images=3, size=64)))
    with killed_at(monkeypatch, 2), pytest.raises(Killed):
        photo_files(images, tmp_path)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as photo:
            photo.load()
    paths = photo_files(images, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for number, path in enumerate(paths):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(images.image(number)))


def test_the_archive_of_a_test_set_without_tags(tmp_path: Path, tiny: list[str]) -> None:
    root, run = tmp_path / "devkit", tmp_path / "run"
    names = {"train": [f"t{number}" for number in range(6)], "test": ["x0", "x1", "x2"]}
    for folder in ("ImageSets/Segmentation", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    for split, ids in names.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for number, name in enumerate(ids):
            draw_photo((40 + number, 50), [number % 3], number)[0].save(root / "JPEGImages" / f"{name}.jpg")
    for number, name in enumerate(names["train"]):
        (root / "Annotations" / f"{name}.xml").write_text(f"<a><object><name>{VOC_NAMES[number % 3]}</name></object></a>")
    data = ["--data.kind", "voc", "--data.root", str(root)]
    assert main(["train", "--out", str(run), *data, *tiny, "--methods", "continued"]) == 0
    assert main(["segment", str(run), "--from", "seed", *SEGMENT, "--quiet"]) == 0
    archive = tmp_path / "results.tgz"
    assert export(run, "voc-archive", archive, "--masks", "segmenter:seed", "--split", "test") == 0
    with tarfile.open(archive) as file:
        assert [Path(name).stem for name in file.getnames()] == names["test"]
    assert main(["export", str(run), "--to", "mmseg", "--masks", "seed", "--split", "test", "--out", str(archive)]) == 2


def test_mistakes_are_one_clear_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    assert "The VOC test server knows the 20 classes" in error(capsys, run, "--to", "voc-archive", "--masks", "crf", *out)
    assert "--to 'yolo' is unknown; expected one of onnx, coco, mmseg, voc-archive" in error(capsys, run, "--to", "yolo", *out)
    assert "run `tag2mask refine" in error(capsys, run, "--to", "mmseg", *out), "masks of irn, the default, are not there"
    assert "there is no refinement 'irnn'" in error(capsys, run, "--to", "mmseg", "--masks", "irnn", *out)
    assert "there is no refinement 'irnn'" in error(capsys, run, "--to", "onnx", "--masks", "segmenter:irnn", *out)
    for kind, masks in (("onnx", "psa"), ("mmseg", "segmenter:psa")):
        text = error(capsys, run, "--to", kind, "--masks", masks, *out)
        assert "has no segmenter of fpr, seed 0 from the masks of psa" in text
        assert text.endswith("choose one that is there: fpr from crf (seed0).\n")
    assert "method 'halo' is not in this run" in error(capsys, run, "--to", "coco", "--method", "halo", *out)
    assert "there is no settings.yaml in" in error(capsys, tmp_path / "gone", "--to", "coco", *out)
    assert not (tmp_path / "out").exists()
