from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.errors import InputError
from tag2mask.segment.export import PACKAGES, export_onnx, largest_difference, metadata
from tag2mask.segment.network import SegmentationNetwork

Build = Callable[..., SegmentationNetwork]
NAMES = ("kite", "leaf", "pond", "ro ad")
installed = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in PACKAGES), reason="the extra `onnx` is not installed"
)


def photos(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@installed
@pytest.mark.parametrize("name", ["small", pytest.param("deeplab_v2", marks=pytest.mark.slow)])
def test_an_onnx_file_says_the_same_at_any_size(build: Build, tmp_path: Path, name: str) -> None:
    import onnxruntime

    network, path = build(name), tmp_path / "network.onnx"
    export_onnx(network, path, NAMES)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert largest_difference(network, path, photos((64, 96), (65, 97), (33, 200))) < 1e-5
    with torch.no_grad():
        for weight in network.head.parameters():
            weight.mul_(1.1)
    assert largest_difference(network, path, photos((64, 96))) > 1e-4, "the comparison sees a difference"

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.zeros((3, 3, 50, 70), np.float32)})
    assert logits.shape == (3, 5, 50, 70)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["background", *NAMES]
    assert json.loads(told["mean"]) == list(network.mean) and json.loads(told["std"]) == list(network.std)
    assert told["initial_weights"] == "random" and told["producer"] == "tag2mask"


def test_the_file_says_at_which_size_the_network_predicts(build: Build) -> None:
    told = metadata(build("small", size=96, test_scales=(1.0, 0.5), flip=False), NAMES)
    assert told["view"] == "square" and int(told["size"]) == 96
    assert json.loads(told["test_scales"]) == [1.0, 0.5] and json.loads(told["flip"]) is False
    told = metadata(build("deeplab_v2"), NAMES)
    assert told["view"] == "crop" and all(isinstance(value, str) for value in told.values())


@installed
def test_names_that_are_not_as_many_as_classes_are_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 classes, but 2 names"):
        export_onnx(build("small"), tmp_path / "network.onnx", ("kite", "leaf"))
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_extra_is_named(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.segment.export.PACKAGES", ("onnx", "no_such_package_of_ours"))
    with pytest.raises(InputError, match=r"no_such_package_of_ours.*pip install .tag2mask\[onnx\]"):
        export_onnx(build("small"), tmp_path / "network.onnx", NAMES)
