"""The runs that tables and figures share: ordinary run folders, trained and scored in processes of their own.

A step that a folder has is not done again, so a killed command goes on where it was, and two items that need the same
run compute it once.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tag2mask.atomic import told
from tag2mask.config import RunConfig
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.processes import start_worker
from tag2mask.progress import Reporter
from tag2mask.runs import method_folder, read_json, write_json
from tag2mask.stages import pipeline
from tag2mask.stages.attribution import attributed, parts_of
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.suppressed import measure_suppressed
from tag2mask.stages.train import of_earlier_tests

WorkStep = Literal["evaluate", "crf", "advcam", "suppressed", "segment", "pictures"]
STEPS: tuple[WorkStep, ...] = ("evaluate", "crf", "advcam", "suppressed", "segment", "pictures")
"""What is done with a trained run, in this order."""
FIGURES = ("summary*.json", "stages*.json", "suppressed.json", "gallery.json")
"""Files of a run that stand on its networks."""
TRAINING_COST = {"seam": 4, "mctformer": 4}
"""Of a method, where it is not 1."""
STEP_COST: dict[WorkStep, int] = {"advcam": 35}
REFINED_COST: dict[WorkStep, int] = {"crf": 7, "segment": 30}
"""Of a step, where it is not 1, and of one for each refined method."""


@dataclass(frozen=True)
class Cell:
    """A run of one seed, and what an item wants of it.

    Attributes:
        name: folder below the output's ``runs``, such as ``scenes/seam/seed0``.
        refined: methods whose masks are refined (``crf``, ``segment``); never more than the table shows.
        val: split that is not trained on, for ``segment``.
        start: name of the cell whose class activation map this one trains on from; it is computed before.
    """

    name: str
    config: RunConfig
    steps: frozenset[WorkStep]
    refined: tuple[str, ...] = ()
    val: str = ""
    start: str = ""


def merged(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each folder, with the methods and steps of all that ask for it.

    Raises:
        ValueError: two of them want different settings or starts under one name.
    """
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.name not in found:
            found[cell.name] = cell
            continue
        known = found[cell.name]
        methods = tuple(dict.fromkeys((*known.config.methods, *cell.config.methods)))
        if replace(known.config, methods=methods) != replace(cell.config, methods=methods):
            raise ValueError(f"two items want different runs called {cell.name}")
        if known.start != cell.start:
            raise ValueError(f"two items want {cell.name} to train on from different runs")
        refined = tuple(dict.fromkeys((*known.refined, *cell.refined)))
        found[cell.name] = Cell(
            cell.name, replace(known.config, methods=methods), known.steps | cell.steps, refined,
            known.val or cell.val, cell.start,
        )  # fmt: skip
    return list(found.values())


def compute(cells: Sequence[Cell], out: Path, jobs: int, report: Reporter) -> dict[str, str]:
    """Train and score every cell that is not finished, ``jobs`` at a time.

    Returns:
        What went wrong, by the cell's name; the others are finished.

    Raises:
        InputError: a folder has a run with other settings, whose figures would be told as if they were of these.
    """
    for cell in cells:
        check_settings(cell, out / "runs" / cell.name)
    for cell in cells:
        remove_outdated(cell.config, out / "runs" / cell.name)
    todo = [cell for cell in cells if not finished(cell, out / "runs" / cell.name)]
    for cell in todo:
        link_cache(cell, out)
    freeze_features(todo, out, report)
    failed: dict[str, str] = {}
    costs = {cell.name: cost(cell) for cell in todo}
    done, total = 0, sum(costs.values())
    with report.task("runs, by what they cost") as step:
        step(done, total, f"{len(cells) - len(todo)} of {len(cells)} runs")
        for number, (cell, why) in enumerate(outcomes(todo, out, jobs), len(cells) - len(todo) + 1):
            if why:
                failed[cell.name] = why
                report.warn(f"{cell.name}: {why}")
            done += costs[cell.name]
            step(done, total, f"{number} of {len(cells)} runs")
    return failed


def check_settings(cell: Cell, folder: Path) -> None:
    """Raise ``InputError`` when a folder has a run with other settings than the cell's; methods may be added to it."""
    if not (folder / "settings.yaml").is_file() or not any(folder.glob("seed*")):
        return
    given = replace(cell.config, methods=())
    stored = replace(pipeline.read_settings(folder), methods=())
    plain = [yaml.safe_load(pipeline.settings_text(config)) for config in (stored, given)]
    if changed := pipeline.first_difference(*plain):
        raise InputError(f"{folder} holds a run with another {changed}; choose another --out, or delete that folder.")


