"""Figure 7: the weights of the two terms, and the number of prototypes; ours too: temperature, theta, momentum.

Every cell trains on from the same class activation map with the paper's form, and one of its settings changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.config import OptimiserConfig, RunConfig
from tag2mask.presets import PAPER_AT_SCALE
from tag2mask.report.published import FIGURE_7A, FIGURE_7A_REGION, FIGURE_7B
from tag2mask.reproduce.cells import Cell
from tag2mask.reproduce.draw import COLOURS, MARKS, picture, plain
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import DataSet, Scale

COUNTS = (1, 10, 50)
TEMPERATURES = (3.0, 10.0, 30.0)
THETAS = (0.05, 0.1, 0.2, 0.3)
PIXEL_WEIGHT_OF_THE_PAPER = 15e-5
"""Is 1 in units of the schedule, which mean the same at any number of classes and steps."""
MOMENTA = {"weight decay in its place (the IRN family)": 1e-4, "0.9": 0.9}
"""Of SGD. The family passes the weight decay where its optimiser expects the momentum."""


STABLE = 1.3
"""mIoU between the worst and the best, within which the paper calls its figures stable."""
SENTENCES = (
    "The weights matter little: 53.2 to 54.5 over the grid.",
    "Over lambda 1 they are stable at lambda 2 = 15e-5: 53.4 to 54.5.",
    "FPR is insensitive to the number of prototypes: 53.1 to 54.3 from one to fifty.",
    "Ten prototypes are best, fifty slightly worse.",
    "One prototype gains 3.6 already.",
)


@dataclass(frozen=True)
class Setting:
    """A cell of the figure."""

    name: str
    config: RunConfig


def grid(base: RunConfig) -> dict[tuple[float, float], Setting]:
    """(lambda 1, lambda 2) -> settings."""
    found = {}
    for pixel in FIGURE_7A:
        for region in FIGURE_7A_REGION:
            weights = {"region_weight": region, "pixel_weight": pixel / PIXEL_WEIGHT_OF_THE_PAPER}
            found[region, pixel] = Setting(f"weights_{region:g}_{pixel:g}", with_terms(base, **weights))
    return found


def with_terms(base: RunConfig, **settings: Any) -> RunConfig:
    """The run with the paper's form as its only method, and some of its settings changed."""
    return replace(base, methods=("fpr",), fpr=replace(PAPER_AT_SCALE, **settings))


def lines(base: RunConfig) -> dict[str, dict[str, Setting]]:
    """Name of a setting -> value -> settings."""
    phase = base.rectify
    sgd = OptimiserConfig(
        kind="sgd", epochs=phase.epochs, batch_size=phase.batch_size, learning_rate=0.1, backbone_rate=0.01
    )
    return {
        "prototypes K": {
            f"{k}": Setting(f"prototypes_{k}", with_terms(base, prototypes=k, negatives=k)) for k in COUNTS
        },
        "temperature, in spreads": {
            f"{t:g}": Setting(f"temperature_{t:g}", with_terms(base, temperature=t)) for t in TEMPERATURES
        },
        "theta": {
            f"{t:g}": Setting(f"theta_{t:g}", with_terms(base, theta=t, positive_theta=t)) for t in THETAS
        },
        "momentum of SGD": {
            name: Setting(f"momentum_{value:g}", replace(with_terms(base), rectify=replace(sgd, momentum=value)))
            for name, value in MOMENTA.items()
        },
    }  # fmt: skip


