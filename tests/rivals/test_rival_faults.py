"""What a rival needs and does not find is told in one sentence, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.presets import PRESETS
from tests.conftest import WriteFolder
from tests.rivals.conftest import TINY, WriteClip

Fault = Callable[..., str]


@pytest.fixture
def photos(write_folder: WriteFolder) -> Path:
    return write_folder()


@pytest.fixture
def fault(photos: Path, tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> Fault:
    """Trains a rival that cannot; gives the sentence."""

    def run(method: str, *options: object) -> str:
        out = tmp_path / "run"
        data = ["--data.kind", "folder", "--data.root", str(photos), "--methods", method]
        capsys.readouterr()
        assert main(["train", "--out", str(out), *tiny, *data, *map(str, options)]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        assert not out.exists(), "nothing was begun"
        return text

    return run


def test_wood(fault: Fault, nothing_there: Path, tmp_path: Path) -> None:
    assert "--rivals.wood.folder" in fault("wood")
    assert "there is no folder" in fault("wood", "--rivals.wood.folder", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no photo lies in" in fault("wood", "--rivals.wood.folder", tmp_path / "empty")
    (nothing_there / "n2.png").write_bytes(b"not a picture")
    assert "n2.png" in fault("wood", "--rivals.wood.folder", nothing_there)


def test_eps(fault: Fault, photos: Path, write_saliency: Callable[[Path], Path], tmp_path: Path) -> None:
    assert "--rivals.eps.saliency" in fault("eps")
    assert "there is no folder" in fault("eps", "--rivals.eps.saliency", tmp_path / "gone")
    folder = write_saliency(photos)
    options = ("--rivals.eps.saliency", folder)
    first = folder / "p00.png"
    kept = first.read_bytes()
    Image.new("RGB", Image.open(first).size).save(first)
    assert "no grey picture of 8 bits (its mode is RGB)" in fault("eps", *options)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(first)
    assert "the map has 7x5 pixels, its photo 64x48" in fault("eps", *options)
    first.write_bytes(kept[:40])
    assert "p00.png" in fault("eps", *options)
    first.unlink()
    (folder / "p03.png").unlink()
    text = fault("eps", *options)
    assert "p00.png: there is no saliency map" in text and "as for 2 of 12" in text


def test_clims(fault: Fault, write_clip: WriteClip, tmp_path: Path) -> None:
    assert "--rivals.clims.clip" in fault("clims")
    assert "no open_clip_config.json in" in fault("clims", "--rivals.clims.clip", tmp_path / "gone")
    own = {**TINY["text_cfg"], "hf_tokenizer_name": "roberta-base"}
    assert "a tokenizer of its own" in fault("clims", "--rivals.clims.clip", write_clip("own", text_cfg=own))
    wide = {**TINY["vision_cfg"], "width": 64}
    assert "cannot be read" in fault("clims", "--rivals.clims.clip", write_clip("wide", vision_cfg=wide))
    folder = write_clip()
    options = ("--rivals.clims.clip", folder)
    weights = folder / "open_clip_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:100])
    assert "cannot be read" in fault("clims", *options)
    weights.unlink()
    assert "no weights lie in" in fault("clims", *options)
    weights.write_bytes(kept)
    for text in ("{", "[]", json.dumps({"model_cfg": {}})):
        (folder / "open_clip_config.json").write_text(text)
        assert "is damaged" in fault("clims", *options)


def test_clims_without_its_library(fault: Fault, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_clip()
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "pip install 'tag2mask[clip]'" in fault("clims", "--rivals.clims.clip", folder)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("wood.clusters", "0"), ("wood.quantile", "0"), ("wood.ood_weight", "-1"), ("eps.coverage", "1.5"),
        ("eps.weight", "-1"), ("clims.prompt", "a photo"), ("clims.area_weight", "-1"), ("clims.too_similar", "2"),
    ],
)  # fmt: skip
def test_settings_out_of_range(fault: Fault, option: str, value: str) -> None:
    assert f"rivals.{option} is" in fault("continued", f"--rivals.{option}={value}")


def test_published_settings() -> None:
    wood, eps, clims = (PRESETS[name] for name in ("wood", "eps", "clims"))
    w = wood.rivals.wood
    assert (w.clusters, w.quantile, w.distance_weight, w.distance_unit, w.ood_weight, w.ascent, w.skip_class) == (
        50, 0.2, 0.007, "literal", 0.25, 0.07, "bottle",
    )  # fmt: skip
    assert (wood.rectify.epochs, wood.rectify.batch_size) == (5, 16)
    assert (eps.rivals.eps.mix, eps.rivals.eps.coverage, eps.rectify.batch_size) == (0.5, 0.4, 8)
    c = clims.rivals.clims
    assert (c.object_weight, c.background_weight, c.suppression_weight, c.area_weight, c.too_similar) == (10, 24, 1, 0.2, 0.26)
    assert (clims.rectify.epochs, clims.rectify.learning_rate, clims.rectify.backbone_rate) == (15, 2.5e-3, 2.5e-4)
    assert all(p.host == PRESETS["paper"].host and p.classify == PRESETS["paper"].classify for p in (wood, eps, clims))
