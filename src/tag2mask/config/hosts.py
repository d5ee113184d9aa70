"""What some hosts have beside the class activation map's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tag2mask.errors import require


@dataclass(frozen=True)
class SeamConfig:
    """Pixel correlation and equivariance (SEAM; Wang et al., CVPR 2020)."""

    levels: tuple[str, ...] = ()
    """Stages whose outputs, beside the colours, say which pixels belong together. Default: conv4 and conv5 of a
    wresnet38, the last two feature levels that timm lists for any other backbone."""
    small_scale: float = 0.3
    """The second view is the photo at this scale."""
    loss_grid: Literal["input", "map"] = "input"
    """Where the maps of the two views are compared. input: brought up to the pixels of each view, as published. map: at
    the size that they have, for much less work."""
    min_pool_weight: float = 0.5
    """Weight of the min-pool losses, which ask for background in every photo; the classification losses of the two
    views have 1/2 each."""
    min_pool_share: float = 0.25
    """Share of a photo's pixels, the lowest ones, that the min-pool loss pushes down."""
    equivariance_weight: float = 1.0
    """Weight of ER, the difference of the maps of a photo and of its smaller copy."""
    cross_weight: float = 1.0
    """Weight of ECR, the difference of the refined maps of one view and the maps of the other."""
    top_share: float = 0.2
    """Share of the values, the most different ones, that ECR counts."""
    dropout: float = 0.5
    """Share of the channels of the features that are left out before the classifier in training."""
    from_minimum: bool = True
    """Maps that localize start at 0, as published: each is taken from its lowest pixel up. False leaves refined maps as
    they are; they have no pixel without any share of the others."""
    fixed_norms: bool = True
    """Scale and shift of the backbone's batch norms stand still as well, not their statistics alone."""

    def __post_init__(self) -> None:
        require(0 < self.small_scale <= 1, "host.seam.small_scale", self.small_scale, "above 0, at most 1")
        for name in ("min_pool_share", "top_share"):
            value = getattr(self, name)
            require(0 < value <= 1, f"host.seam.{name}", value, "a share above 0, at most 1")
        for name in ("min_pool_weight", "equivariance_weight", "cross_weight"):
            require(getattr(self, name) >= 0, f"host.seam.{name}", getattr(self, name), "0 or more")
        require(0 <= self.dropout < 1, "host.seam.dropout", self.dropout, "a share from 0 to below 1")


@dataclass(frozen=True)
class MctformerConfig:
    """A transformer with a token for each class (MCTformer; Xu et al., CVPR 2022)."""

    version: Literal["v2", "plus"] = "v2"
    """v2: patch logits are the spatial mean of the class maps. plus: ranked pooling, a loss that keeps the class tokens
    apart, and the square root of the fused maps."""
    attention_layers: int = 3
    """The last layers whose attention from class tokens to patches is summed; all of them where there are fewer."""
    pool_decay: float = 0.996
    """plus: pixels in falling order weigh 1, decay, decay^2 ... in the patch logits; 0 is the maximum, 1 the mean."""
    contrast_weight: float = 1.0
    """plus: weight of the loss that keeps the class tokens apart."""
    affinity: bool = True
    """Spread the fused maps by the attention from patches to patches, as published. It needs blocks that learnt on many
    photos what belongs together; new ones on a few hundred photos blur."""
    root: bool = False
    """Take the square root of the fused maps, as plus does. It changes no order within a class, but products of two
    maps are so peaked that few of the 256 stored levels are left for the object, and no common threshold fits."""
    positions: Literal["fresh", "loaded"] = "fresh"
    """A vision transformer's position embedding of patches. fresh: learnt anew, as published. loaded: the weights' own.
    Frozen blocks keep their own."""
    grid: int = 14
    """Patches along a side of a fresh position embedding; other sizes are interpolated. views.size / 16."""
    depth: int = 2
    """New blocks over a frozen convolutional backbone; a vision transformer has its own. So for width and heads."""
    width: int = 128
    """Channels of their tokens."""
    heads: int = 2
    """Heads of their attention."""

    def __post_init__(self) -> None:
        for name in ("attention_layers", "grid", "depth", "width", "heads"):
            require(getattr(self, name) >= 1, f"host.mctformer.{name}", getattr(self, name), "1 or more")
        require(0 <= self.pool_decay <= 1, "host.mctformer.pool_decay", self.pool_decay, "a share from 0 to 1")
        require(self.contrast_weight >= 0, "host.mctformer.contrast_weight", self.contrast_weight, "0 or more")
        require(self.width % self.heads == 0, "host.mctformer.width", self.width, "a multiple of host.mctformer.heads")