def cells(scale: Scale, out: Path) -> list[Cell]:
    """The plain CAM with its controls, and a run for every setting; on the first set alone."""
    dataset, found = scale.sets[0], []
    for seed in scale.seeds:
        base = dataset.settings("cam", seed)
        start = f"{dataset.name}/cam/seed{seed}"
        evaluate: frozenset[Any] = frozenset({"evaluate"})
        found.append(Cell(start, replace(base, methods=("continued", "halo")), evaluate))
        several = [*grid(base).values(), *(setting for line in lines(base).values() for setting in line.values())]
        found += [
            Cell(f"{dataset.name}/fig7/{one.name}/seed{seed}", one.config, evaluate, start=start) for one in several
        ]
    return found


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """The grid, the lines, and a picture of both."""
    dataset = scale.sets[0]
    base = dataset.settings("cam")
    control = over_seeds(scale, f"{dataset.name}/cam", out, ("continued", "halo"))
    if control is None:
        claims = with_untold((), SENTENCES, (dataset.name,))
        return Result("fig7", "Figure 7: weights and prototypes", command, claims=claims)

    def runs(setting: Setting) -> OverSeeds | None:
        return over_seeds(scale, f"{dataset.name}/fig7/{setting.name}", out, ("fpr",))

    on = {m: control.values(m, protocol, "miou") for m in ("continued", "halo")}
    table, ours = grid_table(grid(base), runs, dataset, control, protocol)
    below = f" CAM trained on {spread(on['continued'])}, halo {spread(on['halo'])}."
    tables = [replace(table, caption=table.caption + below)]
    points: dict[str, dict[str, list[float]]] = {}
    for name, line in lines(base).items():
        points[name] = {
            value: found.values("fpr", protocol, "miou") for value, s in line.items() if (found := runs(s)) is not None
        }
        paper = {str(k): f"{v:.1f}" for k, v in FIGURE_7B.items()} if name == "prototypes K" else {}
        rows = [(value, spread(values), paper.get(value, "–")) for value, values in points[name].items()]
        tables.append(Table(control.caption(dataset, protocol) + below, (name, "mIoU", "paper"), tuple(rows)))
    draw(ours, points, on, dataset, protocol, out)
    figures = {
        "protocol": protocol, "seeds": list(scale.seeds), "set": dataset.name,
        "grid": {f"{r:g}, {p:g}": compared(values, FIGURE_7A[p][FIGURE_7A_REGION.index(r)].mean)
                 for (r, p), values in ours.items()},
        "prototypes K": {k: compared(values, FIGURE_7B[int(k)]) for k, values in points["prototypes K"].items()},
        "lines": points, "controls": on,
    }  # fmt: skip
    return Result(
        "fig7", "Figure 7: weights of the terms, and the number of prototypes", command, tuple(tables),
        claims_of(ours, points, on, dataset), figures, ("fig7.png",),
        "lambda 2 is in units of the schedule: 15e-5 is the paper's setting at any number of classes and steps.",
    )  # fmt: skip


def compared(values: list[float], paper: float) -> dict[str, Any]:
    """Ours by seed, the paper's, and the difference."""
    return {"ours": values, "paper": paper, "difference": round(float(np.mean(values)) - paper, 2)}


def grid_table(
    settings: dict[tuple[float, float], Setting], runs: Any, dataset: DataSet, control: OverSeeds, protocol: str
) -> tuple[Table, dict[tuple[float, float], list[float]]]:
    """lambda 2 down, lambda 1 across; the paper's below each."""
    values = {
        key: found.values("fpr", protocol, "miou") for key, s in settings.items() if (found := runs(s)) is not None
    }
    rows = []
    for pixel, published in FIGURE_7A.items():
        own = [spread(values.get((region, pixel), [])) for region in FIGURE_7A_REGION]
        rows.append((f"{pixel:.2g}, ours", *own))
        rows.append((f"{pixel:.2g}, paper", *(f"{cell.mean:.1f} ±{cell.deviation:.1f}" for cell in published)))
    columns = ("mIoU: lambda 2 \\ lambda 1", *(f"{region:g}" for region in FIGURE_7A_REGION))
    return Table(control.caption(dataset, protocol), columns, tuple(rows)), values