def finished(cell: Cell, folder: Path) -> bool:
    """Whether a cell's methods are trained and all of its steps done; of photos of one's own, which may have changed,
    training finds out.
    """
    trained = all(path.is_file() for path in weights_of(folder, cell.config, ("cam", *cell.config.methods)))
    trained = trained and not of_earlier_tests(folder, cell.config)
    return not cell.config.data.root and trained and all(has(folder, cell, step) for step in STEPS)


def weights_of(folder: Path, config: RunConfig, methods: Iterable[str]) -> list[Path]:
    """Files with the weights of some methods, for each seed."""
    return [method_folder(folder, seed, m) / "weights.safetensors" for seed in config.seeds for m in methods]


def cost(cell: Cell) -> int:
    """How long a cell takes, roughly, in units of a method's training on the CAM: what time is left is told by it."""
    config = cell.config
    trained = TRAINING_COST.get(config.host.kind, 1) * (len(config.methods) + (0 if cell.start else 5))
    refined = sum(REFINED_COST.get(step, 0) for step in cell.steps) * len(cell.refined)
    return trained + sum(STEP_COST.get(step, 1) for step in cell.steps) + refined + 5 * ("wood" in config.methods)


def outcomes(cells: Sequence[Cell], out: Path, jobs: int) -> Iterator[tuple[Cell, str]]:
    """``work`` on cells as they finish; one that trains on from another can begin once that one is finished.

    Of those that can, the one comes first that, with what waits for it, costs most.
    """
    waiting = {cell.name: [other for other in cells if other.start == cell.name] for cell in cells}
    ready = [cell for cell in cells if cell.start not in waiting]
    running: dict[Future[str], Cell] = {}
    with InThisProcess() if jobs == 1 or len(cells) < 2 else worker_pool(jobs) as pool:
        try:
            while ready or running:
                ready.sort(key=lambda cell: cost(cell) + sum(map(cost, waiting[cell.name])))
                while ready and len(running) < jobs:
                    cell = ready.pop()
                    running[pool.submit(work, cell, out)] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell, why = running.pop(future), future.result()
                    yield cell, why
                    trained = weights_of(out / "runs" / cell.name, cell.config, ("cam",))
                    if why and not all(path.is_file() for path in trained):
                        yield from cut_off(cell, waiting)
                    else:
                        ready += waiting[cell.name]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def cut_off(cell: Cell, waiting: dict[str, list[Cell]]) -> Iterator[tuple[Cell, str]]:
    """What is said of all that train on from a cell that has failed."""
    for other in waiting[cell.name]:
        yield other, f"{cell.name}, from which it trains on, could not be computed"
        yield from cut_off(other, waiting)


def worker_pool(jobs: int) -> Executor:
    """Processes that share the cores."""
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
    return ProcessPoolExecutor(jobs, context, initializer=start_worker, initargs=(jobs,))


class InThisProcess(Executor):
    """Does what it is given at once."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """A future that has its result; whatever ``work`` raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future


def link_cache(cell: Cell, out: Path) -> None:
    """The folder of a cell, with its cache of frozen features, which all cells share."""
    folder = out / "runs" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    shared = out / "cache"
    shared.mkdir(exist_ok=True)
    link = folder / "cache"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(shared, folder))  # so that the output may be moved


def freeze_features(cells: Sequence[Cell], out: Path, report: Reporter) -> None:
    """Compute the frozen features of all cells, once for those of the same photos and host."""
    needed = {(c.config.data, c.config.host, c.config.views, c.config.seeds): c for c in cells}
    for cell in needed.values():
        device = set_up_torch(cell.config.threads, cell.config.device)
        set_up_seed(cell.config, out / "runs" / cell.name, cell.config.seeds[0], device, report)


