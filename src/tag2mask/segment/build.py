"""From settings to a segmentation network."""

from __future__ import annotations

from torch import nn

from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import InputError
from tag2mask.segment.deeplab import LargeFieldOfView, SummedDilations
from tag2mask.segment.encoder import timm_encoder, wresnet38_encoder
from tag2mask.segment.network import SegmentationNetwork
from tag2mask.segment.small import build_small

BATCH_NORM_MOMENTUM = 3e-4
"""Of DeepLab-v1, whose batch norms learn."""


def build_segmenter(config: SegmentConfig, class_count: int) -> SegmentationNetwork:
    """The network that the settings name, for C classes and background, with its initial weights.

    Raises:
        InputError: an encoder or weights that cannot be had, or that do not suit the network.
    """
    if class_count < 1:
        raise ValueError(f"class_count is {class_count}; expected at least 1")
    if config.network == "deeplab_v1":
        return build_deeplab_v1(config, class_count)
    return build_small(config, class_count) if config.network == "small" else build_deeplab_v2(config, class_count)


def build_deeplab_v2(config: SegmentConfig, class_count: int) -> SegmentationNetwork:
    """DeepLab-v2 on a timm encoder at stride 8 (ResNet-101 with dilations 2 and 4)."""
    encoder, levels = timm_encoder(config)
    deep = levels[-1]
    if deep.stride != config.output_stride:
        raise InputError(
            f"segment.encoder {config.encoder!r} ends at stride {deep.stride}; deeplab_v2 needs "
            f"{config.output_stride}: choose a ResNet such as resnet101.tv_in1k."
        )
    head = SummedDilations(deep.channels, class_count + 1, config.rates)
    return SegmentationNetwork(encoder, (deep.key,), head, class_count, deep.stride, deep.stride, config)


def build_deeplab_v1(config: SegmentConfig, class_count: int) -> SegmentationNetwork:
    """DeepLab-v1 on WResNet-38."""
    encoder = wresnet38_encoder(config)
    head = LargeFieldOfView(4096, class_count + 1, config.rates[0])
    network = SegmentationNetwork(encoder, ("final",), head, class_count, 8, 8, config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BATCH_NORM_MOMENTUM
    return network
