from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.config import CooccurConfig, DataConfig, RunConfig, ViewsConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import (
    CachedInputs,
    PhotoInputs,
    build_cache,
    cache_bytes,
    cache_key,
    frozen_fingerprint,
    frozen_settings,
)
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.inputs import open_inputs
from tag2mask.stages.network import set_up_seed

CPU = torch.device("cpu")
DATA = DataConfig(cooccur=CooccurConfig(images=7, size=64))
HOST = replace(
    PRESETS["paper"].host, backbone="test_efficientnet", weights="none", freeze="blocks.2", dilate=True,
    levels=("blocks.1", "blocks.3"), neck=8,
)  # fmt: skip
VIEWS = ViewsConfig(size=64, zoom=1.25)


def silent(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def images() -> TaggedImages:
    return open_images(DATA)


@pytest.fixture(scope="module")
def host(images: TaggedImages) -> CamHost:
    torch.manual_seed(0)
    return CamHost(HOST, len(images.classes)).eval()


@pytest.fixture
def cached(host: CamHost, images: TaggedImages, tmp_path: Path) -> Callable[..., CachedInputs]:
    def make(views: ViewsConfig = VIEWS) -> CachedInputs:
        build_cache(host, images, views, CPU, tmp_path / "cache", silent, batch_size=3)
        return CachedInputs(host, images, views, CPU, tmp_path / "cache")

    return make


def assert_near(given: list[torch.Tensor], expected: list[torch.Tensor], relative: float = 2e-3) -> None:
    """As near as float16 keeps numbers (11 bits)."""
    assert len(given) == len(expected) == 2  # a frozen level, and what the trained stages start from
    for one, other in zip(given, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-4, rtol=relative)


@pytest.mark.parametrize("mirrored", [False, True])
def test_cached_features_are_the_computed_ones(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs], mirrored: bool
) -> None:
    inputs, fresh = cached(), PhotoInputs(host, images, VIEWS, CPU)
    for batch in inputs.plain_batches(3):
        assert_near(inputs.plain(batch, mirrored), fresh.plain(batch, mirrored))
    plain, turned = (inputs.plain(np.array([2]), m)[1] for m in (False, True))
    assert not torch.allclose(plain, turned, atol=1e-2)


def test_other_scales_are_computed_from_the_photos(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs]
) -> None:
    batch = np.array([1, 4])
    levels = cached().plain(batch, True, 1.5)
    assert levels[1].shape[2:] == (12, 12)  # 96 pixels at stride 8
    for given, expected in zip(levels, PhotoInputs(host, images, VIEWS, CPU).plain(batch, True, 1.5), strict=True):
        assert torch.equal(given, expected)


def test_training_views_are_those_of_the_photos_when_nothing_is_zoomed(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs]
) -> None:
    views = replace(VIEWS, zoom=1.0)
    batch = np.arange(7)
    for epoch in range(3):
        fresh = PhotoInputs(host, images, views, CPU).training(batch, 5, epoch)
        assert_near(cached(views).training(batch, 5, epoch), fresh)


@pytest.mark.parametrize("kind", ["square", "crop", "cached"])
def test_training_views_depend_on_seed_epoch_and_image_alone(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs], kind: str
) -> None:
    views = ViewsConfig(kind="crop", size=64, resize_long=(48, 96)) if kind == "crop" else VIEWS
    inputs = cached() if kind == "cached" else PhotoInputs(host, images, views, CPU)
    together = inputs.training(np.array([3, 0, 6]), 1, 2)[0]
    assert torch.equal(inputs.training(np.array([3, 0, 6]), 1, 2)[0], together)
    for row, index in enumerate((3, 0, 6)):
        alone = inputs.training(np.array([index]), 1, 2)[0][0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-5)
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.allclose(inputs.training(np.array([3, 0, 6]), seed, epoch)[0], together, atol=1e-3)


def test_photos_of_their_own_size_come_one_at_a_time(host: CamHost, images: TaggedImages) -> None:
    inputs = PhotoInputs(host, images, ViewsConfig(kind="crop", size=64), CPU)
    assert [batch.tolist() for batch in inputs.plain_batches(4)] == [[i] for i in range(7)]
    squares = PhotoInputs(host, images, VIEWS, CPU)
    assert [len(batch) for batch in squares.plain_batches(4)] == [4, 3]


def test_cache_size_is_announced_right(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs]
) -> None:
    assert cache_bytes(host, images, VIEWS) == sum(2 * int(np.prod(level.shape)) for level in cached().levels)


def test_anything_that_changes_the_features_changes_the_key(host: CamHost, images: TaggedImages) -> None:
    key = cache_key(frozen_settings(HOST), VIEWS, images, "")
    assert cache_key(frozen_settings(replace(HOST, neck=16)), replace(VIEWS, zoom=1.5), images, "") == key
    others = [
        cache_key(frozen_settings(replace(HOST, backbone="test_resnet")), VIEWS, images, ""),
        cache_key(frozen_settings(replace(HOST, freeze="blocks.3")), VIEWS, images, ""),
        cache_key(frozen_settings(replace(HOST, output_stride=8)), VIEWS, images, ""),
        cache_key(frozen_settings(HOST), replace(VIEWS, size=96), images, ""),
        cache_key(frozen_settings(HOST), VIEWS, images.subset(range(6)), ""),
        cache_key(frozen_settings(HOST), VIEWS, images.subset([1, 0, 2, 3, 4, 5, 6]), ""),
        cache_key(frozen_settings(HOST), VIEWS, images, "2"),
    ]
    assert len({key, *others}) == 8


