"""From localization maps to pseudo masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.config.affinity import IRNConfig, PSAConfig
from tag2mask.config.crf import CRF_PRESETS, CRFConfig
from tag2mask.config.network import OptimiserConfig, ViewsConfig
from tag2mask.errors import require


@dataclass(frozen=True)
class RefineConfig:
    """Refinement: dense CRF, and the random walks of IRN and PSA, which learn from what the CRF is sure of."""

    threshold: float = 0.0
    """Share of a map's maximum above which a pixel is foreground before the CRF; 0: by the rule without masks."""
    foreground: float = 1.5
    """Factor of the threshold above which foreground is certain (IRN: 2, with a threshold of .15)."""
    background: float = 0.5
    """Factor of the threshold below which background is certain (IRN: 1/3)."""
    crf: str = "irn"
    """Published settings of the dense CRF, by the name of the pipeline."""
    crf_backend: Literal["numpy", "pydensecrf"] = "numpy"
    """numpy: our own. pydensecrf: the compiled package, where it is installed."""
    crf_longest: int = 1000
    """Photos larger than this are reduced for the CRF, in pixels of the longest side; the labels are enlarged
    afterwards, nearest. 1000 x 1000 pixels take 0.4 GB or more, and memory grows with the number of pixels."""
    final_crf: bool = True
    """A CRF after the random walk as well."""
    walk_threshold: float = 0.0
    """Share of the image's highest walked value above which a pixel is foreground (IRN: .25); 0: by the rule without
    masks. For IRN."""
    views: ViewsConfig = field(default_factory=lambda: ViewsConfig(zoom=1.25))
    """What the networks of IRN and PSA see. square: photos as squares, their frozen features cached. crop: photos
    keep their shape, training takes random crops."""
    scales: tuple[float, float] = (0.5, 1.5)
    """crop: factors of a photo's size between which training draws one."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(epochs=4, batch_size=16, learning_rate=3e-3, clip_norm=0.0)
    )
    """Training of IRN and PSA."""
    irn: IRNConfig = field(default_factory=lambda: IRNConfig(displacement_channels=0, training_radius=5))
    """IRN."""
    psa: PSAConfig = field(default_factory=PSAConfig)
    """PSA's AffinityNet."""
    processes: int = 0
    """Processes that run CRFs and walks, an image each; 0: as many as the machine has cores."""

    def __post_init__(self) -> None:
        require(0 <= self.threshold < 1, "refine.threshold", self.threshold, "a share below 1, or 0 for the rule")
        require(self.foreground >= 1, "refine.foreground", self.foreground, "1 or more")
        require(0 < self.background <= 1, "refine.background", self.background, "above 0, at most 1")
        require(self.crf in CRF_PRESETS, "refine.crf", self.crf, f"one of {', '.join(CRF_PRESETS)}")
        require(self.crf_longest >= 32, "refine.crf_longest", self.crf_longest, "at least 32 pixels")
        require(0 <= self.walk_threshold < 1, "refine.walk_threshold", self.walk_threshold, "a share below 1, or 0")
        low, high = self.scales
        require(0 < low <= high, "refine.scales", self.scales, "two factors, the smaller first")
        require(self.processes >= 0, "refine.processes", self.processes, "0 (all cores) or more")

    @property
    def crf_settings(self) -> CRFConfig:
        """The numbers of the CRF."""
        return CRF_PRESETS[self.crf]
