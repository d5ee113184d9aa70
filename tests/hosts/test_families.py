"""Ten families of backbones: each builds, trains a step with FPR, and writes maps, from random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tag2mask.cli import main
from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import WHOLE, build_stages
from tag2mask.hosts.cam import CamHost
from tag2mask.maps.store import load_maps

FAMILIES = {
    "ResNet": "resnet10t",
    "ResNeXt": "resnext26ts",
    "ConvNeXt": "convnext_atto",
    "EfficientNet": "efficientnet_b0",
    "EfficientNet-Lite": "tf_efficientnet_lite0",
    "MobileNetV3": "mobilenetv3_small_050",
    "RegNet": "regnety_002",
    "DeiT": "deit_tiny_patch16_224",
    "Swin": "swin_tiny_patch4_window7_224",
    "DINO": "vit_small_patch14_dinov2",
}
TRANSFORMERS = ("deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2")


@pytest.mark.parametrize("backbone", FAMILIES.values(), ids=FAMILIES)
def test_it_trains_a_step_with_fpr_and_writes_maps(backbone: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        "--preset", "demo", "--host.backbone", backbone, "--host.weights", "none", "--host.levels", "[]",
        "--host.neck", "0", "--host.side", "16", "--host.freeze", "none", "--data.cooccur.images", "6",
        "--data.cooccur.size", "64", "--views.size", "64", "--classify.epochs", "1", "--rectify.epochs", "1",
        "--classify.batch_size", "6", "--rectify.batch_size", "6", "--methods", "fpr", "--threads", "1",
    ]  # fmt: skip
    assert main(["train", "--out", str(run), *settings, "--quiet"]) == 0
    assert main(["localize", str(run), "--methods", "fpr", "--quiet"]) == 0
    before, after = (load_file(run / "seed0" / method / "weights.safetensors") for method in ("cam", "fpr"))
    moved = [name for name in before if name.endswith("weight") and not torch.equal(before[name], after[name])]
    assert any(name.startswith("trained_stages.") for name in moved), "the backbone learns"
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    files = sorted((run / "seed0" / "fpr" / "maps" / "train").glob("*.npz"))
    assert len(files) == 6
    for file in files:
        stored = load_maps(file)
        assert stored.maps.shape == (len(stored.classes), 64, 64)


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_a_transformer_is_one_stage_and_takes_photos_of_any_size(backbone: str) -> None:
    torch.manual_seed(0)
    host = CamHost(HostConfig(backbone=backbone, weights="none", side=16), 3).eval()
    assert list(host.frozen_stages) == [WHOLE]
    stride = {"s": 32, "d": 16, "v": 14}[backbone[0]]
    images = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        features, maps, logits = host(images)
        expected = host.frozen_stages[WHOLE].model.forward_features(images[:1])  # tokens, or (N, h, w, D) of a Swin
    height, width = -(-96 // stride), -(-160 // stride)
    assert maps.shape == (2, 3, height, width) and features.shape == (2, 16, height, width)
    torch.testing.assert_close(logits, maps.mean((2, 3)))
    (level,) = host.frozen_part(images[:1])
    if expected.dim() == 3:
        tokens = expected[:, expected.shape[1] - height * width :]  # without class and register tokens
        expected = tokens.view(1, height, width, -1)
    torch.testing.assert_close(level, expected.permute(0, 3, 1, 2), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("backbone", ["hrnet_w18_small"])
def test_a_network_that_is_no_chain_has_its_own_stride(backbone: str) -> None:
    stages, _, _ = build_stages(HostConfig(backbone=backbone, weights="none"))
    with torch.no_grad():
        assert list(stages) == [WHOLE] and stages[WHOLE](torch.zeros(1, 3, 64, 96)).shape[2:] == (2, 3)


def test_a_family_without_dilation_gets_its_stride_without() -> None:
    stages, _, _ = build_stages(HostConfig(backbone="mobilenetv3_small_050", weights="none", output_stride=16))
    x = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        for stage in stages.values():
            x = stage(x)
    assert x.shape[2:] == (4, 4)


def test_what_makes_no_maps_of_any_size_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="mixer_b16_224.*resnet50") as caught:
        build_stages(HostConfig(backbone="mixer_b16_224", weights="none"))
    assert "\n" not in str(caught.value)


def test_a_family_whose_stages_fall_apart_at_another_stride_keeps_its_own() -> None:
    """Branches of a dla do not agree in size any more once some of their strides are 1."""
    stages, _, _ = build_stages(HostConfig(backbone="dla46_c", weights="none", output_stride=16))
    x = torch.zeros(1, 3, 64, 96)
    with torch.no_grad():
        for stage in stages.values():
            x = stage(x)
    assert x.shape[2:] == (2, 3)


def test_a_family_with_channels_last_is_no_chain_of_maps() -> None:
    """A mambaout's stages give (N, H, W, D), which only looks like a map."""
    host = CamHost(HostConfig(backbone="mambaout_femto", weights="none", side=0), 2)
    with torch.no_grad():
        assert host(torch.zeros(1, 3, 96, 64)).maps.shape == (1, 2, 3, 2)


@pytest.mark.parametrize("size", [(75, 101), (34, 23)])
@pytest.mark.parametrize("backbone", [*TRANSFORMERS, "hrnet_w18_small", "convnext_atto", "resnet10t"])
def test_photos_of_odd_sizes(backbone: str, size: tuple[int, int]) -> None:
    """As photos of their own size are when maps are written, hours after the training began."""
    host = CamHost(HostConfig(backbone=backbone, weights="none", side=0), 2).eval()
    with torch.no_grad():
        maps = host(torch.randn(1, 3, *size)).maps
    assert maps.isfinite().all() and all(0 < cells <= -(-side // 14) for cells, side in zip(maps.shape[2:], size, strict=True))
