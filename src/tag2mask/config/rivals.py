"""Rivals that bring more than tags: photos without any class, saliency maps, a model of pictures and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.errors import require


@dataclass(frozen=True)
class WoodConfig:
    """W-OoD: out-of-distribution photos, which show no class, but what goes with the classes."""

    folder: str = ""
    """Folder of these photos; those in its sub-folders count as well."""
    clusters: int = 50
    """K, the clusters of their features; as many as there are photos, where those are fewer."""
    quantile: float = 0.2
    """Share of the distances to clusters, the smallest ones, that L_d makes larger."""
    distance_weight: float = 0.1
    """Weight of L_d, in the unit that distance_unit says. The paper of W-OoD: 0.007 for a ResNet-50, literal."""
    distance_unit: Literal["spread", "literal"] = "spread"
    """literal: plain L2 distances, whatever the scale and number of the features. spread: divided by the mean distance
    of a photo to its classes' means before the training; 0.007 literal is estimated at 0.1 in this unit."""
    ood_weight: float = 0.25
    """Weight of L_ood."""
    ascent: float = 0.07
    """Largest change of a normalised pixel by the ascent step; 0 for none."""
    batch: int = 0
    """Photos of the folder in a step; 0 for as many as the batch of the training, as in the release. Each costs two
    passes through the whole network and one back, frozen or not."""
    skip_class: str = ""
    """Leave photos out of L_ood while this class is what they look most like; none by default. The release skips
    bottle, which its photos do show (preset `wood`)."""

    def __post_init__(self) -> None:
        require(self.clusters >= 1, "rivals.wood.clusters", self.clusters, "at least 1")
        require(0 < self.quantile <= 1, "rivals.wood.quantile", self.quantile, "a share above 0, up to 1")
        for name in ("distance_weight", "ood_weight", "ascent", "batch"):
            require(getattr(self, name) >= 0, f"rivals.wood.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True)
class EpsConfig:
    """EPS: saliency maps."""

    saliency: str = ""
    """Folder of a saliency map for each training photo, ID.png, grey, 8 bit, 255 salient, of the photo's size."""
    weight: float = 1.0
    """Weight of the saliency loss."""
    mix: float = 0.5
    """lambda: share of the foreground's map in what is compared; the rest is the background's."""
    coverage: float = 0.4
    """tau: a class is foreground where more than this share of its map is salient. The release's scripts say .4, its
    default .5."""

    def __post_init__(self) -> None:
        require(self.weight >= 0, "rivals.eps.weight", self.weight, "0 or more")
        for name in ("mix", "coverage"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"rivals.eps.{name}", value, "a share from 0 to 1")


@dataclass(frozen=True)
class ClimsConfig:
    """CLIMS: a CLIP."""

    clip: str = ""
    """Folder of a CLIP in the form of OpenCLIP: open_clip_config.json and weights as .safetensors. Nothing is
    downloaded. Needs `pip install 'tag2mask[clip]'`."""
    prompt: str = "a photo of {}"
    """The words for a class, or for a background; {} is its name."""
    backgrounds: tuple[str, ...] = (
        "tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rocks",
    )  # fmt: skip
    """Backgrounds that no map may show; by default those of VOC."""
    object_weight: float = 10.0
    """Weight of OTM: what a map shows is like its class's words."""
    background_weight: float = 24.0
    """Weight of BTM: what a map hides is not."""
    suppression_weight: float = 1.0
    """Weight of CBS: what a map shows is not like the words for backgrounds."""
    area_weight: float = 0.2
    """Weight of the mean of the maps."""
    too_similar: float = 0.26
    """Cosine above which CBS counts a background's words. For the ViT-B/32 of OpenAI."""

    def __post_init__(self) -> None:
        require("{}" in self.prompt, "rivals.clims.prompt", self.prompt, "words with {} for the name of a class")
        for name in ("object_weight", "background_weight", "suppression_weight", "area_weight"):
            require(getattr(self, name) >= 0, f"rivals.clims.{name}", getattr(self, name), "0 or more")
        require(-1 <= self.too_similar <= 1, "rivals.clims.too_similar", self.too_similar, "a cosine from -1 to 1")


@dataclass(frozen=True)
class RivalsConfig:
    """What `wood`, `eps` and `clims` of `methods` bring beside tags."""

    wood: WoodConfig = field(default_factory=WoodConfig)
    """W-OoD."""
    eps: EpsConfig = field(default_factory=EpsConfig)
    """EPS."""
    clims: ClimsConfig = field(default_factory=ClimsConfig)
    """CLIMS."""
