"""Random batches and prototypes for the comparison with the loops, all in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tag2mask.fpr import FPRConfig, Prototypes, collect_prototypes, fpr_loss
from tag2mask.fpr.pools import sampling_priority
from tests.paper import ours, reference
from tests.paper.reference import Bank, Image, Place, RowOrder


@dataclass
class Batch:
    """A network's output as a function of three leaves: features, the 1x1 classifier and a shift of the logits."""

    features: Tensor  # (N, D, H, W)
    classifier: Tensor  # (C, D)
    shift: Tensor  # (N, C)
    labels: Tensor  # (N, C)

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.features, self.classifier, self.shift

    def maps(self, features: Tensor | None = None) -> Tensor:
        """M = 1x1 convolution of F without bias, (N, C, H, W)."""
        return torch.einsum("cd,ndhw->nchw", self.classifier, self.features if features is None else features)

    def outputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a loss reads: features, class maps, logits, labels."""
        maps = self.maps()
        return self.features, maps, maps.mean(dim=(2, 3)) + self.shift, self.labels


def batch(
    seed: int,
    images: int = 2,
    classes: int = 3,
    channels: int = 4,
    height: int = 2,
    width: int = 3,
    tag_share: float = 0.6,
) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features = (normal(images, channels, height, width) + 0.5).requires_grad_()
    labels = (torch.rand(images, classes, generator=generator) < tag_share).double()
    return Batch(features, normal(classes, channels).requires_grad_(), normal(images, classes).requires_grad_(), labels)


def bank(seed: int, sizes: Sequence[tuple[int, int, int]], channels: int = 4) -> Bank:
    """Random prototypes; ``sizes`` holds, for each class, the number of positives, negatives and trimmed negatives."""
    generator = np.random.default_rng(seed)
    result = Bank([], [], [], [], [], [], float(generator.uniform(0.5, 2)))
    for positives, negatives, trimmed in sizes:
        weights = generator.uniform(0.1, 1, positives)
        result.positive.append(generator.normal(0.5, 1, (positives, channels)).tolist())
        result.share.append((weights / weights.sum()).tolist() if positives else [])
        rows = generator.normal(0.5, 1, (negatives, channels)).tolist()
        result.negative.append(rows)
        result.negative_source.append(list(range(negatives)))
        kept = sorted(generator.permutation(negatives)[:trimmed].tolist())
        result.trimmed.append([rows[k] for k in kept])
        result.trimmed_source.append(kept)
    return result


def random_sizes(seed: int, classes: int = 3, smallest: int = 0, largest: int = 3) -> list[tuple[int, int, int]]:
    """Any number of prototypes, with as many or fewer trimmed negatives than negatives."""
    generator = np.random.default_rng(seed)
    sizes = []
    for _ in range(classes):
        positives, negatives = generator.integers(smallest, largest + 1, 2).tolist()
        sizes.append((positives, negatives, int(generator.integers(min(smallest, negatives), negatives + 1))))
    return sizes


def padded(lists: Bank, count: int = 3, channels: int = 4, dtype: torch.dtype = torch.float64) -> Prototypes:
    """The same prototypes as tensors; the empty places hold rows that would win if anything looked at them."""
    classes = len(lists.positive)

    def rows(of_class: list[list[list[float]]]) -> tuple[Tensor, Tensor]:
        values = torch.full((classes, count, channels), 0.5, dtype=dtype)  # (C, K, D), the features' mean
        valid = torch.zeros(classes, count, dtype=torch.bool)
        for c, filled in enumerate(of_class):
            for k, row in enumerate(filled):
                values[c, k] = torch.tensor(row, dtype=dtype)
                valid[c, k] = True
        return values, valid

    def numbers(of_class: list[list[int]]) -> Tensor:
        result = torch.full((classes, count), -1, dtype=torch.int64)
        for c, filled in enumerate(of_class):
            result[c, : len(filled)] = torch.tensor(filled, dtype=torch.int64)
        return result

    positive, positive_valid = rows(lists.positive)
    negative, negative_valid = rows(lists.negative)
    trimmed, trimmed_valid = rows(lists.trimmed)
    share = torch.zeros(classes, count, dtype=dtype)
    for c, shares in enumerate(lists.share):
        share[c, : len(shares)] = torch.tensor(shares, dtype=dtype)
    return Prototypes(
        positive=positive, positive_valid=positive_valid, positive_weight=share,
        negative=negative, negative_valid=negative_valid, trimmed=trimmed, trimmed_valid=trimmed_valid,
        negative_source=numbers(lists.negative_source), trimmed_source=numbers(lists.trimmed_source),
        spread=lists.spread,
    )  # fmt: skip


def double(prototypes: Prototypes) -> Prototypes:
    """Collected prototypes are single precision; the comparison of gradients needs all in double."""
    return replace(
        prototypes,
        positive=prototypes.positive.double(), positive_weight=prototypes.positive_weight.double(),
        negative=prototypes.negative.double(), trimmed=prototypes.trimmed.double(),
    )  # fmt: skip


def as_mask(places: set[Place], like: Tensor) -> Tensor:
    """Pixels of the loops as the package's boolean tensor (N, C, H, W)."""
    mask = torch.zeros_like(like, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of each leaf; zeros where the loss does not depend on it."""
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if value is None else value for leaf, value in zip(leaves, found, strict=True)]


def assert_same(value: Tensor, expected: Tensor, leaves: Sequence[Tensor], tolerance: float = 1e-9) -> None:
    """Equal values and equal gradients with respect to every leaf."""
    torch.testing.assert_close(value.detach(), expected.detach(), rtol=tolerance, atol=tolerance)
    for found, wanted in zip(gradients(value, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def package_loss(batch: Batch, prototypes: Prototypes | None, config: FPRConfig, steps: int = 100) -> Tensor:
    """The total of ``fpr_loss``."""
    features, maps, logits, labels = batch.outputs()
    return fpr_loss(features, maps, logits, labels, prototypes, config, steps, batch.maps).total


def loop_loss(
    batch: Batch, lists: Bank, config: FPRConfig, steps: int = 100, reach: Sequence[float] | None = None,
    height: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Eq. 9 by the loops, with every switch of ``config`` that concerns a training step.

    ``reach``, ``height``: of each class's lift where prototypes choose.
    """
    features, maps, logits, labels = batch.outputs()
    focal_gamma = config.focal_gamma if config.classification == "focal" else 0.0
    total = reference.binary_cross_entropy(logits, labels, focal_gamma)
    if config.region_weight > 0:
        unit = lists.spread if config.temperature_unit == "spread" else 1.0
        total = total + config.region_weight * reference.region_contrast(
            features, maps, labels, lists, theta=config.theta, epsilon=config.region_epsilon,
            temperature=config.temperature * unit, kind=config.distance, offset=config.distance_offset,
            average=config.region_average, weighted=config.positive_centre == "weighted",
        )  # fmt: skip
    if config.pixel_weight > 0:
        if config.pixel_select == "halo":
            below, epsilon = config.halo_below, config.pixel_epsilon
            places = ours.halo(maps, labels, theta=config.theta, below=below, epsilon=epsilon)
            lifted, height = ours.above_halo(maps, labels, below=below, epsilon=epsilon), None
        else:
            kind = "cosine" if config.distance == "cosine" else "l2"
            places = reference.suppressed(
                features, maps, labels, lists, theta=config.theta, epsilon=config.pixel_epsilon,
                margin=config.margin, kind=kind,
            )  # fmt: skip
            lifted = ours.lifted(features, maps, labels, lists, margin=config.margin, kind=kind, reach=reach)
        trained = batch.maps(features.detach()) if config.pixel_detach else maps
        pixel = reference.pixel_rectification(
            trained, labels, places, form=config.pixel_form, average=config.pixel_average
        )
        if config.pixel_lift > 0:
            pixel = pixel + config.pixel_lift * ours.pixel_lift(trained, labels, lifted, height)
        weight = reference.pixel_weight(config.pixel_weight, config.pixel_weight_unit, labels.shape[1], steps)
        total = total + weight * pixel
    return total


def images(
    seed: int, count: int, classes: int = 3, channels: int = 4, side: int = 2, tag_share: float = 0.4
) -> list[Image]:
    """Images as the prototype pass sees them, numbered from 100 on."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = normal(classes, channels)
    result = []
    for i in range(count):
        features = normal(channels, side, side) + 0.5
        maps = torch.einsum("cd,dhw->chw", weight, features)
        labels = (torch.rand(classes, generator=generator) < tag_share).double()
        result.append(Image(features, maps, maps.mean(dim=(1, 2)) + 0.1 * normal(classes), labels, 100 + i))
    return result


def collected(
    shown: Sequence[Image],
    config: FPRConfig,
    superclasses: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 3,
    previous: Prototypes | None = None,
) -> Prototypes:
    """The package's prototype pass over the images, in the order given."""

    def network(places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = [shown[place] for place in places.tolist()]
        return (
            torch.stack([image.features for image in chosen]),
            torch.stack([image.maps for image in chosen]),
            torch.stack([image.logits for image in chosen]),
        )

    places = torch.arange(len(shown))
    labels = torch.stack([image.labels for image in shown])
    numbers = torch.tensor([image.number for image in shown])
    batches = zip(places.split(batch_size), labels.split(batch_size), numbers.split(batch_size), strict=True)
    return collect_prototypes(network, batches, config, superclasses, seed, previous)


def row_order(classes: int) -> RowOrder:
    """The order in which the package gives a class's rows to k-means: by falling sampling priority."""
    return lambda number, c: -float(sampling_priority(torch.tensor([number]), classes)[0, c])


def assert_same_prototypes(found: Prototypes, expected: Bank, tolerance: float = 1e-6) -> None:
    """Same rows in the same places, same sources, shares and spread."""
    for c in range(len(expected.positive)):
        for name, rows in (
            ("positive", expected.positive[c]), ("negative", expected.negative[c]), ("trimmed", expected.trimmed[c])
        ):  # fmt: skip
            valid = getattr(found, f"{name}_valid")[c]
            assert valid.tolist() == [k < len(rows) for k in range(len(valid))], f"{name} prototypes of class {c}"
            wanted = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), -1 if rows else 1)
            values = getattr(found, name)[c, valid].double()
            torch.testing.assert_close(values, wanted if rows else values, rtol=tolerance, atol=tolerance)
        shares = torch.tensor(expected.share[c], dtype=torch.float64)
        torch.testing.assert_close(
            found.positive_weight[c, found.positive_valid[c]].double(), shares, rtol=tolerance, atol=tolerance
        )
        assert found.negative_source[c, found.negative_valid[c]].tolist() == expected.negative_source[c]
        assert found.trimmed_source[c, found.trimmed_valid[c]].tolist() == expected.trimmed_source[c]
    assert abs(found.spread - expected.spread) <= tolerance
