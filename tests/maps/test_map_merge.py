from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tag2mask.config import ViewsConfig
from tag2mask.data import TaggedImages
from tag2mask.data.classes import Classes
from tag2mask.engine import set_up_torch
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.maps.merge import class_activation, localization_maps, map_peaks, merged_output
from tag2mask.presets import PRESETS
from tag2mask.score import absent_floor

Make = Callable[..., PhotoInputs]
BATCH = np.array([2, 0])


def photo(index: int) -> Image.Image:
    coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((72, 56), Image.Resampling.BICUBIC)


def turned_photo(index: int) -> Image.Image:
    return ImageOps.mirror(photo(index))


@pytest.fixture(scope="module")
def host() -> CamHost:
    set_up_torch(1, "cpu")
    torch.manual_seed(0)
    config = replace(PRESETS["paper"].host, backbone="test_resnet", weights="none", freeze="layer2")
    host = CamHost(config, 3).eval()
    torch.nn.init.normal_(host.classifier.weight)
    return host


@pytest.fixture
def make(host: CamHost) -> Make:
    def inputs(kind: str = "square", reader: Callable[[int], Image.Image] = photo) -> PhotoInputs:
        images = TaggedImages(Classes(("a", "b", "c")), ("p", "q", "r"), np.ones((3, 3), bool), reader)
        return PhotoInputs(host, images, ViewsConfig(kind=kind, size=96), torch.device("cpu"))  # type: ignore[arg-type]

    return inputs


def views_of(inputs: PhotoInputs, batch: np.ndarray, scale: float, mirrored: bool) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        output = inputs.host.trained_part(inputs.plain(batch, mirrored, scale))
    features, maps = output.features, output.maps
    return (features.flip(3), maps.flip(3)) if mirrored else (features, maps)


def loop_resize(plane: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear resizing of (h, w), pixel by pixel."""
    source, result = plane.double().numpy(), np.zeros(size)

    def place(target: int, count: int, wanted: int) -> tuple[int, int, float]:
        if align_corners:
            at = target * (count - 1) / (wanted - 1) if wanted > 1 else 0.0
        else:
            at = max(0.0, (target + 0.5) * count / wanted - 0.5)
        low = min(int(at), count - 1)
        return low, min(low + 1, count - 1), at - low

    for y in range(size[0]):
        top, bottom, down = place(y, source.shape[0], size[0])
        for x in range(size[1]):
            left, right, across = place(x, source.shape[1], size[1])
            upper = source[top, left] * (1 - across) + source[top, right] * across
            lower = source[bottom, left] * (1 - across) + source[bottom, right] * across
            result[y, x] = upper * (1 - down) + lower * down
    return torch.from_numpy(result).float()


def close(given: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


def test_one_scale_is_the_network_itself(host: CamHost, make: Make) -> None:
    inputs = make()
    features, maps = views_of(inputs, BATCH, 1.0, False)
    merged = merged_output(host, inputs, BATCH)
    close(merged.features, features)
    close(merged.maps, maps)
    close(merged.logits, maps.mean((2, 3)))
    activation, logits = class_activation(host, inputs, BATCH, (1.0,), False)
    close(activation[0], maps.relu())
    close(logits, maps.mean((2, 3)))


@pytest.mark.parametrize("scales", [(1.0, 0.5, 1.5), (1.5, 0.5, 1.0), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("flip", [False, True])
def test_features_and_maps_are_averaged_on_the_grid_of_scale_1(
    host: CamHost, make: Make, scales: tuple[float, ...], flip: bool
) -> None:
    inputs = make()
    merged = merged_output(host, inputs, BATCH, scales, flip)
    parts: list[tuple[Tensor, Tensor]] = []
    for scale in scales:
        for mirrored in (False, True) if flip else (False,):
            views = views_of(inputs, BATCH, scale, mirrored)
            assert scale == 1.0 or views[1].shape[2:] != (6, 6)
            parts.append(tuple(  # type: ignore[arg-type]
                torch.stack([torch.stack([loop_resize(p, (6, 6), True) for p in image]) for image in view])
                for view in views
            ))  # fmt: skip
    close(merged.features, torch.stack([features for features, _ in parts]).mean(0))
    close(merged.maps, torch.stack([maps for _, maps in parts]).mean(0))
    close(merged.logits, merged.maps.mean((2, 3)))


def test_level_features_are_merged_like_any_others() -> None:
    """The class maps are the same; the features are those of the backbone's levels, averaged over the views."""
    torch.manual_seed(0)
    config = replace(
        PRESETS["paper"].host, backbone="test_resnet", weights="none", freeze="all", levels=("layer3", "layer4"), neck=8
    )
    host = CamHost(config, 3).eval()
    images = TaggedImages(Classes(("a", "b", "c")), ("p", "q", "r"), np.ones((3, 3), bool), photo)
    inputs = PhotoInputs(host, images, ViewsConfig(kind="square", size=96), torch.device("cpu"))
    plain, merged = (merged_output(host, inputs, BATCH, (1.0, 0.5), True, levels) for levels in (False, True))
    assert torch.equal(merged.maps, plain.maps) and torch.equal(merged.logits, plain.logits)
    parts = []
    for scale in (1.0, 0.5):
        for mirrored in (False, True):
            with torch.no_grad():
                view = host.trained_part(inputs.plain(BATCH, mirrored, scale), level_features=True).features
            view = view.flip(3) if mirrored else view
            parts.append(torch.stack([torch.stack([loop_resize(p, (6, 6), True) for p in image]) for image in view]))
    assert merged.features.shape[1] > plain.features.shape[1] == 8
    close(merged.features, torch.stack(parts).mean(0))


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (0.5, 1.0)])
def test_activation_of_each_scale_with_mirror_images(host: CamHost, make: Make, scales: tuple[float, ...]) -> None:
    inputs = make()
    activation, logits = class_activation(host, inputs, BATCH, scales, True)
    for scale, given in zip(scales, activation, strict=True):
        plain, mirrored = (views_of(inputs, BATCH, scale, m)[1] for m in (False, True))
        close(given, plain.relu() + mirrored.relu())
    plain, mirrored = (views_of(inputs, BATCH, 1.0, m)[1] for m in (False, True))
    close(logits, (plain + mirrored).mean((2, 3)) / 2)


