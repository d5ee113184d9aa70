"""Literal readings of the paper and its release, the default, and the methods that every table compares."""

from __future__ import annotations

from dataclasses import replace

from tag2mask.config import (
    METHODS,
    SEGMENT_PRESETS,
    AdvcamConfig,
    FPRConfig,
    HostConfig,
    IRNConfig,
    MapsConfig,
    MctformerConfig,
    OptimiserConfig,
    PSAConfig,
    RefineConfig,
    RivalsConfig,
    RunConfig,
    SeamConfig,
    ViewsConfig,
    WoodConfig,
)
from tag2mask.errors import InputError

PAPER = FPRConfig(
    positive_theta=0.1, tagged_theta=1.0, negatives=10, suspects="keep", support="off", refill=1, remember=0,
    region_weight=0.12, pixel_weight=15e-5, pixel_weight_unit="literal", pixel_form="mean", pixel_lift=0.0, margin=1.0,
    feature_space="trained", superclass_trim=True, temperature=13.0, temperature_unit="literal",
    region_average="image", pixel_average="image", kmeans_restarts=10, positive_capacity=4500, exact_kmeans=4500,
)  # fmt: skip
"""Equations 1 to 9 and section 4.1 to the letter."""

AUTHORS = replace(
    PAPER, distance="rms", distance_offset=0.1, region_average="pairs", pixel_average="batch",
    singleton_superclass="skip", collect_scales=(1.0, 0.5, 1.5, 2.0), collect_flip=True,
    collect_epsilon=1e-5, region_epsilon=1e-4, pixel_epsilon=1e-3,
)  # fmt: skip
"""What the authors' release computes (its README promises the paper's figures; its code differs in these)."""

PAPER_AT_SCALE = replace(
    PAPER, pixel_weight=1.0, pixel_weight_unit="schedule", temperature=10.0, temperature_unit="spread",
    kmeans_restarts=1, positive_capacity=512, region_average="pairs", pixel_average="batch",
)  # fmt: skip
"""The paper's form with its two scale-bound numbers re-derived: lambda 2 for the number of classes and steps, T for
the spread of the features. Literal numbers would do nothing in a short run on other features."""

AUTHORS_AT_SCALE = replace(
    AUTHORS, pixel_weight=1.0, pixel_weight_unit="schedule", kmeans_restarts=1, positive_capacity=512,
    collect_scales=(1.0,), collect_flip=False,
)  # fmt: skip
"""The release likewise; its distances are per channel, so that T = 13 stays, and its prototypes come from one scale, as
a pass at four would cost more than all of the training."""


IRN_REFINE = RefineConfig(
    threshold=0.15, foreground=2.0, background=1 / 3, final_crf=False, walk_threshold=0.25,
    views=ViewsConfig(kind="crop", size=512),
    optimiser=OptimiserConfig(kind="sgd", epochs=3, batch_size=32, learning_rate=0.1, momentum=1e-4, clip_norm=0.0),
    irn=IRNConfig(), psa=PSAConfig(labels="powers"),
)  # fmt: skip
"""IRN as it was published: thresholds .30 and .05 around .15, .25 after the walk."""
AUTHORS_REFINE = replace(
    IRN_REFINE, threshold=0.2, foreground=1.25, background=0.5, walk_threshold=0.2, irn=IRNConfig(power=1.5)
)
"""The same in the release of FPR: .25 and .10, the maps to the power 1.5, .20 after the walk."""


HALO_WEIGHT = 1.0
"""Weight of the control ``halo``, at most: a push without counterpart collapses at the default's."""


