"""What the tables and figures are computed on: photos, hosts and how long they are trained, by scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tag2mask.config import CooccurConfig, DataConfig, RunConfig
from tag2mask.data.published import COCO_IMAGES, VOC_IMAGES
from tag2mask.data.sbd import AUGMENTED
from tag2mask.errors import InputError
from tag2mask.presets import AUTHORS_AT_SCALE, PAPER_AT_SCALE, PRESETS, for_host
from tag2mask.stages.table import TITLES

SCALES = ("laptop", "voc", "coco")
SCENES = "scenes"
"""Name of the built-in set."""
SMALL = 192
"""Size at which scenes of 128 x 128 are refined and segmented. At the 320 of photos it takes three times as long; at
their own the walk, on a grid of a quarter, gives worse masks than the CRF alone."""
SMALL_EPOCHS = 6
"""For which segmenters of scenes are trained, half of those of photos."""
HOSTS = ("cam", "seam", "mctformer")
FORMS = {"default": TITLES["fpr"], "paper": "FPR, preset paper", "authors": "FPR, preset authors"}
"""What `--preset` takes, and how FPR is called with it: SEAM and MCTformer have one published setting for both."""


@dataclass(frozen=True)
class DataSet:
    """Photos that an item is computed on."""

    name: str
    data: DataConfig
    preset: str
    """Settings for the plain CAM; the other hosts' are derived from it."""
    val: str = ""
    """Name of a split that is not trained on; none if empty."""
    form: str = "default"
    """What FPR computes, one of ``FORMS``; on the published networks ``paper`` or ``authors``."""
    threads: int = 1
    """Of a run. 0: all that its process has, for sets so large that last bits matter less than hours."""

    def settings(self, host: str = "cam", seed: int = 0) -> RunConfig:
        """A run on these photos with one host and one seed."""
        published = self.preset == "paper"
        config = PRESETS[host] if published and host != "cam" else for_host(PRESETS[self.preset], host)
        if published and self.form == "authors" and host == "cam":
            config = PRESETS["authors"]
        if not published and self.form != "default":
            config = replace(config, fpr=PAPER_AT_SCALE if self.form == "paper" else AUTHORS_AT_SCALE)
        if self.name == SCENES:
            views = replace(config.refine.views, size=SMALL)
            optimiser = replace(config.segment.optimiser, epochs=SMALL_EPOCHS)
            segment = replace(config.segment, size=SMALL, optimiser=optimiser)
            config = replace(config, refine=replace(config.refine, views=views), segment=segment)
        return replace(config, data=self.data, seeds=(seed,), threads=self.threads)


@dataclass(frozen=True)
class Scale:
    """A scale: its sets, its seeds, and what it costs."""

    name: str
    sets: tuple[DataSet, ...]
    seeds: tuple[int, ...]
    cost: str
    """Said before anything starts; empty where it is small."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sets."""
        return tuple(dataset.name for dataset in self.sets)

    @property
    def papers_form(self) -> str:
        """The method that stands for the paper's: FPR itself where that computes the paper's form or the release's."""
        return "paper" if self.sets[0].form == "default" else "fpr"

    @property
    def titles(self) -> dict[str, str]:
        """How methods are called in the results; FPR by what it computes."""
        return TITLES | {"fpr": FORMS[self.sets[0].form]}


def scale_of(name: str, data: DataConfig | None, seeds: tuple[int, ...], form: str = "") -> Scale:
    """The scale that the user names, with photos of one's own where they are given.

    Args:
        data: at ``laptop`` a further set; at ``voc`` and ``coco`` the set itself.
        seeds: 0, 1 and 2 if empty.
        form: one of ``FORMS``; if empty ``default`` at ``laptop``, else ``paper``. ``default`` is our network, frozen,
            at any scale: FPR's default is for features that stand still.

    Raises:
        InputError: an unknown scale or form, or a scale whose photos are not given.
    """
    if name not in SCALES:
        raise InputError(f"--scale {name!r} is unknown; expected one of {', '.join(SCALES)}.")
    form = form or ("default" if name == "laptop" else "paper")
    if form not in FORMS:
        raise InputError(f"--preset {form!r} is unknown; expected one of {', '.join(FORMS)}.")
    seeds = seeds or (0, 1, 2)
    if name == "laptop":
        sets = [DataSet(SCENES, DataConfig(cooccur=CooccurConfig()), "demo", "val", form)]
        if data is not None:
            own = Path(data.root).resolve().name
            if own == SCENES:
                raise InputError(f"--data.root {data.root}: {own!r} names the built-in set here; rename the folder.")
            sets.append(DataSet(own, data, "laptop", "", form))
        return Scale(name, tuple(sets), seeds, "")
    if data is None:
        raise InputError(f"--scale {name} needs the photos: give --data.root FOLDER of PASCAL VOC 2012 or COCO 2014.")
    if name == "voc" and data.split == "train":
        data = replace(data, split=AUGMENTED)  # on which the paper and the field train
    images = VOC_IMAGES[AUGMENTED] if name == "voc" else COCO_IMAGES["train2014"]
    hours = images / 10582 * len(seeds)
    if form == "default":
        takes = f"about {6 * hours:.0f} hours of one core (by what 437 photos take; the backbone is frozen)"
    else:
        takes = (
            f"about {30 * hours:.0f} hours of one large GPU (5 epochs of CAM, then 5 of each method, each with a pass "
            f"at four scales), AdvCAM about {24 * hours:.0f} more"
        )
    cost = (
        f"--scale {name}: split {data.split}, {images} photos if it is whole, {len(seeds)} seeds. One host with all "
        f"methods takes {takes}; maps take {images * 60e-6:.1f} GB per method and seed. fig7 trains 27 further runs of "
        "the paper's form for each seed, scalars one further host without some tags."
    )
    val = "val" if name == "voc" else data.split.replace("train", "val")
    preset = "laptop" if form == "default" else "paper"
    return Scale(name, (DataSet(name, data, preset, val, form, threads=0),), seeds, cost)
