"""Table 1: every host without and with FPR. Precision, recall and mIoU of the seeds, and mIoU after the dense CRF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.report.published import TABLE_1
from tag2mask.reproduce.cells import Cell, WorkStep
from tag2mask.reproduce.draw import Dots, dots, picture
from tag2mask.reproduce.over_seeds import OverSeeds, above, change, in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.result import Claim, Result, Table, with_untold
from tag2mask.reproduce.scales import HOSTS, DataSet, Scale
from tag2mask.stages.attribution import attributed

METHODS = ("continued", "halo", "fpr")
SHOWN = {"continued": "", "halo": " + halo", "fpr": " + FPR"}
"""Rows of a host, whose masks are refined by the CRF: without, the control, and with."""
PRESERVED_SENTENCE = "The gain on the CAM, 4.8, is preserved with AdvCAM, 4.2."
COMPLEMENTARY = "FPR and AdvCAM complement each other: 59.7 with both, 54.3 and 55.5 with one of them."
PRESERVED = 0.8
"""Share of a gain that must be left; in the paper it is 4.2 / 4.8 = .875."""
ROWS = {"cam": "CAM", "seam": "SEAM", "advcam": "AdvCAM", "mctformer": "MCTformer"}
"""Hosts of the table, in the paper's order; AdvCAM is another way to localize with the CAM's networks."""


def cells(scale: Scale, out: Path) -> list[Cell]:
    """A run for each set, host and seed.

    AdvCAM has runs of its own, from the same CAM: it is slow, and other items add methods to the plain CAM's runs.
    """
    found = []
    for dataset in scale.sets:
        for seed in scale.seeds:
            for host in HOSTS:
                config = replace(dataset.settings(host, seed), methods=METHODS)
                steps: frozenset[WorkStep] = frozenset({"evaluate", "crf", "suppressed"})
                found.append(Cell(f"{dataset.name}/{host}/seed{seed}", config, steps, tuple(SHOWN)))
            found.append(advcam_cell(dataset, seed))
    return found


def advcam_cell(dataset: DataSet, seed: int) -> Cell:
    """AdvCAM over networks that train on from the plain CAM's run."""
    config = replace(dataset.settings("cam", seed), methods=METHODS)
    name, start = (f"{dataset.name}/{host}/seed{seed}" for host in ("advcam", "cam"))
    return Cell(name, config, frozenset({"advcam", "suppressed"}), tuple(SHOWN), start=start)


def rows_of(scale: Scale, dataset: DataSet, out: Path) -> dict[str, OverSeeds]:
    """The hosts that have figures for every seed."""
    found = {}
    for host in ROWS:
        runs = over_seeds(scale, f"{dataset.name}/{host}", out, METHODS, ".advcam" if host == "advcam" else "")
        if runs is not None:
            found[host] = runs
    return found


def after_crf(runs: OverSeeds, host: str, method: str) -> list[float]:
    """mIoU after the CRF for each seed; NaN where it is not there."""
    name, file = (attributed(method, "advcam"), "stages.advcam.json") if host == "advcam" else (method, "stages.json")
    stages = [each.get("stages", {}).get(name, {}).get("crf") for each in runs.files(file)]
    return [float(stage["miou"]["mean"]) if stage else float("nan") for stage in stages]


def tell(scale: Scale, out: Path, protocol: str, command: str) -> Result:
    """The table from the finished runs."""
    tables: list[Table] = []
    numbers: dict[str, Any] = {"protocol": protocol, "seeds": list(scale.seeds), "sets": {}}
    claims: list[Claim] = []
    pictures = []
    for dataset in scale.sets:
        rows = rows_of(scale, dataset, out)
        if not rows:
            continue
        tables += [seeds_table(dataset, rows, protocol), gains_table(dataset, rows)]
        numbers["sets"][dataset.name] = {host: numbers_of(host, row, protocol) for host, row in rows.items()}
        claims += [claim_of(dataset, host, row) for host, row in rows.items()]
        pictures.append(f"table1_{dataset.name}.png")
        with picture(out, f"table1_{dataset.name}", 8, 5) as axes:
            drawn = [shown for host, row in rows.items() for shown in dots_of(host, row, protocol)]
            dots(axes, drawn, f"mIoU, {protocol}; {dataset.name}, {len(scale.seeds)} seeds")
        if {"cam", "advcam"} <= set(rows):
            claims += [judge(dataset, rows["cam"], rows["advcam"]) for judge in (preserved, complementary)]
    notes = (
        "Without is the host trained on for as long as FPR, so that both have seen the photos equally often; paper "
        "is the paper's table on PASCAL VOC, another set at another scale: compare signs, not sizes. The gain counts "
        "above the better of two controls: trained on, and halo, the same push without prototypes."
    )
    return Result(
        "table1", "Table 1: hosts without and with FPR", command, tuple(tables),
        with_untold(claims, (*map(improves, ROWS), PRESERVED_SENTENCE, COMPLEMENTARY), scale.names), numbers,
        tuple(pictures), notes,
    )  # fmt: skip


def dots_of(host: str, row: OverSeeds, protocol: str) -> list[Dots]:
    """Trained on, halo and FPR of a host, beside the paper's without and with."""
    published = TABLE_1[host]
    return [
        Dots(f"{ROWS[host]}{name}", method, row.values(method, protocol, "miou"), paper)
        for method, name, paper in zip(
            SHOWN, (" trained on", *list(SHOWN.values())[1:]), (published.without.miou, None, published.with_fpr.miou),
            strict=True,
        )
    ]  # fmt: skip


