"""Every setting of tag2mask, as frozen dataclasses.

The string under a field is its documentation: it feeds ``--help``. Nothing heavy is imported here, so ``--help`` is
instant.
"""

from tag2mask.config.data import CooccurConfig, DataConfig, TagsConfig
from tag2mask.config.fpr import FPRConfig
from tag2mask.config.network import HostConfig, MapsConfig, OptimiserConfig, ViewsConfig
from tag2mask.config.run import METHODS, RunConfig

__all__ = [
    "METHODS",
    "CooccurConfig",
    "DataConfig",
    "FPRConfig",
    "HostConfig",
    "MapsConfig",
    "OptimiserConfig",
    "RunConfig",
    "TagsConfig",
    "ViewsConfig",
]
