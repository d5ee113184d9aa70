"""The losses of SEAM: classification of two views, min-pool, equivariance, cross equivariance.

An absent class has the map 0 in all of them, so only the maps of present classes are brought to the pixels of a view:
``present_planes`` picks them. An unknown tag (-1) is left out: its class is neither present nor counted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.config import SeamConfig
from tag2mask.hosts.host import soft_margin
from tag2mask.shares import divided, mean

EPSILON = 1e-5
"""Subtracted from maps and added to their range when they are normalised."""


class View(NamedTuple):
    """What the losses read of one view."""

    logits: Tensor
    """(N, C)."""
    maps: Tensor
    """(N, C, h, w), of the classifier."""
    refined: Tensor
    """(N, C, h, w), by pixel correlation, of background 0 to about 1."""
    size: tuple[int, int]
    """Height and width that maps are compared at: of the view's pixels, or h, w."""


class SeamTerms(NamedTuple):
    """The terms before their weights, each a scalar, and what is minimised."""

    total: Tensor
    classification: Tensor
    min_pool: Tensor
    equivariance: Tensor
    cross: Tensor


def max_norm(maps: Tensor) -> Tensor:
    """relu(relu(p) - min - 1e-5) / (max - min + 1e-5), min and max of relu(p) over the pixels of each map.

    ``maps``: (..., H, W) -> the same shape, from 0 to below 1; a map without any range becomes 0.
    """
    maps = maps.relu()
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)  # (..., 1, 1)
    return (maps - low - EPSILON).relu() / (high - low + EPSILON)


def strongest(maps: Tensor) -> Tensor:
    """Of each pixel the highest class alone: maps (N, C, H, W) with all others set to 0."""
    return torch.where(maps == maps.amax(dim=1, keepdim=True), maps, 0.0)


def present_planes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the present classes of each photo, (N, K) int64, and which of the K are there, (N, K) bool.

    K is the largest number of present classes in the batch, at least 1. ``labels``: (N, C).
    """
    present = labels > 0
    count = max(1, int(present.sum(dim=1).max()))
    order = present.int().argsort(dim=1, descending=True, stable=True)[:, :count]  # (N, K)
    return order, present.gather(1, order)


def planes_of(maps: Tensor, chosen: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, C, h, w) of the classes ``chosen`` (N, K), at ``size``, bilinear: (N, K, H, W)."""
    planes = maps.gather(1, chosen[:, :, None, None].expand(-1, -1, *maps.shape[2:]))  # (N, K, h, w)
    return brought_to(planes, size)


def brought_to(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, K, h, w) -> (N, K, H, W), bilinear."""
    if tuple(planes.shape[2:]) == size:
        return planes
    return functional.interpolate(planes, size, mode="bilinear", align_corners=False)


def with_background(planes: Tensor) -> Tensor:
    """Present classes' maps (N, K, H, W), 0 to 1 -> (N, K + 1, H, W), the background 1 - max first."""
    return torch.cat([1 - planes.amax(dim=1, keepdim=True), planes], dim=1)


def min_pool(planes: Tensor, share: float) -> Tensor:
    """Mean of the lowest ``share`` of the pixels of max_c(refined map of c), over the photos, a scalar.

    ``planes``: (N, K, H, W), 0 where no class is.
    """
    highest = planes.amax(dim=1).flatten(1)  # (N, H W)
    count = max(1, int(share * highest.shape[1]))
    return mean(highest.topk(count, dim=1, largest=False).values.relu())


def equivariance(first: Tensor, small: Tensor, known: Tensor) -> Tensor:
    """ER: mean |down(norm cam 1) - norm cam 2| over the known classes and the pixels of the smaller view, a scalar.

    Args:
        first, small: normalised maps (N, K, h, w) of present classes, at the smaller view's size.
        known: (N,) number of classes with a known tag.
    """
    return divided((first - small).abs().sum(), known.sum() * first.shape[2] * first.shape[3])


def cross_equivariance(maps: Tensor, refined: Tensor, known: Tensor, share: float) -> Tensor:
    """Half of ECR: mean of the top ``share`` of |strongest(norm cam of one view) - norm refined cam of the other|.

    The top is taken in each photo, over background and known classes; those that are absent give 0.

    Args:
        maps: (N, K + 1, h, w), background first, constants. refined: the same of the other view.
        known: (N,) number of classes with a known tag.
    """
    target = torch.cat([maps[:, :1], strongest(maps[:, 1:])], dim=1).detach()
    apart = (target - refined).abs().flatten(1)  # (N, (K + 1) h w)
    values = (known + 1) * maps.shape[2] * maps.shape[3]  # (N,)
    counts = (share * values.double()).long().clamp(min=1)  # (N,)
    if int(counts.min()) < apart.shape[1]:  # else the top is all that is not 0
        apart = apart.sort(dim=1, descending=True).values
        apart = apart * (torch.arange(apart.shape[1], device=apart.device) < counts[:, None])
    return divided(apart.sum(), counts.sum())


def seam_terms(one: View, two: View, labels: Tensor, config: SeamConfig) -> SeamTerms:
    """total = 1/2 (cls 1 + cls 2) + w_min (min-pool 1 + min-pool 2) + w_ER ER + w_ECR ECR, published weights 1/2, 1, 1.

    Args:
        one, two: the photos, and their smaller copies.
        labels: (N, C), 1 tagged, 0 not tagged, -1 unknown.
    """
    classification = (soft_margin(one.logits, labels) + soft_margin(two.logits, labels)) / 2
    chosen, there = present_planes(labels)
    there = there[:, :, None, None]  # (N, K, 1, 1)
    known = (labels >= 0).sum(dim=1)  # (N,)
    pools, maps, refined = [], [], []
    for view in (one, two):
        soft = planes_of(view.refined, chosen, view.size)  # (N, K, H, W)
        pools.append(min_pool(soft * there, config.min_pool_share))
        hard = planes_of(view.maps, chosen, view.size)  # (N, K, H, W)
        maps.append(brought_to(max_norm(hard), two.size) * there)  # (N, K, h, w)
        refined.append(with_background(brought_to(max_norm(soft), two.size) * there))  # (N, K + 1, h, w)
    same = equivariance(maps[0], maps[1], known)
    cross = cross_equivariance(with_background(maps[1]), refined[0], known, config.top_share)
    cross = cross + cross_equivariance(with_background(maps[0]), refined[1], known, config.top_share)
    pooled = pools[0] + pools[1]
    total = (
        classification + config.min_pool_weight * pooled
        + config.equivariance_weight * same + config.cross_weight * cross
    )  # fmt: skip
    return SeamTerms(total, classification, pooled, same, cross)
