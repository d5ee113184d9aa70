"""Figures of one kind of run over its seeds, read from what `tag2mask evaluate` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tag2mask.reproduce.cells import figures
from tag2mask.reproduce.scales import DataSet, Scale

CONTROLS = ("continued", "halo")


@dataclass(frozen=True)
class OverSeeds:
    """A run folder for each seed.

    Attributes:
        folders: of the runs.
        by_seed: summary.json of each; details: details.json.
    """

    folders: tuple[Path, ...]
    by_seed: tuple[dict[str, Any], ...]
    details: tuple[dict[str, Any], ...]

    def values(self, method: str, protocol: str, name: str) -> list[float]:
        """A figure in percent for each seed; NaN where it is not known."""
        found = [summary["methods"][method][protocol][name]["mean"] for summary in self.by_seed]
        return [float("nan") if value is None else float(value) for value in found]

    def tags(self, method: str, name: str) -> list[float]:
        """An image-level figure for each seed: bce, absent_probability, mean_average_precision."""
        return [float(summary["tags"][method][name]["mean"]) for summary in self.by_seed]

    def by_class(self, method: str, protocol: str, name: str) -> np.ndarray:
        """An array of details.json for each seed, (seeds, ...) float, NaN for what is not known."""
        return np.array([d["by_seed"][str(s["seeds"][0])][method][protocol][name] for s, d in self.pairs()], float)

    def pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Summary and details of each seed."""
        return list(zip(self.by_seed, self.details, strict=True))

    @property
    def methods(self) -> set[str]:
        """Those that every seed has figures of."""
        return set.intersection(*(set(summary["methods"]) for summary in self.by_seed))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.details[0]["classes"])

    def gain(self, protocol: str, method: str = "fpr") -> list[float]:
        """mIoU of a method above the better of the two controls, for each seed."""
        return above(self.values(method, protocol, "miou"), *(self.values(c, protocol, "miou") for c in CONTROLS))

    def interval(self, protocol: str) -> tuple[float, float]:
        """Lowest and highest end of the seeds' 95 % bootstrap intervals of the gain of ``fpr``."""
        ends = []
        for summary, details in self.pairs():
            best = max(CONTROLS, key=lambda c: summary["methods"][c][protocol]["miou"]["mean"])
            (by_control,) = details["differences"].values()
            ends.append((by_control[best][protocol]["low"], by_control[best][protocol]["high"]))
        return min(low for low, _ in ends), max(high for _, high in ends)

    def files(self, name: str) -> list[dict[str, Any]]:
        """A file of figures of each seed; empty where a run has none."""
        return [figures(folder / name) for folder in self.folders]

    def caption(self, dataset: DataSet, protocol: str) -> str:
        """Set, split, images, protocol and seeds, as they stand under every table."""
        summary = self.by_seed[0]
        marked = f"{protocol}*" if protocol in ("matched", "oracle") else protocol
        reads = "; * reads masks" if marked.endswith("*") else ""
        seeds = ", ".join(str(each["seeds"][0]) for each in self.by_seed)
        return (
            f"{dataset.name}, split {summary['split']}, {summary['images']} images, protocol {marked}, "
            f"seeds {seeds}{reads}."
        )


def over_seeds(
    scale: Scale, name: str, out: Path, methods: Sequence[str], suffix: str = ""
) -> OverSeeds | None:
    """Runs called ``name/seedN``; None where one of them has no figures of one of the methods.

    Args:
        suffix: of the summary's name, such as ``.val`` or ``.advcam``.
    """
    folders = tuple(out / "runs" / name / f"seed{seed}" for seed in scale.seeds)
    summaries = tuple(figures(folder / f"summary{suffix}.json") for folder in folders)
    details = tuple(figures(folder / f"details{suffix}.json") for folder in folders)
    there = all(set(methods) <= set(summary.get("methods", ())) for summary in summaries)
    return OverSeeds(folders, summaries, details) if there and all(summaries) and all(details) else None


def above(values: Sequence[float], *controls: Sequence[float]) -> list[float]:
    """Each seed's figure above the best control's of the same seed."""
    return list(np.array(values) - np.max(controls, axis=0))


def verdict(gains: Sequence[float]) -> bool | None:
    """Whether there is a gain: yes if every seed has one, no if they have none on average; else it cannot be told.

    One seed alone never says yes.
    """
    if not len(gains) or not np.isfinite(gains).all():
        return None
    if min(gains) > 0 and len(gains) > 1:
        return True
    return None if np.mean(gains) > 0 else False


def in_seeds(gains: Sequence[float]) -> str:
    """How many seeds gain: ``, in 2 of 3 seeds``."""
    return f", in {sum(gain > 0 for gain in gains)} of {len(gains)} seed{'s'[: len(gains) > 1]}"


def change(values: Sequence[float] | NDArray[np.float64]) -> str:
    """``+4.8``, the mean over seeds; a dash where a seed's is not known."""
    return f"{np.mean(values):+.1f}" if np.isfinite(values).all() else "–"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``49.5 ±0.3`` over seeds (sample deviation); without deviation for one; a dash where a seed's is not known."""
    if not len(values) or not np.isfinite(values).all():
        return "–"
    deviation = f" ±{np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"