def method_config(method: str, fpr: FPRConfig) -> FPRConfig:
    """Settings of one of ``METHODS`` (all but ``cam``); ``fpr`` itself is what the user configured.

    Two controls act on activation alone, without any prototype: ``halo`` pushes low activations down, ``sharpen`` does
    to low and high activations what ``fpr`` does to pixels near negatives and positives, at the same weight.
    """
    no_terms = replace(fpr, region_weight=0.0, pixel_weight=0.0, classification="bce")
    table = {
        "continued": no_terms,
        "focal": replace(no_terms, classification="focal"),
        "halo": replace(
            fpr, region_weight=0.0, pixel_select="halo", pixel_lift=0.0, pixel_weight=min(fpr.pixel_weight, HALO_WEIGHT)
        ),
        "sharpen": replace(fpr, region_weight=0.0, pixel_select="halo", pixel_lift=fpr.pixel_lift or 1.0),
        "rc": replace(PAPER_AT_SCALE, pixel_weight=0.0),
        "pr": replace(PAPER_AT_SCALE, region_weight=0.0),
        "paper": PAPER_AT_SCALE,
        "training_free": replace(fpr, feature_space="levels", region_weight=0.0, pixel_detach=False),
        "fpr": fpr,
        "wood": no_terms, "eps": no_terms, "clims": no_terms,
    }  # fmt: skip
    if method not in table:
        raise InputError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}.")
    return table[method]


def for_host(config: RunConfig, host: str) -> RunConfig:
    """Settings of a run with another host in the CAM's place, and what differs with it: how long it trains, and how.

    A host that has no settings of its own here, as one of the user's, has those of the CAM. Settings of that very host,
    as those of the preset `seam`, stay as they are.
    """
    if config.host.kind == host:
        return config
    config = replace(config, host=replace(config.host, kind=host))
    if host == "seam":
        seam = SeamConfig(loss_grid="map", dropout=0.0, small_scale=0.5, from_minimum=False)
        return replace(config, host=replace(config.host, seam=seam))
    if host == "mctformer":
        phase = OptimiserConfig(batch_size=16, weight_decay=0.05)
        return replace(
            config,
            host=replace(config.host, neck=0, side=0, mctformer=MctformerConfig(grid=16, affinity=False, root=True)),
            views=replace(config.views, size=min(config.views.size, 256)),
            classify=replace(phase, epochs=5, learning_rate=2e-3, schedule="onecycle", batch_norm_until=0.5),
            rectify=replace(phase, epochs=4, learning_rate=5e-4),
            fpr=replace(config.fpr, positive_theta=0.7, margin=1.0, pixel_lift=0.3, collect_every=4),
        )
    return config


WOOD = WoodConfig(distance_weight=0.007, distance_unit="literal", skip_class="bottle")
"""W-OoD as it was released, for a ResNet-50 and PASCAL VOC."""


SEAM_PHASE = OptimiserConfig(
    kind="sgd", batch_size=8, learning_rate=0.1, backbone_rate=0.01, momentum=5e-4, weight_decay=5e-4, clip_norm=0.0
)
"""A phase of SEAM's training: ten times the rate for new layers, and weight decay in the place of the momentum."""


