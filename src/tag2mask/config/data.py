"""Where photos, tags and masks come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.errors import require


@dataclass(frozen=True)
class CooccurConfig:
    """The built-in benchmark: procedural scenes in which contexts go with their class."""

    images: int = 600
    """Number of scenes."""
    size: int = 128
    """Side of a scene in pixels."""
    seed: int = 0
    """Seed of the scenes; scene i depends on (seed, i) and the settings here alone."""
    context_with_class: float = 0.9
    """Probability p that a class's context (rails, water, road, grass ...) is there when the class is."""
    context_alone: float = 0.15
    """Probability q that a context is there without its class. 0 is the negative control: nothing to learn from."""
    without_class: float = 0.0
    """Probability that a scene shows no class, contexts alone: scenery, or at 1 out-of-distribution photos."""
    missing_labels: float = 0.0
    """Share of the true tags that are left out (label noise)."""
    false_labels: float = 0.0
    """Probability that an absent class is tagged all the same (label noise)."""
    imbalance: float = 0.0
    """Exponent a of the class frequencies, proportional to rank^-a; 0 gives equal frequencies."""

    def __post_init__(self) -> None:
        require(self.images >= 1, "data.cooccur.images", self.images, "at least 1")
        require(self.size >= 32, "data.cooccur.size", self.size, "at least 32 pixels")
        for name in ("context_with_class", "context_alone", "without_class", "missing_labels", "false_labels"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.cooccur.{name}", value, "a probability from 0 to 1")
        require(self.seed >= 0, "data.cooccur.seed", self.seed, "0 or more")
        require(self.imbalance >= 0, "data.cooccur.imbalance", self.imbalance, "0 or more")


@dataclass(frozen=True)
class ColumnsConfig:
    """Names of the columns of a Hugging Face dataset."""

    image: str = ""
    """The photos; default: the only column of pictures but that of the masks."""
    labels: str = ""
    """The tags; default: `labels`, `tags`, `label` or `tag`."""
    masks: str = ""
    """Masks, for evaluation alone; default: `mask` or `masks`, if there."""
    id: str = ""
    """A name for each photo; default: `id`, `image_id` or `file_name`, if there, else the number of its row."""


@dataclass(frozen=True)
class DataConfig:
    """Where the photos, their tags and, for evaluation alone, their masks are."""

    kind: Literal["cooccur", "folder", "classes", "voc", "coco", "huggingface", "shards"] = "cooccur"
    """cooccur: built-in scenes. folder: photos and a table of tags. classes: a folder for each class. voc: PASCAL VOC.
    coco: COCO, or JSON of your own in its format. huggingface: a dataset saved on disk. shards: tar files in
    WebDataset's form."""
    root: str = ""
    """Folder of the data set. shards: also a URL such as `https://host/{split}-{000..099}.tar`."""
    split: str = "train"
    """folder: keep rows whose `split` column says this (`all` keeps every row). voc: name of the list file. classes,
    huggingface, shards: name of the sub-folder, split or files. coco: part of the file's name."""
    labels: str = ""
    """Tags. folder: CSV, TSV or Parquet file, default `labels.csv`. voc: `Annotations` (XML boxes, the default), a JSON
    file, or `none` for photos without any, such as VOC's test set, which a segmenter can predict. coco: JSON file,
    default `annotations/instances_<split>*.json`; `{split}` in the name stands for the split."""
    images: str = ""
    """coco: folder of the photos in the root, where they do not lie where COCO has them; `{split}` as above."""
    sbd: str = ""
    """voc: folder of SBD, from which `train_aug` is computed where there is no such list; default `SBD` or
    `benchmark_RELEASE` in the root or beside it."""
    shard_cache: str = ""
    """shards: folder that keeps the files of a URL."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    classes: tuple[str, ...] = ()
    """Keep these classes alone, in this order; the others get no tag and their pixels are ignored in evaluation."""
    superclasses: str = ""
    """YAML file of super-classes; default `superclasses.yaml` in the root, if it is there, else those that the data
    know: the 4 of VOC, the 12 of COCO, those in a COCO JSON of your own."""
    masks: str = ""
    """Folder of masks, for evaluation alone. Default: `masks` (folder, classes), `SegmentationClassAug`, or
    `SegmentationClass` and SBD's (voc), those drawn from the annotations (coco), the column or the members beside the
    photos (huggingface, shards), if there. `none` hides them."""
    contexts: str = ""
    """Folder of context masks (grass, water ...), for evaluation alone; default `masks_stuff`, named by
    `classes_stuff.txt`, if there. `none` hides them."""
    context_names: tuple[str, ...] = ()
    """The contexts that count, by name; default: every name of `classes_stuff.txt` that is not a class."""
    cooccur: CooccurConfig = field(default_factory=CooccurConfig)

    def __post_init__(self) -> None:
        if self.kind != "cooccur":
            require(bool(self.root), "data.root", self.root, f"the folder of the data set (kind {self.kind!r})")
        else:
            names = ("root", "labels", "images", "sbd", "shard_cache", "classes", "superclasses", "masks", "contexts")
            for name in (*names, "context_names"):
                value = getattr(self, name)
                expected = "nothing for the built-in scenes; for photos say --data.kind folder, voc or another"
                require(not value or value == "none", f"data.{name}", value, expected)
            require(self.split in ("train", "val"), "data.split", self.split, "train or val for the built-in scenes")


@dataclass(frozen=True)
class TagsConfig:
    """Tags may be wrong."""

    suspects: Literal["keep", "missing", "both"] = "keep"
    """keep: every tag is taken at its word. missing: where classifiers that did not see it contradict the absence of a
    tag (the rule of `tag2mask audit`), the pair of photo and class counts as unknown: in no pool, in no classification
    loss. both: the same for tags that look wrong. On clean tags it costs a little: hard negatives look mistagged."""
    remove: float = 0.0
    """Share of the tags to remove at random before training, to measure how much errors matter. Maps and figures keep
    the tags of the data set."""
    add: float = 0.0
    """Share of the absent pairs of photo and class to tag at random, likewise."""
    seed: int = 0
    """Seed of both, together with that of the run."""
    blocked: str = ""
    """CSV file with the columns image and class: pairs that count as unknown, because the photo shows the class and is
    not tagged with it, or may. `tag2mask explore` writes it as blocked.csv into a run folder."""

    def __post_init__(self) -> None:
        for name in ("remove", "add"):
            require(0 <= getattr(self, name) < 1, f"tags.{name}", getattr(self, name), "a share from 0 to below 1")
        require(self.seed >= 0, "tags.seed", self.seed, "0 or more")