def test_fingerprint_is_of_the_frozen_weights(images: TaggedImages) -> None:
    prints = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prints.append(frozen_fingerprint(CamHost(HOST, len(images.classes))))
    assert prints[0] == prints[1] != prints[2]
    torch.manual_seed(0)
    other = CamHost(HOST, len(images.classes))
    torch.nn.init.zeros_(other.classifier.weight)
    assert frozen_fingerprint(other) == prints[0]


@pytest.mark.parametrize("remains", ["partial", "without manifest"])
def test_half_written_cache_is_built_again(
    host: CamHost, images: TaggedImages, cached: Callable[..., CachedInputs], tmp_path: Path, remains: str
) -> None:
    folder = tmp_path / ("cache.partial" if remains == "partial" else "cache")
    folder.mkdir()
    (folder / "level0.npy").write_bytes(b"half a file")
    (folder / "level7.npy").write_bytes(b"of another time")
    batch = np.arange(7)
    assert_near(cached().plain(batch), PhotoInputs(host, images, VIEWS, CPU).plain(batch))
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["level0.npy", "level1.npy", "manifest.json"]
    assert not (tmp_path / "cache.partial").exists()


def test_cache_that_is_cut_off_never_appears(host: CamHost, images: TaggedImages, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done >= 6:
            raise Cut

    with pytest.raises(Cut):
        build_cache(host, images, VIEWS, CPU, tmp_path / "cache", cut, batch_size=3)
    assert not (tmp_path / "cache").exists()
    build_cache(host, images, VIEWS, CPU, tmp_path / "cache", silent, batch_size=3)
    assert json.loads((tmp_path / "cache" / "manifest.json").read_text())["images"] == 7


def test_complete_cache_is_left_alone(cached: Callable[..., CachedInputs], tmp_path: Path) -> None:
    cached()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    cached()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before


def run_config(**settings: object) -> RunConfig:
    return RunConfig(data=DATA, host=HOST, views=VIEWS, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("gigabytes", "message"), [(1e-6, "more than cache_gigabytes = 1e-06"), (0.0, "")])
def test_bound_on_the_disk(
    host: CamHost, images: TaggedImages, tmp_path: Path, capsys: pytest.CaptureFixture[str], gigabytes: float, message: str
) -> None:
    config = run_config(cache_gigabytes=gigabytes)
    inputs = open_inputs(host, frozen_settings(HOST), config.views, config.cache_gigabytes, DATA, tmp_path / "run", images, CPU, Reporter())
    assert type(inputs) is PhotoInputs
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "cache").exists()


def test_disk_without_room(
    host: CamHost, images: TaggedImages, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    inputs = open_inputs(host, frozen_settings(HOST), run_config().views, run_config().cache_gigabytes, DATA, tmp_path / "run", images, CPU, Reporter(quiet=True))
    assert type(inputs) is PhotoInputs
    assert "computed anew in every epoch" in capsys.readouterr().err


@pytest.mark.parametrize("freeze", ["none", "blocks.2"])
def test_nothing_frozen_or_crops_need_no_cache(images: TaggedImages, tmp_path: Path, freeze: str) -> None:
    host_config = replace(HOST, freeze=freeze)
    views = VIEWS if freeze == "none" else ViewsConfig(kind="crop", size=64)
    config = RunConfig(data=DATA, host=host_config, views=views)
    host = CamHost(host_config, len(images.classes))
    assert type(open_inputs(host, frozen_settings(HOST), config.views, config.cache_gigabytes, DATA, tmp_path, images, CPU, Reporter(quiet=True))) is PhotoInputs


def test_each_seed_and_split_reads_features_of_its_own_scenes(tmp_path: Path) -> None:
    """All built-in scenes have the same ids: one cache for two sets of them would be silent."""
    config = run_config(seeds=(0, 1))
    batch = np.arange(7)
    for seed, split in ((0, ""), (1, ""), (0, "val"), (1, "val"), (0, "")):
        setup = set_up_seed(config, tmp_path, seed, CPU, Reporter(quiet=True), split)
        assert isinstance(setup.inputs, CachedInputs)
        fresh = PhotoInputs(setup.host, setup.images, VIEWS, CPU)
        assert_near(setup.inputs.plain(batch), fresh.plain(batch))
    assert len(list((tmp_path / "cache").glob("*/manifest.json"))) == 4


def test_each_seed_reads_features_of_its_own_network(tmp_path: Path, write_folder: Callable[..., Path]) -> None:
    config = replace(run_config(), data=DataConfig(kind="folder", root=str(write_folder())))
    for seed in (0, 1):
        setup = set_up_seed(config, tmp_path, seed, CPU, Reporter(quiet=True))
        fresh = PhotoInputs(setup.host, setup.images, VIEWS, CPU)
        assert_near(setup.inputs.plain(np.arange(5)), fresh.plain(np.arange(5)))


def test_who_shares_a_cache_waits_for_the_one_who_fills_it(
    host: CamHost, images: TaggedImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys, pathlib, time; from tag2mask.runs import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read(1); time.sleep(1)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None and other.stdout.readline() == "held\n"
        start = time.monotonic()
        other.stdin.write("x")
        other.stdin.flush()
        inputs = open_inputs(host, frozen_settings(HOST), run_config().views, run_config().cache_gigabytes, DATA, tmp_path, images, CPU, Reporter())
        assert time.monotonic() - start > 0.9, "not beside it"
        assert f"waiting: another process ({other.pid})" in capsys.readouterr().err.replace("\n", " ")
    assert isinstance(inputs, CachedInputs)
