"""Photos and labels of their pixels, augmented together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tag2mask.config import DataConfig, HostConfig, ViewsConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.hosts.inputs import CachedInputs, PhotoInputs, build_cache
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.hosts.levels import LevelsHost

CPU = torch.device("cpu")
SIZES = [(96, 80), (48, 70), (64, 64), (130, 50)]
SCALES = (0.8, 1.5)


class Glass(nn.Module):
    """A frozen half that lets photos through."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.frozen_stages = nn.ModuleDict()

    def frozen_part(self, images: Tensor) -> list[Tensor]:
        return [images]


def label_of(index: int) -> np.ndarray:
    """Red, green and blue fields around a middle that is off the centre: no flip or shift leaves it as it is."""
    width, height = SIZES[index]
    rows, columns = np.indices((height, width))
    label = np.where(columns < width * 0.35, 0, np.where(rows < height * 0.4, 1, 2)).astype(np.uint8)
    label[: height // 8, -width // 8 :] = 255
    return label


@pytest.fixture
def images(tmp_path: Path) -> TaggedImages:
    """The photos show their labels: 0 red, 1 green, 2 blue, 255 white."""
    (tmp_path / "images").mkdir()
    for index in range(len(SIZES)):
        label = label_of(index)
        colours = np.stack([np.where((label == c) | (label == 255), 255, 1) for c in range(3)], axis=2)
        Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "images" / f"{index}.png")
    rows = "".join(f"images/{index}.png,train,a\n" for index in range(len(SIZES)))
    (tmp_path / "labels.csv").write_text(f"image,split,labels\n{rows}")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return open_images(DataConfig(kind="folder", root=str(tmp_path)))


def labelled(images: TaggedImages, kind: str, zoom: float = 1.4, size: int = 72) -> LabelledInputs:
    views = ViewsConfig(kind=kind, size=size, zoom=zoom)  # type: ignore[arg-type]
    return LabelledInputs(PhotoInputs(Glass(), images, views, CPU), label_of, SCALES)  # type: ignore[arg-type]


def shown(photos: Tensor) -> Tensor:
    """What the colours say, (N, 3, S, S) -> (N, S, S): the class, 255 white, 254 nothing (outside of the photo)."""
    bright = (photos > 0.5).sum(dim=1)  # (N, S, S)
    found = torch.where(bright == 3, 255, photos.argmax(dim=1))
    return torch.where(photos.amax(dim=1) < 0.002, 254, found)


@pytest.mark.parametrize("kind", ["square", "crop"])
def test_labels_lie_where_the_photo_shows_them(images: TaggedImages, kind: str) -> None:
    inputs, wrong, mirrored, scales = labelled(images, kind), [], set(), set()
    indices = np.array([2, 0, 3, 1])
    for epoch in range(12):
        (photos,), labels = inputs.training(indices, 5, epoch)
        assert photos.shape == (4, 3, 72, 72) and labels.shape == (4, 72, 72) and labels.dtype == torch.uint8
        seen = shown(photos)
        outside = seen == 254
        assert (kind == "crop") or not outside.any()
        assert (labels[outside] == 255).all(), "outside of a photo nothing is sure"
        wrong.append((seen[~outside] != labels[~outside]).float().mean().item())
        for label in labels:
            columns = (label == 0).nonzero()[:, 1].float()
            mirrored.add(bool(columns.mean() > 36)) if len(columns) else None
            scales.add(int((label == 0).sum()))
    assert max(wrong) < 0.05, "resizing blurs borders, no more"
    assert mirrored == {False, True} and len(scales) > 10


@pytest.mark.parametrize("kind", ["square", "crop"])
def test_a_view_is_a_function_of_seed_epoch_and_image(images: TaggedImages, kind: str) -> None:
    inputs = labelled(images, kind)
    (photos,), labels = inputs.training(np.array([0, 1, 2]), 1, 2)
    torch.manual_seed(7)
    (again,), same = labelled(images, kind).training(np.array([2, 0]), 1, 2)
    assert torch.equal(again, photos[[2, 0]]) and torch.equal(same, labels[[2, 0]])
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(inputs.training(np.array([0, 1, 2]), seed, epoch)[1], labels)


def test_labels_get_no_new_values(images: TaggedImages) -> None:
    """Between 0 and 255 there is no mean."""
    for kind in ("square", "crop"):
        for epoch in range(4):
            _, labels = labelled(images, kind, zoom=2.0).training(np.arange(4), 0, epoch)
            assert set(labels.unique().tolist()) <= {0, 1, 2, 255}


def test_without_zoom_a_square_is_the_whole_label(images: TaggedImages) -> None:
    _, labels = labelled(images, "square", zoom=1.0, size=64).training(np.array([2]), 0, 0)
    whole = torch.from_numpy(label_of(2))
    assert torch.equal(labels[0], whole) or torch.equal(labels[0], whole.flip(1))


def test_squares_are_kept_up_to_a_bound(images: TaggedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.data.kept_planes.OVERHEAD", 2000)  # far above what the squares take
    monkeypatch.setattr("tag2mask.hosts.labelled.KEPT_BYTES", 5600)
    inputs, read = labelled(images, "square"), []

    def read_label(index: int) -> np.ndarray:
        read.append(index)
        return label_of(index)

    inputs.read_label = read_label
    for epoch in range(3):
        _, labels = inputs.training(np.arange(4), 3, epoch)
        assert torch.equal(labels, labelled(images, "square").training(np.arange(4), 3, epoch)[1])
    assert sorted(read) == [0, 1, 2, 2, 2, 3, 3, 3], "two squares fit, packed; the others are read each time"


def test_cached_features_have_the_labels_of_photos(images: TaggedImages, tmp_path: Path) -> None:
    """The cache holds frozen features of plain and mirrored photos; zoom acts on them with the same draws."""
    torch.manual_seed(0)
    host = LevelsHost(HostConfig(backbone="test_efficientnet", weights="none"))
    views = ViewsConfig(size=64, zoom=1.4)
    build_cache(host, images, views, CPU, tmp_path / "cache", lambda done, total: None)
    cached = LabelledInputs(CachedInputs(host, images, views, CPU, tmp_path / "cache"), label_of, SCALES)
    plain = LabelledInputs(PhotoInputs(host, images, views, CPU), label_of, SCALES)
    for epoch in range(3):
        (levels, labels), (expected, same) = (each.training(np.arange(4), 3, epoch) for each in (cached, plain))
        assert torch.equal(labels, same) and len(labels.unique()) > 1
        assert [level.shape for level in levels] == [level.shape for level in expected]
