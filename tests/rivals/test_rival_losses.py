"""What a rival adds to a step: its terms with their weights, and what they read, put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tag2mask.config import (
    ClimsConfig,
    DataConfig,
    EpsConfig,
    HostConfig,
    OptimiserConfig,
    RivalsConfig,
    RunConfig,
    ViewsConfig,
    WoodConfig,
)
from tag2mask.hosts import HostOutput
from tag2mask.progress import Reporter
from tag2mask.rivals import class_means, clims_loss, distance_loss, distance_scale, eps_loss
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.rivals import extra_loss, logits_of, pooled_features
from tests.conftest import WriteFolder
from tests.rivals.conftest import WriteClip

BATCH, EPOCH, SEED = np.array([3, 0, 7, 11]), 2, 1000


@pytest.fixture
def config(write_folder: WriteFolder) -> RunConfig:
    return RunConfig(
        data=DataConfig(kind="folder", root=str(write_folder())), views=ViewsConfig(size=64),
        host=HostConfig(backbone="test_efficientnet", weights="none", freeze="blocks.3", side=0),
        rectify=OptimiserConfig(batch_size=4), cache_gigabytes=0,
    )  # fmt: skip


def a_step(config: RunConfig, run: Path, method: str) -> tuple[SeedSetup, torch.nn.Module, HostOutput, torch.Tensor, torch.Tensor]:
    """The setup, the loss, the output and the labels of a batch, and what the loss gives for them."""
    setup = set_up_seed(config, run, 0, torch.device("cpu"), Reporter(True))
    torch.nn.init.normal_(setup.host.classifier.weight)
    tags = setup.images.labels.astype(np.int8)
    loss = extra_loss(config, setup, tags, method, SEED, Reporter(True))
    setup.host.eval()
    output = setup.host.trained_part(setup.inputs.training(BATCH, SEED, EPOCH))
    labels = torch.from_numpy(tags[BATCH]).float()
    return setup, loss, output, labels, loss(setup.host, output, BATCH, labels, EPOCH)


@pytest.mark.parametrize("unit", ["spread", "literal"])
@pytest.mark.parametrize(("ascent", "batch"), [(0.07, 0), (0.07, 3), (0.0, 0)])
def test_wood(config: RunConfig, nothing_there: Path, tmp_path: Path, unit: str, ascent: float, batch: int) -> None:
    """As many photos of the folder as the batch has, each one step up on its own; L_d in its unit."""
    own = WoodConfig(
        folder=str(nothing_there), clusters=3, quantile=0.5, distance_weight=0.3, distance_unit=unit, ood_weight=0.7,  # type: ignore[arg-type]
        ascent=ascent, batch=batch,
    )  # fmt: skip
    setup, loss, output, labels, value = a_step(replace(config, rivals=RivalsConfig(wood=own)), tmp_path / "run", "wood")
    pooled, every = output.features.mean((2, 3)), torch.from_numpy(setup.images.labels.copy())
    features = pooled_features(setup.host, setup.inputs)
    means, valid = class_means(features, every)
    near = distance_loss(pooled, labels, means, valid, loss.clusters, 0.5)
    near = near / (distance_scale(features, every, means) if unit == "spread" else 1)
    photos = loss.pictures.training(loss.drawn(BATCH, EPOCH), SEED, EPOCH)
    assert len(photos) == (batch or len(BATCH))
    logits = []
    for photo in photos.split(1):
        if ascent:
            moving = photo.clone().requires_grad_()
            (slope,) = torch.autograd.grad(logits_of(setup.host, moving).max(), moving)
            photo = photo + ascent * slope / slope.abs().max()
        logits.append(logits_of(setup.host, photo))
    expected = 0.3 * near + 0.7 * functional.softplus(torch.cat(logits)).mean()
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(value, setup.host.classifier.weight)
    (wanted,) = torch.autograd.grad(expected, setup.host.classifier.weight)
    torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-3)


def test_eps(config: RunConfig, write_saliency: Callable[[Path], Path], tmp_path: Path) -> None:
    own = EpsConfig(saliency=str(write_saliency(Path(config.data.root))), weight=3.0, mix=0.3, coverage=0.2)
    _, loss, output, labels, value = a_step(replace(config, rivals=RivalsConfig(eps=own)), tmp_path / "run", "eps")
    saliency = loss.pictures.training(BATCH, SEED, EPOCH)[:, 0]
    assert saliency.max() > 0.5
    background = functional.conv2d(output.features, loss.background.classifier.weight)
    torch.testing.assert_close(value, 3 * eps_loss(output.maps, background, saliency, labels, 0.3, 0.2))


def test_clims(config: RunConfig, write_clip: WriteClip, tmp_path: Path) -> None:
    own = ClimsConfig(
        clip=str(write_clip()), prompt="this is {}", backgrounds=("sky", "sea"), object_weight=2.0,
        background_weight=3.0, suppression_weight=5.0, area_weight=7.0, too_similar=-1.0,
    )  # fmt: skip
    setup, loss, output, labels, value = a_step(replace(config, rivals=RivalsConfig(clims=own)), tmp_path / "run", "clims")
    texts = loss.clip.texts([f"this is {name}" for name in setup.images.classes.names])
    photos = loss.pictures.training(BATCH, SEED, EPOCH)
    assert photos.shape == (4, 3, 32, 32)
    terms = clims_loss(output.maps, photos, labels, loss.clip.images, texts, loss.clip.texts(["this is sky", "this is sea"]), -1.0)
    expected = 2 * terms.object_text + 3 * terms.background_text + 5 * terms.suppression + 7 * terms.area
    torch.testing.assert_close(value, expected)
