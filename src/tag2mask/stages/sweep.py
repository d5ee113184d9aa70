"""One run again and again with other settings: which of them matter, and how much.

Every cell is an ordinary run folder. Cells share the frozen features, and the class activation map as well where the
varied settings come after it. A cell that has its summary is not computed again.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tag2mask.checkpoints import load_prototypes
from tag2mask.config import RunConfig
from tag2mask.data import open_images
from tag2mask.data.masks import open_masks
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.manifests import write_result
from tag2mask.processes import start_worker
from tag2mask.progress import Reporter
from tag2mask.runs import locked, method_folder, read_json, seed_folder
from tag2mask.settings import SettingsParser, add_run_settings, first_difference, flattened, run_config
from tag2mask.stages import pipeline
from tag2mask.stages.evaluate import REFERENCES
from tag2mask.stages.network import data_of_seed, set_up_seed
from tag2mask.stages.table import cell
from tag2mask.stages.tags import SUSPECTS, TAGS
from tag2mask.stages.train import of_earlier_tests

BEFORE_THE_CAM = ("data.", "tags.", "host.", "views.", "classify.")
"""Settings that the class activation map depends on."""
OPTIONS = {"seeds": "--seeds", "methods": "--methods", "config": "--config of `tag2mask train`"}
"""What is not varied but said otherwise."""

NAME_LENGTH = 200
"""Of a cell's folder, which file systems bound."""
WEIGHTS = "weights.safetensors"

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
        What sweep.json holds: for each cell its name, figures and the purity of its negatives, or why it failed.
    """
    base = pipeline.read_settings(run)
    base = replace(base, methods=methods or base.methods, seeds=seeds or base.seeds, threads=1)
    split = "" if split == base.data.split else split
    cells = combinations(base, vary)
    data = data_of_seed(base.data, base.seeds[0])
    if open_masks(data, open_images(data)) is None:
        raise InputError(
            f"{run} is on photos without masks, by which cells are compared; sweep a run whose data have "
            "some, such as the demo's."
        )
    changed = {key for key, _ in map(parsed, vary)}
    cam_is_shared = not any(key.startswith(BEFORE_THE_CAM) for key in changed)
    with locked(out):
        for name, config in cells:
            prepare(run, out / name, config, cam_is_shared)
        untrained = [seed for seed in base.seeds if not (method_folder(run, seed, "cam") / WEIGHTS).is_file()]
        if cam_is_shared and untrained:
            names = ", ".join(map(str, untrained))
            report.warn(f"{run} has no trained CAM of seed {names}: every cell trains its own.")
        todo = [
            (out / name, split)
            for name, config in cells
            if not (out / name / summary_name(split)).is_file() or of_earlier_tests(out / name, config)
        ]
        if todo:
            fill_caches(cells, out, split, report)
        with report.task(f"{len(cells)} cells") as step:
            done = len(cells) - len(todo)
            step(done, len(cells))
            with multiprocessing.get_context("spawn").Pool(jobs, start_worker) as pool:
                failed = {}
                for folder, error in pool.imap_unordered(compute, todo):
                    if error:
                        failed[folder.name] = error
                        report.warn(f"{folder}: {error}")
                    done += 1
                    step(done, len(cells))
        rows = [
            {"cell": name, "failed": failed[name]}
            if name in failed
            else {
                "cell": name,
                "summary": read_json(out / name / summary_name(split), "summary"),
                "purity": purity(out / name),
            }
            for name, _ in cells
        ]
        result = {"run": str(run), "vary": list(vary), "split": split or base.data.split, "cells": rows}
        write_result(out / f"sweep{f'.{split}' if split else ''}.json", result)
        return result


def parsed(text: str) -> tuple[str, list[Any]]:
    """``fpr.theta=.1,.2`` -> its key and values."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise InputError(f"--vary {text!r}: expected a setting and its values, such as fpr.theta=0.1,0.2.")
    if key in OPTIONS:
        raise InputError(f"--vary {text!r}: {key} is not varied; use {OPTIONS[key]}.")
    try:
        found = yaml.safe_load(values if values.startswith("[") else f"[{values}]")
    except yaml.YAMLError as error:
        raise InputError(f"--vary {text!r}: the values are not YAML: {' '.join(str(error).split())}") from error
    if not found:
        raise InputError(f"--vary {text!r}: expected at least one value.")
    return key, found


def combinations(base: RunConfig, vary: Sequence[str]) -> list[Cell]:
    """Name and settings of every cell; a wrong key or value is an error here, before anything runs."""
    keys, values = zip(*map(parsed, vary), strict=True)
    if len(set(keys)) < len(keys):
        raise InputError("--vary: each setting once; give all its values together, such as fpr.theta=0.1,0.2.")
    parser = SettingsParser()
    add_run_settings(parser)
    defaults = dict(flattened(asdict(base)))
    parser.set_defaults(defaults)
    last = [key.split(".")[-1] for key in keys]
    short = {key: key if last.count(word) > 1 else word for key, word in zip(keys, last, strict=True)}
    cells = []
    for chosen in itertools.product(*values):
        pairs = [(key, as_meant(value, defaults.get(key))) for key, value in zip(keys, chosen, strict=True)]
        options = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs]
        told = [(key, value) for (key, value), several in zip(pairs, values, strict=True) if len(several) > 1] or pairs
        name = ",".join(f"{short[key]}={value}" for key, value in told)
        cells.append((name.replace("/", "_")[:NAME_LENGTH], run_config(parser.parse_args(options))))
    names = [name for name, _ in cells]
    if len(set(names)) < len(names):
        raise InputError(f"--vary: two cells would be called {max(names, key=names.count)!r}; sweep them apart.")
    return cells


