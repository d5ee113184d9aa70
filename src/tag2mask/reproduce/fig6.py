"""Figure 6: suppressed pixels coloured by the nearest negative prototype, and the photos these came from.

And what the paper does not measure: how many of them are rightly suppressed, what they show, and how much of the work
the three strongest prototypes of a class do.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask.data import TaggedImages
from tag2mask.explore.statistics import Statistics, load_arrays, save_arrays
from tag2mask.progress import Reporter
from tag2mask.reproduce.cells import Cell, up_to_date
from tag2mask.reproduce.draw import picture
from tag2mask.reproduce.fig3 import photos_of, small
from tag2mask.reproduce.over_seeds import above, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import Scale
from tag2mask.runs import method_folder
from tag2mask.stages.exploration import Findings, Network, look_at_all
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.suppressed import BACKGROUND, OTHER_CLASS

CLASS = "train"
"""Of the paper's figure."""
PHOTOS, SOURCES = 6, 6
"""Shown: photos with suppressed pixels, and prototypes told apart by colour; the others are grey."""
STRONGEST = 3
SENTENCES = (
    "What is suppressed is co-occurring background, and the objects stay whole.",
    "A few negative prototypes do most of the work: of three of train, two.",
)
WHOLE = 5.0
"""Percent of the activated pixels of the objects that may be suppressed where objects stay whole."""
MANY = 10
"""Prototypes in use, below which the three strongest do most of the work anyway."""
HUES = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
"""Of M. Okabe and K. Ito's palette."""
OTHERS = (150, 150, 150)


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM, with the suppressed set of every seed held against masks."""
    return [
        Cell(
            f"{dataset.name}/cam/seed{seed}", replace(dataset.settings("cam", seed), methods=("fpr",)),
            frozenset({"evaluate", "suppressed"}),
        )
        for dataset in scale.sets
        for seed in scale.seeds
    ]  # fmt: skip


def statistics_of(run: Path, seed: int) -> Statistics:
    """Which negative is nearest to which suppressed pixel in every photo, as the first step sees them; kept on disk."""
    path, first = run / "explore" / "fig6.npz", method_folder(run, seed, "fpr") / "prototypes" / "epoch001.safetensors"
    made_from = (first, method_folder(run, seed, "cam") / "weights.safetensors")
    arrays = load_arrays(path) if up_to_date(path, made_from) else None
    if arrays is None:
        network = Network(read_settings(run), run, seed)
        findings: list[Findings] = []
        with Reporter(quiet=True).task("suppressed pixels") as step:
            for done, total in look_at_all(lambda: network, "fpr", "cam", first, findings):
                step(done, total)
        images = network.setup.images
        made = findings[0].arrays(len(images.classes), read_settings(run).fpr.negatives)
        save_arrays(path, made)
        arrays = load_arrays(path)
    assert arrays is not None  # just written
    return Statistics(arrays)


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """A picture of one class for each set, and two tables."""
    tables, claims, pictures = [], [], []
    sets: dict[str, Any] = {}
    seed = scale.seeds[0]
    for dataset in scale.sets:
        runs = over_seeds(scale, f"{dataset.name}/cam", out, ("fpr",))
        if runs is None or not all(runs.files("suppressed.json")):
            continue
        images, _ = photos_of(dataset, seed)
        names = images.classes.names
        by_seed = {s: statistics_of(run, s) for s, run in zip(scale.seeds, runs.folders, strict=True)}
        statistics = by_seed[seed]
        used = dict(zip(names, statistics.pixels.sum(1).tolist(), strict=True))
        shown = names.index(CLASS if used.get(CLASS) else max(used, key=lambda name: used[name]))
        name = f"fig6_{dataset.name}"
        draw(statistics, images, runs.folders[0], seed, shown, out, name)
        pictures.append(f"{name}.png")
        found = [next(iter(file["seeds"].values())) for file in runs.files("suppressed.json")]
        summary = runs.by_seed[0]
        about = f"{dataset.name}, split {summary['split']}, {summary['images']} images"
        seeds = ", ".join(str(each) for each in scale.seeds)
        tables += [chosen_table(found, f"{about}, seeds {seeds}."), strongest_table(statistics, names, about, seed)]
        claims.append(objects_stay_whole(found, dataset.name))
        sets[dataset.name] = {"seeds": found, "strongest three": strongest(statistics, names)}
        claims.append(few_are_enough(list(by_seed.values()), names[shown], shown, dataset.name))
    figures = {"seeds": list(scale.seeds), "sets": sets}
    return Result(
        "fig6", "Figure 6: suppressed pixels and their prototypes", command, tuple(tables),
        with_untold(claims, SENTENCES, scale.names), figures, tuple(pictures),
    )  # fmt: skip


def objects_stay_whole(found: list[dict[str, Any]], name: str) -> Claim:
    """Is most of what is suppressed not of the class, are the objects spared, and both more so than with halo?

    Args:
        found: of each seed, what suppressed.json holds.
    """
    right, plain = ([each[w]["suppressed: precision"] for each in found] for w in ("prototypes", "activation"))
    cut, cut_plain = ([each[w]["suppressed: of the objects"] for each in found] for w in ("prototypes", "activation"))
    spared = np.minimum(WHOLE - np.array(cut), np.subtract(cut_plain, cut))
    gains = list(np.minimum(np.minimum(above(right, plain), np.array(right) - 50), spared))
    told = (
        f"{np.mean(right):.0f} % of them are not of the class on {name}, and {np.mean(cut):.1f} % of the objects' own "
        f"activated pixels are among them; with low activation alone {np.mean(plain):.0f} and {np.mean(cut_plain):.1f} "
        f"%. Better on both, and at most {WHOLE:.0f} % of the objects{in_seeds(gains)}."
    )
    return Claim(SENTENCES[0], told, verdict(gains), name)


def few_are_enough(by_seed: list[Statistics], name: str, c: int, about: str) -> Claim:
    """Do the three strongest prototypes of a class take more than half of its suppressed pixels, in each seed?"""
    own = [np.sort(statistics.pixels[c])[::-1] for statistics in by_seed]
    used = [int((pixels > 0).sum()) for pixels in own]
    shares = [float(100 * pixels[:STRONGEST].sum() / max(pixels.sum(), 1)) for pixels in own]
    told = (
        f"the {STRONGEST} strongest of {', '.join(map(str, used))} in use take "
        f"{', '.join(f'{share:.0f}' for share in shares)} % of what is suppressed of {name} on {about}, by seed."
    )
    agrees = verdict([share - 50 for share in shares]) if min(used) >= MANY else None
    return Claim(SENTENCES[1], told, agrees, about)


def chosen_table(found: list[dict[str, Any]], about: str) -> Table:
    """How the suppressed pixels are chosen, and what they show; ``about``: set, split, images and seeds."""
    rows = []
    for way, title in (("prototypes", "nearest negative prototype"), ("activation", "low activation alone (halo)")):
        own = [each[way] for each in found]
        names = ("precision", "recall", "of the objects")
        shares = [spread([each[f"suppressed: {name}"] for each in own]) for name in names]
        other = spread([each["causes"].get(OTHER_CLASS, 0.0) for each in own])
        rest = spread([sum(share for name, share in each["causes"].items() if name != OTHER_CLASS) for each in own])
        rows.append((title, *shares, other, rest))
    columns = (
        "suppressed by", "precision*", "recall*", "of the objects*", f"of the right ones: {OTHER_CLASS}",
        f"{BACKGROUND} and contexts",
    )  # fmt: skip
    caption = (
        f"{about} Percent of the pixels on the map's grid that the first step suppresses; of the objects: share of "
        "their activated pixels that is suppressed. * reads masks."
    )
    return Table(caption, columns, tuple(rows))


def strongest(statistics: Statistics, names: tuple[str, ...]) -> dict[str, float]:
    """Share of a class's suppressed pixels that the three strongest prototypes take, percent."""
    shares = {}
    for c, name in enumerate(names):
        own = np.sort(statistics.pixels[c])[::-1]
        if own.sum():
            shares[name] = round(float(100 * own[:STRONGEST].sum() / own.sum()), 1)
    return shares


