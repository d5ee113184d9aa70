"""`tag2mask export`: segmenters and masks for other tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.cli import main
from tag2mask.stages.predict import Segmenter
from tests.stages.photos import NAMES, NESTED, REFINE, SEGMENT, VAL, photos, png, times, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with masks of a CRF and a segmenter. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("export"), tiny)
    assert main(["refine", str(run), "--with", "crf", *REFINE, "--quiet"]) == 0
    assert main(["segment", str(run), "--from", "crf", *SEGMENT, "--quiet"]) == 0
    return run


def export(run: Path, kind: str, out: Path, *options: str) -> int:
    return main(["export", str(run), "--to", kind, "--out", str(out), "--quiet", *(options or ("--masks", "crf"))])


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


def test_built_in_scenes_are_written_as_photos(tmp_path: Path, tiny: list[str], scenes: list[str]) -> None:
    pytest.importorskip("pycocotools")
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *tiny, *scenes, "--methods", "continued"]) == 0
    assert main(["refine", str(run), "--with", "seed", "--quiet"]) == 0
    assert export(run, "coco", tmp_path / "masks.json", "--masks", "seed") == 0
    content = json.loads((tmp_path / "masks.json").read_text())
    assert len(content["images"]) == 14
    for image in content["images"]:
        with Image.open(run / "photos" / "train" / image["file_name"]) as photo:
            assert photo.size == (image["width"], image["height"]) == (64, 64)
    before = times(run / "photos")
    assert export(run, "mmseg", tmp_path / "mmseg", "--masks", "seed") == 0
    assert times(run / "photos") == before


def test_mistakes_are_one_clear_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    assert "The VOC test server knows the 20 classes" in error(capsys, run, "--to", "voc-archive", "--masks", "crf", *out)
    assert "--to 'yolo' is unknown; expected one of onnx, coco, mmseg, voc-archive" in error(capsys, run, "--to", "yolo", *out)
    assert "run `tag2mask refine" in error(capsys, run, "--to", "mmseg", *out), "masks of irn, the default, are not there"
    assert "there is no refinement 'irnn'" in error(capsys, run, "--to", "mmseg", "--masks", "irnn", *out)
    assert "there is no refinement 'irnn'" in error(capsys, run, "--to", "onnx", "--masks", "segmenter:irnn", *out)
    assert "there is no segmenter at" in error(capsys, run, "--to", "onnx", "--masks", "psa", *out)
    assert "there is no segmenter at" in error(capsys, run, "--to", "mmseg", "--masks", "segmenter:psa", *out)
    assert "method 'halo' is not in this run" in error(capsys, run, "--to", "coco", "--method", "halo", *out)
    assert "there is no settings.yaml in" in error(capsys, tmp_path / "gone", "--to", "coco", *out)
    assert not (tmp_path / "out").exists()