def as_meant(value: Any, default: Any) -> Any:
    """YAML takes the word off for false; a setting that is a word means the word."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) and isinstance(default, str) else value


def prepare(run: Path, folder: Path, config: RunConfig, cam_is_shared: bool) -> None:
    """The folder of a cell: the run's frozen features, and its class activation map where nothing before it varies."""
    folder.mkdir(parents=True, exist_ok=True)
    (run / "cache").mkdir(exist_ok=True)
    link = folder / "cache"
    if link.is_symlink() and not link.exists():
        link.unlink()  # the run was moved
    if not link.exists():
        link.symlink_to((run / "cache").resolve())
    if any(folder.glob("seed*")):
        changed = first_difference(asdict(pipeline.read_settings(folder)), asdict(config))
        if changed:
            raise InputError(f"{folder} holds a cell with another {changed}; choose another --out, or delete it.")
        return
    pipeline.write_settings(config, folder, resume=False)
    if cam_is_shared:
        for seed in config.seeds:
            source = method_folder(run, seed, "cam")
            if (source / WEIGHTS).is_file():
                without_maps = shutil.ignore_patterns("maps", "masks", "gallery")
                partial = folder / f"cam{seed}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(source, partial, ignore=without_maps)
                seed_folder(folder, seed).mkdir(exist_ok=True)
                partial.rename(method_folder(folder, seed, "cam"))
                for name in (TAGS, SUSPECTS):
                    if (seed_folder(run, seed) / name).is_file():
                        shutil.copy(seed_folder(run, seed) / name, seed_folder(folder, seed))


def fill_caches(cells: Sequence[Cell], out: Path, split: str, report: Reporter) -> None:
    """Compute frozen features that are missing: several cells share them and must not write them at once."""
    seen: set[object] = set()
    for name, config in cells:
        for seed in config.seeds:
            key = (config.data, config.host, config.views, config.cache_gigabytes, seed)
            if key not in seen:
                seen.add(key)
                for part in {"", split}:
                    set_up_seed(config, out / name, seed, set_up_torch(1, config.device), report, part)


def compute(task: tuple[Path, str]) -> tuple[Path, str]:
    """Train and score one cell, in a process of its own; returns its folder and what went wrong, or nothing.

    A weight at which training breaks down is a result, not a reason to lose the other cells.
    """
    folder, split = task
    quiet = Reporter(quiet=True)
    try:
        pipeline.train(pipeline.read_settings(folder), folder, quiet, resume=True)
        pipeline.evaluate_run(folder, (), split, quiet)
    except InputError as error:
        return folder, str(error)
    return folder, ""


def summary_name(split: str) -> str:
    """Name of the file in which a split's figures lie."""
    return f"summary.{split}.json" if split else "summary.json"


def purity(folder: Path) -> float | None:
    """Share of the negative prototypes, in percent, whose photo lacks the class by the data set's own tags."""
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
    """The sweep as a table: figures of ``fpr``, or of the last method, and what it gains over each control."""
    done = [cell["summary"] for cell in result["cells"] if "summary" in cell]
    if not done:
        return "no cell could be computed"
    seeds = len(done[0]["seeds"])
    methods = list(done[0]["methods"])
    shown = "fpr" if "fpr" in methods else methods[-1]
    controls = [name for name in REFERENCES if name in methods and name != shown]
    head = ["setting", f"{shown}: matched*", "gtfree", "fixed", "oracle*"]
    head += [f"matched*, above {name}" for name in controls] + ["precision", "recall", "FDR", "leak", "pure negatives"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for entry in result["cells"]:
        if "failed" in entry:
            lines.append(f"| {entry['cell']} | failed: {entry['failed']} |" + " |" * (len(head) - 2))
            continue
        figures = entry["summary"]["methods"]
        own = figures[shown]
        row = [entry["cell"]]
        row += [cell(own[protocol]["miou"], seeds) for protocol in ("matched", "gtfree", "fixed", "oracle")]
        matched = {name: figures[name]["matched"]["miou"]["mean"] for name in (shown, *controls)}
        row += [f"{matched[shown] - matched[name]:+.1f}" for name in controls]
        row += [cell(own["matched"][name], seeds) for name in ("precision", "recall", "fdr", "leak")]
        row.append("-" if entry["purity"] is None else f"{entry['purity']:.1f}")
        lines.append("| " + " | ".join(row) + " |")
    names = ", ".join(map(str, done[0]["seeds"]))
    lines.append(f"\nmIoU; {done[0]['images']} images, split {result['split']}, seeds {names}. * reads masks.")
    return "\n".join(lines)
