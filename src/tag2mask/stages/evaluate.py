"""Maps against masks: the only stage that reads a mask. Figures by protocol, method and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tag2mask import ranks
from tag2mask.data import TaggedImages
from tag2mask.data.kept_planes import KeptPlanes
from tag2mask.data.masks import Masks
from tag2mask.score import (
    NEEDS_MASKS,
    PROTOCOLS,
    PairedDifference,
    ScoreHistograms,
    Scores,
    ThresholdProtocol,
    absent_floor,
    absent_probability,
    bce,
    choose_level,
    mean_average_precision,
    paired_bootstrap,
    peak_stride,
    scores,
)
from tag2mask.stages.localize import ImageMaps

FIGURES = ("miou", "precision", "recall", "fdr", "leak", "pixel_ap")
"""What summary.json holds of each method and protocol, in percent."""
REFERENCES = ("continued", "halo", "sharpen")
"""The controls that ``fpr`` is compared with."""
KEPT_BYTES = 1 << 24
"""What masks take that are kept, packed, so that the next method need not read or draw them again: 5,000 of VOC's."""


@dataclass(frozen=True)
class MethodScores:
    """One method of one seed."""

    histograms: ScoreHistograms
    by_protocol: dict[ThresholdProtocol, Scores]
    tags: dict[str, float]
    """bce, absent_probability, mean_average_precision; empty when maps were read from disk."""


class Truth:
    """Masks and contexts of a set, read when they are needed; the last one, and some more, are kept."""

    def __init__(self, masks: Masks, images: TaggedImages) -> None:
        self.masks, self.images = masks, images
        self._kept = KeptPlanes(KEPT_BYTES), KeptPlanes(KEPT_BYTES)
        self._last: tuple[int, tuple[np.ndarray, np.ndarray | None]] | None = None

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Mask and context map of an image, each (H, W) uint8, read-only."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._read(index)
        return self._last[1]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        mask, context = (kept.get(index) for kept in self._kept)
        if mask is not None and (context is not None or self.masks.contexts is None):
            return mask, context
        size_hw = self.images.size_hw(index)  # a mask of another size is an error that names it
        mask = self.masks.mask(index, size_hw)
        context = self.masks.context(index, size_hw) if self.masks.contexts else None
        for kept, plane in zip(self._kept, (mask, context), strict=True):
            if plane is not None:
                kept.keep(index, plane)
        return mask, context

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of an image."""
        height, width = self[index][0].shape
        return height, width


def score_method(maps: Iterable[ImageMaps], truth: Truth, labels: np.ndarray) -> MethodScores:
    """Figures of one method under every protocol; of processes that share the images, the first has them.

    Args:
        maps: of all images.
        truth: masks of the same images.
        labels: (N, C) bool tags.
    """
    contexts = truth.masks.contexts
    count = 0 if contexts is None else len(contexts.names)
    histograms = ScoreHistograms(labels.shape[1], count, images=len(labels))
    logits = np.zeros(labels.shape, np.float32)  # (N, C)
    stride = peak_stride(*labels.shape)
    peaks = np.zeros(labels[::stride].shape, np.float32)
    for image in maps:
        mask, context = truth[image.index]
        histograms.add(image.index, image.classes, image.maps, mask, context)
        if image.index % stride == 0:
            peaks[image.index // stride] = image.peaks
        logits[image.index] = np.nan if image.logits is None else image.logits
    ranks.streamed(histograms.parts(), histograms.take_in)
    peaks, logits = ranks.total(peaks), ranks.total(logits)
    if ranks.rank():
        return MethodScores(histograms, {}, {})
    floor = absent_floor(peaks, labels[::stride])
    by_protocol = {
        protocol: scores(histograms, choose_level(histograms, protocol, floor=floor), contexts)
        for protocol in PROTOCOLS
    }
    return MethodScores(histograms, by_protocol, tag_figures(logits, labels))


def tag_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """BCE, mean probability of absent classes, and mean average precision; empty without logits."""
    if np.isnan(logits).any():
        return {}
    return {
        "bce": bce(logits, labels),
        "absent_probability": absent_probability(logits, labels),
        "mean_average_precision": mean_average_precision(logits, labels),
    }


def differences(scored: dict[str, MethodScores], seed: int) -> dict[str, dict[str, PairedDifference]]:
    """``fpr`` against each control, by protocol: paired bootstrap over the images."""
    if "fpr" not in scored:
        return {}
    fpr = scored["fpr"]
    return {
        name: {
            protocol: paired_bootstrap(
                fpr.histograms, fpr.by_protocol[protocol].level, scored[name].histograms,
                scored[name].by_protocol[protocol].level, seed=seed,
            )
            for protocol in PROTOCOLS
        }
        for name in REFERENCES
        if name in scored
    }  # fmt: skip


def summarise(
    results: dict[int, dict[str, MethodScores]], seconds: float, split: str, class_names: tuple[str, ...],
    contexts: tuple[str, ...],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What summary.json and details.json hold.

    Args:
        results: seed -> method -> scores.
        seconds: wall time of the run.
        split: name of the images' split.
        class_names, contexts: for the tables by class.

    Returns:
        ``summary``: methods -> protocol -> figure -> mean and standard deviation over seeds, percent.
        ``details``: for each class, by seed, and the paired differences.
    """
    seeds = sorted(results)
    methods = list(results[seeds[0]])
    images = results[seeds[0]][methods[0]].by_protocol["gtfree"].images
    summary = {
        "methods": {
            method: {
                protocol: {
                    name: mean_and_deviation(
                        [getattr(results[s][method].by_protocol[protocol], name) for s in seeds]
                    )
                    for name in (*FIGURES, "threshold")
                }
                for protocol in PROTOCOLS
            }
            for method in methods
        },
        "tags": {
            method: {
                name: mean_and_deviation([results[s][method].tags[name] for s in seeds])
                for name in results[seeds[0]][method].tags
            }
            for method in methods
        },
        "seeds": seeds,
        "seconds": round(seconds, 3),
        "images": images,
        "split": split,
        "reads_masks": sorted(NEEDS_MASKS),
    }
    details = {
        "classes": list(class_names),
        "contexts": list(contexts),
        "split": split,
        "images": images,
        "by_seed": {
            str(s): {
                method: {protocol: scored.by_protocol[protocol].plain() for protocol in PROTOCOLS}
                for method, scored in results[s].items()
            }
            for s in seeds
        },
        "differences": {
            str(s): {
                name: {protocol: vars(difference) for protocol, difference in table.items()}
                for name, table in differences(results[s], s).items()
            }
            for s in seeds
        },
    }
    return summary, details


def mean_and_deviation(values: list[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation (0 for one value); None where nothing is known."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": None, "std": None}
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return {"mean": round(float(np.mean(known)), 4), "std": round(deviation, 4)}
