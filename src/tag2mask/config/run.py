"""Everything that a run depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from tag2mask.config.data import DataConfig, TagsConfig
from tag2mask.config.fpr import FPRConfig
from tag2mask.config.maps import MapsConfig
from tag2mask.config.network import HostConfig, OptimiserConfig, ViewsConfig
from tag2mask.config.refine import RefineConfig
from tag2mask.config.rivals import RivalsConfig
from tag2mask.config.segment import SegmentConfig
from tag2mask.errors import require

METHODS = (
    "cam", "continued", "focal", "halo", "sharpen", "rc", "pr", "paper", "training_free", "fpr", "wood", "eps", "clims",
)  # fmt: skip
"""What can be trained and compared: the class activation map, its controls, the paper's terms, the default, and rivals
that bring more than tags."""


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
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    """What the methods `wood`, `eps` and `clims` bring beside tags."""
    maps: MapsConfig = field(default_factory=MapsConfig)
    """Localization maps."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """From maps to pseudo masks."""
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    """The network that learns from pseudo masks and needs no tag."""
    methods: tuple[str, ...] = ("continued", "halo", "sharpen", "paper", "fpr")
    """What to train from the class activation map: any of continued, focal, halo, sharpen, rc, pr, paper,
    training_free, fpr, and wood, eps, clims (see rivals)."""
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
            not (self.fpr.pixel_detach and self.host.rectified_maps == "refined"), "fpr.pixel_detach", True,
            "false, or host.rectified_maps own: refined maps are made of more than the features F",
        )
        require(
            not (self.host.kind == "seam" and (self.fpr.classification == "focal" or "focal" in self.methods)),
            "host.kind", self.host.kind, "another host for focal BCE: SEAM's total has half of Eq. 1 for each view",
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