class WarningsToFile(Reporter):
    """Quiet; what it warns of goes into the run's folder, as dozens of runs would say the same."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self.path = path

    def warn(self, text: str) -> None:
        """Add a line to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def work(cell: Cell, out: Path) -> str:
    """All steps of one cell; returns what went wrong, if anything."""
    folder = out / "runs" / cell.name
    quiet = WarningsToFile(folder / "warnings.txt")
    try:
        if cell.start:
            take_over_cam(out / "runs" / cell.start, folder, cell.config)
        pipeline.train(cell.config, folder, quiet, resume=True)
        remove_outdated(cell.config, folder)
        for step in STEPS:
            if not has(folder, cell, step):
                do(step, cell, folder, quiet)
    except InputError as error:
        remove_outdated(cell.config, folder)
        return str(error)
    except Exception as error:  # hours of other runs go on
        remove_outdated(cell.config, folder)
        quiet.warn(traceback.format_exc())
        why = told(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return f"{why} ({folder / 'warnings.txt'})"
    return ""


def take_over_cam(source: Path, folder: Path, config: RunConfig) -> None:
    """Copy another run's class activation map, from which this one trains on."""
    for seed in config.seeds:
        home = method_folder(folder, seed, "cam")
        if not home.is_dir():
            pipeline.write_settings(config, folder, resume=True)
            partial = folder / f"cam{seed}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(
                method_folder(source, seed, "cam"), partial, ignore=shutil.ignore_patterns("maps", "masks", "gallery")
            )
            home.parent.mkdir(exist_ok=True)
            partial.rename(home)


def do(step: WorkStep, cell: Cell, folder: Path, report: Reporter) -> None:
    """One step on a trained run."""
    if step == "evaluate":
        pipeline.evaluate_run(folder, (), "", report)
    elif step == "crf":
        pipeline.refine_run(folder, "crf", cell.refined, "", report)
        pipeline.evaluate_stages(folder, (), "", report)
    elif step == "advcam":
        pipeline.evaluate_run(folder, (), "", report, replace(cell.config.maps, method="advcam"))
        refined = tuple(attributed(method, "advcam") for method in cell.refined)
        if refined:
            pipeline.refine_run(folder, "crf", refined, "", report)
            write_json(folder / "stages.advcam.json", pipeline.evaluate_stages(folder, refined, "", report))
    elif step == "suppressed":
        measure_suppressed(folder, report)
    elif step == "pictures":
        pipeline.prepare_report(folder, report)
    else:
        pipeline.refine_run(folder, "irn", cell.refined, "", report)
        if cell.val:  # IRN's masks on the training photos; a segmenter on the others alone, where there are such
            pipeline.evaluate_stages(folder, (), "", report)
        pipeline.segment_run(folder, "irn", cell.refined, report)
        pipeline.evaluate_stages(folder, (), cell.val, report, segmenters_alone=bool(cell.val))


def has(folder: Path, cell: Cell, step: WorkStep) -> bool:
    """Whether a step is not wanted, or done for every method that is."""
    if step not in cell.steps:
        return True
    wanted = {"cam", *cell.config.methods}
    if step == "suppressed":
        seeds = figures(folder / "suppressed.json").get("seeds", {})  # of before, some figures were not in it
        return bool(seeds) and all("suppressed: of the objects" in each["prototypes"] for each in seeds.values())
    if step == "pictures":
        return (folder / "gallery.json").is_file()
    if step in ("crf", "segment"):
        other = f"stages.{cell.val}.json" if cell.val else "stages.json"
        needed = [("stages.json", "crf")] if step == "crf" else [("stages.json", "irn"), (other, "segmenter:irn")]
        return all(
            stage in figures(folder / file).get("stages", {}).get(method, {})
            for file, stage in needed
            for method in cell.refined
        )
    if step == "advcam":
        table = figures(folder / "stages.advcam.json").get("stages", {})
        if not all("crf" in table.get(attributed(method, "advcam"), {}) for method in cell.refined):
            return False
    name = {"evaluate": "summary", "advcam": "summary.advcam"}[step]
    return wanted <= set(figures(folder / f"{name}.json").get("methods", {}))


def remove_outdated(config: RunConfig, folder: Path) -> None:
    """Remove figures of networks that have been trained again since, or are gone: they are made anew or are missing."""
    for path in (p for pattern in FIGURES for p in folder.glob(pattern)):
        try:
            found = figures(path)
        except InputError:  # it is damaged
            found = {}
        named = found.get("methods", found.get("stages", ()))
        methods = {"cam", *(parts_of(name)[0] for name in named)}
        if not found or not up_to_date(path, weights_of(folder, config, methods)):
            path.with_name(path.name.replace("summary", "details", 1)).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def up_to_date(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file is there, and all that it was made from is, and is older."""
    return path.is_file() and all(s.is_file() and s.stat().st_mtime_ns <= path.stat().st_mtime_ns for s in sources)


def figures(path: Path) -> dict[str, Any]:
    """A file of figures; empty where there is none."""
    return read_json(path, "figures") if path.is_file() else {}
