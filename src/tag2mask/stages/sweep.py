"""One run again and again with other settings: which of them matter, and how much.

Every cell is an ordinary run folder. Cells share the frozen features, and the class activation map as well where the
varied settings come after it. A cell that has its summary is not computed again.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tag2mask.config import RunConfig
from tag2mask.engine import load_prototypes
from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder, read_json, seed_folder, write_json
from tag2mask.settings import config_from_dict
from tag2mask.stages import pipeline
from tag2mask.stages.network import data_of_seed

BEFORE_THE_CAM = ("data.", "tags.", "host.", "views.", "classify.")
"""Settings that the class activation map depends on."""
CONTROLS = ("continued", "halo", "sharpen")

Cell = tuple[str, RunConfig]


def sweep(
    run: Path, out: Path, vary: Sequence[str], methods: tuple[str, ...], seeds: tuple[int, ...], split: str, jobs: int,
    report: Reporter,
) -> dict[str, Any]:  # fmt: skip
    """Train and score a run's methods for every combination of the varied settings.

    Args:
        run: a trained run; its settings hold but for the varied ones.
        out: folder of the cells and of sweep.json.
        vary: ``key=[value, value]`` or ``key=value,value``, each with a dotted key of settings.yaml.
        methods, seeds: those of the run if empty.
        split: another split to score; the one trained on if empty.
        jobs: cells at a time, each on one thread.

    Returns:
        What sweep.json holds: for each cell its settings, figures and the purity of its negatives.
    """
    base = pipeline.read_settings(run)
    base = replace(base, methods=methods or base.methods, seeds=seeds or base.seeds, threads=1)
    cells = combinations(base, vary)
    changed = {key for key, _ in map(parsed, vary)}
    cam_is_shared = not any(key.startswith(BEFORE_THE_CAM) for key in changed)
    for name, config in cells:
        prepare(run, out / name, config, cam_is_shared)
    todo = [(out / name, split) for name, _ in cells if not (out / name / summary_name(split)).is_file()]
    with report.task(f"{len(cells)} cells") as step:
        done = len(cells) - len(todo)
        step(done, len(cells))
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            for _ in pool.imap_unordered(compute, todo):
                done += 1
                step(done, len(cells))
    rows = [
        {"cell": name, "summary": read_json(out / name / summary_name(split), "summary"), "purity": purity(out / name)}
        for name, _ in cells
    ]
    result = {"run": str(run), "vary": list(vary), "split": split or base.data.split, "cells": rows}
    write_json(out / f"sweep{f'.{split}' if split else ''}.json", result)
    return result


def parsed(text: str) -> tuple[str, list[Any]]:
    """``fpr.theta=.1,.2`` -> its key and values."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise InputError(f"--vary {text!r}: expected a setting and its values, such as fpr.theta=0.1,0.2.")
    found = yaml.safe_load(values if values.startswith("[") else f"[{values}]")
    return key, found


def combinations(base: RunConfig, vary: Sequence[str]) -> list[Cell]:
    """Name and settings of every cell; a wrong key or value is an error here, before anything runs."""
    keys, values = zip(*map(parsed, vary), strict=True)
    cells = []
    for chosen in itertools.product(*values):
        plain = json.loads(json.dumps(asdict(base)))
        for key, value in zip(keys, chosen, strict=True):
            table = plain
            *tables, last = key.split(".")
            for name in tables:
                table = table.setdefault(name, {})
            table[last] = value
        name = ",".join(f"{key.split('.')[-1]}={value}" for key, value in zip(keys, chosen, strict=True))
        cells.append((name.replace("/", "_"), config_from_dict(plain, "--vary")))
    return cells


def prepare(run: Path, folder: Path, config: RunConfig, cam_is_shared: bool) -> None:
    """The folder of a cell: the run's frozen features, and its class activation map where nothing before it varies."""
    folder.mkdir(parents=True, exist_ok=True)
    (run / "cache").mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        os.symlink((run / "cache").resolve(), folder / "cache")
    if any(folder.glob("seed*")):
        return
    pipeline.write_settings(config, folder, resume=False)
    if cam_is_shared:
        for seed in config.seeds:
            source = method_folder(run, seed, "cam")
            if (source / "weights.safetensors").is_file():
                without_maps = shutil.ignore_patterns("maps", "masks", "gallery")
                shutil.copytree(source, method_folder(folder, seed, "cam"), ignore=without_maps)
                tags = seed_folder(run, seed) / "tags.json"
                if tags.is_file():
                    shutil.copy(tags, seed_folder(folder, seed))


def compute(cell: tuple[Path, str]) -> None:
    """Train and score one cell, in a process of its own."""
    folder, split = cell
    quiet = Reporter(quiet=True)
    pipeline.train(pipeline.read_settings(folder), folder, quiet, resume=True)
    pipeline.evaluate_run(folder, (), split, quiet)


def summary_name(split: str) -> str:
    """Name of the file in which a split's figures lie."""
    return f"summary.{split}.json" if split else "summary.json"


def purity(folder: Path) -> float | None:
    """Share of the negative prototypes, in percent, whose photo lacks the class by the data set's own tags."""
    from tag2mask.data import open_images

    config = pipeline.read_settings(folder)
    shares = []
    for seed in config.seeds:
        path = method_folder(folder, seed, "fpr") / "prototypes.safetensors"
        if path.is_file():
            labels = open_images(data_of_seed(config.data, seed)).labels  # (N, C)
            prototypes = load_prototypes(path)
            c, place = prototypes.trimmed_valid.nonzero(as_tuple=True)
            sources = prototypes.trimmed_source[c, place].numpy()
            if len(c):
                shares.append(100 * (1 - labels[sources, c.numpy()].mean()))
    return round(float(np.mean(shares)), 2) if shares else None


def markdown(result: dict[str, Any]) -> str:
    """The sweep as a table: mIoU of the last method under each protocol, and what it gains over the best control."""
    first = result["cells"][0]["summary"]
    methods = list(first["methods"])
    shown = methods[-1]
    controls = [name for name in CONTROLS if name in methods and name != shown]
    head = ["setting", f"{shown}: matched*", "gtfree", "fixed", "oracle*"]
    head += [f"matched*, above {name}" for name in controls] + ["precision", "recall", "FDR", "leak", "pure negatives"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for cell in result["cells"]:
        figures = cell["summary"]["methods"]
        own = figures[shown]
        row = [cell["cell"]]
        row += [value(own[protocol]["miou"]) for protocol in ("matched", "gtfree", "fixed", "oracle")]
        matched = {name: figures[name]["matched"]["miou"]["mean"] for name in (shown, *controls)}
        row += [f"{matched[shown] - matched[name]:+.1f}" for name in controls]
        row += [value(own["matched"][name]) for name in ("precision", "recall", "fdr", "leak")]
        row.append("-" if cell["purity"] is None else f"{cell['purity']:.1f}")
        lines.append("| " + " | ".join(row) + " |")
    seeds = ", ".join(map(str, first["seeds"]))
    lines.append(f"\nmIoU; {first['images']} images, split {result['split']}, seeds {seeds}. * reads masks.")
    return "\n".join(lines)


def value(figure: dict[str, float | None]) -> str:
    """Mean and deviation over seeds."""
    return "-" if figure["mean"] is None else f"{figure['mean']:.1f} ±{figure['std']:.1f}"
