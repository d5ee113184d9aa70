"""False Positive Rectification (ICCV 2023): the paper, one file for each idea.

activation  Eq. 2      regions        Eq. 3       pools, prototypes  section 3.2.1
contrast    Eq. 4-5    rectification  Eq. 6-8     objective          Eq. 1, 9, 10
training_free          ours: prototypes at inference, without training

Everything here works on tensors alone. Any network that returns features, class maps and logits can be rectified.
"""

from tag2mask.config import FPRConfig
from tag2mask.fpr.activation import activated_pixels, relative_activation
from tag2mask.fpr.contrast import region_contrast
from tag2mask.fpr.objective import Terms, binary_cross_entropy, collect_prototypes, fpr_loss, pixel_term_weight
from tag2mask.fpr.pools import PrototypePools, TopRows
from tag2mask.fpr.prototypes import Prototypes, build_prototypes
from tag2mask.fpr.rectification import (
    compared_pixels,
    halo_pixels,
    pixel_lift,
    pixel_rectification,
    suppressed_pixels,
)
from tag2mask.fpr.regions import region_features
from tag2mask.fpr.training_free import training_free_rectification
from tag2mask.presets import AUTHORS, PAPER, PAPER_AT_SCALE

__all__ = [
    "AUTHORS", "PAPER", "PAPER_AT_SCALE", "FPRConfig", "PrototypePools", "Prototypes", "Terms", "TopRows",
    "activated_pixels", "binary_cross_entropy", "build_prototypes", "collect_prototypes", "compared_pixels",
    "fpr_loss", "halo_pixels", "pixel_lift", "pixel_rectification", "pixel_term_weight", "region_contrast",
    "region_features", "relative_activation", "suppressed_pixels",
    "training_free_rectification",
]  # fmt: skip