PRESETS = {
    "laptop": RunConfig(),
    "paper": RunConfig(
        methods=("continued", "halo", "paper", "fpr"),
        host=HostConfig(
            backbone="resnet50.tv_in1k", weights="timm", dilate=False, freeze="layer2", side=0
        ),
        views=ViewsConfig(kind="crop", size=512),
        classify=OptimiserConfig(
            kind="sgd", epochs=5, batch_size=16, learning_rate=1.0, backbone_rate=0.1, momentum=1e-4, clip_norm=0.0
        ),
        rectify=OptimiserConfig(
            kind="sgd", epochs=5, batch_size=16, learning_rate=1.0, backbone_rate=0.1, momentum=1e-4, clip_norm=5.0
        ),
        fpr=PAPER,
        maps=MapsConfig(scales=(1.0, 0.5, 1.5, 2.0), advcam=AdvcamConfig(iterations=27)),
        refine=IRN_REFINE,
        segment=SEGMENT_PRESETS["deeplab_v2"],
    ),
}
PRESETS["demo"] = replace(
    PRESETS["laptop"], host=HostConfig(levels=("blocks.2", "blocks.4"), neck=128, side=0), views=ViewsConfig(size=128)
)
PRESETS["seam"] = RunConfig(
    methods=("continued", "halo", "paper", "fpr"),
    host=HostConfig(
        kind="seam", backbone="wresnet38", weights="wresnet38.pth", output_stride=8, freeze="stage2", side=0
    ),
    views=ViewsConfig(kind="crop", size=448, resize_long=(448, 768), colour_jitter=(0.3, 0.3, 0.3, 0.1)),
    classify=replace(SEAM_PHASE, epochs=8),
    rectify=replace(SEAM_PHASE, epochs=3),
    fpr=replace(
        AUTHORS, temperature=1.0, theta=0.2, positive_theta=0.2, region_weight=0.3, pixel_weight=1.5e-4
    ),
    maps=MapsConfig(scales=(1.0, 0.5, 1.5, 2.0)),
    refine=replace(IRN_REFINE, psa=PSAConfig(labels="powers", certain_background=24.0, steps=64)),
    segment=SEGMENT_PRESETS["deeplab_v1"],
)
"""SEAM as it was published, on branch 1 of which FPR acts, with the numbers that the release of FPR gives for it. The
ImageNet weights of WResNet-38 are to be given as a file."""
PRESETS["authors"] = replace(
    PRESETS["paper"], fpr=AUTHORS, refine=AUTHORS_REFINE,
    maps=replace(PRESETS["paper"].maps, advcam=AdvcamConfig(iterations=19)),
)  # fmt: skip
PRESETS["wood"] = replace(PRESETS["paper"], methods=("continued", "wood"), rivals=RivalsConfig(wood=WOOD))
PRESETS["eps"] = replace(
    PRESETS["paper"], methods=("continued", "eps"), rectify=replace(PRESETS["paper"].rectify, epochs=15, batch_size=8)
)
PRESETS["clims"] = replace(
    PRESETS["paper"], methods=("continued", "clims"),
    rectify=replace(PRESETS["paper"].rectify, epochs=15, learning_rate=2.5e-3, backbone_rate=2.5e-4),
)  # fmt: skip
"""laptop: the default. demo: the same for small built-in scenes. paper, authors: section 4.1 with a ResNet-50, and what
the authors' release computes. wood, eps, clims: the rivals' published settings on the same network
(EPS: of a WR38, from ImageNet, 20 000 steps of 8; the batch of CLIMS and the rates of EPS are those of `paper`)."""


def mctformer_phase(epochs: int, batch_size: int, warm_up: float) -> OptimiserConfig:
    """AdamW at 5e-4 for 512 images a step; one rate for all weights."""
    rate = 5e-4 * batch_size / 512
    return OptimiserConfig(
        epochs=epochs, batch_size=batch_size, learning_rate=rate, backbone_rate=rate, schedule="cosine",
        warm_up=warm_up, weight_decay=0.05, clip_norm=0.0,
    )  # fmt: skip


PRESETS["mctformer"] = RunConfig(
    methods=("continued", "halo", "paper", "fpr"),
    host=HostConfig(
        kind="mctformer", backbone="deit_small_patch16_224.fb_in1k", weights="timm", freeze="none", side=0
    ),
    views=ViewsConfig(size=224),
    classify=mctformer_phase(60, 64, 5),
    rectify=mctformer_phase(5, 64, 0),
    fpr=replace(PAPER, temperature=10.0, temperature_unit="spread"),
    refine=RefineConfig(
        final_crf=False,
        psa=PSAConfig(labels="powers", certain_foreground=1.0, certain_background=12.0, steps=64),
    ),
    segment=SEGMENT_PRESETS["deeplab_v2"],
)  # fmt: skip
"""MCTformer V2 as it was published, and FPR's equations on its patch tokens for five epochs more, which is our reading:
no figure of the paper says how long, and T is in units of the spread, as the tokens are normalised."""
PRESETS["mctformer_plus"] = replace(
    PRESETS["mctformer"],
    host=replace(PRESETS["mctformer"].host, mctformer=MctformerConfig(version="plus", grid=28)),
    views=ViewsConfig(size=448),
    classify=mctformer_phase(45, 32, 5),
    rectify=mctformer_phase(5, 32, 0),
    maps=MapsConfig(scales=(1.0, 0.75, 1.25)),
)
"""MCTformer+: larger photos, ranked pooling, class tokens kept apart, maps of three scales."""