@pytest.mark.parametrize("kind", ["square", "crop"])
def test_mirrored_photo_has_mirrored_maps(host: CamHost, make: Make, kind: str) -> None:
    batch = np.array([1])
    for scales in ((1.0,), (1.0, 0.5)):
        activation, _ = class_activation(host, make(kind), batch, scales, True)
        turned, _ = class_activation(host, make(kind, turned_photo), batch, scales, True)
        for given, other in zip(activation, turned, strict=True):
            assert not torch.allclose(given, given.flip(3), atol=1e-2)
            torch.testing.assert_close(other, given.flip(3), atol=1e-3, rtol=1e-3)
        merged = merged_output(host, make(kind), batch, scales, True)
        mirrored = merged_output(host, make(kind, turned_photo), batch, scales, True)
        torch.testing.assert_close(mirrored.features, merged.features.flip(3), atol=1e-3, rtol=1e-3)


def test_photos_of_their_own_size_have_grids_of_their_own(host: CamHost, make: Make) -> None:
    activation, _ = class_activation(host, make("crop"), np.array([0]), (1.0, 0.5, 2.0), False)
    assert [tuple(a.shape[2:]) for a in activation] == [(4, 5), (2, 3), (7, 9)]  # 56 x 72 at stride 16


@pytest.mark.parametrize("classes", [[0], [2, 0], [1, 0, 2]])
def test_localization_maps_against_loops(classes: list[int]) -> None:
    random = torch.Generator().manual_seed(3)
    scales = [torch.randn(2, 3, h, w, generator=random).relu() for h, w in ((5, 4), (3, 2), (1, 1))]
    size = (13, 9)
    given = localization_maps(scales, 1, torch.tensor(classes), size)
    assert given.shape == (len(classes), *size)
    for row, c in enumerate(classes):
        total = torch.stack([loop_resize(scale[1, c], size, False) for scale in scales]).sum(0)
        torch.testing.assert_close(given[row], total / (total.max() + 1e-5), atol=1e-5, rtol=1e-5)
    assert given.min() >= 0 and given.max() < 1


def test_a_class_without_activation_has_an_empty_map() -> None:
    maps = localization_maps([torch.zeros(1, 2, 3, 3)], 0, torch.tensor([1]), (8, 8))
    assert maps.shape == (1, 8, 8) and maps.abs().max() == 0


def test_photo_of_one_pixel_at_every_scale(host: CamHost, make: Make) -> None:
    for kind in ("square", "crop"):
        inputs = make(kind, lambda index: Image.new("RGB", (1, 1), "red"))
        activation, _ = class_activation(host, inputs, np.array([0]), (1.0, 0.5, 2.0), True)
        maps = localization_maps(activation, 0, torch.tensor([0, 2]), (1, 1))
        assert maps.shape == (2, 1, 1) and torch.isfinite(maps).all()
        assert torch.isfinite(merged_output(host, inputs, np.array([0]), (1.0, 0.5), True).features).all()


def test_absent_classes_reach_what_they_do_outside_of_the_tagged_objects() -> None:
    """Two scales, of which the larger gives the grid; equal to a loop over images, classes and pixels."""
    torch.manual_seed(1)
    scales = [torch.randn(2, 4, 3, 5).relu(), torch.randn(2, 4, 6, 10).relu()]
    for scale in scales:
        scale[0, 1] = scale[0, 0] / 2  # confused with a class that is there
    present = torch.tensor([[True, False, True, False], [False, False, False, False]])
    found = map_peaks(scales, present)
    for image in range(2):
        total = [loop_resize(scales[0][image, c], (6, 10), False) + scales[1][image, c] for c in range(4)]
        for c in range(4):
            values = [0.0]
            for row in range(6):
                for column in range(10):
                    claims = [total[k][row, column] > 0.25 * total[k].max() for k in range(4) if present[image, k]]
                    if present[image, c] or not any(claims):
                        values.append(float(total[c][row, column]))
            assert abs(float(found[image, c]) - max(values)) < 1e-5
    assert found[0, 1] < 0.6 * map_peaks(scales, torch.zeros_like(present))[0, 1]


def test_where_tagged_classes_claim_every_pixel_absent_ones_tell_nothing() -> None:
    """Not even that they reach 0: broad maps, which claim most, are what the floor is for."""
    maps = [torch.stack([torch.ones(4, 4), torch.rand(4, 4)])[None]]
    found = map_peaks(maps, torch.tensor([[True, False]]))
    assert found[0, 0] == 1 and found[0, 1].isnan()
    tags = np.arange(12)[:, None] % 3 == np.arange(3)
    peaks = np.where(tags, 1e3, 400.0)
    level = absent_floor(peaks, tags)
    peaks[:8] = np.where(tags[:8], peaks[:8], np.nan)
    assert absent_floor(peaks, tags) == level > 1
