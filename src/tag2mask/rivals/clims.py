"""CLIMS: a model of pictures and words (CLIP) says whether a map has found what its tag says.

J. Xie et al., "CLIMS: Cross Language Image Matching for Weakly Supervised Semantic Segmentation", CVPR 2022.

The map m = sigmoid(M) of a present class cuts the photo x in two: what it shows, m x, has to be like the class's words
and unlike words for backgrounds; what it hides, (1 - m) x, has to be unlike the class's words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-4
"""Similarities are held this far from 0 and 1, as their logarithms are taken. CLIP's lie near .2, seldom below 0."""


class ClimsTerms(NamedTuple):
    """The four terms, before their weights."""

    object_text: Tensor
    """OTM: -log sim(m x, own text)."""
    background_text: Tensor
    """BTM: -log(1 - sim((1 - m) x, own text))."""
    suppression: Tensor
    """CBS: the sum of -log(1 - sim(m x, background text)) over the texts that are too similar."""
    area: Tensor
    """The mean of m."""


def clims_loss(
    maps: Tensor, images: Tensor, labels: Tensor, encode: Callable[[Tensor], Tensor], texts: Tensor,
    background_texts: Tensor, too_similar: float = 0.26,
) -> ClimsTerms:  # fmt: skip
    """The four terms, means over the pairs of a photo and a class that it is tagged with.

    A hidden pixel is 0 in the normalised photo, the mean colour.

    Args:
        maps: M, (N, C, h, w), before the sigmoid; images: x, (N, 3, S, S), normalised for ``encode``.
        labels: (N, C), 1, 0 or -1 (unknown: no pair).
        encode: images (P, 3, S, S) -> embeddings (P, E) of length 1.
        texts: (C, E), of the classes; background_texts: (B, E), B may be 0. Both of length 1.
        too_similar: cosine above which a background text counts; the release takes .26.

    Returns:
        Scalars; all 0 where no photo has a tag.
    """
    rows, classes = (labels > 0).nonzero(as_tuple=True)  # (P,), (P,)
    if not len(rows):
        return ClimsTerms(*[maps.sum() * 0.0] * 4)
    shown = maps[rows, classes].sigmoid()[:, None]  # m, (P, 1, h, w)
    area = shown.mean()
    shown = functional.interpolate(shown, images.shape[2:], mode="bilinear", align_corners=False)  # (P, 1, S, S)
    photos = images[rows]  # (P, 3, S, S)
    found, left = encode(shown * photos), encode((1 - shown) * photos)  # (P, E) each
    own = texts[classes]  # (P, E)
    hits, misses = similarity(found * own), similarity(left * own)  # (P,) each
    cosines = found @ background_texts.T  # (P, B)
    push = -torch.log1p(-cosines.clamp(SMALLEST, 1 - SMALLEST)) * (cosines > too_similar)  # (P, B)
    return ClimsTerms(-hits.log().mean(), -torch.log1p(-misses).mean(), push.sum(dim=1).mean(), area)


def similarity(products: Tensor) -> Tensor:
    """Products of entries of two embeddings, (P, E) -> their cosine, (P,), held inside (0, 1)."""
    return products.sum(dim=1).clamp(SMALLEST, 1 - SMALLEST)
