"""W-OoD's losses equal the loops; its clusters are the same every time; its step climbs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tag2mask.rivals import ascended, class_means, distance_loss, distance_scale, ood_clusters, ood_loss
from tests.rivals import reference


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(ours: Tensor, loops: Tensor, of: Tensor) -> None:
    torch.testing.assert_close(ours, loops)
    # What has no term has no graph in the loops; a sum times zero gives it one.
    gradients = [torch.autograd.grad(value + 0 * of.sum(), of, retain_graph=True)[0] for value in (ours, loops)]
    torch.testing.assert_close(*gradients)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_distances_equal_the_loops(seed: int, images: int, classes: int, clusters: int, share: float) -> None:
    features = random(seed, images, 3).requires_grad_()
    labels = torch.randint(-1, 2, (images, classes), generator=torch.Generator().manual_seed(seed))
    known = torch.randint(-1, 2, (6, classes), generator=torch.Generator().manual_seed(seed + 1))
    pool, points = random(seed + 2, 6, 3), random(seed + 3, clusters, 3)
    means, valid = class_means(pool, known)
    expected = reference.means_of(pool, known)
    for c, mean in enumerate(expected):
        assert bool(valid[c]) == (mean is not None)
        torch.testing.assert_close(means[c], torch.zeros(3, dtype=torch.float64) if mean is None else mean)
    loops = reference.distance(features, labels, expected, points, share)
    same(distance_loss(features, labels, means, valid, points, share), loops, features)


def test_distances_by_hand() -> None:
    """One photo at the origin, its class 5 away, clusters 1, 2, 3, 4 and 10 away: the 20 % quantile is 1.8."""
    means = torch.tensor([[3.0, 4.0], [100.0, 0.0]])
    clusters = torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0], [0, 10]])
    labels, valid = torch.tensor([[1, 0]]), torch.tensor([True, True])
    value = distance_loss(torch.zeros(1, 2), labels, means, valid, clusters, 0.2)
    assert value.item() == pytest.approx(2 / 5 * 5 / 2 - 1 / 5)


def test_nothing_below_the_quantile_pushes_nothing() -> None:
    features = torch.zeros(1, 2, requires_grad=True)
    clusters, labels = torch.tensor([[3.0, 4.0]]), torch.tensor([[0]])
    value = distance_loss(features, labels, torch.zeros(1, 2), torch.tensor([False]), clusters, 0.2)
    assert value.item() == 0
    value.backward()
    assert features.grad is not None and not features.grad.any()


def test_photos_far_from_everything_stay_finite() -> None:
    features = torch.full((2, 2), 1e4, requires_grad=True)
    labels = torch.tensor([[1], [-1]])
    value = distance_loss(features, labels, torch.zeros(1, 2), torch.tensor([True]), torch.zeros(3, 2), 0.2)
    value.backward()
    assert math.isfinite(value.item()) and features.grad is not None and features.grad.isfinite().all()


def test_a_photo_on_its_mean_and_on_a_cluster_has_a_gradient() -> None:
    features = torch.zeros(2, 2, requires_grad=True)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    distance_loss(features, torch.ones(2, 1), torch.zeros(1, 2), torch.tensor([True]), points, 0.9).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_the_unit_of_distances() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]])
    labels = torch.tensor([[1, 0], [1, -1], [0, 0]])
    assert distance_scale(features, labels, torch.zeros(2, 2)) == pytest.approx(3.0)
    assert distance_scale(features, 0 * labels, torch.zeros(2, 2)) == 1
    assert distance_scale(torch.zeros(3, 2), labels, torch.zeros(2, 2)) == 1


def test_clusters_are_the_same_every_time_whatever_the_threads() -> None:
    features = random(5, 300, 20).float()
    found = []
    threads = torch.get_num_threads()
    for number in (1, 2, 1):
        torch.set_num_threads(number)
        found.append(ood_clusters(features, 50, 3))
    torch.set_num_threads(threads)
    assert found[0].shape == (50, 20) and found[0].dtype == torch.float32
    assert all(torch.equal(found[0], other) for other in found)
    assert not torch.equal(found[0], ood_clusters(features, 50, 4))


def test_fewer_photos_than_clusters() -> None:
    features = torch.tensor([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0]])
    assert sorted(ood_clusters(features, 50, 0).tolist()) == [[0, 1], [2, 3]]
    assert ood_clusters(features[:1], 50, 0).tolist() == [[0, 1]]


class Network(nn.Module):
    """Logits (N, 3) of images, without anything random in between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1)).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


def test_the_step_raises_the_largest_logit_of_each_photo_and_leaves_no_gradient() -> None:
    network, images = Network(), random(1, 4, 3, 8, 8)
    moved = ascended(images, network, 0.07)
    assert (network(moved).amax(1) > network(images).amax(1)).all()
    assert (moved - images).abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.07] * 4)
    assert not moved.requires_grad and all(p.grad is None for p in network.parameters())
    alone = ascended(images[:1], network, 0.07)
    torch.testing.assert_close(alone, moved[:1])
    with torch.no_grad():  # the step needs its own gradient wherever it is called from
        assert torch.equal(ascended(images, network, 0.07), moved)


def test_a_photo_without_a_gradient_stays() -> None:
    images = random(1, 2, 3, 4, 4)
    assert torch.equal(ascended(images, lambda x: x.flatten(1)[:, :2] * 0, 0.07), images)


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([None, 0, 1]))
def test_ood_loss_equals_the_loops(seed: int, images: int, skipped: int | None) -> None:
    logits = (3 * random(seed, images, 3)).requires_grad_()
    same(ood_loss(logits, skipped), reference.soft_margin_of_nothing(logits, skipped), logits)


def test_every_photo_skipped() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 3.0]], requires_grad=True)
    value = ood_loss(logits, 1)
    assert value.item() == 0
    value.backward()
    assert logits.grad is not None and not logits.grad.any()
