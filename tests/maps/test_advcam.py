from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tag2mask.config import AdvcamConfig, MapsConfig
from tag2mask.errors import InputError
from tag2mask.maps.advcam import advcam_maps, climb, step_up
from tag2mask.presets import PRESETS
from tests.maps import attribution_hosts as hosts

PUBLISHED = AdvcamConfig(iterations=27)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every batch of images that a host is given."""
    batches: list[Tensor] = []

    def spy(self: object, images: Tensor) -> list[Tensor]:
        batches.append(images.detach().clone())
        return [images]

    monkeypatch.setattr(hosts.CurvedHost, "frozen_part", spy)
    return batches


def test_published_settings() -> None:
    assert (PUBLISHED.iterations, PUBLISHED.step, PUBLISHED.threshold, PUBLISHED.regulariser) == (27, 0.08, 0.5, 7.0)
    assert PRESETS["paper"].maps.advcam.iterations == 27 and PRESETS["authors"].maps.advcam.iterations == 19
    assert PRESETS["authors"].maps.scales == (1.0, 0.5, 1.5, 2.0)
    for wrong in ({"iterations": 0}, {"step": -1.0}, {"threshold": 2.0}, {"scales": (0.0,)}, {"batch_size": 1}):
        with pytest.raises(InputError, match=f"maps.advcam.{next(iter(wrong))}"):
            AdvcamConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="maps.method is 'gradcan'; expected one of cam, advcam, gradcam"):
        MapsConfig(method="gradcan")


@pytest.mark.parametrize(
    ("flip", "changes"),
    [
        (True, {}),
        (True, {"regulariser": 0.5, "threshold": 0.2}),
        (False, {"channel_weights": "mean"}),
        (True, {"channel_weights": "mean", "step": 0.3}),
    ],
)
def test_against_a_slow_reference(flip: bool, changes: dict[str, object]) -> None:
    host, image, config = hosts.CurvedHost(), hosts.picture(24, 32), replace(PUBLISHED, **changes)  # type: ignore[arg-type]
    classes = torch.tensor([3, 1])
    found = climb(host, image, classes, 4, flip, config)
    once = climb(host, image, classes, 1, flip, config)
    for p, c in enumerate(classes.tolist()):
        slow = hosts.slow_climb(host, image, c, 4, flip, config)
        assert slow.max() > 0
        torch.testing.assert_close(found[p], slow, rtol=1e-7, atol=1e-10)
        assert (slow - 4 * once[p]).abs().max() > 1e-3 * slow.max(), "the climbing changes something"


def test_a_class_activation_host_against_the_slow_reference() -> None:
    host, image = hosts.small_host("side"), hosts.picture(32, 48)
    found = climb(host, image, torch.tensor([2]), 3, True, PUBLISHED)
    torch.testing.assert_close(found[0], hosts.slow_climb(host, image, 2, 3, True, PUBLISHED), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rule", ["published", "mean"])
def test_one_iteration_is_gradcam(rule: str) -> None:
    host, image = hosts.CurvedHost(), hosts.picture(48, 64)
    found = climb(host, image, torch.tensor([0, 2]), 1, True, replace(PUBLISHED, channel_weights=rule))  # type: ignore[arg-type]
    for p, c in enumerate((0, 2)):
        views = [host.attribution_part(host.frozen_part(view)) for view in (image, hosts.mirrored(image))]
        plain, turned = hosts.slow_gradcam(views, c, rule)
        torch.testing.assert_close(found[p], plain + hosts.mirrored(turned), rtol=1e-9, atol=1e-12)


def test_images_stay_in_their_own_range_and_their_mirrors_follow(seen: list[Tensor]) -> None:
    host, image = hosts.CurvedHost(), hosts.picture(48, 64)
    climb(host, image, torch.arange(4), 12, True, replace(PUBLISHED, step=0.7))
    assert len(seen) == 12
    for batch in seen:
        assert batch.shape == (8, 3, 48, 64)
        assert image.min() <= batch.min() and batch.max() <= image.max()
        torch.testing.assert_close(batch[4:], batch[:4].flip(3))
    torch.testing.assert_close(seen[0][:4], image.expand(4, -1, -1, -1))
    last = seen[-1][:4]
    assert all((last[a] - last[b]).abs().max() > 0.1 for a in range(4) for b in range(a)), "each class has its own copy"


def test_a_step() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.9], [5.0, 9.0, 7.0, 7.0]]).view(2, 1, 2, 2)
    gradient = torch.tensor([[-4.0, 2.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    moved = step_up(x, gradient, 0.08).view(2, 4)
    torch.testing.assert_close(moved[0], torch.tensor([0.0, 1.0, 0.52, 0.98]))
    torch.testing.assert_close(moved[1], x[1].flatten()), "without a gradient it stands still"


def test_the_score_of_the_class_rises(seen: list[Tensor]) -> None:
    host, image = hosts.CurvedHost(), hosts.picture(64, 64)
    climb(host, image, torch.tensor([1]), 8, True, replace(PUBLISHED, regulariser=0.0, step=0.02))
    margins = []
    for batch in (seen[0], seen[-1]):
        y = host.attribution_part(host.frozen_part(batch))[1].relu().mean(dim=(2, 3)).sum(0)  # (C,)
        margins.append(float((2 * y[1] - y.sum()).detach()))
    assert margins[1] > margins[0]


def test_classes_together_and_one_by_one() -> None:
    host, classes = hosts.CurvedHost(), torch.tensor([0, 1, 2, 3])

    def maps(config: AdvcamConfig, chosen: Tensor) -> Tensor:
        return advcam_maps(host, lambda scale: hosts.picture(48, 64), chosen, (1.0,), True, config)[0]

    config = replace(PUBLISHED, iterations=5)
    together = maps(config, classes)  # (1, 4, h, w)
    one_by_one = torch.cat([maps(config, classes[p : p + 1]) for p in range(4)], dim=1)
    in_small_batches = maps(replace(config, batch_size=6), classes)
    torch.testing.assert_close(together, one_by_one, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(together, in_small_batches, rtol=1e-7, atol=1e-10)


def test_iterations_by_scale(seen: list[Tensor]) -> None:
    host = hosts.CurvedHost()
    maps = advcam_maps(
        host, lambda scale: hosts.picture(round(16 * scale), round(16 * scale)), torch.tensor([1]),
        (1.0, 0.5, 1.5, 2.0), False, PUBLISHED,
    )  # fmt: skip
    sizes = [batch.shape[3] for batch in seen]
    assert {size: sizes.count(size) for size in sizes} == {8: 13, 16: 27, 24: 27, 32: 27}
    assert sizes == sorted(sizes) and len(maps) == 4 and all(m.shape[:2] == (1, 1) for m in maps)
    seen.clear()
    advcam_maps(
        host, lambda scale: hosts.picture(32, 32), torch.tensor([1]), (0.5,), False, replace(PUBLISHED, iterations=1)
    )
    assert len(seen) == 1, "never less than the image itself"


@pytest.mark.parametrize(
    ("half_scale", "scales", "factors"),
    [
        ("published", (1.0, 0.5), (2, 2)), ("double", (1.0, 0.5), (2, 1)),
        ("published", (0.25, 0.5, 1.0), (1, 2, 2)), ("double", (0.25, 0.5, 1.0), (1, 2, 1)),
        ("published", (1.0,), (1,)), ("double", (1.0,), (1,)),
    ],
)  # fmt: skip
def test_what_the_half_scale_counts(half_scale: str, scales: tuple[float, ...], factors: tuple[int, ...]) -> None:
    host, classes = hosts.CurvedHost(), torch.tensor([1, 2])
    config = replace(PUBLISHED, iterations=3, half_scale=half_scale)  # type: ignore[arg-type]

    def image_at(scale: float) -> Tensor:
        return hosts.picture(round(96 * scale), round(64 * scale))

    maps = advcam_maps(host, image_at, classes, scales, True, config)
    for scale, factor, found in zip(sorted(scales), factors, maps, strict=True):
        alone = climb(host, image_at(scale), classes, 1 if scale == 0.5 else 3, True, config)
        torch.testing.assert_close(found[0], factor * alone)
