"""The small network: any timm encoder, frozen or not, with SegFormer's decoder from segmentation_models_pytorch.

Of four of that library's decoders that were compared in short trainings on a frozen encoder (FPN, DeepLab-v3+, PAN and
this one) it reached the best masks. The levels are brought to one number of channels by 1x1 convolutions, put side by
side at stride 4, and mixed by another.
"""

from __future__ import annotations

from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import Tensor, nn

from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import InputError
from tag2mask.segment.deeplab import initialise
from tag2mask.segment.encoder import Level, timm_encoder
from tag2mask.segment.network import SegmentationNetwork

CHANNELS = 64
"""Channels of the decoder."""
STRIDE = 4
"""Of the finest level and of the logits."""


class Decoder(nn.Module):
    """SegFormer's decoder on levels from stride 4 to the deepest, and a 1x1 classifier.

    E. Xie et al., "SegFormer", NeurIPS 2021, section 3.2. The library's class counts levels from the image on, and
    takes one of zero channels for missing.
    """

    def __init__(self, levels: list[Level], outputs: int) -> None:
        super().__init__()
        # Levels of one backbone differ by orders of magnitude; a frozen one cannot learn to even that out.
        self.norms = nn.ModuleList(nn.BatchNorm2d(level.channels, affine=False) for level in levels)
        channels = [3, 0, *(level.channels for level in levels)]
        self.decoder = SegformerDecoder(channels, encoder_depth=len(channels) - 1, segmentation_channels=CHANNELS)
        self.classifier = nn.Conv2d(CHANNELS, outputs, 1)
        initialise(self.classifier)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (N, D, h, w), the first at stride 4 -> logits (N, C + 1, h, w) at stride 4."""
        height, width = levels[0].shape[2:]
        missing = levels[0].new_empty(0, 0, height * STRIDE, width * STRIDE)  # no memory: its size alone is asked for
        levels = [norm(level) for norm, level in zip(self.norms, levels, strict=True)]
        return self.classifier(self.decoder([missing, missing, *levels]))


def build_small(config: SegmentConfig, class_count: int) -> SegmentationNetwork:
    """The network with the encoder that the settings name; its logits have stride 4.

    Raises:
        InputError: an encoder that cannot be had, or has no level at stride 4.
    """
    encoder, found = timm_encoder(config)
    levels = [level for level in found if level.stride >= STRIDE]
    if not levels or levels[0].stride != STRIDE:
        strides = ", ".join(str(level.stride) for level in found)
        raise InputError(
            f"segment.encoder {config.encoder!r} has levels at strides {strides}; the small network needs one at "
            f"{STRIDE}: choose tf_efficientnet_lite0, resnet50, regnety_008 or convnext_tiny."
        )
    keys = tuple(level.key for level in levels)
    head = Decoder(levels, class_count + 1)
    return SegmentationNetwork(encoder, keys, head, class_count, STRIDE, levels[-1].stride, config)
