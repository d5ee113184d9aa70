"""The threshold level of a set of maps, chosen by protocol.

========  ==========================================  =====================
protocol  level                                       reads
========  ==========================================  =====================
gtfree    a rule on the maps of all photos            maps and tags; default
fixed     one threshold for all, 0.30 unless told     nothing
matched   the foreground share is the truth's         masks: a diagnostic
oracle    mIoU is best                                masks: a diagnostic
========  ==========================================  =====================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tag2mask.errors import InputError
from tag2mask.score.histograms import LEVELS, Counts, ScoreHistograms
from tag2mask.score.metrics import Floats, counts_by_level, miou_by_level

ThresholdProtocol = Literal["gtfree", "fixed", "matched", "oracle"]
PROTOCOLS: tuple[ThresholdProtocol, ...] = get_args(ThresholdProtocol)
NEEDS_MASKS: frozenset[ThresholdProtocol] = frozenset({"matched", "oracle"})
"""Protocols that read the truth; a figure of theirs is never shown without saying so."""
FIXED = 0.30
"""Share of a map's maximum."""
ABSENT_QUANTILE = 0.75
EPSILON = 1e-5
MOST_PEAKS = 1 << 22
"""Of more images than have this many peaks, every n-th does for the floor: it is a whole level of 255 anyhow."""


def minimum_cross_entropy(map_levels: Counts) -> int:
    """Level 1..255 at which two flat groups come nearest to a (256,) histogram of map values, in cross-entropy.

    C. H. Li and C. K. Lee, "Minimum cross entropy thresholding", Pattern Recognition 26(4), 1993: each group is
    replaced by its mean, and the level is the one that loses least, sum v log(v / mean). Localization maps are mostly
    near 0 with a few bright peaks; on such, this rule goes low enough to keep an object whose map has one brighter
    spot, where Otsu's (least squares) cuts it off. Levels with no pixel between them are equally good; the middle one
    is taken. A histogram with fewer than two values has no groups: then it is the level of ``FIXED``.
    """
    pixels = np.asarray(map_levels, np.float64)
    if np.count_nonzero(pixels) < 2:
        return level_of(FIXED)
    first, last = np.flatnonzero(pixels)[[0, -1]]
    levels = np.arange(first + 1, last + 1)  # those with pixels on both sides
    shares = pixels / pixels.sum()
    count, total = shares.cumsum()[levels - 1], (shares * np.arange(LEVELS)).cumsum()[levels - 1]
    kept = sum_times_log_mean(total, count) + sum_times_log_mean(
        (shares * np.arange(LEVELS)).sum() - total, 1 - count
    )
    best = levels[kept >= kept.max() - 1e-12 * abs(kept.max())]
    return int(best[(len(best) - 1) // 2])


def peak_stride(images: int, classes: int) -> int:
    """From every how many-th image ``absent_floor`` should be given the peaks; 1 up to ``MOST_PEAKS``."""
    return -(-images * classes // MOST_PEAKS) or 1


def absent_floor(peaks: npt.NDArray[np.floating], tags: npt.NDArray[np.bool_]) -> int:
    """Level below which no threshold should go: what the maps of absent classes reach all the same.

    A map's values are shares of its own maximum. The peak of a class in a photo without it, as a share of the median
    peak in photos with it, is a level that is no evidence of the class. The floor is what 25 % of such peaks reach: on
    maps with broad shoulders it lifts a rule that cuts too low; on clean maps it lies below the rule and does nothing.

    Args:
        peaks: (N, C) how high relu(M) of every class reaches in every photo, or in every ``peak_stride``-th, outside of
            what tagged classes claim (``maps.merge.map_peaks``); what is not finite is left out. tags: (N, C).

    Returns:
        A level from 1 to 255; 1 where no photo lacks a class that another has, and where the peaks tell nothing: when
        25 % of the absent ones reach those of the present.
    """
    relative = []
    for c in range(tags.shape[1]):
        column = peaks[:, c].astype(np.float64)  # (N,)
        own = np.median(column[tags[:, c]]) if tags[:, c].any() else 0.0
        if own > 0:
            relative.append(column[~tags[:, c]] / (own + EPSILON))
    reached = np.concatenate(relative) if relative else np.zeros(0)
    reached = reached[np.isfinite(reached)]
    floor = np.quantile(reached, ABSENT_QUANTILE) if len(reached) else 0.0
    return int(np.ceil((LEVELS - 1) * floor)) if 0 < floor < 1 else 1


def sum_times_log_mean(total: Floats, count: Floats) -> Floats:
    """total * log(total / count), 0 where the total is 0; the part of the cross-entropy that a group keeps."""
    return total * np.log(np.where(total > 0, total, 1.0) / np.where(total > 0, count, 1.0))


def choose_level(
    histograms: ScoreHistograms,
    protocol: ThresholdProtocol,
    *,
    fixed: float = FIXED,
    rule: Callable[[Counts], int] = minimum_cross_entropy,
    floor: int = 1,
) -> int:
    """Threshold level 1..255 of a set.

    ``fixed``: the threshold of protocol "fixed", above 0, at most 1. ``rule``: the rule of protocol "gtfree";
    it gets ``histograms.map_levels`` (256,) alone, so it cannot read a mask. ``floor``: the lowest level that
    "gtfree" may take (``absent_floor``). Of equally good levels, "oracle"
    and "matched" take the lowest. Raises ``InputError`` for an unknown protocol, for a fixed threshold out of
    range, and for a protocol that reads masks where there are none.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"The threshold protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
    if protocol == "gtfree":
        return max(floor, rule(histograms.map_levels))
    if protocol == "fixed":
        return level_of(fixed)
    counts = counts_by_level(histograms)
    if not counts.truth.any():
        raise InputError(f"The threshold protocol {protocol!r} reads masks, but no image here has one: use gtfree.")
    if protocol == "oracle":
        return int(miou_by_level(histograms).argmax()) + 1
    return int(np.abs(counts.foreground_share - counts.truth_share).argmin()) + 1


def level_of(threshold: float) -> int:
    """The level from which on map values are at least ``threshold`` (share of a map's maximum, in (0, 1])."""
    if not 0 < threshold <= 1:
        raise InputError(f"The fixed threshold is {threshold}; expected a number above 0 and at most 1.")
    # 3 * 0.2 is 0.6000000000000001; such a hair above a level must not cost the next one
    return max(1, math.ceil(threshold * (LEVELS - 1) - 1e-9))
