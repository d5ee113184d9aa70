"""SEAM's losses and its pixel correlation against loops, and what they promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.config import SeamConfig
from tag2mask.errors import InputError
from tag2mask.fpr.objective import binary_cross_entropy
from tag2mask.hosts import seam_correlation
from tag2mask.hosts.host import soft_margin
from tag2mask.hosts.seam_correlation import PixelCorrelation, correlated, peak_normalised
from tag2mask.hosts.seam_losses import View, max_norm, present_planes, seam_terms, strongest
from tests.hosts import seam_reference as reference

TOLERANCE = {"atol": 1e-9, "rtol": 1e-9}
LABELS = {
    "some": [[1, 0, 1], [0, 1, 0]],
    "no present class": [[0, 0, 0], [1, 0, 0]],
    "all absent": [[0, 0, 0], [0, 0, 0]],
    "all present": [[1, 1, 1], [1, 1, 1]],
    "unknown tags": [[1, -1, 0], [-1, 1, 1]],
    "a photo of unknown tags": [[-1, -1, -1], [1, 0, 0]],
    "nothing known": [[-1, -1, -1], [-1, -1, -1]],
}


def view_of(seed: int, size: tuple[int, int], at: tuple[int, int], photos: int = 2, classes: int = 3) -> View:
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(photos, classes, *size, generator=random, dtype=torch.float64)
    refined = torch.rand(photos, classes, *size, generator=random, dtype=torch.float64)
    return View(maps.mean(dim=(2, 3)), maps, refined, at)


def in_loops(view: View) -> list[reference.PhotoView]:
    rows = zip(view.logits.tolist(), view.maps.tolist(), view.refined.tolist(), strict=True)
    return [reference.PhotoView(*row, view.size) for row in rows]


def check(one: View, two: View, labels: list[list[int]], config: SeamConfig | None = None) -> None:
    config = config or SeamConfig()
    terms = seam_terms(one, two, torch.tensor(labels, dtype=torch.float64), config)
    expected = reference.total(in_loops(one), in_loops(two), labels, config.min_pool_share, config.top_share)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(terms, name), torch.tensor(value, dtype=torch.float64), **TOLERANCE, msg=name)


@pytest.mark.parametrize("grid", ["input", "map"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_all_terms_are_those_of_the_loops(labels: list[list[int]], grid: str) -> None:
    first, second = ((8, 12), (3, 5)) if grid == "input" else ((4, 6), (2, 3))
    check(view_of(1, (4, 6), first), view_of(2, (2, 3), second), labels)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_one_pixel(labels: list[list[int]]) -> None:
    check(view_of(3, (1, 1), (1, 1)), view_of(4, (1, 1), (1, 1)), labels)
    check(view_of(3, (2, 1), (4, 2)), view_of(4, (1, 1), (1, 1)), labels)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), seed=st.integers(0, 10_000), classes=st.integers(1, 5), photos=st.integers(1, 3),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)  # fmt: skip
def test_any_labels_and_shares(
    data: st.DataObject, seed: int, classes: int, photos: int, shares: tuple[float, float]
) -> None:
    tags = st.lists(st.sampled_from([-1, 0, 1]), min_size=classes, max_size=classes)
    labels = data.draw(st.lists(tags, min_size=photos, max_size=photos))
    sizes = {"photos": photos, "classes": classes}
    config = SeamConfig(min_pool_share=shares[0], top_share=shares[1])
    check(view_of(seed, (3, 4), (5, 4), **sizes), view_of(seed + 1, (2, 2), (2, 3), **sizes), labels, config)


def test_weights_of_the_terms() -> None:
    one, two = view_of(5, (4, 4), (4, 4)), view_of(6, (2, 2), (2, 2))
    labels = torch.tensor(LABELS["some"])
    terms = seam_terms(one, two, labels, SeamConfig(min_pool_weight=3, equivariance_weight=5, cross_weight=7))
    expected = terms.classification + 3 * terms.min_pool + 5 * terms.equivariance + 7 * terms.cross
    torch.testing.assert_close(terms.total, expected)
    assert min(terms) > 0


def test_soft_margin_is_equation_1() -> None:
    """The training loop adds Eq. 1, which the host takes away again."""
    logits = torch.randn(4, 5, dtype=torch.float64)
    labels = torch.randint(-1, 2, (4, 5))
    torch.testing.assert_close(soft_margin(logits, labels), binary_cross_entropy(logits, labels), **TOLERANCE)


def test_views_that_agree_have_no_difference() -> None:
    """Both views alike, one class a pixel, refined maps equal to the normalised ones: ER and ECR are 0."""
    maps = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    maps[0, 0, :2], maps[0, 1, 2:] = 3.0, 1.0
    view = View(maps.mean(dim=(2, 3)), maps, maps.clamp(max=1.0), (4, 4))
    terms = seam_terms(view, view, torch.tensor([[1, 1]]), SeamConfig())
    assert terms.equivariance == 0
    assert terms.cross < 1e-4


def test_an_unknown_class_changes_nothing_but_what_is_left() -> None:
    one, two = view_of(7, (4, 4), (4, 4)), view_of(8, (2, 2), (2, 2))
    without = [View(v.logits[:, :2], v.maps[:, :2], v.refined[:, :2], v.size) for v in (one, two)]
    for a, b in zip(
        seam_terms(one, two, torch.tensor([[1, 0, -1], [0, 1, -1]]), SeamConfig()),
        seam_terms(*without, torch.tensor([[1, 0], [0, 1]]), SeamConfig()), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, **TOLERANCE)


def leaves_and_views() -> tuple[list[torch.Tensor], list[View]]:
    torch.manual_seed(0)
    leaves = [torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    views = [View(m.mean(dim=(2, 3)), m, r.sigmoid(), (4, 4)) for m, r in (leaves[:2], leaves[2:])]
    return leaves, views


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_gradients_are_numbers(labels: list[list[int]]) -> None:
    leaves, (one, two) = leaves_and_views()
    seam_terms(one, two, torch.tensor(labels), SeamConfig()).total.backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_what_each_term_teaches() -> None:
    """Classification and ER teach the maps, min-pool and ECR the refined maps: the targets of ECR are constants."""
    leaves, (one, two) = leaves_and_views()
    terms = seam_terms(one, two, torch.tensor(LABELS["some"]), SeamConfig())
    teaches = {
        name: [
            gradient is not None and bool(gradient.any())
            for gradient in torch.autograd.grad(getattr(terms, name), leaves, retain_graph=True, allow_unused=True)
        ]
        for name in ("classification", "equivariance", "min_pool", "cross")
    }
    assert teaches["classification"] == teaches["equivariance"] == [True, False, True, False]
    assert teaches["min_pool"] == teaches["cross"] == [False, True, False, True]


def test_max_norm() -> None:
    plane = torch.tensor([[-2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(max_norm(plane), torch.tensor(reference.max_norm(plane.tolist()), dtype=torch.float64))
    assert max_norm(plane).max() < 1 and max_norm(plane).min() == 0
    for flat in (torch.full((2, 3, 3), -1.0), torch.zeros(2, 3, 3), torch.full((2, 1, 1), 5.0)):
        assert not max_norm(flat).any(), "no range"


def test_strongest_keeps_equal_maxima() -> None:
    maps = torch.tensor([1.0, 3.0, 3.0]).view(1, 3, 1, 1)
    assert strongest(maps).flatten().tolist() == [0.0, 3.0, 3.0]


def test_present_planes() -> None:
    chosen, there = present_planes(torch.tensor([[0, 1, -1, 1], [0, 0, 0, 0], [1, 0, 0, -1]]))
    assert chosen.shape == (3, 2) and there.tolist() == [[True, True], [False, False], [True, False]]
    assert chosen[0].tolist() == [1, 3] and chosen[2, 0] == 0


# Pixel correlation


def module_of(levels: list[int]) -> PixelCorrelation:
    torch.manual_seed(0)
    return PixelCorrelation(levels).double()


def test_refined_maps_are_those_of_the_loops() -> None:
    module, maps = module_of([4, 6]), torch.randn(2, 3, 3, 4, dtype=torch.float64)
    picture = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    levels = [torch.randn(2, 4, 6, 8, dtype=torch.float64), torch.randn(2, 6, 3, 4, dtype=torch.float64)]
    raw: list[torch.Tensor] = []
    module.embedding.register_forward_hook(lambda _module, _inputs, output: raw.append(output))
    with torch.no_grad():
        result = module(maps, picture, levels)
    features = raw[0]  # (N, 192, h, w), of any length
    for n in range(2):
        expected = reference.refined(maps[n].tolist(), features[n].tolist())
        torch.testing.assert_close(result[n], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), pixels=st.integers(1, 40), channels=st.integers(1, 8))
def test_columns_of_the_affinity_sum_to_1(seed: int, pixels: int, channels: int) -> None:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, pixels, generator=random, dtype=torch.float64)
    features = features / features.norm(dim=1, keepdim=True)
    affinity = correlated(torch.eye(pixels, dtype=torch.float64).expand(2, -1, -1), features)  # (2, P, P)
    assert affinity.min() >= 0
    torch.testing.assert_close(affinity.sum(dim=1), torch.ones(2, pixels, dtype=torch.float64), atol=1e-5, rtol=0)


def test_an_identity_affinity_gives_the_map_back() -> None:
    """Features that are at right angles to each other: every pixel is like itself alone."""
    maps = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    seeds = peak_normalised(maps).flatten(2)
    features = torch.eye(20, dtype=torch.float64)[None]  # (1, D = P, P)
    torch.testing.assert_close(correlated(seeds, features), seeds, atol=1e-5, rtol=0)


def test_one_feature_everywhere_gives_the_mean() -> None:
    seeds = torch.rand(1, 2, 9, dtype=torch.float64)
    same = torch.ones(1, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(correlated(seeds, same), seeds.mean(2, keepdim=True).expand(1, 2, 9), atol=1e-5, rtol=0)


def test_columns_come_in_parts_that_bound_the_memory_of_all_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, features = torch.rand(6, 3, 17, dtype=torch.float64), torch.randn(6, 4, 17, dtype=torch.float64)
    whole, product, held = correlated(seeds, features), torch.einsum, []

    def watched(*arguments: Any) -> torch.Tensor:
        held.append(product(*arguments))
        return held[-1]

    monkeypatch.setattr(torch, "einsum", watched)
    for bound in (6 * 17 * 5, 1):
        monkeypatch.setattr(seam_correlation, "VALUES_AT_ONCE", bound)
        held.clear()
        torch.testing.assert_close(correlated(seeds, features), whole, **TOLERANCE)
        assert max(affinity.numel() for affinity in held) <= max(bound, 6 * 17)


def test_a_map_below_0_and_one_pixel_give_numbers() -> None:
    module = module_of([4])
    for size in ((1, 1), (2, 2)):
        below = -torch.ones(1, 2, *size, dtype=torch.float64)
        picture, level = torch.zeros(1, 3, *size, dtype=torch.float64), torch.zeros(1, 4, 1, 1, dtype=torch.float64)
        assert not module(below, picture, [level]).any()


def test_levels_get_no_gradient() -> None:
    module = module_of([4])
    level = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    picture = torch.randn(1, 3, 3, 3, dtype=torch.float64)
    module(maps, picture, [level]).sum().backward()
    assert level.grad is None and maps.grad is not None
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())


@pytest.mark.parametrize(
    "wrong", [{"small_scale": 0}, {"small_scale": 1.5}, {"top_share": 0}, {"min_pool_share": 1.1}, {"cross_weight": -1}, {"dropout": 1}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"host.seam.{next(iter(wrong))}"):
        SeamConfig(**wrong)  # type: ignore[arg-type]


