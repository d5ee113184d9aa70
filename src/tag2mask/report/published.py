"""The paper's figures, to stand beside ours: Tables 1 to 5, Figure 7 and the scalars of section 4.3.

mIoU, precision and recall in percent. None: the paper gives no figure. All on PASCAL VOC 2012 and MS COCO 2014; its
thresholds, and the checkpoint of its release, were chosen with the masks that it is scored on (protocol ``oracle``).
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Chen et al., FPR: False Positive Rectification for Weakly Supervised Semantic Segmentation, ICCV 2023"

Figure = float | None


class SeedFigures(NamedTuple):
    """Localization maps of one row of Table 1."""

    precision: Figure
    recall: Figure
    miou: float
    crf: Figure
    """mIoU after a dense CRF."""


class HostFigures(NamedTuple):
    """A host of Table 1 without and with FPR."""

    without: SeedFigures
    with_fpr: SeedFigures


class Segmentation(NamedTuple):
    """A row of Table 2, mIoU of the segmentation network."""

    method: str
    external: str
    """What it brings beside tags; empty for nothing."""
    backbone: str
    val: float
    test: float


class Coco(NamedTuple):
    """A row of Table 3, mIoU."""

    method: str
    pseudo_masks: Figure
    """On the training images."""
    backbone: str
    val: float


class Cooccurring(NamedTuple):
    """A row of Table 4, IoU of two classes and mIoU of localization maps."""

    train: float
    boat: float
    miou: float


class Spread(NamedTuple):
    """A mean and a standard deviation."""

    mean: float
    deviation: float


TABLE_1 = {
    "cam": HostFigures(SeedFigures(61.9, 72.7, 49.5, 54.3), SeedFigures(66.7, 74.7, 54.3, 59.6)),
    "seam": HostFigures(SeedFigures(67.2, 76.5, 54.8, None), SeedFigures(68.9, 77.1, 57.0, 60.8)),
    "advcam": HostFigures(SeedFigures(66.8, 77.6, 55.5, 62.1), SeedFigures(71.5, 78.1, 59.7, 65.5)),
    "mctformer": HostFigures(SeedFigures(None, None, 61.7, None), SeedFigures(75.0, 81.0, 63.8, 66.4)),
}
"""VOC train, 1464 images. By ``host.kind``, and ``advcam`` of ``maps.method``. SEAM alone: reproduced by W-OoD."""

TABLE_2 = (
    Segmentation("FickleNet", "saliency", "ResNet101", 64.9, 65.3),
    Segmentation("OAA+", "saliency", "ResNet101", 65.2, 66.4),
    Segmentation("ICD", "saliency", "ResNet101", 67.8, 68.0),
    Segmentation("EDAM", "saliency", "ResNet101", 70.9, 70.6),
    Segmentation("EPS", "saliency", "ResNet101", 71.0, 71.8),
    Segmentation("CLIMS", "CLIP", "ResNet101", 70.4, 70.0),
    Segmentation("W-OoD", "out-of-distribution photos", "WResNet38", 70.7, 70.1),
    Segmentation("L2G", "saliency", "ResNet101", 72.1, 71.7),
    Segmentation("IRN", "", "ResNet50", 63.5, 64.8),
    Segmentation("SEAM", "", "WResNet38", 64.5, 65.7),
    Segmentation("SCCAM", "", "ResNet101", 66.1, 65.9),
    Segmentation("BES", "", "ResNet101", 65.7, 66.6),
    Segmentation("CONTA", "", "ResNet101", 66.1, 66.7),
    Segmentation("CSE", "", "WResNet38", 68.3, 68.0),
    Segmentation("PMM", "", "WResNet38", 68.5, 69.0),
    Segmentation("ReCAM", "", "ResNet101", 68.5, 68.4),
    Segmentation("SIPE", "", "ResNet101", 68.8, 69.7),
    Segmentation("ESOL", "", "ResNet101", 69.9, 69.3),
    Segmentation("AdvCAM", "", "ResNet101", 67.5, 67.1),
    Segmentation("AdvCAM + FPR", "", "ResNet101", 70.3, 70.1),
    Segmentation("AdvCAM + FPR", "", "WResNet38", 70.0, 70.6),
)
"""VOC val (1449) and test (1456); the paper says val 1464 and test 1449 by mistake. It lists W-OoD under saliency. The
figures of CLIMS are of a DeepLab that starts from COCO's weights."""

TABLE_3 = (
    Coco("SEAM", None, "VGG16", 31.9),
    Coco("CONTA", None, "WResNet38", 32.8),
    Coco("CDA", None, "WResNet38", 33.2),
    Coco("EPS", None, "VGG16", 35.7),
    Coco("ReCAM", 34.6, "ResNet101", 36.5),
    Coco("MCTformer", None, "WResNet38", 42.0),
    Coco("ESOL", None, "ResNet101", 42.6),
    Coco("RIB", None, "ResNet101", 43.8),
    Coco("CAM", 33.1, "ResNet101", 35.7),
    Coco("CAM + FPR", 33.9, "ResNet101", 36.6),
    Coco("IRN", 42.4, "ResNet101", 42.0),
    Coco("IRN + FPR", 44.0, "ResNet101", 43.9),
)
"""COCO 2014."""

TABLE_4 = {
    "cam": Cooccurring(49.8, 33.3, 49.5),
    "wood": Cooccurring(61.4, 41.0, 53.3),
    "advcam+wood": Cooccurring(65.4, 41.8, 58.8),
    "clims": Cooccurring(63.9, 58.2, 56.6),
    "fpr": Cooccurring(65.1, 44.7, 54.3),
    "advcam+fpr": Cooccurring(68.5, 49.0, 59.7),
}
"""VOC train, by method. AdvCAM + W-OoD: reproduced by the paper."""

TABLE_5 = {"continued": 49.5, "focal": 50.1, "rc": 52.4, "fpr": 54.3}
"""VOC train, mIoU of localization maps: BCE, focal BCE, BCE with L_RC, and with L_PR as well."""

FIGURE_7A_REGION = (0.10, 0.12, 0.15, 0.17, 0.20)
"""lambda 1, the columns of ``FIGURE_7A``."""
FIGURE_7A = {
    10e-5: (Spread(53.3, 0.3), Spread(53.6, 0.2), Spread(53.8, 0.4), Spread(54.2, 0.3), Spread(54.1, 0.6)),
    15e-5: (Spread(53.4, 0.4), Spread(54.3, 0.3), Spread(54.3, 0.2), Spread(54.5, 0.5), Spread(54.2, 0.6)),
    20e-5: (Spread(53.2, 0.5), Spread(53.3, 0.5), Spread(53.6, 0.6), Spread(53.8, 0.6), Spread(53.4, 0.4)),
}
"""VOC train, mIoU by lambda 2. The best cell, .17 and 15e-5, is not the paper's default."""

FIGURE_7B = {1: 53.1, 10: 54.3, 50: 53.8}
"""VOC train, mIoU by K. K = 1 is given as +3.6 above CAM."""

BINARY_CROSS_ENTROPY = {"cam": 0.0300, "fpr": 0.0248}
"""Eq. 1 on VOC train."""
ABSENT_PROBABILITY = {"cam": 0.0120, "fpr": 0.0086}
"""Mean probability of the absent classes on VOC train."""
CLASSES_THAT_GAIN = (19, 20)
"""How many of how many classes of VOC have a higher IoU with FPR. Which ones is in no published table."""
