"""What the tables and figures are computed on: photos, hosts and how long they are trained, by scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tag2mask.config import CooccurConfig, DataConfig, RunConfig
from tag2mask.data.published import COCO_IMAGES, VOC_IMAGES
from tag2mask.data.sbd import AUGMENTED
from tag2mask.errors import InputError
from tag2mask.presets import PRESETS, for_host

SCALES = ("laptop", "voc", "coco")
SCENES = "scenes"
"""Name of the built-in set."""
HOSTS = ("cam", "seam", "mctformer")


@dataclass(frozen=True)
class DataSet:
    """Photos that an item is computed on."""

    name: str
    data: DataConfig
    preset: str
    """Settings for the plain CAM; the other hosts' are derived from it."""
    val: str = ""
    """Name of a split that is not trained on; none if empty."""

    def settings(self, host: str = "cam", seed: int = 0) -> RunConfig:
        """A run on these photos with one host and one seed, on one thread."""
        config = PRESETS[self.preset]
        config = PRESETS[host] if self.preset == "paper" and host != "cam" else for_host(config, host)
        return replace(config, data=self.data, seeds=(seed,), threads=1 if self.preset != "paper" else 0)


@dataclass(frozen=True)
class Scale:
    """A scale: its sets, its seeds, and what it costs."""

    name: str
    sets: tuple[DataSet, ...]
    seeds: tuple[int, ...]
    cost: str
    """Said before anything starts; empty where it is small."""


def scale_of(name: str, data: DataConfig | None, seeds: tuple[int, ...]) -> Scale:
    """The scale that the user names, with photos of one's own where they are given.

    Args:
        data: at ``laptop`` a further set; at ``voc`` and ``coco`` the set itself.
        seeds: 0, 1 and 2 if empty.

    Raises:
        InputError: an unknown scale, or one whose photos are not given.
    """
    if name not in SCALES:
        raise InputError(f"--scale {name!r} is unknown; expected one of {', '.join(SCALES)}.")
    seeds = seeds or (0, 1, 2)
    if name == "laptop":
        sets = [DataSet(SCENES, DataConfig(cooccur=CooccurConfig()), "demo", "val")]
        if data is not None:
            own = Path(data.root).resolve().name
            if own == SCENES:
                raise InputError(f"--data.root {data.root}: {own!r} names the built-in set here; rename the folder.")
            sets.append(DataSet(own, data, "laptop"))
        return Scale(name, tuple(sets), seeds, "")
    if data is None:
        raise InputError(f"--scale {name} needs the photos: give --data.root FOLDER of PASCAL VOC 2012 or COCO 2014.")
    if name == "voc" and data.split == "train":
        data = replace(data, split=AUGMENTED)  # on which the paper and the field train
    images = VOC_IMAGES[AUGMENTED] if name == "voc" else COCO_IMAGES["train2014"]
    hours = images / 10582 * len(seeds)
    cost = (
        f"--scale {name}: split {data.split}, {images} photos, {len(seeds)} seeds. One host with all methods takes "
        f"about {30 * hours:.0f} hours of one large GPU (5 epochs of CAM, then 5 of each method, each with a pass at "
        f"four scales), AdvCAM about {24 * hours:.0f} more; maps take {images * 60e-6:.1f} GB per method and seed. "
        "fig7 trains 27 further runs of the paper's form for each seed."
    )
    val = "val" if name == "voc" else data.split.replace("train", "val")
    return Scale(name, (DataSet(name, data, "paper", val),), seeds, cost)
