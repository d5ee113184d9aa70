"""What came out, in plain words made from the figures: also when it is less than hoped for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tag2mask.config import RunConfig
from tag2mask.report.figures import Figures, known_mean, signed, verdict
from tag2mask.stages.table import TITLES

PLATEAU = 1.0
"""mIoU points; if training on gains more, the classifier had not finished learning."""
LEVEL = 0.5
"""mIoU points within which two methods are called level."""
SPREAD = 5.0
"""mIoU points; if the seeds of one method deviate by more, something went wrong in one of them."""


@dataclass
class Words:
    """The top of the page."""

    title: str
    lead: str
    remarks: list[str] = field(default_factory=list)
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    """(label, figure, small print)."""


def data_name(config: RunConfig) -> str:
    """How the data set is called."""
    return "built-in scenes" if config.data.kind == "cooccur" else Path(config.data.root).name or config.data.root


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def what_was_done(config: RunConfig, images: int | None, classes: int | None) -> str:
    """The first sentences."""
    count = f"{images} photos" if images is not None else "photos"
    kinds = f" of {classes} classes" if classes is not None else ""
    several = "s" if len(config.seeds) > 1 else ""
    seeds = ", ".join(map(str, config.seeds))
    text = (
        f"From {count} with tags{kinds} ({data_name(config)}, split {config.data.split}, seed{several} {seeds}) a "
        "classifier was trained; its class activation map (CAM) tells where in a photo each tag is. "
    )
    trained = [method for method in config.methods if method != "training_free"]
    if trained:
        number = len(trained)
        epochs = f"{config.rectify.epochs} epoch{'' if config.rectify.epochs == 1 else 's'}"
        ways = f"in {number} ways, each for {epochs}: " if number > 1 else f"for {epochs} "
        text += f"From the same weights training went on {ways}{listed([explained(method) for method in trained])}. "
    if "training_free" in config.methods:
        text += "FPR without training multiplies the maps of the CAM by what its prototypes say. "
    return text + "No mask was seen in training. "


def explained(method: str) -> str:
    """A method in a few words."""
    return {
        "continued": "with the tags alone (CAM trained on)",
        "halo": "pushing down every low activation (halo, a control without prototypes)",
        "sharpen": "pushing low activations down and high ones up (sharpen, a control without prototypes)",
        "fpr": "with False Positive Rectification (FPR)",
    }.get(method, f"by {TITLES[method]}")


def without_figures(config: RunConfig, images: int | None, classes: int | None) -> Words:
    """The top of the page of a run that was not scored."""
    lead = what_was_done(config, images, classes)
    return Words(
        f"Localization maps of {data_name(config)}",
        lead + "The run has no figures, so this page cannot say which method is better; it shows their maps.",
    )


def with_figures(config: RunConfig, figures: Figures) -> Words:
    """The top of the page of a run that was scored."""
    other = figures.split != config.data.split
    classes = len(figures.details["classes"])
    lead = what_was_done(config, None if other else figures.summary["images"], classes)
    if other:
        lead += f"The figures are of {figures.summary['images']} photos not trained on, split {figures.split}. "
    else:
        lead += "The figures are of the photos whose tags were trained on: their masks are what is asked for. "
    continued, fpr = (figures.mean(method, "gtfree", "miou") for method in ("continued", "fpr"))
    if continued is None or fpr is None:
        lead += "Under gtfree, a threshold that reads no mask, mean mIoU is " + listed(
            [f"{figures.text(method, 'gtfree', 'miou')} for {TITLES[method]}" for method in figures.methods]
        )
        missing = "FPR" if fpr is None else "CAM trained on"
        return Words(f"Localization maps of {data_name(config)}", f"{lead}. {missing} is not among the scored methods.")
    difference = fpr - continued
    lead += (
        "Under gtfree, a threshold that reads no mask, FPR reaches a mean mIoU of "
        f"{figures.text('fpr', 'gtfree', 'miou')} and CAM trained on {figures.text('continued', 'gtfree', 'miou')}: "
    )
    if difference >= LEVEL:
        title = f"FPR: {signed(difference)} mIoU over CAM trained on"
        lead += f"FPR gains {difference:.1f} points."
    elif difference <= -LEVEL:
        title = f"FPR: {signed(difference)} mIoU against CAM trained on"
        lead += f"FPR loses {-difference:.1f} points here; with these data and settings it does not help."
    else:
        title = "FPR: no gain over CAM trained on"
        lead += f"a difference of {signed(difference)} points, which is none to speak of."
    lead += chance(figures, "continued", "gtfree")
    tiles = [
        ("CAM trained on", figures.text("continued", "gtfree", "miou"), "mIoU, gtfree"),
        ("FPR", figures.text("fpr", "gtfree", "miou"), "mIoU, gtfree"),
        ("Difference", signed(difference), interval_text(figures)),
    ]
    remarks = [*compared(figures), *false_positives(figures), *plateau(figures), *spread(figures)]
    return Words(title, lead, remarks, tiles)


def interval_text(figures: Figures) -> str:
    """Small print of the difference: the interval of one seed, the range of several."""
    entries = [figures.difference(seed, "continued", "gtfree") for seed in figures.seeds]
    known = [entry for entry in entries if entry is not None]
    if len(known) == 1:
        return f"95 % interval {signed(known[0]['low'])} to {signed(known[0]['high'])}"
    if known:
        return "by seed " + ", ".join(signed(entry["difference"]) for entry in known)
    return "points of mIoU"


def chance(figures: Figures, reference: str, protocol: str) -> str:
    """Whether the choice of images could explain a difference; empty when nothing is known."""
    entries = [figures.difference(seed, reference, protocol) for seed in figures.seeds]
    verdicts = [verdict(entry) for entry in entries if entry is not None]
    if not verdicts:
        return ""
    if len(verdicts) == 1:
        return {
            "above": " The 95 % interval over images lies above zero.",
            "below": " The 95 % interval over images lies below zero.",
            "open": " The 95 % interval over images contains zero, so the choice of images alone may explain it.",
        }[verdicts[0]]
    count = len(verdicts)
    parts = [
        f"{words} zero for {verdicts.count(name)}"
        for name, words in (("above", "above"), ("below", "below"), ("open", "on both sides of"))
        if name in verdicts
    ]
    return f" Of {count} seeds, the 95 % interval over images lies {listed(parts)}."


def compared(figures: Figures) -> list[str]:
    """Maps against thresholds, and prototypes against none."""
    remarks = []
    fpr, continued = (figures.mean(method, "matched", "miou") for method in ("fpr", "continued"))
    controls = {name: figures.mean(name, "matched", "miou") for name in ("halo", "sharpen")}
    known = {name: value for name, value in controls.items() if value is not None}
    free = (figures.mean("fpr", "gtfree", "miou") or 0) - (figures.mean("continued", "gtfree", "miou") or 0)
    if fpr is not None and continued is not None:
        matched = fpr - continued
        text = (
            f"At matched area (a diagnostic that reads masks) the difference to CAM trained on is {signed(matched)} "
            "points. "
        )
        if matched >= LEVEL and free >= LEVEL:
            text += "So the maps themselves are better, not just where they are cut."
        elif matched >= LEVEL:
            text += "So the maps are better, but the mask-free threshold cuts them at the wrong place."
        elif free >= LEVEL:
            text += "So the gain under gtfree comes from another threshold, not from better maps."
        else:
            text += "So the maps themselves are not better either."
        remarks.append(text)
    if fpr is not None and known:
        strongest = max(known, key=lambda name: known[name])
        ahead = fpr - known[strongest]
        place, rank = "ahead of" if ahead >= 0 else "behind", "stronger " if len(known) > 1 else ""
        text = f"At matched area FPR is {abs(ahead):.1f} points {place} {strongest}, the {rank}control without "
        text += "prototypes. "
        if ahead >= LEVEL and "sharpen" in known:
            text += "So the prototypes matter: acting on activations alone does not do the same."
        elif ahead >= LEVEL:
            text += "So a push on low activations does not do the same. "
            text += "The harder control, sharpen, is not in this run."
        else:
            text += "So nothing shows here that the prototypes are needed."
        remarks.append(text)
    return remarks


def false_positives(figures: Figures) -> list[str]:
    """False discovery rate, by class and in the mean, and leaks onto contexts."""
    before, after = (figures.mean(method, "matched", "fdr") for method in ("continued", "fpr"))
    if before is None or after is None:
        return []
    by_class = [known_mean(figures.by_seed(method, "matched", "class_fdr")) for method in ("continued", "fpr")]
    known = ~np.isnan(by_class[0]) & ~np.isnan(by_class[1])
    lower = int((by_class[1] < by_class[0])[known].sum())
    text = (
        f"The false discovery rate at matched area goes from {before:.1f} to {after:.1f} %, and is lower in {lower} of "
        f"the {int(known.sum())} classes that both predict."
    )
    if figures.tells("class_fdr_own_area"):
        own = [known_mean(figures.by_seed(method, "matched", "class_fdr_own_area")) for method in ("continued", "fpr")]
        both = ~np.isnan(own[0]) & ~np.isnan(own[1])
        fewer = int((own[1] < own[0])[both].sum())
        if both.any():
            text += f" Where the area of each class is matched by itself, it is lower in {fewer} of {int(both.sum())}."
    leaks = [figures.mean(method, "matched", "leak") for method in ("continued", "fpr")]
    if leaks[0] is not None and leaks[1] is not None:
        text += f" Predictions that lie on a context go from {leaks[0]:.1f} to {leaks[1]:.1f} %."
    return [text]


def plateau(figures: Figures) -> list[str]:
    """A warning when the baseline was still learning."""
    before, after = (figures.mean(method, "gtfree", "miou") for method in ("cam", "continued"))
    if before is None or after is None or after - before <= PLATEAU:
        return []
    return [
        f"Training on with the tags alone gained {after - before:.1f} points over CAM: the classifier had not reached "
        "its plateau, so do not read too much into these differences; train it longer first."
    ]


def spread(figures: Figures) -> list[str]:
    """A warning when the seeds are far apart."""
    if (figures.summary["methods"].get("cam", {}).get("gtfree", {}).get("miou", {}).get("std") or 0) <= SPREAD:
        return []
    values = ", ".join(f"{value:.1f}" for value in figures.by_seed("cam", "gtfree", "miou"))
    return [f"The seeds are far apart (CAM, gtfree: {values} mIoU): a mean over them says little; look at each one."]
