"""AffinityNet of PSA: features, labels of two CRFs, and the walk with a background plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tag2mask.config.affinity import PSAConfig
from tag2mask.errors import InputError
from tag2mask.refine.pairs import PairGeometry
from tag2mask.refine.psa import (
    AffinityNet,
    affinity_labels,
    affinity_mask,
    pooled,
    psa_loss,
    refine_scores,
    with_background,
)
from tests.refine import affinity_reference as reference


def test_features_of_the_network() -> None:
    """1x1 to 64, 128, 256 and ELU, joined, 1x1 to 448 and ELU, all without bias."""
    torch.manual_seed(0)
    network = AffinityNet((512, 1024, 4096), PSAConfig())
    assert sum(p.numel() for p in network.parameters()) == 512 * 64 + 1024 * 128 + 4096 * 256 + 448 * 448
    levels = [torch.randn(1, c, 5, 6) for c in (512, 1024, 4096)]
    weights = list(network.state_dict().values())
    parts = [functional.elu(torch.einsum("nchw,dc->ndhw", x, w[:, :, 0, 0])) for x, w in zip(levels, weights, strict=False)]
    expected = functional.elu(torch.einsum("nchw,dc->ndhw", torch.cat(parts, dim=1), weights[3][:, :, 0, 0]))
    torch.testing.assert_close(network(levels), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="expected 3 levels"):
        AffinityNet((512, 1024), PSAConfig())


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(InputError, match="psa.certain_background is 4.0; expected above psa.certain_foreground"):
        PSAConfig(certain_background=4.0)
    with pytest.raises(InputError, match="psa.radius is 0; expected 2 or more"):
        PSAConfig(radius=0)


def test_levels_of_other_grids_come_to_that_of_the_first() -> None:
    network = AffinityNet((4, 6, 8), PSAConfig(channels=(3, 4, 5)))
    features = network([torch.randn(2, 4, 13, 9), torch.randn(2, 6, 7, 5), torch.randn(2, 8, 4, 3)])
    assert features.shape == (2, 12, 13, 9)


@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_equal_the_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = torch.from_numpy(random.normal(size=(2, 5, 5, 8))).requires_grad_()
    labels = torch.from_numpy(random.choice([0, 1, 79, 255], size=(2, 5, 8)).astype(np.uint8))
    found = psa_loss(features, labels, PairGeometry(3)).total
    terms = reference.affinity_terms(reference.feature_affinity(features, 3), labels, 3)
    expected = terms["background"] / 4 + terms["foreground"] / 4 + terms["different"] / 2
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, features), torch.autograd.grad(expected, features))
    with pytest.raises(ValueError, match="labels of"):
        psa_loss(features, labels[:, 1:], PairGeometry(3))


def test_the_background_plane() -> None:
    maps = np.array([[[1.0, 0.5, 0.2]], [[0.0, 0.8, 0.1]]])
    scores = with_background(maps, 4)
    assert np.array_equal(scores[1:], maps)
    np.testing.assert_allclose(scores[0], [[0, 0.2**4, 0.8**4]])
    assert with_background(np.zeros((0, 2, 3)), 4).tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_labels_are_certain_where_the_two_agree() -> None:
    """Columns: foreground in both; background in both; foreground only where background is weak; the contradiction."""
    much = np.array([[0.1, 0.9, 0.6, 0.1], [0.2, 0.1, 0.1, 0.8], [0.7, 0.0, 0.3, 0.1]])[:, None]
    little = np.array([[0.0, 0.7, 0.3, 0.9], [0.4, 0.2, 0.1, 0.1], [0.6, 0.1, 0.6, 0.0]])[:, None]
    labels = affinity_labels(much, little)
    assert labels.dtype == np.uint8 and labels.tolist() == [[2, 0, 255, 255]]
    with pytest.raises(ValueError, match="expected one shape"):
        affinity_labels(much, little[:2])


def test_faint_maps_are_unsure_without_a_crf() -> None:
    maps = np.array([[[0.95, 0.3, 0.01]]])
    config = PSAConfig()
    planes = [with_background(maps, power) for power in (config.certain_foreground, config.certain_background)]
    assert planes[0].argmax(axis=0).tolist() == [[1, 1, 0]]
    assert affinity_labels(*planes).tolist() == [[1, 1, 0]]
    maps[0, 0, 1] = 0.1
    planes = [with_background(maps, power) for power in (config.certain_foreground, config.certain_background)]
    assert affinity_labels(*planes).tolist() == [[1, 255, 0]]


def test_pooling_takes_what_is_there_at_the_border() -> None:
    scores = np.random.default_rng(0).random((2, 19, 9))
    found = pooled(scores, 8)
    assert found.shape == (2, 3, 2)
    for row in range(3):
        for column in range(2):
            square = scores[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            np.testing.assert_allclose(found[:, row, column], square.mean(axis=(1, 2)), rtol=1e-5)


def test_the_walk_equals_the_dense_one() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(1, 6, 9, 8))
    scores = random.random((3, 9, 8))
    affinity = {}
    for y, x in np.ndindex(9, 8):
        for dy, dx in reference.directions(5):
            if y + dy < 9 and 0 <= x + dx < 8:
                distance = np.abs(features[0, :, y, x] - features[0, :, y + dy, x + dx]).mean()
                affinity[((y, x), (y + dy, x + dx))] = float(np.exp(-distance))
    transition = reference.dense_transition(affinity, 9, 8, 8.0)
    expected = (scores.reshape(3, -1) @ np.linalg.matrix_power(transition, 64)).reshape(scores.shape)
    found = refine_scores(scores, torch.from_numpy(features), PSAConfig(steps=64))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    with pytest.raises(ValueError, match="expected one grid"):
        refine_scores(scores[:, 1:], torch.from_numpy(features), PSAConfig())


def test_a_map_fills_the_region_of_like_features_and_no_other() -> None:
    """Photo of 72x85 at stride 8; its left part is alike, so is its right part, and the map has most of the left one."""
    features = torch.zeros(1, 8, 9, 11)
    features[:, :, :, 6:] = 4
    features += 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    maps = np.zeros((1, 72, 85))
    maps[0, 6:66, 4:44] = 0.9
    config = PSAConfig(background=1)
    walked = refine_scores(pooled(with_background(maps, config.background), 8), features, config)
    mask = affinity_mask(walked, np.array([14]), (72, 85), 8)
    assert mask.shape == (72, 85) and mask.dtype == np.uint8
    assert (mask[:, :42] == 15).mean() > 0.95 and (mask[:, 54:] == 0).mean() > 0.95
