from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config.segment import SEGMENT_PRESETS, SegmentConfig
from tag2mask.data.images import decode_image
from tag2mask.data.views import to_tensor
from tag2mask.errors import InputError
from tag2mask.segment import predict
from tag2mask.segment.network import Encoder, SegmentationNetwork
from tag2mask.segment.predict import predict_labels, predict_probabilities
from tag2mask.segment.tiles import tile_starts, tiled_logits, weights_of

Build = Callable[..., SegmentationNetwork]
CPU = torch.device("cpu")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def crop_config(network: SegmentationNetwork, **settings: object) -> SegmentConfig:
    options: dict[str, object] = {"view": "crop", "test_scales": (1.0,), "flip": False, **settings}
    return replace(network.config, **options)  # type: ignore[arg-type]


def plain(network: SegmentationNetwork, image: np.ndarray) -> Tensor:
    """The network's own probabilities of a whole picture, (C + 1, H, W)."""
    with torch.no_grad():
        pixels = to_tensor(Image.fromarray(image), network.mean, network.std)[None]
        return network(pixels)[0].softmax(dim=0)


class Pointwise(nn.Module):
    """A head that looks at single pixels, so that nothing depends on where a tile ends."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 5, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        return 3 * self.mix(functional.avg_pool2d(levels[-1], 4))


@pytest.fixture
def pointwise() -> SegmentationNetwork:
    torch.manual_seed(0)
    encoder = Encoder(nn.ModuleDict({"same": nn.Identity()}), (0.4,) * 3, (0.3,) * 3, "none")
    return SegmentationNetwork(encoder, ("same",), Pointwise(), 4, 4, 16, SEGMENT_PRESETS["small"])


@pytest.mark.parametrize("name", ["small", "deeplab_v2"])
@pytest.mark.parametrize("size", [(65, 97), (96, 64), (40, 130)])
def test_one_look_is_the_network_itself(build: Build, name: str, size: tuple[int, int]) -> None:
    network, image = build(name), photo(*size)
    config = crop_config(network)
    found = predict_probabilities(network, image, config, CPU)
    assert found.dtype == np.float32 and found.shape == (5, *size)
    np.testing.assert_allclose(found, plain(network, image), atol=2e-5)
    assert np.array_equal(predict_labels(network, Image.fromarray(image), config, CPU), found.argmax(axis=0))


def test_pictures_are_read_as_files_are(build: Build, tmp_path: Path) -> None:
    """A photo that a camera held upright, one of 16 bits and one with a transparent part, opened by the caller."""
    network, pixels = build("small"), photo(64, 96)
    config, exif = crop_config(network), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    seen = Image.fromarray(pixels).convert("RGBA")
    seen.paste((0, 0, 0, 0), (0, 0, 50, 64))
    seen.save(tmp_path / "transparent.png")
    for name, size in (("turned.jpg", (96, 64)), ("deep.png", (64, 96)), ("transparent.png", (64, 96))):
        expected = predict_labels(network, np.asarray(decode_image(tmp_path / name)), config, CPU)
        with Image.open(tmp_path / name) as image:
            found = predict_labels(network, image, config, CPU)
        assert found.shape == size and np.array_equal(found, expected), name
    with pytest.raises(InputError, match="the image: the picture has floating-point pixels"):
        predict_labels(network, Image.new("F", (64, 64)), config, CPU)


def test_tiles_of_a_network_that_sees_pixels_alone_are_the_whole(pointwise: SegmentationNetwork) -> None:
    for size in ((200, 331), (64, 500), (130, 66)):
        image = photo(*size)
        for overlap in (0, 16, 32):
            tiled = predict_probabilities(pointwise, image, crop_config(pointwise, tile=64, overlap=overlap), CPU)
            np.testing.assert_allclose(tiled, plain(pointwise, image), atol=2e-5)


def test_where_one_tile_is_enough_nothing_changes(build: Build) -> None:
    network, image = build("small"), photo(65, 97)
    large, exact = (tiled_logits(network, image, tile, 32, False, CPU) for tile in (1024, 112))
    assert torch.equal(large, exact)


class CentreSeeker(nn.Module):
    """A head whose logits depend on the place in its view: tiles disagree as strongly as they can."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        height, width = (side // 4 for side in levels[-1].shape[2:])
        rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
        return torch.stack([rows + columns, rows * columns]).expand(len(levels[-1]), 2, height, width)


def test_blended_tiles_have_no_seam() -> None:
    encoder = Encoder(nn.ModuleDict({"same": nn.Identity()}), (0.4,) * 3, (0.3,) * 3, "none")
    network = SegmentationNetwork(encoder, ("same",), CentreSeeker(), 1, 4, 16, SEGMENT_PRESETS["small"])
    image = photo(400, 400)
    steps = {}
    for overlap in (0, 128):
        logits = tiled_logits(network, image, 256, overlap, False, CPU)
        steps[overlap] = max(logits.diff(dim=d).abs().max().item() for d in (1, 2))
    assert steps[0] < 0.4 and steps[128] < 0.12  # at overlap 0 the grid still shares what two tiles of 256 must
    sharp = tiled_logits(network, photo(512, 512), 256, 0, False, CPU)
    assert max(sharp.diff(dim=d).abs().max().item() for d in (1, 2)) > 1


