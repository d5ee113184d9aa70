"""Literal readings of the paper and its release, the default, and the methods that every table compares."""

from __future__ import annotations

from dataclasses import replace

from tag2mask.config import (
    METHODS,
    SEGMENT_PRESETS,
    FPRConfig,
    HostConfig,
    IRNConfig,
    MapsConfig,
    OptimiserConfig,
    PSAConfig,
    RefineConfig,
    RunConfig,
    ViewsConfig,
)
from tag2mask.errors import InputError

PAPER = FPRConfig(
    positive_theta=0.1, tagged_theta=1.0, negatives=10, region_weight=0.12, pixel_weight=15e-5,
    pixel_weight_unit="literal", pixel_form="mean", pixel_lift=0.0, margin=1.0, feature_space="trained",
    superclass_trim=True, temperature=13.0, temperature_unit="literal", region_average="image", pixel_average="image",
    kmeans_restarts=10, positive_capacity=4500,
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
    }
    if method not in table:
        raise InputError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}.")
    return table[method]


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
        maps=MapsConfig(scales=(1.0, 0.5, 1.5, 2.0)),
        refine=IRN_REFINE,
        segment=SEGMENT_PRESETS["deeplab_v2"],
    ),
}
PRESETS["demo"] = replace(
    PRESETS["laptop"], host=HostConfig(levels=("blocks.2", "blocks.4"), neck=128, side=0), views=ViewsConfig(size=128)
)
PRESETS["authors"] = replace(PRESETS["paper"], fpr=AUTHORS, refine=AUTHORS_REFINE)
"""laptop: the default. demo: the same for small built-in scenes. paper, authors: section 4.1 with a ResNet-50, and what
the authors' release computes."""
