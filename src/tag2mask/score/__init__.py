"""Scores of masks and tags: one pass over the images fills histograms, and every figure is read off those."""

from tag2mask.score.bootstrap import PairedDifference, paired_bootstrap, paired_difference
from tag2mask.score.histograms import IGNORE, LEVELS, ScoreHistograms
from tag2mask.score.image_counts import ImageCounts
from tag2mask.score.masks import MaskCounts, MaskScores, mask_scores
from tag2mask.score.metrics import LevelCounts, Scores, counts_by_level, miou_by_level, scores
from tag2mask.score.tags import absent_probability, bce, mean_average_precision
from tag2mask.score.thresholds import (
    NEEDS_MASKS,
    PROTOCOLS,
    ThresholdProtocol,
    absent_floor,
    choose_level,
    level_of,
    minimum_cross_entropy,
    peak_stride,
)

__all__ = [
    "IGNORE",
    "LEVELS",
    "NEEDS_MASKS",
    "PROTOCOLS",
    "ImageCounts",
    "LevelCounts",
    "MaskCounts",
    "MaskScores",
    "PairedDifference",
    "ScoreHistograms",
    "Scores",
    "ThresholdProtocol",
    "absent_floor",
    "absent_probability",
    "bce",
    "choose_level",
    "counts_by_level",
    "level_of",
    "mask_scores",
    "mean_average_precision",
    "minimum_cross_entropy",
    "miou_by_level",
    "paired_bootstrap",
    "paired_difference",
    "peak_stride",
    "scores",
]
