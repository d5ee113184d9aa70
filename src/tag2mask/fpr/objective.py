"""Eq. 1, 9 and 10: the classification loss and the sum of all terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import FPRConfig
from tag2mask.fpr.activation import activated_pixels
from tag2mask.fpr.contrast import region_contrast
from tag2mask.fpr.pools import PrototypePools
from tag2mask.fpr.prototypes import Prototypes, build_prototypes
from tag2mask.fpr.rectification import compared_pixels, halo_pixels, pixel_lift, pixel_rectification
from tag2mask.fpr.regions import region_features
from tag2mask.shares import divided, mean


def binary_cross_entropy(logits: Tensor, labels: Tensor, focal_gamma: float = 0.0) -> Tensor:
    """L_BCE of Eq. 1; with ``focal_gamma`` above 0 the focal form of Eq. 10.

    Eq. 10 multiplies the negative term alone by sigmoid(logit)^gamma.

    Args:
        logits: (N, C); labels: (N, C), 1, 0, or -1 for unknown.
        focal_gamma: 0 is Eq. 1; the paper's ablation uses 2.

    Returns:
        The mean over images and classes of what is known.
    """
    labels = labels.to(logits.dtype)
    positive = -labels * functional.logsigmoid(logits)
    negative = -(1 - labels) * functional.logsigmoid(-logits)
    if focal_gamma > 0:
        negative = negative * torch.exp(focal_gamma * functional.logsigmoid(logits))  # sigmoid(logit)^gamma
    known = labels >= 0
    return mean((positive + negative)[known])


class Terms(NamedTuple):
    """The terms of Eq. 9, before their weights, and how much was suppressed."""

    total: Tensor
    classification: Tensor
    region: Tensor
    pixel: Tensor
    suppressed_share: Tensor
    """Suppressed pixels as a share of the activated pixels of present classes."""


def pixel_term_weight(config: FPRConfig, class_count: int, steps: int) -> float:
    """lambda 2: the number itself, or derived from the number of classes and steps (see ``pixel_weight_unit``)."""
    if config.pixel_weight_unit == "literal":
        return config.pixel_weight
    return 10.0 * config.pixel_weight / (class_count * max(1, steps))


def fpr_loss(
    features: Tensor,
    maps: Tensor,
    logits: Tensor,
    labels: Tensor,
    prototypes: Prototypes | None,
    config: FPRConfig,
    steps: int,
    classifier: Callable[[Tensor], Tensor] | None = None,
) -> Terms:
    """L = L_BCE + lambda1 L_RC + lambda2 L_PR (Eq. 9), with the lift of ``pixel_lift`` inside L_PR.

    Args:
        features: F, (N, D, H, W); maps: M, (N, C, H, W); logits: (N, C); labels: (N, C), 1, 0 or -1 (unknown).
        prototypes: of this epoch; None when no term needs them.
        config: switches and weights.
        steps: training steps in the whole run, which the ``schedule`` weight unit needs.
        classifier: features -> class maps; needed by ``pixel_detach`` alone.

    Returns:
        Terms; ``total`` carries the gradient.
    """
    if prototypes is None and config.needs_prototypes():
        raise ValueError("these settings need prototypes; collect them with collect_prototypes before each epoch")
    gamma = config.focal_gamma if config.classification == "focal" else 0.0
    classification = binary_cross_entropy(logits, labels, gamma)
    zero = classification.new_zeros(())
    region, pixel, share = zero, zero, zero
    present = (labels > 0) & (maps.detach().amax(dim=(2, 3)) > 0)  # (N, C)
    unit = prototypes.spread if prototypes is not None and config.temperature_unit == "spread" else 1.0
    if config.region_weight > 0 and prototypes is not None and unit > 0:  # without spread there is no scale for T
        regions, area = region_features(features, activated_pixels(maps, config.theta, config.region_epsilon))
        region = region_contrast(
            regions, present & (area > 0), prototypes, config.temperature * unit, config.distance,
            config.distance_offset, config.positive_centre, config.region_average,
        )  # fmt: skip
    if config.pixel_weight > 0:
        if config.pixel_select == "halo" or prototypes is None:
            suppressed = halo_pixels(maps, present, config.theta, config.halo_below, config.pixel_epsilon)
            lifted = halo_pixels(maps, present, config.halo_below, float("inf"), config.pixel_epsilon)
            height = None
        else:
            thresholds = (config.theta, config.margin, config.pixel_epsilon, config.distance == "cosine")
            suppressed, lifted = compared_pixels(features, maps, present, prototypes, *thresholds)
            height = prototypes.lift_height
        if config.pixel_detach:
            if classifier is None:
                raise ValueError("pixel_detach needs the classifier (features -> class maps) of the network")
            maps = classifier(features.detach())
        pixel = pixel_rectification(maps, suppressed, config.pixel_form, config.pixel_average, present)
        if config.pixel_lift > 0:
            pixel = pixel + config.pixel_lift * pixel_lift(maps, lifted, present, height)
        activated = activated_pixels(maps, config.theta, config.pixel_epsilon) & present[:, :, None, None]
        share = divided(suppressed.sum().to(maps.dtype), activated.sum())
    weight = pixel_term_weight(config, labels.shape[1], steps)
    total = classification + config.region_weight * region + weight * pixel
    return Terms(total, classification.detach(), region.detach(), pixel.detach(), share)


@torch.no_grad()
def collect_prototypes(
    network: Callable[[Any], tuple[Tensor, Tensor, Tensor]],
    batches: Iterable[tuple[Any, Tensor, Tensor]],
    config: FPRConfig,
    superclasses: Sequence[int] | None = None,
    seed: int = 0,
    previous: Prototypes | None = None,
) -> Prototypes:
    """One pass over the training images: regions into the pools, pools into prototypes (section 3.2.1).

    Memory does not grow with the images but for their tags, a byte for each class.

    Args:
        network, batches, config: as in ``fill_pools``.
        superclasses: a number for each class; used when ``config.superclass_trim`` is set.
        seed: of k-means.
        previous: what the last pass returned, where the features stand still: its contexts are remembered
            (``config.remember``).

    Returns:
        The prototypes, on the device of the features.

    Raises:
        ValueError: when ``batches`` is empty.
    """
    tags: list[Tensor] = []

    def noted() -> Iterator[tuple[Any, Tensor, Tensor]]:
        for batch in batches:
            tags.append(batch[1] != 0)
            yield batch

    pools = fill_pools(network, noted(), config)
    if pools is None:
        raise ValueError("no batch to collect prototypes from; give at least one image")
    return prototypes_of(pools, torch.cat(tags), config, superclasses, seed, previous)


@torch.no_grad()
def fill_pools(
    network: Callable[[Any], tuple[Tensor, Tensor, Tensor]],
    batches: Iterable[tuple[Any, Tensor, Tensor]],
    config: FPRConfig,
) -> PrototypePools | None:
    """The regions of some or all of the training images; pools of other images may be merged into it.

    Args:
        network: images -> (features F, class maps M, logits). A module runs in eval mode and gets its mode back.
        batches: (input of the network, labels (N, C), image numbers (N,) int64); the numbers must not repeat.
        config: switches.

    Returns:
        The pools, on the device of the features; None where ``batches`` is empty.
    """
    pools: PrototypePools | None = None
    module = network if isinstance(network, nn.Module) else nn.Identity()
    training = module.training
    module.eval()  # the pass must not move batch norm statistics
    for images, labels, numbers in batches:
        features, maps, logits = network(images)
        labels, numbers = labels.to(features.device), numbers.to(features.device)
        if pools is None:
            candidates = config.negatives * config.refill
            pools = PrototypePools(
                maps.shape[1], features.shape[1], config.positive_capacity, candidates, features.device
            )
        claimed = activated_pixels(maps, config.tagged_theta, config.collect_epsilon) & (labels != 0)[:, :, None, None]
        unclaimed = activated_pixels(maps, config.theta, config.collect_epsilon) & ~claimed.any(dim=1, keepdim=True)
        regions, area = region_features(features, unclaimed)
        core = region_features(features, activated_pixels(maps, config.positive_theta, config.collect_epsilon))
        confidence = logits if config.rank_by == "logit" else maps.amax(dim=(2, 3))
        pools.add(regions, area, confidence, labels, numbers, core)
    module.train(training)
    return pools


def prototypes_of(
    pools: PrototypePools, all_tags: Tensor, config: FPRConfig, superclasses: Sequence[int] | None = None,
    seed: int = 0, previous: Prototypes | None = None,
) -> Prototypes:  # fmt: skip
    """``build_prototypes`` by the settings; all_tags: (N, C) boolean, of all images."""
    device = pools.positive.rows.device
    return build_prototypes(
        pools, all_tags.to(device), config.prototypes,
        superclasses if config.superclass_trim else None, config.singleton_superclass, config.kmeans_restarts, seed,
        config.negatives, config.explained_trim, config.likeness_trim, config.support, config.exact_kmeans,
        None if previous is None else previous.to(device), config.remember if config.support == "drop" else 0,
        config.lift_fewer,
    )  # fmt: skip
