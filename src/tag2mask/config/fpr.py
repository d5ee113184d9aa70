"""False Positive Rectification: the paper, the authors' release, and our default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tag2mask.errors import require


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
    tagged_theta: float = 0.25
    """Pixels that a tagged class of the photo activates above this share are left out of the regions of the negative
    pool: they show that class, and perhaps parts that it shares with others (wheels), but no context. 1 is the
    paper."""
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
    lift_fewer: float = 2.0
    """The fewer negatives a class has, the less it is lifted (pixel_lift), as more is nearer to a positive then. s is
    the share of fpr.negatives that it has, or of the photos without it, where these are fewer. Its pixels are lifted up
    to s^lift_fewer of their map's maximum, and only where they are nearer to a positive than s^(lift_fewer / 12) times
    margin times the distance to every negative. 0: each class is lifted alike, towards the maximum."""
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
    likeness_trim: float = 0.0
    """Drop a negative that lies nearer to the class's positive prototypes than this share of the positives themselves,
    as its tag may be missing (.5: nearer than half of them). 0 drops none."""
    suspects: Literal["keep", "drop"] = "drop"
    """What is done about a photo without the tag of a class that looks as if it showed it, to classifiers that did not
    see the tag (the rule of `tag2mask audit`): its tag may be missing. keep: it lends the class a negative like any
    other, the paper. drop: it lends it none, and the class counts as there where the collection asks what else a photo
    shows: other classes take no pixels that its map activates above tagged_theta. The classification takes the tag at
    its word either way; where `tags.suspects` leaves suspects out of that, they lend none either. The commands see to
    it; `collect_prototypes` takes the labels that it is given, of which -1 lends none."""
    support: Literal["off", "drop", "weigh"] = "drop"
    """What is done about a negative that resembles the class more than it resembles its fellows, the ranked negatives
    from photos that have no tag in common with its own (all others, where that is so of less than a tenth of the tagged
    photos without the class, as with two classes). A context has its like there; an object whose tag is missing has
    not, nor has a part that the class shares with another one (wheels), nor a context seen with one other class alone.
    The third nearest fellow is held against the third nearest positive; what is as near to a class that its photo is
    tagged with is left alone. off: nothing, the paper. drop: leave it out unless the fellow is nearer than 0.95 times
    as far as the positive, and leave out all where fewer than a quarter of those ranked would stay: the class is then
    pushed no further, but away from what is remembered. weigh: multiply distances to it by how many times farther the
    fellow is than that."""
    remember: int = 3
    """Contexts, the negatives that have fellows nearer than the positives, stay for this many collections after the
    last in which they were found, where a collection leaves places empty, even if another region of their photo has no
    support now. Above 0, a class with contexts that then has fewer than a quarter with support takes nothing new in
    any more, and what is remembered of it runs out. With support drop alone, and where features stand still, as the
    levels of a frozen backbone do. 0: each collection forgets the last, the paper."""
    refill: int = 2
    """Rank refill x negatives candidates before trimming: there are more to compare with, and dropped negatives are
    replaced. 1 is the paper."""
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
    positive_capacity: int = 2048
    """Positives kept for the k-means of a class, at most: all of them, or a uniform sample that is the same in any
    order of the images and for any number of processes."""
    exact_kmeans: int = 512
    """A class with more positives than this has its k-means by mini-batches over those that are kept; with as many or
    fewer it is exact, over all of them."""
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
        require(0 <= self.tagged_theta <= 1, "fpr.tagged_theta", self.tagged_theta, "a share from 0 to 1")
        require(self.prototypes >= 1, "fpr.prototypes", self.prototypes, "1 or more")
        require(self.negatives >= 1, "fpr.negatives", self.negatives, "1 or more")
        require(self.margin > 0, "fpr.margin", self.margin, "above 0 (1 is the paper's)")
        require(0 <= self.likeness_trim <= 1, "fpr.likeness_trim", self.likeness_trim, "a share from 0 (off) to 1")
        require(self.refill >= 1, "fpr.refill", self.refill, "1 or more")
        require(self.remember >= 0, "fpr.remember", self.remember, "0 or more")
        require(self.temperature > 0, "fpr.temperature", self.temperature, "above 0")
        require(self.collect_every >= 1, "fpr.collect_every", self.collect_every, "1 or more")
        require(self.positive_capacity >= 1, "fpr.positive_capacity", self.positive_capacity, "1 or more")
        require(self.exact_kmeans >= 1, "fpr.exact_kmeans", self.exact_kmeans, "1 or more")
        require(self.kmeans_restarts >= 1, "fpr.kmeans_restarts", self.kmeans_restarts, "1 or more")
        require(self.halo_below > 0, "fpr.halo_below", self.halo_below, "above 0")
        scales = self.collect_scales
        require(bool(scales) and min(scales) > 0, "fpr.collect_scales", scales, "scales above 0")
        for name in ("region_weight", "pixel_weight", "pixel_lift", "lift_fewer", "focal_gamma", "distance_offset"):
            require(getattr(self, name) >= 0, f"fpr.{name}", getattr(self, name), "0 or more")

    def needs_prototypes(self) -> bool:
        """Whether a prototype pass is needed at all."""
        return self.region_weight > 0 or (self.pixel_weight > 0 and self.pixel_select == "prototypes")
