"""The host SEAM: what it keeps, what it minimises, what learns, and the whole command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tag2mask.cli import main
from tag2mask.config import HostConfig, OptimiserConfig, RunConfig, SeamConfig, ViewsConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.errors import InputError
from tag2mask.fpr.objective import binary_cross_entropy
from tag2mask.hosts.backbone import build_stages, deep_levels, listed_levels
from tag2mask.hosts.inputs import CachedInputs, PhotoInputs, build_cache, cache_key, frozen_settings
from tag2mask.hosts.levels import level_ends
from tag2mask.hosts.seam import SeamHost, pixels_at, scaled_size
from tag2mask.hosts.seam_losses import View, seam_terms
from tag2mask.hosts.table import build_host
from tag2mask.hosts.wresnet38 import wresnet38_chain, wresnet38_levels, wresnet38_stages
from tag2mask.presets import PRESETS
from tests.conftest import WriteFolder

SEAM = HostConfig(
    kind="seam", backbone="test_efficientnet", weights="none", freeze="blocks.2", side=0,
    seam=SeamConfig(dropout=0.0),
)  # fmt: skip
LABELS = torch.tensor([[1, 0, 1], [0, 1, -1]])
SGD = OptimiserConfig(kind="sgd", learning_rate=1.0, backbone_rate=0.1)


def host_of(**settings: object) -> SeamHost:
    torch.manual_seed(0)
    return SeamHost(replace(SEAM, **settings), 3).eval()  # type: ignore[arg-type]


def images_of(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("freeze", ["none", "blocks.2", "all"])
@pytest.mark.parametrize("side", [0, 8])
def test_shapes_whatever_is_frozen(freeze: str, side: int) -> None:
    host = host_of(freeze=freeze, side=side)
    with torch.no_grad():
        frozen = host.frozen_part(images_of())
        output, own = host.training_part(frozen, LABELS)
        located = host.localization_part(frozen)
    assert len(frozen) == 2 * host.level_count + 2
    assert [tuple(t.shape) for t in frozen[-2:]] == [(2, 3, 4, 4), (2, 3, 2, 2)]
    assert output.maps.shape == located.maps.shape == (2, 3, 4, 4)
    assert own.shape == () and own.isfinite()
    torch.testing.assert_close(output.logits, output.maps.mean(dim=(2, 3)))
    torch.testing.assert_close(located.logits, output.logits)


@pytest.mark.parametrize("grid", ["input", "map"])
def test_the_whole_is_the_published_total(grid: str) -> None:
    """Eq. 1 of branch 1, which the training loop adds, and the host's own loss; unknown tags are in neither."""
    host = host_of(seam=SeamConfig(dropout=0.0, loss_grid=grid))  # type: ignore[arg-type]
    images = images_of()
    output, own = host.training_part(host.frozen_part(images), LABELS)
    views = []
    for view in (images, pixels_at(images, (19, 19))):
        levels = host.levels(host.frozen_part(view))
        maps = host.read(levels).maps
        size = (maps.shape[2], maps.shape[3])
        compared = [levels[name] for name in host.more_levels]
        refined = host.correlation(maps.detach(), pixels_at(view, size), compared)
        at = (view.shape[2], view.shape[3]) if grid == "input" else size
        views.append(View(maps.mean(dim=(2, 3)), maps, refined, at))
    expected = seam_terms(*views, LABELS, host.settings).total
    torch.testing.assert_close(binary_cross_entropy(output.logits, LABELS) + own, expected)


def test_sizes_of_the_published_views() -> None:
    """A crop of 448: 56 x 56 maps, compared at 448; its copy has 134 pixels and 17 x 17 maps."""
    host = host_of()
    host.stride = 8
    assert scaled_size((448, 448), 0.3) == (134, 134)
    assert host._map_size(torch.empty(1, 3, 448, 448, device="meta")) == (56, 56)
    assert host._map_size(torch.empty(1, 3, 134, 134, device="meta")) == (17, 17)
    assert scaled_size((56, 56), host.stride) == (448, 448)


def test_what_learns_and_from_what() -> None:
    """The correlation module from its own losses alone; the backbone's norms and frozen stages never."""
    host = host_of().train()
    host.freeze_batch_norm(learning=False)
    before = {name: buffer.clone() for name, buffer in host.named_buffers()}
    output, own = host.training_part(host.frozen_part(images_of()), LABELS)
    (binary_cross_entropy(output.logits, LABELS) + own).backward()
    with_gradient = {name for name, p in host.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.partition(".")[0] for name in with_gradient} == {"trained_stages", "correlation", "classifier"}
    norms = [m for m in host.trained_stages.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(p.requires_grad for norm in norms for p in norm.parameters())
    assert all(torch.equal(buffer, before[name]) for name, buffer in host.named_buffers())
    host.zero_grad()
    output, _ = host.training_part(host.frozen_part(images_of()), LABELS)
    output.maps.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in host.correlation.parameters()), "detached both ways"
    free = host_of(seam=SeamConfig(fixed_norms=False)).trained_stages
    assert any(p.requires_grad and p.dim() == 1 for p in free.parameters())


