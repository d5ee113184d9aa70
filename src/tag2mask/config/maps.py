"""Localization maps and how they are attributed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.errors import require

LIBRARY_ATTRIBUTIONS = ("gradcam", "gradcam++", "xgradcam", "layercam")
"""Those that torchcam computes; it comes with ``pip install 'tag2mask[attribution]'``."""
ATTRIBUTIONS = ("cam", "advcam", *LIBRARY_ATTRIBUTIONS)
"""Ways to localize with a trained network."""


@dataclass(frozen=True)
class AdvcamConfig:
    """Anti-adversarial climbing (AdvCAM; Lee et al., CVPR 2021)."""

    iterations: int = 3
    """Images on the way up, the photo itself among them; half of them at scale 0.5. Each takes a forward and a backward
    pass for each tag. Published with AdvCAM: 27; in the release of FPR: 19. With few images and a frozen backbone the
    maps spread beyond the object after three (docs/hosts.md)."""
    scales: tuple[float, ...] = ()
    """Scales that are climbed, such as 0.5,1,1.5,2; maps.scales if empty."""
    step: float = 0.08
    """Largest change of a pixel in a step, in normalised values."""
    threshold: float = 0.5
    """The regulariser holds the pixels whose attribution is above this share of the largest."""
    regulariser: float = 7.0
    """Weight of the regulariser, which keeps what is found already from growing on."""
    channel_weights: Literal["published", "mean"] = "published"
    """How Grad-CAM weighs the channels. published: sums of gradients over the number of gradients above 0. mean: their
    spatial mean, as Grad-CAM was defined."""
    half_scale: Literal["published", "double"] = "published"
    """Scale 0.5 is climbed half as often. double: its maps count twice for it. published: so do those of all larger
    scales, as the release never resets that factor, and nothing is made up for."""
    batch_size: int = 16
    """Images in a pass; one for each tag and mirror image of a photo, so that 16 are enough for eight tags. Less needs
    less memory; the maps are the same."""

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "maps.advcam.iterations", self.iterations, "at least 1")
        require(all(s > 0 for s in self.scales), "maps.advcam.scales", self.scales, "scales above 0")
        require(self.step >= 0, "maps.advcam.step", self.step, "0 or more")
        require(0 <= self.threshold <= 1, "maps.advcam.threshold", self.threshold, "a share from 0 to 1")
        require(self.regulariser >= 0, "maps.advcam.regulariser", self.regulariser, "0 or more")
        require(self.batch_size >= 2, "maps.advcam.batch_size", self.batch_size, "at least 2")


@dataclass(frozen=True)
class MapsConfig:
    """Localization maps at inference."""

    scales: tuple[float, ...] = (1.0,)
    """Scales of the views that are added up; the paper's family uses 1,0.5,1.5,2."""
    flip: bool = True
    """Add the mirrored views."""
    method: str = "cam"
    """cam: the class maps as the host localizes with them. advcam: anti-adversarial climbing. gradcam, gradcam++,
    xgradcam, layercam: by torchcam (`pip install 'tag2mask[attribution]'`)."""
    advcam: AdvcamConfig = field(default_factory=AdvcamConfig)
    """method advcam alone."""

    def __post_init__(self) -> None:
        require(bool(self.scales), "maps.scales", self.scales, "at least one scale")
        require(all(s > 0 for s in self.scales), "maps.scales", self.scales, "scales above 0")
        require(self.method in ATTRIBUTIONS, "maps.method", self.method, f"one of {', '.join(ATTRIBUTIONS)}")
