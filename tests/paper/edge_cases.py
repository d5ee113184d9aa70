"""Batches and prototypes at the edges: empty pools, nothing activated, no tags, duplicates, one pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.paper import cases
from tests.paper.cases import Batch
from tests.paper.reference import Bank

FULL = [(3, 3, 3), (3, 3, 2), (2, 3, 1)]
"""Positives, negatives and trimmed negatives of three classes."""


def no_prototypes_at_all(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    return batch, cases.bank(0, [(0, 0, 0)] * 3)


def class_in_every_image(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    batch.labels[:, 0] = 1
    return batch, cases.bank(0, [(3, 0, 0), *FULL[1:]])


def class_in_no_image(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    batch.labels[:, 0] = 0
    return batch, cases.bank(0, [(0, 3, 3), *FULL[1:]])


def tagged_class_without_positives(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    """The release suppresses every pixel here; the package documents that it suppresses none."""
    batch.labels[:, 0] = 1
    return batch, cases.bank(0, [(0, 3, 3), *FULL[1:]])


def nothing_left_after_trimming(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    return batch, cases.bank(0, [(3, 3, 0)] * 3)


def nothing_activated(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    batch.labels[:] = 1
    return replace(batch, features=(-batch.features.detach().abs()).requires_grad_(),
                   classifier=batch.classifier.detach().abs().requires_grad_()), lists  # fmt: skip


def one_class_never_activated(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    batch.labels[:] = 1
    classifier = batch.classifier.detach().clone()
    classifier[1] = 0
    return replace(batch, classifier=classifier.requires_grad_()), lists


def faint_map(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    """Maxima of about 1e-6: positive, yet nothing is above theta once the epsilon is added to the maximum."""
    batch.labels[:] = 1
    return replace(batch, classifier=(1e-6 * batch.classifier.detach()).requires_grad_()), lists


def no_tags(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    batch.labels[:] = 0
    return batch, lists


def repeated_prototypes(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    rows = cases.bank(1, [(1, 1, 1)] * 3)
    for c in range(3):
        for name in ("positive", "negative", "trimmed"):
            setattr(rows, name, [getattr(rows, name)[k] * (3 if k == c else 1) for k in range(3)])
    rows.share = [[1 / len(rows.positive[c])] * len(rows.positive[c]) for c in range(3)]
    return batch, rows


def negatives_equal_positives(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    """Every pixel is as near to a negative as to a positive, and Eq. 8 asks for nearer."""
    batch.labels[:] = 1
    return batch, replace(lists, negative=lists.positive, trimmed=lists.positive)


def one_image_of_one_pixel(batch: Batch, lists: Bank) -> tuple[Batch, Bank]:
    small = cases.batch(5, images=1, height=1, width=1)
    small.labels[:] = 1
    return small, lists


EDGE_CASES: list[Callable[[Batch, Bank], tuple[Batch, Bank]]] = [
    no_prototypes_at_all, class_in_every_image, class_in_no_image, tagged_class_without_positives,
    nothing_left_after_trimming, nothing_activated, one_class_never_activated, faint_map, no_tags,
    repeated_prototypes, negatives_equal_positives, one_image_of_one_pixel,
]  # fmt: skip
