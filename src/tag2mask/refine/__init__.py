"""From maps to pseudo masks: what makes them follow the photo.

lattice  a Gaussian filter over all pairs of pixels    crf  mean-field inference in a dense CRF
"""

from tag2mask.config.crf import CRF_PRESETS, CRFConfig
from tag2mask.refine.crf import DenseCRF, hard_energies, soft_energies
from tag2mask.refine.lattice import PermutohedralLattice

__all__ = ["CRF_PRESETS", "CRFConfig", "DenseCRF", "PermutohedralLattice", "hard_energies", "soft_energies"]
