"""Every setting of tag2mask, as frozen dataclasses.

The string under a field is its documentation: it feeds ``--help``. Nothing heavy is imported here, so ``--help`` is
instant.
"""

from tag2mask.config.affinity import IRNConfig, PSAConfig
from tag2mask.config.crf import CRF_PRESETS, CRFConfig
from tag2mask.config.data import CooccurConfig, DataConfig, TagsConfig
from tag2mask.config.fpr import FPRConfig
from tag2mask.config.network import HostConfig, MapsConfig, OptimiserConfig, ViewsConfig
from tag2mask.config.refine import RefineConfig
from tag2mask.config.run import METHODS, RunConfig
from tag2mask.config.segment import SEGMENT_PRESETS, SegmentConfig

__all__ = [
    "CRF_PRESETS",
    "METHODS",
    "SEGMENT_PRESETS",
    "CRFConfig",
    "CooccurConfig",
    "DataConfig",
    "FPRConfig",
    "HostConfig",
    "IRNConfig",
    "MapsConfig",
    "OptimiserConfig",
    "PSAConfig",
    "RefineConfig",
    "RunConfig",
    "SegmentConfig",
    "TagsConfig",
    "ViewsConfig",
]
