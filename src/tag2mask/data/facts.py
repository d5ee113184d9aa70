"""What the tags of a data set are like: counts, and which classes go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tag2mask.data.images import TaggedImages


@dataclass(frozen=True)
class Pair:
    """Two classes that are tagged together."""

    rarer: str
    other: str
    images: int
    """Images with both."""
    share: float
    """Of the images of the rarer class, those with the other."""


def strongest_pairs(images: TaggedImages, count: int) -> list[Pair]:
    """The pairs of classes with the most images in common, at most ``count``.

    What always comes together cannot be told apart by tags, so the share matters: near 1, the rarer class is hardly
    ever alone.
    """
    names, labels = images.classes.names, images.labels.astype(np.int64)  # (N, C)
    together = labels.T @ labels  # (C, C)
    first, second = np.triu_indices(len(names), k=1)
    order = np.argsort(-together[first, second], kind="stable")[:count]
    pairs = []
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        rarer, other = (a, b) if together[a, a] <= together[b, b] else (b, a)
        both = int(together[a, b])
        if both:
            pairs.append(Pair(names[rarer], names[other], both, both / int(together[rarer, rarer])))
    return pairs


def tag_lines(images: TaggedImages, pairs: int = 8) -> list[str]:
    """The tags of a split, for a person to read: totals, images of each class, and the strongest pairs."""
    labels = images.labels  # (N, C)
    per_image = labels.sum(axis=1)
    total, untagged = int(labels.sum()), int((per_image == 0).sum())
    mean = total / max(len(images), 1)
    counts = ((len(images), "image", "images"), (len(images.classes), "class", "classes"), (total, "tag", "tags"))
    counted = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts)
    lines = [f"{counted}, {mean:.3f} an image"]
    histogram = ", ".join(f"{n}: {count:,}" for n, count in enumerate(np.bincount(per_image)) if count)
    lines.append(f"images by their number of tags: {histogram}" if len(images) else "no image is sound")
    if untagged:
        lines.append(f"{untagged:,} without any tag: negatives of the classes whose surroundings they show")
    alone = (labels & (per_image == 1)[:, None]).sum(axis=0)  # (C,)
    groups = images.classes.superclasses or ("",) * len(images.classes)
    rows = [
        (name, f"{count:,}", f"{only:,}", group)
        for name, count, only, group in zip(
            images.classes.names, labels.sum(axis=0).tolist(), alone.tolist(), groups, strict=True
        )
    ]
    lines += aligned([("class", "images", "alone", "super-class" if any(groups) else ""), *rows])
    found = strongest_pairs(images, pairs)
    if found:
        lines.append("classes that go together:")
        cells = [
            (f"  {p.rarer} + {p.other}", f"{p.images:,} image{'s'[: p.images != 1]}", f"{p.share:.0%} of {p.rarer}")
            for p in found
        ]
        lines += aligned(cells)
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells as columns: the first and the last to the left, those between to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        middle = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return lines
