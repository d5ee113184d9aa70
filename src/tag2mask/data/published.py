"""Counts of PASCAL VOC 2012 and COCO that are known, and whether a data set on disk has the same."""

from __future__ import annotations

from tag2mask.config import DataConfig
from tag2mask.data.classes import COCO_NAMES, VOC_NAMES
from tag2mask.data.coco import annotation_file
from tag2mask.data.images import TaggedImages
from tag2mask.data.sbd import AUGMENTED

VOC_IMAGES = {"train": 1464, "val": 1449, "trainval": 2913, AUGMENTED: 10582, "test": 1456}
"""Images of VOC's lists for segmentation, and of the one that is made with SBD."""
COCO_IMAGES = {"train2014": 82783, "val2014": 40504, "train2017": 118287, "val2017": 5000}
"""Images of COCO's files ``instances_*.json``, those without annotations included."""
AUGMENTED_TAGS = dict(
    zip(
        VOC_NAMES,
        (590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267, 613, 1188, 445, 492, 4155, 522, 300, 649, 503, 567),
        strict=True,
    )
)
"""Images of each class in ``train_aug`` by the boxes, difficult ones included; 16,458 tags. Counted from the labels of
two releases, which agree on all images."""


def agreement(config: DataConfig, images: TaggedImages) -> list[str]:
    """One line for each known count: what it is, what is here, and whether the two agree. Empty for other data."""
    names = images.classes.names
    if config.kind == "voc" and set(names) <= set(VOC_NAMES) and config.split in VOC_IMAGES:
        title = f"PASCAL VOC 2012 {config.split}"
        lines = [_line(f"{title}, images", VOC_IMAGES[config.split], len(images))]
        if config.split == AUGMENTED and config.labels != "none":
            counts = dict(zip(names, images.labels.sum(axis=0).tolist(), strict=True))
            expected = sum(AUGMENTED_TAGS[name] for name in names)
            lines.append(_line(f"{title}, tags of {len(names)} classes", expected, sum(counts.values())))
            others = [name for name in names if counts[name] != AUGMENTED_TAGS[name]]
            lines += [_line(f"{title}, images of {name}", AUGMENTED_TAGS[name], counts[name]) for name in others]
            if not others:
                lines.append(f"{title}, images of each class: all {len(names)} as published")
        return lines
    if config.kind == "coco" and set(names) <= set(COCO_NAMES):
        year = annotation_file(config).stem.removeprefix("instances_")
        if year in COCO_IMAGES:
            return [_line(f"COCO {year}, images", COCO_IMAGES[year], len(images))]
    return []


def _line(what: str, published: int, here: int) -> str:
    verdict = "they agree" if published == here else "they do not agree: this is a part of it, or other data"
    return f"{what}: {published:,} published, {here:,} here; {verdict}"
