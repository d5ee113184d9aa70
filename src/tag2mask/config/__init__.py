"""Every setting of tag2mask, as frozen dataclasses.

The string under a field is its documentation: it feeds ``--help``. Nothing heavy is imported here, so ``--help`` is
instant.
"""

from tag2mask.config.affinity import IRNConfig, PSAConfig
from tag2mask.config.crf import CRF_PRESETS, CRFConfig
from tag2mask.config.data import CooccurConfig, DataConfig, TagsConfig
from tag2mask.config.fpr import FPRConfig
from tag2mask.config.hosts import MctformerConfig, SeamConfig
from tag2mask.config.maps import AdvcamConfig, MapsConfig
from tag2mask.config.network import HostConfig, OptimiserConfig, ViewsConfig
from tag2mask.config.refine import RefineConfig
from tag2mask.config.rivals import ClimsConfig, EpsConfig, RivalsConfig, WoodConfig
from tag2mask.config.run import METHODS, RunConfig
from tag2mask.config.segment import SEGMENT_PRESETS, SegmentConfig

__all__ = [
    "CRF_PRESETS",
    "METHODS",
    "SEGMENT_PRESETS",
    "AdvcamConfig",
    "CRFConfig",
    "ClimsConfig",
    "CooccurConfig",
    "DataConfig",
    "EpsConfig",
    "FPRConfig",
    "HostConfig",
    "IRNConfig",
    "MapsConfig",
    "MctformerConfig",
    "OptimiserConfig",
    "PSAConfig",
    "RefineConfig",
    "RivalsConfig",
    "RunConfig",
    "SeamConfig",
    "SegmentConfig",
    "TagsConfig",
    "ViewsConfig",
    "WoodConfig",
]