def seeds_table(dataset: DataSet, rows: dict[str, OverSeeds], protocol: str) -> Table:
    """The paper's columns."""
    lines = []
    for host, row in rows.items():
        published = TABLE_1[host]
        papers = {"continued": published.without, "fpr": published.with_fpr}
        for method, addition in SHOWN.items():
            own = [spread(row.values(method, protocol, name)) for name in ("precision", "recall", "miou")]
            paper = " / ".join("–" if value is None else f"{value:.1f}" for value in papers.get(method, ()))
            lines.append((ROWS[host] + addition, *own, spread(after_crf(row, host, method)), paper or "–"))
    caption = next(iter(rows.values())).caption(dataset, protocol)
    caption += " +CRF: gtfree. Paper: precision / recall / mIoU / +CRF on PASCAL VOC train."
    return Table(caption, ("seeds", "precision", "recall", "mIoU", "+CRF", "paper"), tuple(lines))


def gains_table(dataset: DataSet, rows: dict[str, OverSeeds]) -> Table:
    """FPR above both controls at matched area, and the suppressed set held against masks."""
    lines = []
    for host, row in rows.items():
        low, high = row.interval("matched")
        own = [spread(row.values(method, "matched", "miou")) for method in ("cam", *METHODS)]
        gain = f"**{change(row.gain('matched'))}**"
        lines.append((ROWS[host], *own, gain, f"{low:+.1f} to {high:+.1f}", *told(row)))
    caption = next(iter(rows.values())).caption(dataset, "matched")
    caption += (
        " The interval spans the seeds' 95 % bootstrap intervals. Suppressed pixels are those of the first step; "
        "precision: share that is not of the class, recall: share of what is not."
    )
    columns = (
        "matched mIoU*", "host", "trained on", "halo", "FPR", "above max", "interval", "suppressed: precision",
        "suppressed: recall",
    )  # fmt: skip
    return Table(caption, columns, tuple(lines))


def told(row: OverSeeds) -> tuple[str, str]:
    """Precision and recall of the suppressed pixels, over seeds; dashes unless all have them."""
    files = row.files("suppressed.json")
    found = [next(iter(file["seeds"].values()))["prototypes"] for file in files] if all(files) else []
    return tuple(spread([seed[f"suppressed: {name}"] for seed in found]) for name in ("precision", "recall"))  # type: ignore[return-value]


def numbers_of(host: str, row: OverSeeds, protocol: str) -> dict[str, Any]:
    """What the JSON holds of a host: ours, the paper's, the difference of the gains."""
    published = TABLE_1[host]
    names = ("precision", "recall", "miou")
    ours = {m: {n: float(np.mean(row.values(m, protocol, n))) for n in names} for m in ("cam", *METHODS)}
    for m in SHOWN:
        ours[m]["crf"] = float(np.mean(after_crf(row, host, m)))
    gain = float(np.mean(row.gain("matched")))
    paper = published.with_fpr.miou - published.without.miou
    return {
        "ours": ours, "paper": {"without": published.without._asdict(), "with": published.with_fpr._asdict()},
        "gain above max(trained on, halo), matched": gain, "gain in the paper": round(paper, 1),
        "difference of the gains": round(gain - paper, 2), "interval": row.interval("matched"),
    }  # fmt: skip


def preserved(dataset: DataSet, cam: OverSeeds, advcam: OverSeeds) -> Claim:
    """Is what FPR gains on the plain CAM still there with AdvCAM?"""
    plain, climbed = cam.gain("matched"), advcam.gain("matched")  # of the same seeds, from the same CAMs
    kept = list(np.array(climbed) - PRESERVED * np.array(plain))
    told = (
        f"{change(climbed)} with AdvCAM and {change(plain)} with the CAM on {dataset.name}; at least {PRESERVED:.0%} "
        f"of it{in_seeds(kept)}."
    )
    agrees = verdict(kept) if min(plain) > 0 else None
    return Claim(PRESERVED_SENTENCE, told, agrees, dataset.name)


def complementary(dataset: DataSet, cam: OverSeeds, advcam: OverSeeds) -> Claim:
    """Is AdvCAM with FPR better than either alone?"""
    both, fpr, climbed, halo = (
        runs.values(method, "matched", "miou")
        for runs, method in ((advcam, "fpr"), (cam, "fpr"), (advcam, "continued"), (advcam, "halo"))
    )
    gains = above(both, fpr, climbed, halo)
    told = (
        f"{np.mean(both):.1f} with both, {np.mean(fpr):.1f} with FPR alone, {np.mean(climbed):.1f} with AdvCAM alone, "
        f"{np.mean(halo):.1f} with AdvCAM and halo, on {dataset.name}; both are best{in_seeds(gains)}."
    )
    return Claim(COMPLEMENTARY, told, verdict(gains), dataset.name)


def improves(host: str) -> str:
    """The paper's sentence about a host."""
    published = TABLE_1[host]
    return f"FPR improves {ROWS[host]} by {published.with_fpr.miou - published.without.miou:.1f} mIoU."


def claim_of(dataset: DataSet, host: str, row: OverSeeds) -> Claim:
    """Does FPR gain on this host?"""
    low, gains = row.interval("matched")[0], row.gain("matched")
    gain, paper = float(np.mean(gains)), improves(host)
    ours = (
        f"{gain:+.1f} on {dataset.name} above max(trained on, halo), matched area{in_seeds(gains)}; lowest end of the "
        f"intervals {low:+.1f}."
    )
    if host == "cam" and "paper" in row.methods:
        ours += f" The paper's form: {change(row.gain('matched', 'paper'))}."
    agrees = verdict(gains) if low > 0 or gain <= 0 else None
    return Claim(paper, ours, agrees, dataset.name)
