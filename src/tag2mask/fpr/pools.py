"""The positive and negative pools of section 3.2.1, in memory that does not grow with the number of images."""

from __future__ import annotations

import torch
from torch import Tensor

NO_SOURCE = torch.iinfo(torch.int64).max
"""Source number of an empty place in a pool."""


class TopRows:
    """For each class, the ``capacity`` rows with the highest score, exactly, in any order of arrival.

    Ties go to the smaller source number: the order of arrival leaves no trace. All memory is taken at construction.

    Attributes:
        rows: (C, capacity, D) region features; scores: (C, capacity), -inf where the place is empty;
        sources: (C, capacity) number of the image a row came from; labels: (C, capacity, C) the tags of that image.
    """

    def __init__(self, class_count: int, capacity: int, channels: int, device: torch.device | str = "cpu") -> None:
        self.rows = torch.full((class_count, capacity, channels), 0.0, device=device)
        self.scores = torch.full((class_count, capacity), -torch.inf, device=device)
        self.sources = torch.full((class_count, capacity), NO_SOURCE, dtype=torch.int64, device=device)
        self.labels = torch.full((class_count, capacity, class_count), False, device=device)

    def add(self, rows: Tensor, scores: Tensor, members: Tensor, sources: Tensor, labels: Tensor) -> None:
        """Offer a batch of rows.

        Args:
            rows: (N, C, D) region features, row n for each class.
            scores: (N, C), finite.
            members: (N, C) boolean, whether row n may enter the pool of class c.
            sources: (N,) int64, a number for each image that appears nowhere else.
            labels: (N, C) boolean tags of the images.
        """
        classes = len(self.scores)
        offered = scores.float().masked_fill(~members, -torch.inf).T  # (C, N)
        # Every class is offered the same images, so sources and tags are shown to it without a copy.
        self._offer(rows.detach().transpose(0, 1), offered, sources.expand(classes, -1), labels.expand(classes, -1, -1))

    def merge(self, other: TopRows) -> None:
        """Take in another pool of other images; in whatever order pools are merged, the result is the same."""
        self._offer(other.rows, other.scores, other.sources, other.labels)

    def tensors(self) -> tuple[Tensor, ...]:
        """All that a pool holds, in tensors whose shapes do not change."""
        return self.rows, self.scores, self.sources, self.labels

    def _offer(self, rows: Tensor, offered: Tensor, sources: Tensor, labels: Tensor) -> None:
        """Rows (C, N, D), scores (C, N), -inf where a class has no row, sources (C, N), labels (C, N, C)."""
        capacity = self.scores.shape[1]
        all_scores = torch.cat([self.scores, offered], dim=1)  # (C, capacity + N)
        all_sources = torch.cat([self.sources, sources], dim=1)  # (C, capacity + N)
        by_source = all_sources.argsort(dim=1, stable=True)
        by_score = all_scores.gather(1, by_source).argsort(dim=1, descending=True, stable=True)
        best = by_source.gather(1, by_score)[:, :capacity]  # (C, capacity)
        kept = torch.zeros_like(all_scores, dtype=torch.bool).scatter_(1, best, True)
        kept[:, capacity:] &= offered > -torch.inf  # a non-member never takes an empty place
        arrived_class, arrived = kept[:, capacity:].nonzero(as_tuple=True)
        # Places are freed in the same number as rows arrive, class by class; both lists are sorted by class.
        free_class, free = self._free_places(kept[:, :capacity], kept[:, capacity:].sum(dim=1))
        self.rows[free_class, free] = rows[arrived_class, arrived].to(self.rows)
        self.scores[free_class, free] = offered[arrived_class, arrived]
        self.sources[free_class, free] = sources[arrived_class, arrived]
        self.labels[free_class, free] = labels[arrived_class, arrived]

    @staticmethod
    def _free_places(kept: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The first ``wanted[c]`` places that are not kept, for each class, as (class, place) indices."""
        rank = (~kept).cumsum(dim=1)  # (C, capacity): 1 for the first free place of a class, 2 for the second ...
        classes, places = (~kept & (rank <= wanted.unsqueeze(1))).nonzero(as_tuple=True)
        return classes, places

    def kept(self, class_index: int) -> Tensor:
        """The rows (R, D) of a class in no order; the pool's own memory where it is full."""
        filled = self.scores[class_index] > -torch.inf  # (capacity,)
        return self.rows[class_index] if bool(filled.all()) else self.rows[class_index, filled]

    def ranked(self, class_index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows (R, D), scores (R,), sources (R,) and labels (R, C) of a class, best first, ties by source."""
        filled = (self.scores[class_index] > -torch.inf).nonzero().flatten()  # (R,)
        by_source = filled[self.sources[class_index, filled].argsort(stable=True)]
        order = by_source[self.scores[class_index, by_source].argsort(descending=True, stable=True)]
        pools = (self.rows, self.scores, self.sources, self.labels)
        rows, scores, sources, labels = (pool[class_index, order] for pool in pools)
        return rows, scores, sources, labels


def sampling_priority(sources: Tensor, class_count: int) -> Tensor:
    """A score that is random in the image and class but the same in every run: keeping the highest is uniform sampling.

    A hash of image number, (N,) int64, and class: (N, C) float32 in [0, 1).
    """
    classes = torch.arange(class_count, device=sources.device)
    state = (sources.unsqueeze(1) * 0x9E3779B1 + classes * 0x85EBCA6B + 1) & 0xFFFFFFFF  # (N, C)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39), (15, 1)):
        state = ((state ^ (state >> shift)) * factor) & 0xFFFFFFFF
    return (state & 0xFFFFFF).float() / float(1 << 24)


class PrototypePools:
    """R_pos and R_neg of section 3.2.1, filled batch by batch."""

    def __init__(
        self, class_count: int, channels: int, positives: int, negatives: int, device: torch.device | str = "cpu"
    ) -> None:
        self.positive = TopRows(class_count, positives, channels, device)
        self.negative = TopRows(class_count, negatives, channels, device)

    def merge(self, other: PrototypePools) -> None:
        """Take in the pools of other images."""
        self.positive.merge(other.positive)
        self.negative.merge(other.negative)

    def tensors(self) -> tuple[Tensor, ...]:
        """All that the pools hold."""
        return *self.positive.tensors(), *self.negative.tensors()

    def add(
        self,
        regions: Tensor,
        area: Tensor,
        confidence: Tensor,
        labels: Tensor,
        sources: Tensor,
        core: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Sort the regions of a batch into the pools: present classes positive, absent ones negative, unknown ones out.

        Args:
            regions: f of Eq. 3, (N, C, D); area: (N, C), regions of area 0 are left out.
            confidence: (N, C) ranks the negatives; sources: (N,) int64 image numbers, no two images the same.
            labels: (N, C), 1 tagged, 0 not tagged, -1 unknown.
            core: regions and area of a higher threshold, for the positives; the same regions if None.
        """
        present = labels > 0
        core_regions, core_area = (regions, area) if core is None else core
        priority = sampling_priority(sources, labels.shape[1])
        self.positive.add(core_regions, priority, present & (core_area > 0), sources, present)
        # A class that may be there counts as there when negatives are trimmed.
        self.negative.add(regions, confidence.detach(), (labels == 0) & (area > 0), sources, labels != 0)