def test_losses_of_the_refined_maps_teach_the_correlation_alone() -> None:
    """Min-pool and cross equivariance add nothing to what the classifier and the backbone learn."""
    gradients = []
    for weight in (0.0, 1.0):
        host = host_of(seam=SeamConfig(dropout=0.0, min_pool_weight=weight, cross_weight=weight))
        nn.init.normal_(host.classifier.weight, generator=torch.Generator().manual_seed(2))
        _, own = host.training_part(host.frozen_part(images_of()), LABELS)
        own.backward()
        gradients.append({name: p.grad.clone() for name, p in host.named_parameters() if p.grad is not None})
    without, whole = gradients
    assert not any(name.startswith("correlation") for name, g in without.items() if g.any())
    assert all(g.any() for name, g in whole.items() if name.startswith("correlation"))
    for name in without:
        if not name.startswith("correlation"):
            torch.testing.assert_close(whole[name], without[name])


def test_parameter_groups() -> None:
    """Each learning parameter once; biases of the backbone at twice its rate, without decay."""
    for settings in ({}, {"freeze": "all", "side": 8, "neck": 4}, {"seam": SeamConfig(fixed_norms=False)}):
        host = host_of(**settings)
        groups = host.parameter_groups(SGD, side=True)
        listed = [id(p) for group in groups for p in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in host.parameters() if p.requires_grad)
        if "seam" in settings:
            assert groups[0]["lr"] == 0.2 and groups[0]["weight_decay"] == 0
        torch.optim.SGD(groups, weight_decay=1.0)


def test_maps_that_localize_are_refined_and_in_the_classifiers_unit() -> None:
    host = host_of(side=0)
    with torch.no_grad():
        host.classifier.weight.normal_()
        frozen = host.frozen_part(images_of())
        own, located = host.trained_part(frozen).maps, host.localization_part(frozen).maps
    assert located.min() == 0 and located.any()
    peaks = own.relu().amax(dim=(2, 3))
    there = located.amax(dim=(2, 3)) > 0  # a class that is nowhere the strongest has an empty map
    torch.testing.assert_close(located.amax(dim=(2, 3))[there], peaks[there], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(located, own.relu())
    host.settings = replace(host.settings, from_minimum=False)
    with torch.no_grad():
        whole = host.localization_part(frozen).maps
    lowest, highest = whole.amin(dim=(2, 3), keepdim=True), whole.amax(dim=(2, 3), keepdim=True)
    stretched = (whole - lowest) / (highest - lowest + 1e-9) * highest
    torch.testing.assert_close(stretched, located, atol=1e-3, rtol=1e-3)


def test_rectified_maps_own_or_refined() -> None:
    """Refined ones teach the classifier as well, and the correlation module; logits are the classifier's either way."""
    own, refined = host_of(), host_of(rectified_maps="refined")
    refined.load_state_dict(own.state_dict())
    for host in (own, refined):
        with torch.no_grad():
            host.classifier.weight.copy_(torch.linspace(-1, 1, host.classifier.weight.numel()).sin().view_as(host.classifier.weight))
    frozen = own.frozen_part(images_of())
    first, second = own.trained_part(frozen), refined.trained_part(frozen)
    torch.testing.assert_close(first.logits, second.logits)
    torch.testing.assert_close(refined.training_part(frozen, LABELS)[0].maps, second.maps)
    assert not torch.allclose(first.maps, second.maps) and second.maps.min() >= 0
    second.maps.square().sum().backward()
    for part in (refined.classifier, refined.correlation):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters())


def test_dropout_acts_in_training_alone() -> None:
    host = host_of(seam=SeamConfig(dropout=0.5))
    frozen = host.frozen_part(images_of())
    with torch.no_grad():
        torch.testing.assert_close(host.trained_part(frozen).maps, host.trained_part(frozen).maps)
        host.train()
        torch.manual_seed(3)
        first = host.trained_part(frozen).maps
        second = host.trained_part(frozen).maps
        torch.manual_seed(3)
        assert torch.equal(host.trained_part(frozen).maps, first)
    assert not torch.equal(first, second)


def test_levels_by_default_and_by_name() -> None:
    assert listed_levels("test_efficientnet")[-2:] == ("blocks_3", "blocks_4")
    assert host_of().more_levels == ("blocks_3", "blocks_4")
    assert host_of(seam=SeamConfig(levels=("blocks.1", "blocks.3"))).more_levels == ("blocks_1", "blocks_3")
    with pytest.raises(InputError, match="host.seam.levels names the stage 'layer9'"):
        host_of(seam=SeamConfig(levels=("layer9",)))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_byobnet", "test_convnext"])
