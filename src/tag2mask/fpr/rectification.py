"""Eq. 6-8: which pixels to suppress, and the pixel rectification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.fpr.activation import relative_activation
from tag2mask.fpr.prototypes import Prototypes
from tag2mask.shares import divided, mean, whole


def nearest_squared(rows: Tensor, prototypes: Tensor, factor: Tensor | None = None) -> Tensor:
    """Squared L2 distance of each row to its nearest prototype: (R, D), (K, D) -> (R,), not negative; K at least 1.

    ``factor``, (K,), multiplies the distances to each prototype first."""
    partial, own = torch.addmm(prototypes.square().sum(1), rows, prototypes.T, alpha=-2.0), rows.square().sum(1)
    if factor is not None:
        return ((partial + own.unsqueeze(1)).clamp(min=0) * factor.square()).amin(dim=1)
    return (partial.amin(dim=1) + own).clamp(min=0)  # (R, K): |p|^2 - 2 f.p; (R,): |f|^2


@torch.no_grad()
def compared_pixels(
    features: Tensor,
    maps: Tensor,
    present: Tensor,
    prototypes: Prototypes,
    theta: float = 0.1,
    margin: float = 1.0,
    epsilon: float = 0.0,
    cosine: bool = False,
) -> tuple[Tensor, Tensor]:
    """Phi_c of Eq. 8, pixels to suppress, and its counterpart Psi_c, pixels to lift.

    Phi_c = {i : min_k ||F^i - P_neg'|| < margin * min_k ||F^i - P_pos||, A_c^i = 1}; margin 1 is the paper's.
    Psi_c = {i : min_k ||F^i - P_pos|| < r_c * margin * min_k ||F^i - P_neg'||, M_c^i > 0}; ours. r_c is the class's
    ``lift_reach``: with few negatives nearly everything is nearer to a positive.

    Args:
        features: F, (N, D, H, W); maps: M, (N, C, H, W); present: (N, C) boolean.
        prototypes: a class without positives or without trimmed negatives has nothing suppressed; distances to a
            negative count ``trimmed_factor`` times.
        theta, epsilon: of Eq. 2; cosine: compare unit vectors.
        margin: factor on the farther distance; below 1 it leaves the pixels between alone.

    Returns:
        suppressed and lifted, each (N, C, H, W) boolean.
    """
    n, classes, height, width = maps.shape
    suppressed = torch.zeros(n, classes, height * width, dtype=torch.bool, device=maps.device)
    lifted = torch.zeros_like(suppressed)
    usable = prototypes.positive_valid.any(1) & prototypes.trimmed_valid.any(1)  # (C,)
    image, c = (present & usable).nonzero(as_tuple=True)  # P pairs
    if len(image) == 0:
        return suppressed.view(maps.shape), lifted.view(maps.shape)
    relative = relative_activation(maps[image, c].unsqueeze(1), epsilon).flatten(1)  # (P, HW)
    pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # (N, HW, D)
    if cosine:
        pixels = functional.normalize(pixels, dim=2)
    for k in c.unique().tolist():
        own = (c == k).nonzero().flatten()  # the pairs of class k
        pair, place = (relative[own] > 0).nonzero(as_tuple=True)  # R pixels; no other can be chosen
        rows = pixels[image[own[pair]], place]  # (R, D)
        positive = prototypes.positive[k, prototypes.positive_valid[k]].to(features)  # (K, D)
        negative = prototypes.trimmed[k, prototypes.trimmed_valid[k]].to(features)  # (Kn, D)
        if cosine:
            positive, negative = functional.normalize(positive, dim=1), functional.normalize(negative, dim=1)
        factor = prototypes.trimmed_factor
        factor = None if factor is None else factor[k, prototypes.trimmed_valid[k]].to(features)  # (Kn,)
        to_positive, to_negative = nearest_squared(rows, positive), nearest_squared(rows, negative, factor)  # (R,)
        active = relative[own[pair], place] > theta  # (R,)
        suppressed[image[own[pair]], k, place] = active & (to_negative < margin**2 * to_positive)
        reach = margin if prototypes.lift_reach is None else margin * prototypes.lift_reach[k].to(features)
        lifted[image[own[pair]], k, place] = to_positive < reach**2 * to_negative
    return suppressed.view(maps.shape), lifted.view(maps.shape)


def suppressed_pixels(
    features: Tensor, maps: Tensor, present: Tensor, prototypes: Prototypes, theta: float = 0.1, margin: float = 1.0,
    epsilon: float = 0.0, cosine: bool = False,
) -> Tensor:  # fmt: skip
    """Phi_c of ``compared_pixels`` alone."""
    return compared_pixels(features, maps, present, prototypes, theta, margin, epsilon, cosine)[0]


@torch.no_grad()
def halo_pixels(
    maps: Tensor, present: Tensor, theta: float = 0.1, below: float = 0.35, epsilon: float = 0.0
) -> Tensor:
    """Control without prototypes: pixels with theta < M / max M < below of present classes, (N, C, H, W) boolean."""
    relative = relative_activation(maps, epsilon)
    return (relative > theta) & (relative < below) & present[:, :, None, None]


def pixel_lift(maps: Tensor, lifted: Tensor, present: Tensor, height: Tensor | None = None) -> Tensor:
    """The counterpart of the ratio form: mean of max(0, h_c - M / max M) over Psi, times the mean present maximum.

    A push alone ends when a map is its peak and nothing else; what positives explain is held up against it. Pixels
    above the height of their class count in the mean, as 0.

    Args:
        maps: M, (N, C, H, W), with gradient; lifted: Psi, (N, C, H, W) boolean; present: (N, C) boolean.
        height: h, (C,), the share of its maximum up to which a class is lifted (``lift_height``); None is 1.

    Returns:
        A scalar; zero, and without effect, when nothing is lifted.
    """
    image, c, row, column = lifted.nonzero(as_tuple=True)  # S pixels
    maximum = maps.amax(dim=(2, 3))  # (N, C)
    relative = maps[image, c, row, column] / maximum[image, c]  # (S,)
    below = 1 - relative if height is None else (height.to(maps)[c] - relative).clamp(min=0)
    return mean(below) * mean_maximum(maximum, present)


def mean_maximum(maximum: Tensor, present: Tensor) -> Tensor:
    """Mean of the maxima (N, C) of present classes' maps over the batch, without gradient: the scale of M."""
    values = maximum.detach()[present]
    return whole(values.sum()) / whole(values.new_tensor(len(values))).clamp(min=torch.finfo(values.dtype).tiny)


def pixel_rectification(
    maps: Tensor, suppressed: Tensor, form: str = "mean", average: str = "batch", present: Tensor | None = None
) -> Tensor:
    """L_PR = the mean class map value over the suppressed pixels (Eq. 7), or a bounded form of it.

    ``mean`` is the paper's and has no lower bound. ``softplus`` is the binary cross-entropy of the pixel against 0.
    ``ratio`` is the mean of M / max M, with gradient through the maximum as well, so that a map may follow by lifting
    its peak; it is multiplied by the mean maximum of the present maps (a constant), which gives it the scale of M.

    Args:
        maps: M, (N, C, H, W), with gradient.
        suppressed: Phi, (N, C, H, W) boolean.
        form: ``mean``, ``softplus`` or ``ratio``.
        average: ``batch`` (over all suppressed pixels of the batch) or ``image`` (Eq. 7, then the mean over images).
        present: (N, C) boolean, present classes with a positive pixel; needed by ``ratio``.

    Returns:
        A scalar; zero, and without effect, when nothing is suppressed.
    """
    image, c, row, column = suppressed.nonzero(as_tuple=True)  # S pixels
    values = maps[image, c, row, column]  # (S,)
    if form == "softplus":
        values = functional.softplus(values)
    elif form == "ratio":
        if present is None:
            raise ValueError("the ratio form needs `present`, the classes of each image with a positive pixel")
        maximum = maps.amax(dim=(2, 3))  # (N, C)
        values = values / maximum[image, c] * mean_maximum(maximum, present)
    if average == "batch":
        return mean(values)
    count = torch.bincount(image, minlength=len(maps)).to(values.dtype)  # (N,)
    return divided((values / count[image]).sum(), count.new_tensor(len(maps)))
