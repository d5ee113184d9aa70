"""Scores of a set of images at a threshold level, from its histograms. All shares are percentages, 0..100.

A share of nothing is NaN: the IoU of a class that is nowhere in truth or prediction, the precision of a class
that is never predicted, the recall of a class that has no pixel. Means skip NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tag2mask.score.histograms import LEVELS, Counts, ScoreHistograms, check_level

if TYPE_CHECKING:
    from tag2mask.data.masks import Contexts

Floats = npt.NDArray[np.float64]
OWN_AREA_TOLERANCE = 0.1
"""Share of a class's pixels by which its predicted area may differ and still count as matched."""


@dataclass(frozen=True)
class LevelCounts:
    """Pixels of the whole set at every level: column t-1 is threshold level t = 1..255, row 0 background."""

    true_positives: Counts
    """(C+1, 255)."""
    predicted: Counts
    """(C+1, 255)."""
    truth: Counts
    """(C+1,)."""

    @property
    def foreground_share(self) -> Floats:
        """(255,) percent of the pixels that are predicted as some class; it falls as the level rises."""
        return percent(self.predicted[1:].sum(axis=0), self.truth.sum())

    @property
    def truth_share(self) -> float:
        """Percent of the pixels whose truth is some class."""
        return float(percent(self.truth[1:].sum(), self.truth.sum()))


