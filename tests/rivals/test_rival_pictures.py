"""Saliency maps and the photos of a CLIP move with the photos of the training; a CLIP from disk is OpenCLIP's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import DataConfig, ViewsConfig, WoodConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.views import random_crop
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.hosts.labelled import LabelledInputs
from tag2mask.stages.clip import load_clip
from tag2mask.stages.rival_pictures import Pictures, Untouched, ood_images, saliency_images
from tag2mask.stages.rivals import WoodLoss
from tests.conftest import WriteFolder
from tests.rivals.conftest import WriteClip

CPU = torch.device("cpu")
BLACK, ONE = (0.0,) * 3, (1.0,) * 3
BATCH = np.array([3, 0, 7, 11, 5])


@pytest.fixture
def images(write_folder: WriteFolder) -> TaggedImages:
    return open_images(DataConfig(kind="folder", root=str(write_folder())))


def saliency_of(images: TaggedImages, folder: Path) -> dict[int, np.ndarray]:
    """Writes maps of one large block, at another place in each; gives them as labels."""
    labels = {}
    for number, name in enumerate(images.ids):
        width, height = images.image(number).size
        block = np.zeros((height, width), np.uint8)
        block[: height // 2 + number % 5, : width // 3 + number] = 1
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * block).save(path)
        labels[number] = block
    return labels


def test_saliency_follows_as_labels_of_pixels_do(images: TaggedImages, tmp_path: Path) -> None:
    labels = saliency_of(images, tmp_path / "maps")
    views = ViewsConfig(size=64, zoom=1.4)
    maps = Pictures(saliency_images(str(tmp_path / "maps"), images), views, BLACK, ONE, CPU)
    reader = LabelledInputs(PhotoInputs(Untouched(BLACK, ONE), images, views, CPU), labels.__getitem__, (1, 1))
    seen = []
    for epoch in range(4):
        ours = maps.training(BATCH, 3, epoch)
        assert ours.shape == (5, 3, 64, 64) and ours.min() >= 0 and ours.max() <= 1
        theirs = reader.training(BATCH, 3, epoch)[1]
        assert ((ours[:, 0] > 0.5) == (theirs == 1)).float().mean() > 0.97, "but for the pixels of edges"
        seen.append(ours)
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0], maps.training(BATCH, 3, 0))


def test_saliency_follows_crops(images: TaggedImages, tmp_path: Path) -> None:
    saliency_of(images, tmp_path / "maps")
    views = ViewsConfig(kind="crop", size=48, resize_long=(40, 90), colour_jitter=(0.3, 0.3, 0.3, 0.1))
    maps = saliency_images(str(tmp_path / "maps"), images)
    ours = Pictures(maps, views, BLACK, ONE, CPU).training(BATCH, 5, 2)
    for row, number in enumerate(BATCH.tolist()):
        assert torch.equal(ours[row], random_crop(maps.image(number), 48, (40, 90), BLACK, ONE, 5, 2, number))
        photo = random_crop(Image.new("RGB", images.image(number).size, "white"), 48, (40, 90), BLACK, ONE, 5, 2, number)
        assert not ours[row][photo == 0].any(), "what lies beside the photo is not salient"


def test_the_view_of_a_clip_is_the_view_of_the_training_at_another_size(images: TaggedImages) -> None:
    views = ViewsConfig(size=128, zoom=1.4)
    large = Pictures(images, views, BLACK, ONE, CPU).training(BATCH, 3, 1)
    small = Pictures(images, views, BLACK, ONE, CPU, size=32).training(BATCH, 3, 1)
    assert small.shape == (5, 3, 32, 32)
    coarse = torch.nn.functional.avg_pool2d(large, 4)
    difference, turned = (coarse - small).abs().mean(), (coarse - small.flip(3)).abs().mean()
    assert difference < 0.03 < turned


def test_photos_of_no_class_are_drawn_without_repeats_and_all_in_the_end(
    images: TaggedImages, nothing_there: Path
) -> None:
    photos = ood_images(str(nothing_there), images.classes)
    assert len(photos) == 5 and not photos.labels.any() and photos.image(1).mode == "RGB"
    loss = object.__new__(WoodLoss)
    loss.__dict__.update(config=WoodConfig(), seed=4, count=5)
    drawn = [tuple(loss.drawn(np.array([first, 1]), epoch)) for epoch in range(4) for first in (0, 9)]
    assert all(len(set(pair)) == 2 for pair in drawn) and {n for pair in drawn for n in pair} == set(range(5))
    assert tuple(loss.drawn(np.array([9, 8]), 3)) == drawn[-1], "by the first of the batch"
    assert sorted(loss.drawn(np.arange(30), 0)) == [0, 1, 2, 3, 4]
    loss.__dict__.update(config=WoodConfig(batch=3))
    assert len(loss.drawn(np.arange(30), 0)) == 3


def test_a_clip_from_disk(write_clip: WriteClip) -> None:
    open_clip = pytest.importorskip("open_clip")
    folder = write_clip()
    clip = load_clip(str(folder), CPU)
    assert (clip.size, clip.mean, clip.std) == (32, (0.5, 0.4, 0.3), (0.3, 0.3, 0.2))
    words = [f"a photo of {name}" for name in ("boat", "railroad track")] * 40
    expected = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        rows = expected.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(words), normalize=True)
    torch.testing.assert_close(clip.texts(words), rows)
    assert clip.texts([]).shape == (0, 16)
    pictures = torch.rand(2, 3, 32, 32, requires_grad=True)
    torch.testing.assert_close(clip.images(pictures), expected.encode_image(pictures, normalize=True))
    assert clip.images(pictures).norm(dim=1).tolist() == pytest.approx([1, 1])
    clip.images(pictures)[:, 0].sum().backward()
    assert pictures.grad is not None and pictures.grad.any()
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
