"""Small data sets with the exact layout of PASCAL VOC 2012 with SBD and of COCO 2014, and of one's own photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

from tag2mask.data.classes import COCO_NAMES, COCO_SUPERCLASSES, VOC_NAMES, palette

COLOURS = {"boat": (220, 60, 40), "person": (40, 170, 60), "train": (40, 80, 210)}
"""Classes that VOC and COCO have both, and what each is painted with."""
SIZES = ((64, 48), (50, 70), (40, 40), (91, 33))
"""Width and height of the photos, in turn."""
COCO_IDS = tuple(n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The 80 category ids of COCO, with their gaps."""

VOC_TRAIN = ("2007_000032", "2007_000039", "2007_000063", "2008_000026", "2008_000043", "2008_000074")
VOC_VAL = ("2007_000033", "2007_000042", "2007_000061", "2008_000002")
SBD_TRAIN = ("2007_000039", "2008_000003", "2008_000008", "2007_000033", "2010_000005")
SBD_VAL = ("2008_000074", "2008_000002", "2011_003271", "2009_000006")
VOC_AUGMENTED = tuple(sorted({*VOC_TRAIN, *SBD_TRAIN, *SBD_VAL} - {*VOC_VAL}))
TAGS: tuple[tuple[str, ...], ...] = (("boat",), ("person",), ("boat", "person"), ("train",), (), ("train", "person"), ("boat",))
"""The tags of the photos, in turn."""


def tags_of(number: int) -> tuple[str, ...]:
    return TAGS[number % len(TAGS)]


def draw(number: int, tags: Sequence[str]) -> tuple[Image.Image, dict[str, list[float]]]:
    """A noisy photo with a polygon in the colour of each tag, and the polygons (x, y, x, y ...)."""
    width, height = SIZES[number % len(SIZES)]
    random = np.random.default_rng(number)
    picture = Image.fromarray(random.integers(90, 160, (height, width, 3), dtype=np.uint8))
    outlines = {}
    for name in tags:
        radius = min(width, height) / 4
        x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
        angles = np.arange(8) * np.pi / 4
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).round(2)
        ImageDraw.Draw(picture).polygon([tuple(p) for p in points.tolist()], fill=COLOURS[name])
        outlines[name] = points.flatten().tolist()
    return picture, outlines


def class_mask(size: tuple[int, int], outlines: dict[str, list[float]], names: Sequence[str]) -> np.ndarray:
    """(H, W) uint8: the position of each class in ``names``, plus 1."""
    mask = Image.new("L", size)
    for name, points in outlines.items():
        pairs = list(zip(points[::2], points[1::2], strict=True))
        ImageDraw.Draw(mask).polygon(pairs, fill=names.index(name) + 1)
    return np.asarray(mask)


def save_mask(path: Path, mask: np.ndarray) -> None:
    picture = Image.fromarray(mask)
    picture.putpalette(palette(255).tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_voc(home: Path) -> Path:
    """VOCdevkit/VOC2012 and benchmark_RELEASE in ``home``; gives the first.

    VOC has masks of its lists, with a border of 255; SBD has masks of its own, as .mat files.
    """
    root, sbd = home / "VOCdevkit" / "VOC2012", home / "benchmark_RELEASE" / "dataset"
    for folder in (root / "JPEGImages", root / "Annotations", root / "ImageSets" / "Segmentation", sbd / "cls", sbd / "img"):
        folder.mkdir(parents=True)
    lists = {"train": VOC_TRAIN, "val": VOC_VAL, "trainval": (*VOC_TRAIN, *VOC_VAL)}
    for split, ids in lists.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    for split, ids in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        (sbd / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    for number, image_id in enumerate(sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL})):
        picture, outlines = draw(number, tags_of(number))
        picture.save(root / "JPEGImages" / f"{image_id}.jpg")
        (root / "Annotations" / f"{image_id}.xml").write_text(_boxes(image_id, picture.size, outlines))
        mask = class_mask(picture.size, outlines, VOC_NAMES)
        if image_id in lists["trainval"]:
            bordered = mask.copy()
            bordered[:2] = bordered[-2:] = 255
            save_mask(root / "SegmentationClass" / f"{image_id}.png", bordered)
        if image_id in {*SBD_TRAIN, *SBD_VAL}:
            picture.save(sbd / "img" / f"{image_id}.jpg")
            content = {"Boundaries": np.empty((20, 1), object), "Segmentation": mask, "CategoriesPresent": np.unique(mask[mask > 0])}
            content["Boundaries"][:] = 0
            savemat(sbd / "cls" / f"{image_id}.mat", {"GTcls": content})
    return root