@given(st.integers(1, 60), st.integers(4, 20), st.integers(0, 10), st.sampled_from([1, 16]))
def test_tiles_cover_a_side_with_the_overlap_that_was_asked_for(
    side: int, tile: int, overlap: int, multiple: int
) -> None:
    overlap = min(overlap, tile // 2)
    starts = tile_starts(side * multiple, tile * multiple, overlap * multiple, multiple)
    assert starts[0] == 0 and starts == sorted(set(starts)) and all(start % multiple == 0 for start in starts)
    if side <= tile:
        assert starts == [0]
        return
    assert starts[-1] + tile * multiple == side * multiple
    assert all(a + (tile - overlap) * multiple >= b for a, b in pairwise(starts))
    total = torch.zeros(side)
    for start, weights in zip(starts, weights_of([s // multiple for s in starts], tile), strict=True):
        assert weights.min() > 0
        total[start // multiple : start // multiple + tile] += weights
    assert total.min() > 0


def test_mirror_images_are_averaged(build: Build) -> None:
    network = build("small")
    image = photo(64, 96)  # both multiples of the network's, so that padding plays no part
    both = predict_probabilities(network, image, crop_config(network, flip=True), CPU)
    mirrored = plain(network, image[:, ::-1].copy()).flip(2)
    np.testing.assert_allclose(both, (plain(network, image) + mirrored) / 2, atol=2e-5)
    turned = predict_probabilities(network, image[:, ::-1].copy(), crop_config(network, flip=True), CPU)
    np.testing.assert_allclose(turned[:, :, ::-1], both, atol=2e-5)


def test_scales_are_averaged_at_the_size_of_the_photo(pointwise: SegmentationNetwork) -> None:
    image = np.full((70, 90, 3), 30, np.uint8)
    image[:, 45:] = 220
    one, several = (
        predict_probabilities(pointwise, image, crop_config(pointwise, test_scales=scales, flip=True), CPU)
        for scales in ((1.0,), (0.5, 1.0, 1.7))
    )
    np.testing.assert_allclose(several.sum(axis=0), 1, atol=1e-5)
    away = np.r_[0:32, 60:80]  # the edge is where it was: only next to it, and to the padding, may scales differ
    np.testing.assert_allclose(several[:, :60, away], one[:, :60, away], atol=1e-3)


def test_square_views_see_what_training_saw(build: Build) -> None:
    network, image = build("small"), photo(80, 150)
    config = crop_config(network, view="square", size=64)
    squared = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0))
    with torch.no_grad():
        pixels = to_tensor(Image.fromarray(squared), network.mean, network.std)[None]
        logits = network.trained_part(network.frozen_part(pixels))
    expected = functional.interpolate(logits, (80, 150), mode="bilinear").softmax(dim=1)[0]
    np.testing.assert_allclose(predict_probabilities(network, image, config, CPU), expected, atol=2e-5)


def test_strips_are_the_whole(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = build("deeplab_v2"), photo(65, 97)
    config = crop_config(network, test_scales=(0.5, 1.0), flip=True)
    whole = predict_probabilities(network, image, config, CPU)
    monkeypatch.setattr(predict, "STRIP_BYTES", 4 * 97 * 5 * 3)  # three rows
    np.testing.assert_allclose(predict_probabilities(network, image, config, CPU), whole, atol=1e-6)
    assert np.array_equal(predict_labels(network, image, config, CPU), whole.argmax(axis=0))


def test_a_crf_follows_the_colours_of_the_photo(pointwise: SegmentationNetwork) -> None:
    image = np.full((40, 60, 3), 40, np.uint8)
    image[:, 30:] = 210
    config = crop_config(pointwise, crf="deeplab_v1")
    found = predict_probabilities(pointwise, image, config, CPU)
    before = predict_probabilities(pointwise, image, crop_config(pointwise), CPU)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-4)
    assert found.max(axis=0)[:, 30:].mean() > before.max(axis=0)[:, 30:].mean()
    labels = predict_labels(pointwise, image, config, CPU)
    assert np.array_equal(labels, found.argmax(axis=0)) and labels.dtype == np.uint8


def test_grey_and_transparent_pictures_are_read_as_rgb(build: Build) -> None:
    network = build("small")
    grey = Image.fromarray(photo(40, 50)).convert("L")
    expected = predict_labels(network, grey.convert("RGB"), crop_config(network), CPU)
    for mode in ("L", "RGBA", "P"):
        assert np.array_equal(predict_labels(network, grey.convert(mode), crop_config(network), CPU), expected)
    with pytest.raises(ValueError, match="float"):
        predict_labels(network, np.zeros((4, 4, 3)), crop_config(network), CPU)  # type: ignore[arg-type]
