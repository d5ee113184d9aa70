from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import CooccurConfig, DataConfig, MapsConfig, RunConfig, ViewsConfig
from tag2mask.data.masks import open_masks
from tag2mask.engine import set_up_torch
from tag2mask.maps.merge import class_activation, localization_maps
from tag2mask.maps.store import load_maps
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.localize import localize, map_path, store_maps
from tag2mask.stages.network import SeedSetup, set_up_seed

SIZE = 256
MAPS = MapsConfig(scales=(1.0, 0.75), flip=True)


def no_step(done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> SeedSetup:
    """12 scenes, larger than maps are stored, and a network whose class maps rise and fall about 0."""
    run = tmp_path_factory.mktemp("run")
    config = RunConfig(
        data=DataConfig(cooccur=CooccurConfig(images=12, size=SIZE)),
        host=replace(PRESETS["paper"].host, backbone="test_efficientnet", weights="none", freeze="blocks.2"),
        views=ViewsConfig(size=128),
    )
    setup = set_up_seed(config, run, 0, set_up_torch(1, "cpu"), Reporter(quiet=True))
    setup.host.eval()
    with torch.no_grad():
        features = setup.host.trained_part(setup.inputs.plain(np.arange(12))).features  # (N, D, H, W)
        mean = features.mean((0, 2, 3))  # (D,)
        weight = torch.randn(len(setup.images.classes), len(mean))  # (C, D)
        weight -= (weight @ mean)[:, None] * mean / mean.dot(mean)
        setup.host.classifier.weight.copy_(weight[:, :, None, None])
    return setup


def mean_iou(predictions: list[np.ndarray], masks: list[np.ndarray], classes: int) -> float:
    """mIoU in percent over one confusion of the whole set."""
    confusion = np.zeros((classes + 1, classes + 1))
    for predicted, mask in zip(predictions, masks, strict=True):
        np.add.at(confusion, (mask.ravel(), predicted.ravel()), 1)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return float(100 * np.nanmean(np.where(union > 0, np.diag(confusion) / np.maximum(union, 1), np.nan)))


def predicted(maps: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    planes = np.concatenate([np.full((1, *maps.shape[1:]), threshold), maps])
    return np.concatenate([[0], classes + 1])[planes.argmax(0)]


def test_what_is_stored_scores_as_the_maps_themselves(setup: SeedSetup, tmp_path: Path) -> None:
    store_maps(setup, MAPS, tmp_path, no_step)
    masks = open_masks(setup.data, setup.images)
    assert masks is not None
    exact, stored = [], []
    for index in range(len(setup.images)):
        activation, _ = class_activation(setup.host, setup.inputs, np.array([index]), MAPS.scales, MAPS.flip)
        classes = np.flatnonzero(setup.images.labels[index])
        maps = localization_maps(activation, 0, torch.from_numpy(classes), (SIZE, SIZE)).double().numpy()
        file = load_maps(map_path(tmp_path, setup.images.ids[index]))
        np.testing.assert_array_equal(file.classes, classes)
        assert file.maps.shape == maps.shape
        exact.append((maps, classes))
        stored.append((file.maps / 255, classes))
    truth = [masks.mask(index) for index in range(len(masks))]
    assert sum((maps > 0.3).mean() for maps, _ in exact) > 0.5, "there is something to score"
    for threshold in (0.1, 0.2, 0.3, 0.5):
        figures = [
            mean_iou([predicted(m, c, threshold) for m, c in maps], truth, len(setup.images.classes))
            for maps in (exact, stored)
        ]
        assert figures[0] > 5 and abs(figures[0] - figures[1]) < 0.3


def test_maps_for_scoring_are_those_that_are_stored(setup: SeedSetup, tmp_path: Path) -> None:
    scored = {image.index: image for image in localize(setup, MAPS, lambda index: (100, 90), no_step)}
    assert sorted(scored) == list(range(len(setup.images)))
    for index, image in scored.items():
        np.testing.assert_array_equal(image.classes, np.flatnonzero(setup.images.labels[index]))
        assert image.maps.shape == (len(image.classes), 100, 90) and image.maps.dtype == np.uint8
        assert image.logits is not None and image.logits.shape == (len(setup.images.classes),)
        activation, logits = class_activation(setup.host, setup.inputs, np.array([index]), MAPS.scales, MAPS.flip)
        alone = localization_maps(activation, 0, torch.from_numpy(image.classes), (100, 90)).numpy()
        assert alone.max() > 0.9 and np.abs(image.maps / 255 - alone).max() < 1.01 / 255
        np.testing.assert_allclose(image.logits, logits[0].numpy(), atol=1e-4)


def test_goes_on_where_it_stopped(setup: SeedSetup, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    seen: list[tuple[int, int]] = []

    def cut(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))
        if done == 5:
            raise Cut

    with pytest.raises(Cut):
        store_maps(setup, MAPS, tmp_path, cut)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert len(before) == 5 and seen[0] == (0, 12)
    (tmp_path / f"{setup.images.ids[1]}.npz").unlink()
    seen.clear()
    store_maps(setup, MAPS, tmp_path, lambda done, total, note="": seen.append((done, total)))
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert len(after) == 12 and seen == [(done, 12) for done in range(4, 13)]
    kept = set(before) - {f"{setup.images.ids[1]}.npz"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    store_maps(setup, MAPS, tmp_path, no_step)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")} == after


def test_image_without_tags(setup: SeedSetup, tmp_path: Path) -> None:
    labels = setup.images.labels.copy()
    labels[3] = False
    untagged = replace(setup, images=replace(setup.images, labels=labels))
    store_maps(untagged, MAPS, tmp_path, no_step, [3])
    stored = load_maps(map_path(tmp_path, setup.images.ids[3]))
    assert stored.maps.shape == (0, SIZE, SIZE) and len(stored.classes) == 0
    (image,) = [i for i in localize(untagged, MAPS, lambda index: (9, 8), no_step) if i.index == 3]
    assert image.maps.shape == (0, 9, 8)


@pytest.mark.parametrize("kind", ["square", "crop"])
def test_photos_of_any_shape_through_the_command(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path, kind: str
) -> None:
    root = write_folder(masks=False)
    Image.new("RGB", (1, 1), "red").save(root / "images" / "p01.png")
    Image.new("RGB", (300, 2), "red").save(root / "images" / "p02.png")
    settings = [*tiny, "--methods", "[]", "--data.kind", "folder", "--data.root", str(root)]
    views = ["--views.kind", kind, "--views.resize_long", "48,80", "--maps.scales", "1,0.5"]
    assert main(["train", "--out", str(tmp_path / "run"), *settings, *views]) == 0
    assert main(["localize", str(tmp_path / "run"), "--quiet"]) == 0
    folder = tmp_path / "run" / "seed0" / "cam" / "maps" / "train"
    found = {str(p.relative_to(folder)): load_maps(p).maps.shape for p in folder.rglob("*.npz")}
    assert len(found) == 12
    assert found["p01.npz"] == (1, 1, 1) and found["p02.npz"] == (2, 2, 300)
    assert found["p05.npz"] == (0, 70, 50), "no tag, no map"
    assert found["trip/p07.npz"] == (1, 33, 91)