def _boxes(image_id: str, size: tuple[int, int], outlines: dict[str, list[float]]) -> str:
    objects = ""
    for name, points in outlines.items():
        x, y = points[::2], points[1::2]
        box = f"<xmin>{min(x):.0f}</xmin><ymin>{min(y):.0f}</ymin><xmax>{max(x):.0f}</xmax><ymax>{max(y):.0f}</ymax>"
        objects += (
            f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{int(name == 'person')}"
            f"</difficult><bndbox>{box}</bndbox><part><name>head</name><bndbox>{box}</bndbox></part></object>"
        )
    return (
        f"<annotation><folder>VOC2012</folder><filename>{image_id}.jpg</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size><segmented>1</segmented>{objects}</annotation>"
    )


def coco_categories() -> list[dict[str, Any]]:
    """COCO's 80 categories."""
    above = {name: group for group, members in COCO_SUPERCLASSES.items() for name in members}
    return [{"supercategory": above[n], "id": i, "name": n} for i, n in zip(COCO_IDS, COCO_NAMES, strict=True)]


def write_coco(root: Path, train: int = 12, val: int = 4) -> Path:
    """COCO 2014: two files of annotations and two folders of photos. Image 2 of each split has a crowd beside."""
    (root / "annotations").mkdir(parents=True)
    for split, count, first in (("train2014", train, 9), ("val2014", val, 42)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            key = first + 16 * number
            file = f"COCO_{split}_{key:012d}.jpg"
            picture, outlines = draw(number + first, tags_of(number))
            picture.save(root / split / file)
            width, height = picture.size
            images.append(
                {"license": 3, "file_name": file, "coco_url": f"http://images.cocodataset.org/{split}/{file}", "height": height,
                 "width": width, "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://farm9.staticflickr.com/1.jpg", "id": key}
            )  # fmt: skip
            for name, points in outlines.items():
                annotations.append(_annotation(len(annotations) + first * 1000, key, name, [points]))
            if number == 2:
                counts = [0, 3 * height, (width - 3) * height]  # the first three columns
                crowd = _annotation(900_100_000_000 + key, key, "train", {"counts": counts, "size": [height, width]})
                annotations.append(crowd | {"iscrowd": 1})
        content = {
            "info": {"description": "COCO 2014 Dataset", "year": 2014}, "images": images,
            "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
            "annotations": annotations, "categories": coco_categories(),
        }  # fmt: skip
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def _annotation(number: int, image: int, name: str, segmentation: Any) -> dict[str, Any]:
    return {
        "segmentation": segmentation, "area": 1.0, "iscrowd": 0, "image_id": image, "bbox": [0, 0, 9, 9],
        "category_id": COCO_IDS[COCO_NAMES.index(name)], "id": number,
    }  # fmt: skip


def own_photos(count: int = 12) -> list[tuple[str, tuple[str, ...], Image.Image, np.ndarray]]:
    """Name, tags, photo and mask of one's own photos; the values of the masks go by the names sorted."""
    found = []
    for number in range(count):
        picture, outlines = draw(number, tags_of(number))
        found.append((f"p{number:02d}", tags_of(number), picture, class_mask(picture.size, outlines, sorted(COLOURS))))
    return found
