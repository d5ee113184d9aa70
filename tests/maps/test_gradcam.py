from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tag2mask.config import AdvcamConfig, HostConfig
from tag2mask.hosts import Host
from tag2mask.hosts.table import HOSTS, build_host
from tag2mask.maps.advcam import climb
from tag2mask.maps.gradcam import channel_weights, gradcam
from tests.maps import attribution_hosts as hosts


@pytest.mark.parametrize("kind", hosts.KINDS)
def test_maps_of_the_attribution_part_are_those_of_the_trained_part(kind: str) -> None:
    host = hosts.small_host(kind)
    frozen = host.frozen_part(torch.cat([hosts.picture(48, 40), hosts.picture(48, 40, 1)]))
    features, maps = host.attribution_part(frozen)
    torch.testing.assert_close(maps, host.trained_part(frozen).maps, rtol=1e-9, atol=1e-12)
    assert maps.min() < 0 < maps.max()
    assert features.shape[2:] == maps.shape[2:]
    assert features.shape[1] == sum(c.weight.shape[1] for c in (host.classifier, host.side_classifier) if c is not None)


@pytest.mark.parametrize("kind", hosts.KINDS)
def test_gradients_reach_the_image_through_all_features(kind: str) -> None:
    host, image = hosts.small_host(kind), hosts.picture(48, 40).requires_grad_()
    features, maps = host.attribution_part(host.frozen_part(image))
    (through_image,) = torch.autograd.grad(maps[0, 1].sum(), image, retain_graph=True)
    (through_features,) = torch.autograd.grad(maps[0, 1].sum(), features, retain_graph=True)
    (and_on,) = torch.autograd.grad(features, image, through_features)
    assert through_image.abs().max() > 0
    torch.testing.assert_close(and_on, through_image, rtol=1e-9, atol=1e-12)


def test_a_host_of_ones_own_has_an_attribution_part() -> None:
    class Own(Host):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Conv2d(3, 2, 1, bias=False)

        def features(self, images: Tensor) -> Tensor:
            return images[:, :, ::4, ::4] * 2

        def maps(self, features: Tensor) -> Tensor:
            maps: Tensor = self.classifier(features)
            return maps

    host, images = Own(), torch.randn(2, 3, 16, 16)
    features, maps = host.attribution_part(host.frozen_part(images))
    torch.testing.assert_close(features, images[:, :, ::4, ::4] * 2)
    torch.testing.assert_close(maps, host(images).maps)


@pytest.mark.parametrize("freeze", ["all", "part", "none"])
@pytest.mark.parametrize("kind", HOSTS)
def test_every_host_of_the_table_can_be_climbed(kind: str, freeze: str) -> None:
    """Its attribution part has the classifier's maps, and gradients that reach the photo."""
    backbone, part = ("test_vit", "blocks.2") if kind == "mctformer" else ("test_efficientnet", "blocks.2")
    backbone = "test_efficientnet" if freeze == "all" else backbone
    torch.manual_seed(0)
    settings = HostConfig(kind=kind, backbone=backbone, weights="none", freeze=part if freeze == "part" else freeze, side=0)
    host = build_host(settings, 3).double().eval()
    image = hosts.picture(64, 48)
    features, maps = host.attribution_part(host.frozen_part(image))
    torch.testing.assert_close(maps, host(image).maps)
    assert features.shape[2:] == maps.shape[2:]
    config = AdvcamConfig(regulariser=0.0, channel_weights="mean")
    once, twice = (climb(host, image, torch.tensor([0, 2]), steps, True, config) for steps in (1, 2))
    assert once.shape == (2, *maps.shape[2:]) and once.max() > 0 and not torch.allclose(twice, 2 * once)


def test_weights_against_loops() -> None:
    gradients = torch.randn(2, 3, 4, 2, 5, dtype=torch.float64)  # (V, P, D, h, w)
    gradients[:, 2] = -gradients[:, 2].abs()  # a copy without any positive gradient
    published, mean = channel_weights(gradients, "published"), channel_weights(gradients, "mean")
    for p in range(3):
        positive = sum(1 for value in gradients[:, p].flatten().tolist() if value > 0)
        for v in range(2):
            for d in range(4):
                values = gradients[v, p, d].flatten().tolist()
                assert float(mean[v, p, d]) == pytest.approx(sum(values) / 10)
                assert float(published[v, p, d]) == pytest.approx(sum(values) / max(1, positive))


@pytest.mark.parametrize("rule", ["published", "mean"])
@pytest.mark.parametrize("kind", ["neck", "side"])
def test_many_copies_and_views_against_one_after_the_other(kind: str, rule: str) -> None:
    host, image, classes = hosts.small_host(kind), hosts.picture(40, 48), torch.tensor([2, 0, 3])
    pair = [image, hosts.mirrored(image)]
    batch = torch.cat([pair[0]] * 3 + [pair[1]] * 3)
    features, maps = host.attribution_part(host.frozen_part(batch))
    found = gradcam(features, maps.relu(), classes, 2, rule)  # type: ignore[arg-type]
    assert found.shape == (2, 3, *features.shape[2:]) and found.min() >= 0
    for p, c in enumerate(classes.tolist()):
        slow = hosts.slow_gradcam([host.attribution_part(host.frozen_part(view)) for view in pair], c, rule)
        for v in range(2):
            assert slow[v].max() > 0
            torch.testing.assert_close(found[v, p], slow[v], rtol=1e-9, atol=1e-12)


def test_the_map_of_a_linear_classifier_is_its_class_map_but_for_a_factor() -> None:
    host, image = hosts.small_host("side"), hosts.picture(40, 48)
    features, maps = host.attribution_part(host.frozen_part(image))
    found = gradcam(features, maps.relu(), torch.tensor([1]), 1, "mean")[0, 0]
    own = maps[0, 1].relu()
    torch.testing.assert_close(found / found.max(), own / own.max())


def test_weights_are_constants_and_gradients_pass_through_features() -> None:
    host, image = hosts.small_host("neck"), hosts.picture(40, 48)
    features, maps = host.attribution_part(host.frozen_part(image))
    found = gradcam(features, maps.relu(), torch.tensor([1]), 1, "mean")[0, 0]  # (h, w)
    (own,) = torch.autograd.grad(maps[0, 1].relu().sum(), features, retain_graph=True)
    weights = own.mean(dim=(2, 3))[0]  # (D,)
    (gradient,) = torch.autograd.grad(found.sum(), features)
    expected = weights[:, None, None] * (found > 0)  # (D, h, w)
    torch.testing.assert_close(gradient[0], expected)
