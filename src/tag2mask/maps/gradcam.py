"""Grad-CAM as AdvCAM computes it in every step, for copies of an image at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ChannelWeights = Literal["published", "mean"]


def channel_weights(gradients: Tensor, rule: ChannelWeights) -> Tensor:
    """How much each channel counts for a class.

    Args:
        gradients: (V, P, D, h, w), of a class's score with respect to the features of V views of P copies.
        rule: ``mean``, over the pixels, as Grad-CAM was defined (Selvaraju et al., 2017). ``published``: the sum over
            the pixels by the number of positive gradients among all that a copy has, in all its views, as AdvCAM's
            release computes it. Both views of a copy then have one denominator, but not those of two copies.

    Returns:
        (V, P, D).
    """
    if rule == "mean":
        return gradients.mean(dim=(3, 4))
    positive = (gradients > 0).sum(dim=(0, 2, 3, 4)).clamp(min=1)  # (P,); none is positive: all sums are 0 or less
    return gradients.sum(dim=(3, 4)) / positive[:, None]


def gradcam(features: Tensor, scores: Tensor, classes: Tensor, views: int, rule: ChannelWeights) -> Tensor:
    """relu(sum_k w_k F_k) for one class of each copy. Weights are constants, gradients pass through F alone.

    Args:
        features: F, (V * P, D, h, w), first all copies in one view, then all in the next; part of a graph.
        scores: Y, (V * P, C, h, w), computed from F; the score of a class is its sum over the pixels.
        classes: (P,) int64, the class of each copy.
        views: V.

    Returns:
        (V, P, h, w), 0 or more, part of the graph.
    """
    rows = torch.arange(len(scores), device=scores.device)
    own = scores[rows, classes.repeat(views)]  # (V * P, h, w)
    (gradients,) = torch.autograd.grad(own.sum(), features, retain_graph=True)
    unfolded = (views, len(classes), *features.shape[1:])
    weights = channel_weights(gradients.unflatten(0, unfolded[:2]), rule)  # (V, P, D)
    # One product of matrices for each image: (V * P, 1, D) x (V * P, D, h * w).
    activation = torch.bmm(weights.flatten(0, 1)[:, None], features.flatten(2))
    return activation.relu().view(views, len(classes), *features.shape[2:])