def strongest_table(statistics: Statistics, names: tuple[str, ...], about: str, seed: int) -> Table:
    """A row for each class."""
    shares = strongest(statistics, names)
    rows = tuple(
        (name, f"{share:.0f}", f"{int((statistics.pixels[names.index(name)] > 0).sum())}")
        for name, share in shares.items()
    )
    caption = f"{about}, seed {seed}, first step; a prototype is in use where it is the nearest to a pixel."
    return Table(caption, ("class", "the three strongest take, %", "prototypes in use"), rows)


def draw(
    statistics: Statistics, images: TaggedImages, run: Path, seed: int, c: int, out: Path, name: str
) -> None:
    """Photos of the class with its suppressed pixels above, the photos that lent the prototypes below."""
    order = np.argsort(-statistics.pixels[c], kind="stable")[:SOURCES]
    ranks = [int(rank) for rank in order if statistics.pixels[c, rank]]
    sizes = dict.fromkeys(statistics.photos_of_class(c).tolist(), 0)
    for _, _, image, pixels in statistics.uses[statistics.uses[:, 0] == c].tolist():
        sizes[image] += pixels
    photos = sorted(sizes, key=lambda i: -sizes[i])[:PHOTOS]
    columns = max(PHOTOS, SOURCES)
    with picture(out, name, 1.9 * columns, 4.4, nrows=2, ncols=columns) as axes:
        for panel in axes.ravel():
            panel.set_axis_off()
        for panel, image in zip(axes[0], photos, strict=False):
            grid = statistics.suppressed(c, image)
            assert grid is not None  # it has suppressed pixels
            panel.imshow(coloured(small(images.image(image)), grid, ranks))
            panel.set_title(", ".join(images.label_names(image)), fontsize=8)
        for panel, rank, hue in zip(axes[1], ranks, HUES, strict=False):
            source = source_of(run, seed, c, rank)
            photo = small(images.image(source))
            panel.imshow(photo)
            panel.set_title(
                f"rank {rank + 1}: {', '.join(images.label_names(source)) or 'no tag'}\n"
                f"{int(statistics.pixels[c, rank])} pixels in {int(statistics.photos[c, rank])} photos", fontsize=7,
            )  # fmt: skip
            panel.set_axis_on()
            panel.set_xticks([])
            panel.set_yticks([])
            for side in panel.spines.values():
                side.set_color([value / 255 for value in hue])
                side.set_linewidth(4)


def source_of(run: Path, seed: int, c: int, rank: int) -> int:
    """Number of the photo that lent a negative."""
    from tag2mask.checkpoints import load_prototypes

    first = load_prototypes(method_folder(run, seed, "fpr") / "prototypes" / "epoch001.safetensors")
    return int(first.trimmed_source[c, rank])


def coloured(photo: np.ndarray, grid: np.ndarray, ranks: list[int]) -> np.ndarray:
    """A photo (h, w, 3) uint8 with its suppressed pixels in the colour of their nearest prototype."""
    table = np.zeros((int(max(grid.max(), max(ranks, default=0))) + 2, 3), np.uint8)
    table[1:] = OTHERS
    for rank, hue in zip(ranks, HUES, strict=False):
        table[rank + 1] = hue
    size = (photo.shape[1], photo.shape[0])
    rows = np.asarray(Image.fromarray((grid + 1).astype(np.int32), "I").resize(size, Image.Resampling.NEAREST))
    over = (0.3 * photo + 0.7 * table[rows]).astype(np.uint8)
    return np.where((rows > 0)[..., None], over, photo)
