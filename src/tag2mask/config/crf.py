"""The dense CRF, and the settings that published pipelines use."""

from __future__ import annotations

from dataclasses import dataclass

from tag2mask.errors import require


@dataclass(frozen=True)
class CRFConfig:
    """A fully connected CRF with Potts compatibility: labels follow edges of colour (Kraehenbuehl and Koltun, 2011)."""

    gaussian_sd: float = 3.0
    """Standard deviation of the smoothness kernel, in pixels."""
    gaussian_weight: float = 3.0
    """Weight of the smoothness kernel; 0 leaves it out."""
    bilateral_sd: float = 50.0
    """Standard deviation of the appearance kernel in space, in pixels."""
    bilateral_colour_sd: float = 5.0
    """Standard deviation of the appearance kernel in colour, in grey levels of 255."""
    bilateral_weight: float = 10.0
    """Weight of the appearance kernel; 0 leaves it out."""
    iterations: int = 10
    """Steps of mean-field inference; 0 leaves the unary alone."""
    confidence: float = 0.7
    """Probability of the given label in a unary made of hard labels; the other labels share the rest."""

    def __post_init__(self) -> None:
        for name in ("gaussian_sd", "bilateral_sd", "bilateral_colour_sd"):
            require(0 < getattr(self, name) < float("inf"), f"crf.{name}", getattr(self, name), "a number above 0")
        for name in ("gaussian_weight", "bilateral_weight"):
            require(0 <= getattr(self, name) < float("inf"), f"crf.{name}", getattr(self, name), "0 or more")
        require(self.iterations >= 0, "crf.iterations", self.iterations, "0 or more")
        require(0 < self.confidence < 1, "crf.confidence", self.confidence, "a probability between 0 and 1")


CRF_PRESETS: dict[str, CRFConfig] = {
    # Pseudo labels of IRN, AdvCAM and the "+CRF" rows of FPR; on hard labels.
    "irn": CRFConfig(),
    # Score maps of PSA, SEAM and MCTformer; on scores with background (1 - max) ** alpha, not renormalised.
    "psa": CRFConfig(bilateral_sd=80, bilateral_colour_sd=13),
    # Test time of DeepLab-v2 (kazuto1011/deeplab-pytorch), and EPS; on softmax.
    "deeplab_v2": CRFConfig(gaussian_sd=1, bilateral_sd=67, bilateral_colour_sd=3, bilateral_weight=4),
    # Test time of DeepLab-v1 with the WideResNet-38 (YudeWang/semantic-segmentation-codebase); on softmax.
    "deeplab_v1": CRFConfig(bilateral_sd=32, bilateral_colour_sd=13, iterations=1),
    # Maps of CLIP-ES; on softmax scores. The numbers are DeepLab-v2's.
    "clip_es": CRFConfig(gaussian_sd=1, bilateral_sd=67, bilateral_colour_sd=3, bilateral_weight=4),
    # Maps of ExCEL; on softmax scores. The same once more.
    "excel_maps": CRFConfig(gaussian_sd=1, bilateral_sd=67, bilateral_colour_sd=3, bilateral_weight=4),
    # Maps of ToCo; on softmax.
    "toco": CRFConfig(bilateral_sd=36, bilateral_colour_sd=3, bilateral_weight=4),
    # Segmentation of ToCo and SeCo on COCO; on softmax.
    "toco_coco": CRFConfig(
        gaussian_sd=1, gaussian_weight=1, bilateral_sd=121, bilateral_colour_sd=5, bilateral_weight=4
    ),
    # Segmentation of WeCLIP on VOC; on softmax.
    "weclip": CRFConfig(bilateral_sd=64, bilateral_colour_sd=5, bilateral_weight=4),
    # Segmentation of ExCEL on VOC; on softmax. The numbers are WeCLIP's.
    "excel": CRFConfig(bilateral_sd=64, bilateral_colour_sd=5, bilateral_weight=4),
}
"""Settings by the pipeline that published them."""
