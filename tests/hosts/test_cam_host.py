from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.cam import CamHost, Neck
from tag2mask.presets import PRESETS

FAMILIES = ("test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "test_nfnet", "regnetx_002", "resnest14d")
WITHOUT_DILATION = ("test_resnet", "test_efficientnet", "regnetx_002", "resnest14d", "mobilenetv3_small_050")
NO_MAPS = ("levit_128s", "mixer_b16_224", "resmlp_12_224")


def host_of(backbone: str = "test_resnet", classes: int = 3, **settings: object) -> CamHost:
    options = {"weights": "none", "freeze": "none", "dilate": True, **settings}
    return CamHost(replace(PRESETS["paper"].host, backbone=backbone, **options), classes).eval()  # type: ignore[arg-type]


def refusal(**settings: object) -> str:
    with pytest.raises(InputError) as caught:
        host_of(**settings)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_features_maps_and_logits_of_any_family(backbone: str, stride: int) -> None:
    host = host_of(backbone, output_stride=stride)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        features, maps, logits = host(images)
    assert features.shape == (2, host.classifier.in_channels, 96 // stride, 64 // stride)
    weight = host.classifier.weight[:, :, 0, 0]  # (C, D)
    torch.testing.assert_close(maps, torch.einsum("cd,ndhw->nchw", weight, features), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, maps.flatten(2).mean(2))
    assert host.classifier.bias is None


@pytest.mark.parametrize("backbone", WITHOUT_DILATION)
def test_stride_without_dilation(backbone: str) -> None:
    host = host_of(backbone, dilate=False, output_stride=16)
    with torch.no_grad():
        assert host(torch.randn(1, 3, 96, 64)).maps.shape == (1, 3, 6, 4)
    convolutions = [m for m in host.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.dilation == (1, 1) for m in convolutions)


def test_dilated_resnet_differs_from_the_undilated_one() -> None:
    dilated = [m.dilation for m in host_of("resnet18").modules() if isinstance(m, nn.Conv2d)]
    assert (2, 2) in dilated


def test_undilated_resnet_is_a_resnet_whose_last_stage_has_stride_1() -> None:
    torch.manual_seed(0)
    host = host_of("resnet18", dilate=False)
    torch.manual_seed(0)
    plain = host_of("resnet18", output_stride=32)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        *_, last_input = plain.frozen_part(x)
        for name, stage in plain.trained_stages.items():
            if name == "layer4_0":
                break
            last_input = stage(last_input)
        first, second = plain.trained_stages["layer4_0"], plain.trained_stages["layer4_1"]
        y = functional.conv2d(last_input, first.conv1.weight, stride=1, padding=1)
        y = first.bn2(first.conv2(functional.relu(first.bn1(y))))
        shortcut = first.downsample[1](functional.conv2d(last_input, first.downsample[0].weight, stride=1))
        expected = second(functional.relu(y + shortcut))
        torch.testing.assert_close(host(x).features, expected, atol=1e-4, rtol=1e-4)


def test_dense_features_at_the_strided_places_are_those_of_stride_32() -> None:
    """Dilation keeps the receptive field: every second feature of stride 16 is a feature of stride 32."""
    torch.manual_seed(0)
    dense = host_of("resnet18", output_stride=16)
    torch.manual_seed(0)
    coarse = host_of("resnet18", output_stride=32)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(dense(x).features[:, :, ::2, ::2], coarse(x).features, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dilate", [True, False])
@pytest.mark.parametrize("backbone", NO_MAPS)
def test_networks_without_feature_maps_are_refused_in_one_sentence(backbone: str, dilate: bool) -> None:
    text = refusal(backbone=backbone, dilate=dilate)
    assert backbone in text and "resnet50" in text
    assert "\n" not in text and "__init__" not in text and text.endswith(".")


def test_stride_without_dilation_that_a_family_cannot_have() -> None:
    text = refusal(backbone="test_convnext", dilate=False)
    assert "host.dilate" in text and "test_convnext" in text


def test_unknown_backbone_suggests_names() -> None:
    text = refusal(backbone="resnett50")
    assert "'resnett50' is not a timm model" in text and "resnet50" in text.split("Did you mean")[1]


def test_backbone_may_name_its_pretrained_weights() -> None:
    assert host_of("resnet18.a1_in1k").classifier.in_channels == 512


def test_unknown_stage_lists_the_stages() -> None:
    text = refusal(freeze="layer9")
    assert "host.freeze" in text and "'layer9'" in text and "layer4_0" in text
    assert "host.levels" in refusal(levels=("help",)) and "layer1_0" in refusal(levels=("help",))
    assert "behind the last level" in refusal(levels=("layer2",), freeze="layer3")


@pytest.mark.parametrize(
    ("freeze", "last_frozen"),
    [("none", ""), ("conv1", "conv1"), ("layer2", "layer2_1"), ("layer2.0", "layer2_0"), ("layer2_0", "layer2_0")],
)
def test_freeze_by_stage_and_by_group(freeze: str, last_frozen: str) -> None:
    host = host_of("resnet18", freeze=freeze)
    frozen, trained = list(host.frozen_stages), list(host.trained_stages)
    assert (frozen[-1] if frozen else "") == last_frozen
    assert [*frozen, *trained] == list(host_of("resnet18").trained_stages)


@pytest.mark.parametrize("freeze", ["none", "layer2", "all"])
def test_gradient_reaches_the_trained_half_alone(freeze: str) -> None:
    host = host_of(freeze=freeze).train()
    host(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert all(p.grad is None for p in host.frozen_stages.parameters())
    trained = [*host.trained_stages.parameters(), host.classifier.weight]
    assert all(p.grad is not None for p in trained)
    assert (len(trained) == 1) == (freeze == "all")


def test_statistics_of_the_frozen_half_never_change() -> None:
    host = host_of(freeze="layer3").train()
    before = {k: v.clone() for k, v in host.state_dict().items()}
    host(torch.randn(4, 3, 64, 64) * 3 + 1)
    after = host.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(k.startswith("trained_stages.") for k in changed)


def test_frozen_batch_norms_of_the_trained_half_keep_their_statistics() -> None:
    host = host_of(freeze="layer3", neck=8).train()
    before = {k: v.clone() for k, v in host.state_dict().items()}
    host.freeze_batch_norm(learning=True)
    host(torch.randn(4, 3, 64, 64))
    changed = {k for k in before if not torch.equal(before[k], host.state_dict()[k])}
    assert changed and all(k.startswith("neck.") for k in changed)
    host.train()
    host.freeze_batch_norm(learning=False)
    before = {k: v.clone() for k, v in host.state_dict().items()}
    host(torch.randn(4, 3, 64, 64))
    assert all(torch.equal(before[k], host.state_dict()[k]) for k in before)


@pytest.mark.parametrize("freeze", ["none", "layer1", "layer3", "all"])
def test_halves_make_the_whole(freeze: str) -> None:
    torch.manual_seed(1)
    host = host_of(freeze=freeze, levels=("layer2", "layer4"), neck=8)
    torch.manual_seed(1)
    whole = host_of(freeze="none", levels=("layer4", "layer2"), neck=8)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for part, expected in zip(host(x), whole(x), strict=True):
            torch.testing.assert_close(part, expected)


def test_several_levels_need_a_neck() -> None:
    with pytest.raises(InputError, match="host.levels"):
        HostConfig(levels=("layer2", "layer4"), neck=0)


def test_an_early_level_drops_the_stages_behind_it() -> None:
    host = host_of(levels=("layer2",))
    assert list(host.trained_stages)[-1] == "layer2_0"
    with torch.no_grad():
        assert host(torch.randn(1, 3, 64, 64)).maps.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_neck_is_a_convolution_of_the_upsampled_concatenated_levels(order: int, mix: bool) -> None:
    torch.manual_seed(0)
    levels = [3 * torch.randn(2, 5, 12, 10) + 1, torch.randn(2, 7, 6, 5), torch.randn(2, 3, 3, 3)][::order]
    neck = Neck([level.shape[1] for level in levels], 4, mix).eval()
    neck.measure(levels)
    for norm in neck.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    scaled = [level / level.square().mean().sqrt() for level in levels]
    upsampled = [functional.interpolate(s, (12, 10), mode="bilinear", align_corners=False) for s in scaled]
    weight = torch.cat([projection.weight for projection in neck.projections], dim=1)  # (4, 15, 1, 1)
    with torch.no_grad():
        expected = neck.layers(functional.conv2d(torch.cat(upsampled, 1), weight))
        output = neck(neck.scaled(levels))
    assert output.shape == (2, 4, 12, 10) and output.min() == 0 and output.max() > 0
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


SIDE = {"side": 8, "side_levels": ("layer2", "layer3")}


@pytest.mark.parametrize("freeze", ["none", "layer2", "layer3", "all"])
def test_side_branch_begins_as_nothing_and_adds_to_the_maps(freeze: str) -> None:
    torch.manual_seed(0)
    host = host_of(freeze=freeze, output_stride=32, **SIDE)
    assert host.side is not None and host.side_classifier is not None
    frozen = host.frozen_part(torch.randn(2, 3, 64, 96))
    with torch.no_grad():
        without, joined = host.trained_part(frozen, side=False), host.trained_part(frozen)
        assert without.maps.shape[2:] == (2, 3) and joined.maps.shape[2:] == (8, 12)
        enlarged = functional.interpolate(without.maps, (8, 12), mode="bilinear", align_corners=False)
        torch.testing.assert_close(joined.maps, enlarged)
        nn.init.normal_(host.side_classifier.weight)
        joined = host.trained_part(frozen)
        assert joined.features.shape == (2, 8, 8, 12) and joined.features.max() > 0
        weight = host.side_classifier.weight[:, :, 0, 0]  # (C, D)
        added = torch.einsum("cd,ndhw->nchw", weight, joined.features)
        torch.testing.assert_close(joined.maps, enlarged + added, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(joined.logits, joined.maps.mean((2, 3)))


NECK = {"neck": 8, "levels": ("layer2", "layer4")}


def scaled_by_hand(levels: list[torch.Tensor]) -> torch.Tensor:
    """Levels by their root mean square, side by side at the size of the first."""
    scaled = [level / level.square().mean().sqrt() for level in levels]
    size = levels[0].shape[2:]
    return torch.cat([functional.interpolate(s, size, mode="bilinear", align_corners=False) for s in scaled], 1)


@pytest.mark.parametrize("settings", [SIDE, NECK, {**NECK, **SIDE}])
def test_level_features_are_the_scaled_levels_and_the_maps_stay(settings: dict[str, object]) -> None:
    """Of the levels that the side branch sees, or the neck where there is none or it is left out."""
    torch.manual_seed(0)
    host = host_of(freeze="all", output_stride=32, **settings)
    frozen = host.frozen_part(3 * torch.randn(4, 3, 64, 96) + 1)
    host.prepare(frozen)
    if host.side_classifier is not None:
        nn.init.normal_(host.side_classifier.weight)
    names = sorted({*host.main_levels, *host.side_levels})
    assert len(frozen) == len(names)
    levels = dict(zip(names, frozen, strict=True))
    for side in (True, False):
        seen = host.side_levels if side and host.side is not None else host.main_levels
        with torch.no_grad():
            given, plain = (host.trained_part(frozen, side, level_features) for level_features in (True, False))
        bare = seen == host.main_levels and host.neck is None
        expected = plain.features if bare else scaled_by_hand([levels[name] for name in seen])
        torch.testing.assert_close(given.features, expected, atol=1e-5, rtol=1e-5)
        assert given.features.shape[2:] == given.maps.shape[2:] == levels[seen[0]].shape[2:]
        assert torch.equal(given.maps, plain.maps) and torch.equal(given.logits, plain.logits)
        assert bare or given.features.shape[1] > plain.features.shape[1]


@pytest.mark.parametrize("settings", [SIDE, NECK])
def test_level_features_stand_still_while_all_above_a_frozen_backbone_is_trained(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    host = host_of(freeze="all", output_stride=32, **settings).train()
    frozen = host.frozen_part(torch.randn(4, 3, 64, 96))
    host.prepare(frozen)
    host.train()
    before, features = (host.trained_part(frozen, level_features=levels) for levels in (True, False))
    assert not before.features.requires_grad and features.features.requires_grad
    optimiser = torch.optim.SGD([p for p in host.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the side branch's classifier starts at zero
        optimiser.zero_grad()
        (host.trained_part(frozen, level_features=True).maps - 1).square().mean().backward()
        optimiser.step()
    after = host.trained_part(frozen, level_features=True)
    assert torch.equal(after.features, before.features)
    assert not torch.allclose(after.maps, before.maps, atol=1e-3)
    assert not torch.allclose(host.trained_part(frozen).features, features.features, atol=1e-3)


def test_level_features_of_trained_stages_move_with_them() -> None:
    host = host_of(freeze="layer2", **NECK)
    host.trained_part(host.frozen_part(torch.randn(2, 3, 64, 64)), level_features=True).features.sum().backward()
    assert all(p.grad is not None for p in host.trained_stages.parameters())
    assert host.neck is not None and all(p.grad is None for p in host.neck.parameters())


@pytest.mark.parametrize("freeze", ["layer2", "all"])
def test_a_bare_level_is_its_own_level_feature(freeze: str) -> None:
    host = host_of(freeze=freeze)
    frozen = host.frozen_part(torch.randn(2, 3, 64, 64))
    host.prepare(frozen)
    with torch.no_grad():
        for one, other in zip(host.trained_part(frozen), host.trained_part(frozen, level_features=True), strict=True):
            assert torch.equal(one, other)


def test_side_branch_gets_the_statistics_of_the_data() -> None:
    torch.manual_seed(0)
    host = host_of(freeze="all", **SIDE)
    assert host.side is not None
    batches = [host.frozen_part(3 * torch.randn(4, 3, 64, 64) + 1) for _ in range(3)]
    host.prepare(batches[0])
    host.finish(iter(batches))
    seen: list[torch.Tensor] = []
    (norm,) = [m for m in host.side.modules() if isinstance(m, nn.BatchNorm2d)]
    norm.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    for frozen in batches:
        host.trained_part(frozen)
    assert len(seen) == 3 and not norm.training
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