def test_other_families(backbone: str) -> None:
    host = host_of(backbone=backbone, freeze="none").train()
    output, own = host.training_part(host.frozen_part(images_of()), LABELS)
    (output.logits.sum() + own).backward()
    assert own.isfinite()


# Reading


def test_scales_of_frozen_levels_are_measured() -> None:
    host = host_of(freeze="all")
    host.prepare(host.frozen_part(images_of()))
    levels = host.levels(host.frozen_part(images_of()))
    expected = torch.stack([levels[name].square().mean().sqrt() for name in host.more_levels])
    torch.testing.assert_close(host.correlation.level_scale, expected)
    trained = host_of(freeze="none")
    trained.prepare(trained.frozen_part(images_of()))
    assert (trained.correlation.level_scale == 1).all(), "published: as they are"


def test_both_views_from_the_cache(tmp_path: Path) -> None:
    """Everything that training reads is cached, within half precision of what photos give."""
    images = open_images(replace(PRESETS["demo"].data, cooccur=replace(PRESETS["demo"].data.cooccur, images=5, size=64)))
    host, views, cpu = host_of(freeze="blocks.2"), ViewsConfig(size=64, zoom=1.0), torch.device("cpu")
    build_cache(host, images, views, cpu, tmp_path / "cache", lambda done, total: None)
    cached, photos = CachedInputs(host, images, views, cpu, tmp_path / "cache"), PhotoInputs(host, images, views, cpu)
    batch = np.array([3, 0])
    with torch.no_grad():
        for ours, theirs in zip(cached.plain(batch), photos.plain(batch), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=1e-2)
        from_cache, from_photos = (host.training_part(x.training(batch, 0, 0), LABELS)[1] for x in (cached, photos))
    torch.testing.assert_close(from_cache, from_photos, atol=1e-2, rtol=1e-2)


def test_cache_key_changes_with_what_is_cached_and_with_nothing_else(write_folder: WriteFolder) -> None:
    images: TaggedImages = open_images(replace(PRESETS["demo"].data, kind="folder", root=str(write_folder())))

    def key(**settings: object) -> str:
        seam = replace(SEAM.seam, **settings.pop("seam", {}))  # type: ignore[arg-type]
        return cache_key(frozen_settings(replace(SEAM, seam=seam, **settings)), ViewsConfig(), images, "")  # type: ignore[arg-type]

    same = [key(seam={name: 0.4}) for name in ("min_pool_weight", "equivariance_weight", "cross_weight", "top_share", "dropout")]
    assert {*same, key(seam={"loss_grid": "map"}), key(rectified_maps="refined"), key(neck=4)} == {key()}
    others = [key(kind="cam"), key(seam={"small_scale": 0.5}), key(seam={"levels": ("blocks.1",)}), key(freeze="all")]
    assert len({key(), *others}) == 5
    cam = [cache_key(frozen_settings(replace(SEAM, kind="cam", seam=s)), ViewsConfig(), images, "") for s in (SEAM.seam, SeamConfig(small_scale=0.9))]
    assert cam[0] == cam[1], "a CAM does not know SEAM's settings"


# WResNet-38


def test_wresnet38_has_the_published_levels_as_stages() -> None:
    """Shapes without memory; what refines maps and what a side branch sees find them by name."""
    with torch.device("meta"):
        whole, chain = wresnet38_stages(), wresnet38_chain(wresnet38_stages())
    assert sum(p.numel() for p in chain.parameters()) == sum(p.numel() for p in whole.parameters())
    assert level_ends("wresnet38", chain) == {"conv4", "conv5", "conv6"}
    assert deep_levels("wresnet38", chain) == ("conv5", "conv6")
    images = torch.empty(1, 3, 64, 64, device="meta")
    expected = {name: tuple(level.shape) for name, level in wresnet38_levels(whole, images).items()}
    found, x = {}, images
    for name, stage in chain.items():
        x = stage(x)
        found.update({name: tuple(x.shape)} if name in expected else {})
    assert found == expected == {"conv4": (1, 512, 8, 8), "conv5": (1, 1024, 8, 8), "conv6": (1, 4096, 8, 8)}