def claims_of(
    grid_values: dict[tuple[float, float], list[float]], points: dict[str, dict[str, list[float]]],
    on: dict[str, list[float]], dataset: DataSet,
) -> tuple[Claim, ...]:  # fmt: skip
    """Stability in the weights, and a few prototypes being enough."""
    control = float(max(np.mean(on["continued"]), np.mean(on["halo"])))
    below = f" on {dataset.name}; the better control has {control:.1f}."
    name = dataset.name
    row = {key: values for key, values in grid_values.items() if key[1] == PIXEL_WEIGHT_OF_THE_PAPER}
    counts = points.get("prototypes K", {})
    found = [
        within(SENTENCES[0], list(grid_values.values()), len(FIGURE_7A) * len(FIGURE_7A_REGION), control, name),
        within(SENTENCES[1], list(row.values()), len(FIGURE_7A_REGION), control, name),
        within(SENTENCES[2], list(counts.values()), len(COUNTS), control, name),
    ]
    if {"1", "10", "50"} <= set(counts):
        gains = above(counts["10"], counts["1"], counts["50"])
        told = ", ".join(f"K {k}: {np.mean(v):.1f}" for k, v in counts.items())
        found.append(Claim(SENTENCES[3], f"{told}{below[:-1]}; ten are best{in_seeds(gains)}.", verdict(gains), name))
        gains = above(counts["1"], on["continued"], on["halo"])
        told = f"{change(gains)} above the better control on {dataset.name}{in_seeds(gains)}."
        found.append(Claim(SENTENCES[4], told, verdict(gains), name))
    return with_untold(found, SENTENCES, (name,))


def within(sentence: str, values: list[list[float]], expected: int, control: float, name: str) -> Claim:
    """Whether all settings lie within ``STABLE``, in each seed; what does no better than a control tells nothing.

    Args:
        values: of each setting, by seed.
        control: mIoU of the better one.
    """
    means = [float(np.mean(own)) for own in values]
    if len(means) < expected or not np.isfinite(means).all():
        return Claim(sentence, f"{len(means)} of {expected} settings are there.", None, name)
    spare = [float(STABLE + 1e-9 - span) for span in np.ptp(values, axis=0)]
    told = (
        f"{min(means):.1f} to {max(means):.1f} on {name}, within {STABLE}{in_seeds(spare)}; the better control has "
        f"{control:.1f}."
    )
    agrees = verdict(spare)
    if agrees and min(means) <= control:
        return Claim(sentence, f"{told} What does no better than that may well be stable.", None, name)
    return Claim(sentence, told, agrees, name)


def draw(
    grid_values: dict[tuple[float, float], list[float]], points: dict[str, dict[str, list[float]]],
    on: dict[str, list[float]], dataset: DataSet, protocol: str, out: Path,
) -> None:  # fmt: skip
    """The grid as lines, and every other setting as one."""
    with picture(out, "fig7", 12, 6.4, nrows=2, ncols=3) as panels:
        flat = panels.ravel()
        styles = zip(FIGURE_7A, ("paper", "rc", "pr"), ("-", "--", "-."), strict=False)  # no control has these
        for pixel, style, dash in styles:
            known = [(r, grid_values[r, pixel]) for r in FIGURE_7A_REGION if (r, pixel) in grid_values]
            if known:
                y = [np.mean(values) for _, values in known]
                error = [np.std(values, ddof=1) if len(values) > 1 else 0 for _, values in known]
                flat[0].errorbar(
                    [r for r, _ in known], y, error, label=f"{pixel:.2g}", color=COLOURS[style],
                    marker=MARKS[style], linestyle=dash, capsize=3,
                )  # fmt: skip
        flat[0].set_xlabel("lambda 1")
        flat[0].legend(
            title="lambda 2", title_fontsize=8, fontsize=8, frameon=False, ncols=3, loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
        )  # fmt: skip
        for axes, (name, line) in zip(flat[1:], points.items(), strict=False):
            y = [np.mean(values) for values in line.values()]
            error = [np.std(values, ddof=1) if len(values) > 1 else 0 for values in line.values()]
            axes.errorbar(range(len(y)), y, error, color=COLOURS["fpr"], marker=MARKS["fpr"], capsize=3)
            axes.set_xticks(range(len(y)), [value.partition(" (")[0] for value in line], fontsize=8)
            axes.set_xlabel(name)
            axes.margins(x=0.15)
        for axes in flat[: 1 + len(points)]:
            for method, dash in (("continued", "--"), ("halo", ":")):
                axes.axhline(np.mean(on[method]), color=COLOURS[method], linestyle=dash, linewidth=1)
                axes.annotate(
                    {"continued": "trained on", "halo": "halo"}[method], (1, np.mean(on[method])),
                    xycoords=("axes fraction", "data"), fontsize=7, ha="right", va="bottom", color=COLOURS[method],
                )  # fmt: skip
            axes.set_ylabel(f"mIoU, {protocol}")
            plain(axes)
        for axes in flat[1 + len(points) :]:
            axes.set_visible(False)
