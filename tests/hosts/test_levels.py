"""A frozen backbone's levels, which refiners learn on."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tag2mask.config import CooccurConfig, DataConfig, HostConfig, ViewsConfig
from tag2mask.data import open_images
from tag2mask.errors import InputError
from tag2mask.hosts.inputs import CachedInputs, PhotoInputs, build_cache
from tag2mask.hosts.levels import LevelsHost

CPU = torch.device("cpu")


def levels_host(backbone: str, output_stride: int = 16, weights: str = "none") -> LevelsHost:
    torch.manual_seed(0)
    return LevelsHost(HostConfig(backbone=backbone, weights=weights, output_stride=output_stride))  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("output_stride", [16, 32])
def test_channels_and_strides_are_those_of_the_levels(backbone: str, output_stride: int) -> None:
    host = levels_host(backbone, output_stride)
    levels = host.frozen_part(torch.randn(2, 3, 96, 64))
    assert len(levels) == len(host.channels) == len(host.strides) >= 3
    for level, channels, stride in zip(levels, host.channels, host.strides, strict=True):
        assert level.shape == (2, channels, 96 // stride, 64 // stride)
        assert not level.requires_grad and level.isfinite().all()
    assert sorted(host.strides) == list(host.strides) and host.strides[0] == 4 and host.strides[-1] <= output_stride
    assert list(host.frozen_stages)[-1] == host.level_names[-1], "what stands behind the last level is not run"


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_levels_are_those_that_timm_lists(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = timm.create_model(backbone).eval()
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    features = timm.create_model(backbone, features_only=True).eval()
    features.load_state_dict(plain.state_dict(), strict=False)
    host = levels_host(backbone, 32, str(tmp_path / "weights.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [level for level in features(images) if level.shape[2] <= 16]
    found = host.frozen_part(images)
    assert ("maxpool" in host.level_names) == (backbone == "test_resnet")
    if backbone == "test_resnet":
        found = found[1:]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_it_never_learns() -> None:
    host = levels_host("test_efficientnet")
    before = {name: value.clone() for name, value in host.state_dict().items()}
    assert host.train() is host and not any(module.training for module in host.modules())
    host.frozen_part(torch.randn(4, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())
    assert not any(parameter.requires_grad for parameter in host.parameters())


def test_from_a_cache_as_from_photos(tmp_path: Path) -> None:
    images, views = open_images(DataConfig(cooccur=CooccurConfig(images=5, size=64))), ViewsConfig(size=64)
    host = levels_host("test_efficientnet")
    build_cache(host, images, views, CPU, tmp_path / "cache", lambda done, total: None)
    cached, photos = CachedInputs(host, images, views, CPU, tmp_path / "cache"), PhotoInputs(host, images, views, CPU)
    for batch in photos.plain_batches(5):
        for mirrored in (False, True):
            for one, other in zip(cached.plain(batch, mirrored), photos.plain(batch, mirrored), strict=True):
                assert torch.allclose(one, other, rtol=2e-3, atol=2e-3 * float(other.abs().max()))


def test_a_backbone_that_is_no_chain_is_refused() -> None:
    with pytest.raises(InputError, match="host.backbone 'test_vit'"):
        levels_host("test_vit")