@dataclass(frozen=True)
class Scores:
    """All figures at one threshold level. Arrays of C+1 have the background first, arrays of C lack it."""

    level: int
    """Threshold level, 1..255."""
    threshold: float
    """The same as a share of a map's maximum: level / 255, above 0, at most 1 (no percentage)."""
    images: int
    """Number of images."""
    miou: float
    """Mean IoU of background and classes."""
    precision: float
    """Mean over classes."""
    recall: float
    """Mean over classes."""
    fdr: float
    """False discovery rate, 100 - precision; mean over classes."""
    leak: float
    """Share of the pixels predicted as a class that lie on the class's own context, mean over classes that
    have one. Where nobody knows which context is whose: share of all predicted foreground that lies on any
    context. NaN without contexts."""
    pixel_ap: float
    """Pixel average precision, mean over classes; the same at every level."""
    foreground_share: float
    """Share of the pixels that are predicted as some class."""
    truth_share: float
    """Share of the pixels whose truth is some class."""
    iou: Floats
    """(C+1,)."""
    class_precision: Floats
    """(C,)."""
    class_recall: Floats
    """(C,)."""
    class_fdr: Floats
    """(C,)."""
    class_leak: Floats
    """(C,); NaN for a class without a context of its own."""
    class_pixel_ap: Floats
    """(C,)."""
    class_fdr_own_area: Floats
    """(C,) false discovery rate at the level that gives the class as many pixels as it has (within 10 %); NaN where
    none does. The same at every level."""
    context_shares: Floats
    """(C, J): share of the pixels predicted as the class that lie on each context."""
    confusion: Counts
    """(C+1, C+1) pixels, [truth, prediction]."""
    truth_pixels: Counts
    """(C+1,)."""
    predicted_pixels: Counts
    """(C+1,)."""

    def plain(self) -> dict[str, object]:
        """The fields as numbers and lists, for JSON; NaN becomes None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def scores(histograms: ScoreHistograms, level: int, contexts: Contexts | None = None) -> Scores:
    """Scores at threshold ``level`` (1..255).

    ``contexts.of_class`` says which context belongs to which class; without it, leak is over all contexts.
    Raises ``ValueError`` when ``contexts`` are not as many as were counted.
    """
    check_level(level)
    if contexts is not None and len(contexts.names) != histograms.context_count:
        raise ValueError(f"{len(contexts.names)} contexts are given; {histograms.context_count} were counted")
    joint = histograms.joint  # (C+1, C+1, 256)
    confusion = joint[:, :, level:].sum(axis=2)  # (C+1, C+1, 256) -> (C+1, C+1)
    confusion[:, 0] += joint[:, :, :level].sum(axis=(1, 2))  # whoever wins below the level, it is background
    truth, predicted, true_positives = confusion.sum(axis=1), confusion.sum(axis=0), np.diagonal(confusion)
    iou = intersection_over_union(true_positives, predicted, truth)
    class_precision = percent(true_positives[1:], predicted[1:])
    class_recall = percent(true_positives[1:], truth[1:])
    class_pixel_ap = pixel_average_precision(histograms)
    on_context = histograms.on_context[:, 1:, level:].sum(axis=2).T  # (J, C, 256) -> (C, J)
    leak, class_leak = _leak(on_context, predicted[1:], contexts.of_class if contexts is not None else None)
    return Scores(
        level=level,
        threshold=level / (LEVELS - 1),
        images=int(histograms.added.sum()),
        miou=float(mean_of_known(iou)),
        precision=float(mean_of_known(class_precision)),
        recall=float(mean_of_known(class_recall)),
        fdr=float(mean_of_known(100 - class_precision)),
        leak=leak,
        pixel_ap=float(mean_of_known(class_pixel_ap)),
        foreground_share=float(percent(predicted[1:].sum(), predicted.sum())),
        truth_share=float(percent(truth[1:].sum(), truth.sum())),
        iou=iou,
        class_precision=class_precision,
        class_recall=class_recall,
        class_fdr=100 - class_precision,
        class_leak=class_leak,
        class_pixel_ap=class_pixel_ap,
        class_fdr_own_area=false_discovery_at_own_area(histograms),
        context_shares=percent(on_context, predicted[1:, None]),
        confusion=confusion,
        truth_pixels=truth,
        predicted_pixels=predicted,
    )


def counts_by_level(histograms: ScoreHistograms) -> LevelCounts:
    """The whole threshold sweep: true positives and predicted pixels at all 255 levels."""
    joint = histograms.joint  # (C+1, C+1, 256)
    truth = joint.sum(axis=(1, 2))  # (C+1,)
    foreground = _at_least(joint.sum(axis=0)[1:])[:, 1:]  # (C, 256) -> (C, 255)
    hits = _at_least(np.diagonal(joint).T[1:])[:, 1:]  # (C, 256), where the winner is the truth -> (C, 255)
    painted_over = _at_least(joint[0, 1:].sum(axis=0))[1:]  # background taken for a class: (256,) -> (255,)
    return LevelCounts(
        true_positives=np.vstack([truth[0] - painted_over, hits]),  # (C+1, 255)
        predicted=np.vstack([truth.sum() - foreground.sum(axis=0), foreground]),  # (C+1, 255)
        truth=truth,
    )


def miou_by_level(histograms: ScoreHistograms) -> Floats:
    """(255,) mean IoU at levels 1..255 (entry t-1 is level t); NaN where no pixel has a truth."""
    counts = counts_by_level(histograms)
    truth = counts.truth[:, None]  # (C+1,) -> (C+1, 1)
    iou = intersection_over_union(counts.true_positives, counts.predicted, truth)  # (C+1, 255)
    return mean_of_known(iou, axis=0)  # (255,)


def pixel_average_precision(histograms: ScoreHistograms) -> Floats:
    """(C,) average precision, percent, of finding each class's pixels; NaN for a class without a pixel.

    A pixel's score for a class is its map value where the class wins and 0 elsewhere, as in the prediction.
    With precision p(t) and recall r(t) of the pixels that score at least t: the sum of (r(t) - r(t+1)) p(t)
    over t = 0..255, as scikit-learn's ``average_precision_score`` has it.
    """
    joint = histograms.joint
    truth = joint.sum(axis=(1, 2))[1:]  # (C,)
    found = _at_least(np.diagonal(joint).T[1:])  # (C, 256)
    taken = _at_least(joint.sum(axis=0)[1:])  # (C, 256)
    found[:, 0], taken[:, 0] = truth, joint.sum()  # every pixel scores at least 0
    newly_found = found - np.pad(found[:, 1:], ((0, 0), (0, 1)))  # (C, 256)
    precision = np.nan_to_num(percent(found, taken))  # where none is taken, none is newly found
    return percent((newly_found * precision).sum(axis=1), 100 * truth)  # (C, 256) -> (C,)


def false_discovery_at_own_area(histograms: ScoreHistograms) -> Floats:
    """(C,) false discovery rate, percent, of each class at the level that gives it as many pixels as its truth has.

    At one level for all classes, matched to the foreground as a whole, a class may take area from another; maps of one
    class are compared at equal area only when the area of that class is matched. Of equally near levels the lowest
    counts. NaN where no level comes within 10 % of that area, and for a class without a pixel.
    """
    counts = counts_by_level(histograms)
    hits, predicted, truth = counts.true_positives[1:], counts.predicted[1:], counts.truth[1:]  # (C, 255) twice, (C,)
    nearest = np.abs(predicted - truth[:, None]).argmin(axis=1)  # (C,)
    classes = np.arange(len(truth))
    found = 100 - percent(hits[classes, nearest], predicted[classes, nearest])
    near = np.abs(predicted[classes, nearest] - truth) <= OWN_AREA_TOLERANCE * truth
    return np.where((truth > 0) & near, found, np.nan)


def intersection_over_union(
    true_positives: npt.NDArray[np.number], predicted: npt.NDArray[np.number], truth: npt.NDArray[np.number]
) -> Floats:
    """Percent, any shapes that broadcast: tp / (predicted + truth - tp); NaN for a class in neither."""
    return percent(true_positives, predicted + truth - true_positives)


def percent(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """100 * part / whole, float64, any shapes that broadcast; NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    shares = np.full(part.shape, np.nan)
    np.divide(100 * part, whole, out=shares, where=whole > 0)
    return shares


def mean_of_known(values: Floats, axis: int | None = None) -> Floats:
    """Mean along ``axis`` of what is not NaN; NaN, without numpy's warning, where nothing is known."""
    known = ~np.isnan(values)
    return percent(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis)) / 100


def _leak(on_context: Counts, predicted: Counts, of_class: tuple[int | None, ...] | None) -> tuple[float, Floats]:
    """Leak, and leak of each class (C,), from predicted pixels on each context (C, J) and in all (C,)."""
    if on_context.shape[1] == 0:
        return math.nan, np.full(len(predicted), np.nan)
    if of_class is None:
        leak = percent(on_context.sum(), predicted.sum())
        return float(leak), percent(on_context.sum(axis=1), predicted)  # (C, J) -> (C,)
    own = [math.nan if context is None else on_context[c, context] for c, context in enumerate(of_class)]
    class_leak = percent(own, predicted)
    return float(mean_of_known(class_leak)), class_leak


def _at_least(by_value: Counts) -> Counts:
    """Pixels of each value (..., 256) -> pixels of that value or more (..., 256)."""
    return by_value[..., ::-1].cumsum(axis=-1)[..., ::-1]


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
