"""CLIMS's terms equal the loops, for any encoder."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tag2mask.rivals import clims_loss
from tests.rivals import reference
from tests.rivals.test_wood import random, same


def unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1)


def encoder(seed: int) -> object:
    weight = random(seed, 3 * 4 * 4, 6)

    def encode(images: Tensor) -> Tensor:
        return unit(images.flatten(1) @ weight + 0.5)

    return encode


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.26]))
def test_equals_the_loops(seed: int, photos: int, classes: int, backgrounds: int, too_similar: float) -> None:
    maps = random(seed, photos, classes, 4, 4).requires_grad_()
    images, encode = random(seed + 1, photos, 3, 4, 4), encoder(seed)
    texts, words = unit(random(seed + 2, classes, 6)), unit(random(seed + 3, backgrounds, 6))
    labels = torch.randint(-1, 2, (photos, classes), generator=torch.Generator().manual_seed(seed))
    terms = clims_loss(maps, images, labels, encode, texts, words, too_similar)  # type: ignore[arg-type]
    loops = reference.clims_terms(maps, images, labels, encode, texts, words, too_similar)
    for ours, expected in zip(terms, loops, strict=True):
        same(ours, expected, maps)


def test_no_tag_no_loss() -> None:
    maps = torch.randn(2, 3, 2, 2, requires_grad=True)
    terms = clims_loss(maps, torch.randn(2, 3, 4, 4), -torch.ones(2, 3), lambda x: x, torch.eye(3), torch.eye(3))
    assert [term.item() for term in terms] == [0, 0, 0, 0]
    sum(terms[1:], terms[0]).backward()
    assert maps.grad is not None and not maps.grad.any()


def test_a_map_that_shows_all_of_a_photo_like_its_words() -> None:
    """Shown: cosine 1 with its words, held below 1. Hidden: nothing, here cosine 0, held above 0."""
    encode = lambda x: unit(x.flatten(1)[:, :2])  # noqa: E731
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0, 0, 0] = 1
    texts, words = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    terms = clims_loss(torch.full((1, 1, 2, 2), 200.0), images, torch.ones(1, 1), encode, texts, words)
    assert math.isclose(terms.object_text.item(), 1e-4, rel_tol=0.01)
    assert math.isclose(terms.background_text.item(), 1e-4, rel_tol=0.01)
    assert math.isclose(terms.suppression.item(), -math.log(0.4), rel_tol=1e-4), "the words .26 alike alone"
    assert terms.area.item() == 1


def test_opposite_embeddings_stay_finite() -> None:
    maps = torch.zeros(1, 1, 2, 2, requires_grad=True)
    encode = lambda x: unit(x.flatten(1)[:, :2])  # noqa: E731
    terms = clims_loss(maps, torch.ones(1, 3, 2, 2), torch.ones(1, 1), encode, -unit(torch.ones(1, 2)), torch.ones(1, 2))
    sum(terms[1:], terms[0]).backward()
    assert all(term.isfinite() for term in terms) and maps.grad is not None and maps.grad.isfinite().all()