def test_wresnet38_as_a_host() -> None:
    """Random weights, one small photo: the chain computes what the network does; dropout is inert where frozen."""
    config = HostConfig(kind="seam", backbone="wresnet38", weights="none", output_stride=8, freeze="stage2", side=0)
    torch.manual_seed(0)
    host = build_host(config, 2)
    assert isinstance(host, SeamHost) and host.more_levels == ("conv4", "conv5") and host.main_levels == ("conv6",)
    assert list(host.frozen_stages) == ["stem", "stage2_block0", "stage2_block1", "stage2_block2"]
    assert host.classifier.in_channels == 4096 and host.stride == 8
    images = torch.randn(1, 3, 32, 32)
    torch.manual_seed(0)
    reference = wresnet38_stages().eval()
    host.eval()
    with torch.no_grad():
        expected = wresnet38_levels(reference, images)
        levels = host.levels(host.frozen_part(images))
        for name in expected:
            torch.testing.assert_close(levels[name], expected[name], atol=1e-3, rtol=1e-3)
        host.train()
        host.freeze_batch_norm(learning=False)
        assert not torch.equal(host.levels(host.frozen_part(images))["conv6"], levels["conv6"]), "dropout"
    frozen = [m for m in host.frozen_stages.modules() if isinstance(m, nn.Dropout2d)]
    assert not any(m.training for m in frozen) and not any(m.training for m in host.frozen_stages.modules())
    del host, reference


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_stride": 16}, "host.output_stride is 16"),
        ({"weights": "timm"}, "which has no wresnet38"),
    ],
)
def test_wresnet38_refusals(settings: dict[str, object], words: str) -> None:
    options = {"backbone": "wresnet38", "weights": "none", "output_stride": 8, **settings}
    with pytest.raises(InputError, match=words):
        build_stages(replace(SEAM, **options))  # type: ignore[arg-type]


def test_wresnet38_without_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.hosts.backbone.wresnet38_stages", nn.ModuleDict)  # which takes a second
    with pytest.raises(InputError, match="there is no file wresnet38.pth"):
        build_stages(PRESETS["seam"].host)


# The preset and the command


def test_preset_is_the_published_recipe() -> None:
    preset: RunConfig = PRESETS["seam"]
    assert (preset.host.kind, preset.host.backbone, preset.host.output_stride, preset.host.freeze) == ("seam", "wresnet38", 8, "stage2")
    assert preset.host.seam == SeamConfig() and preset.host.rectified_maps == "own"
    assert (preset.views.kind, preset.views.size, preset.views.resize_long) == ("crop", 448, (448, 768))
    assert preset.views.colour_jitter == (0.3, 0.3, 0.3, 0.1)
    for phase, epochs in ((preset.classify, 8), (preset.rectify, 3)):
        assert (phase.kind, phase.epochs, phase.batch_size) == ("sgd", epochs, 8)
        assert (phase.backbone_rate, phase.learning_rate, phase.momentum, phase.weight_decay) == (0.01, 0.1, 5e-4, 5e-4)
    fpr = preset.fpr
    assert (fpr.temperature, fpr.theta, fpr.region_weight, fpr.pixel_weight, fpr.prototypes) == (1.0, 0.2, 0.3, 1.5e-4, 10)
    assert preset.maps.scales == (1.0, 0.5, 1.5, 2.0) and preset.maps.flip


def test_train_localize_and_evaluate(tiny: list[str], scenes: list[str], tmp_path: Path) -> None:
    """The command as a user gives it, with a side branch and a cache; resumed, it ends with the same bits."""
    run = tmp_path / "run"
    options = [*tiny, *scenes, "--host.kind", "seam", "--host.seam.loss_grid", "map", "--host.seam.dropout", "0", "--methods", "continued,fpr"]
    assert main(["train", "--out", str(run), *options, "--rectify.epochs", "2"]) == 0
    assert main(["localize", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--quiet"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["methods"]) == {"cam", "continued", "fpr"}
    assert list((run / "seed0/fpr/maps/train").glob("*.npz"))
    weights = (run / "seed0/fpr/weights.safetensors").read_bytes()
    for name in ("weights.safetensors", "state.safetensors"):
        (run / "seed0/fpr" / name).unlink()
    assert main(["train", "--out", str(run), *options, "--rectify.epochs", "2", "--resume"]) == 0
    assert (run / "seed0/fpr/weights.safetensors").read_bytes() == weights


def test_all_on_crops_with_jitter_and_refined_maps(tiny: list[str], write_folder: WriteFolder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [
        *tiny, "--data.kind", "folder", "--data.root", str(write_folder()), "--host.kind", "seam", "--host.freeze", "none",
        "--host.side", "0", "--host.side_levels=[]", "--host.rectified_maps", "refined", "--views.kind", "crop",
        "--views.resize_long", "64,80", "--views.colour_jitter", "0.3,0.3,0.3,0.1", "--methods", "fpr",
        "--classify.epochs", "1", "--rectify.epochs", "1", "--classify.learning_rate", "0.1",
    ]  # fmt: skip
    assert main(["train", "--out", str(run), *options]) == 0
    assert main(["localize", str(run), "--quiet"]) == 0
