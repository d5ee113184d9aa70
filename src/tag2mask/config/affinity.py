"""What learns which neighbouring pixels belong together, and how that refines maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tag2mask.errors import require


@dataclass(frozen=True)
class IRNConfig:
    """IRN: class boundaries and displacements to object centres, and the random walk that stops at boundaries."""

    edge_channels: int = 32
    """Channels that each backbone level gives to the edge branch."""
    displacement_channels: int = 256
    """Channels of the displacement branch; 0 for none: masks of classes need edges alone, instances need both."""
    displacement_rate: float = 10.0
    """Factor of the learning rate for the displacement branch."""
    training_radius: int = 10
    """Pairs of pixels nearer than this teach, in pixels of the edge grid."""
    radius: int = 5
    """Reach of one step of the walk, in pixels of the edge grid."""
    beta: float = 10.0
    """Power of the affinities; the higher, the better a faint boundary holds."""
    steps: int = 256
    """Steps of the walk."""
    power: float = 1.0
    """Power of the maps before the walk; 1.5 in the release of FPR."""
    background: float = 0.25
    """Instances alone: a pixel is background where no class reaches this share of the highest value of the image. For
    masks of classes it is refine.walk_threshold."""
    centroid_steps: int = 300
    """Instances alone: steps in which each pixel follows the displacements to its centre."""
    centre_radius: float = 2.5
    """Instances alone: a pixel displaced by less than this belongs to a centre, in pixels of the edge grid."""
    smallest_fragment: float = 0.01
    """Instances alone: pieces smaller than this share of the photo are dropped."""

    def __post_init__(self) -> None:
        require(self.edge_channels >= 1, "irn.edge_channels", self.edge_channels, "1 or more")
        require(
            self.displacement_channels == 0 or self.displacement_channels >= 4,
            "irn.displacement_channels", self.displacement_channels, "0 (edges alone), or 4 or more",
        )  # fmt: skip
        for name in ("training_radius", "radius"):
            require(getattr(self, name) >= 2, f"irn.{name}", getattr(self, name), "2 or more")
        require(self.displacement_rate > 0, "irn.displacement_rate", self.displacement_rate, "above 0")
        require(self.beta > 0, "irn.beta", self.beta, "above 0")
        require(self.steps >= 0, "irn.steps", self.steps, "0 or more")
        require(self.power > 0, "irn.power", self.power, "above 0")
        require(0 <= self.background <= 1, "irn.background", self.background, "a share from 0 to 1")
        require(self.centroid_steps >= 0, "irn.centroid_steps", self.centroid_steps, "0 or more")
        require(self.centre_radius > 0, "irn.centre_radius", self.centre_radius, "above 0")
        require(0 <= self.smallest_fragment < 1, "irn.smallest_fragment", self.smallest_fragment, "0 to below 1")


@dataclass(frozen=True)
class PSAConfig:
    """AffinityNet of PSA: features that are alike within an object, and the random walk over their likeness."""

    channels: tuple[int, int, int] = (64, 128, 256)
    """Channels that each of the three backbone levels gives; their sum is the length of a feature."""
    radius: int = 5
    """Pairs of pixels nearer than this teach and take part in the walk, in pixels of the feature grid."""
    labels: Literal["thresholds", "powers"] = "thresholds"
    """What teaches it. thresholds: what the dense CRF is sure of at two thresholds, as for IRN. powers: PSA's own, two
    CRFs on scores behind background planes of different power."""
    certain_foreground: float = 4.0
    """Power of the background plane (1 - max)^power for labels: low, what is still foreground is so for certain."""
    certain_background: float = 32.0
    """The same, high: what is still background is so for certain; 24 in SEAM, 1 and 12 in MCTformer."""
    background: float = 16.0
    """Power of the background plane that walks along with the maps."""
    beta: float = 8.0
    """Power of the affinities."""
    steps: int = 256
    """Steps of the walk; 64 in SEAM and MCTformer."""

    def __post_init__(self) -> None:
        require(all(c >= 1 for c in self.channels), "psa.channels", self.channels, "three numbers of 1 or more")
        require(self.radius >= 2, "psa.radius", self.radius, "2 or more")
        require(self.certain_foreground > 0, "psa.certain_foreground", self.certain_foreground, "above 0")
        require(
            self.certain_background > self.certain_foreground, "psa.certain_background", self.certain_background,
            "above psa.certain_foreground",
        )  # fmt: skip
        require(self.background > 0, "psa.background", self.background, "above 0")
        require(self.beta > 0, "psa.beta", self.beta, "above 0")
        require(self.steps >= 0, "psa.steps", self.steps, "0 or more")
