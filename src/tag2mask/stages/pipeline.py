"""The whole of it, from tags to figures. Read this first.

photos + tags -> classifier (CAM) -> every method from the same weights -> localization maps -> figures
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tag2mask import ranks
from tag2mask.config import DataConfig, MapsConfig, RunConfig
from tag2mask.data import open_images
from tag2mask.data.masks import Masks, open_masks
from tag2mask.engine import set_up_torch
from tag2mask.errors import InputError
from tag2mask.manifests import write_result
from tag2mask.maps.imported import ImportSummary, import_maps
from tag2mask.progress import Reporter
from tag2mask.runs import holding_run, locked, method_folder, versions, write_text
from tag2mask.score import MaskCounts
from tag2mask.settings import config_from_dict, first_difference, flattened, read_yaml, says
from tag2mask.stages.attribution import IMPORTED, WITHOUT_GRADIENT, all_attributed, attributed, map_settings, parts_of
from tag2mask.stages.evaluate import MethodScores, Truth, summarise
from tag2mask.stages.evidence import collect_evidence
from tag2mask.stages.export import Format, export_masks, export_network, without_tags
from tag2mask.stages.localize import store_maps
from tag2mask.stages.mask_figures import score_seed, summarise_stages
from tag2mask.stages.network import SeedSetup, data_of_seed, set_up_seed
from tag2mask.stages.origin import describe_import, facts_of, remove, renew
from tag2mask.stages.refine import (
    Refinement,
    Refiner,
    check_refiner,
    map_inputs,
    maps_of,
    refine,
    seed_masks,
)
from tag2mask.stages.scored import score_maps
from tag2mask.stages.segment import find_segmenter, predict_split, segmenter_sources, train_segmenter
from tag2mask.stages.train import check_before_training, load_method, prepare_tags, train_classifier, train_method

GALLERY_IMAGES = 12
"""Images whose maps are kept for the report."""


def train(config: RunConfig, run: Path, report: Reporter, resume: bool = False, later: bool = False) -> None:
    """Train the classifier and every method, for every seed.

    ``later``: with ``resume``, also take over the settings of what comes after the maps; else those of the run stay.
    """
    check_before_training(config)
    device = set_up_torch(config.threads, config.device)
    with locked(run):
        ranks.once(lambda: write_settings(config, run, resume, later))
        for seed in config.seeds:
            setup = set_up_seed(config, run, seed, device, report)
            tags = prepare_tags(config, setup, run, report, resume)
            train_classifier(config, setup, tags, run, report, resume)
            for method in config.methods:
                train_method(config, setup, tags, method, run, report, resume)


def localize_run(
    run: Path, methods: tuple[str, ...], split: str, report: Reporter, maps: MapsConfig | None = None
) -> list[tuple[Path, Path, float]]:
    """Write the maps and masks of every image; images that have maps are left alone.

    ``maps``: in place of the run's; what is said there of AdvCAM becomes the run's.

    Returns:
        For each seed and method the folder of maps, that of masks, and the threshold of the masks.
    """
    config, methods = with_maps(run, methods, maps, report)
    device = set_up_torch(config.threads, config.device)
    folders = []
    with locked(run):
        for seed in config.seeds:
            setup = set_up_seed(config, run, seed, device, report, split)
            for method in methods:
                folder = maps_of(config, setup, run, method, report)
                masks = seed_masks(config, setup, run, method, report)
                folders.append((folder, masks.folder, masks.threshold))
    return folders


def import_run(config: RunConfig, run: Path, maps: Path, report: Reporter) -> ImportSummary:
    """Another program's maps become the method ``imported`` of a run, for its first seed; the run may be new."""
    with locked(run):
        if (run / "settings.yaml").is_file():
            stored = read_settings(run)
            if config.data not in (DataConfig(), stored.data):
                raise InputError(f"{run} is a run on other data; give its own --data settings, or another --out.")
            config = stored
        else:
            write_settings(config, run, resume=False)
        data = data_of_seed(config.data, config.seeds[0])
        images = open_images(data)
        home = method_folder(run, config.seeds[0], IMPORTED)
        fresh = home.with_name(f"{IMPORTED}.partial")
        remove(fresh)
        with report.task("maps") as step:
            summary = import_maps(maps, images.ids, images.labels, images.size_hw, fresh / "maps" / data.split, step)
        describe_import(fresh / "maps" / data.split, images.ids)
        remove(home)  # masks and networks of earlier maps are void
        fresh.rename(home)
        return summary


def refine_run(
    run: Path, refiner: Refiner, methods: tuple[str, ...], split: str, report: Reporter, config: RunConfig | None = None
) -> list[Refinement]:
    """Write refined masks of every image, of ``fpr`` alone unless ``methods`` says so.

    ``config``: settings of the run with others for the refinement; they become the run's.
    """
    stored = read_settings(run)
    if config is None:
        config = stored
    device = set_up_torch(config.threads, config.device)
    chosen = chosen_methods(config, methods or default_methods(config, run))
    with locked(run):
        if config != stored:
            ranks.once(lambda: write_text(run / "settings.yaml", settings_text(config)))
        done = []
        for seed in config.seeds:
            training = set_up_seed(config, run, seed, device, report)
            other = split and split != config.data.split
            setup = set_up_seed(config, run, seed, device, report, split) if other else training
            done += [refine(config, setup, training, run, method, refiner, report) for method in chosen]
    return done


def segment_run(
    run: Path, source: Refiner, methods: tuple[str, ...], report: Reporter, config: RunConfig | None = None
) -> list[Path]:
    """Train a segmenter on the masks of ``source``, for every seed; returns their folders. ``config`` as above."""
    stored = read_settings(run)
    config = config or stored
    device = set_up_torch(config.threads, config.device)
    chosen = chosen_methods(config, methods or default_methods(config, run))
    with locked(run):
        if config != stored:
            ranks.once(lambda: write_text(run / "settings.yaml", settings_text(config)))
        folders = []
        try:
            for seed in config.seeds:
                setup = set_up_seed(config, run, seed, device, report)
                folders += [train_segmenter(config, setup, run, method, source, report) for method in chosen]
        except Exception:
            if ranks.rank() == 0:
                write_text(run / "settings.yaml", settings_text(stored))  # what could not be begun is not the run's
            raise
    return folders


@holding_run
def export_run(
    run: Path, kind: Format, out: Path, masks: str, method: str, seed: int | None, split: str, report: Reporter
) -> tuple[Path, str]:
    """Write a segmenter or masks in another tool's format; returns what was written, and a note about it."""
    config = read_settings(run)
    device = set_up_torch(config.threads, config.device)
    method = chosen_methods(config, (method,) if method else default_methods(config, run))[0]
    seed = config.seeds[0] if seed is None else seed
    source = check_refiner(masks.removeprefix("segmenter:"))
    config = replace(config, cache_gigabytes=0)  # the classifier sees nothing here
    if kind == "onnx" or masks.startswith("segmenter:"):
        segmenter = find_segmenter(run, seed, method, source)
        if kind == "voc-archive":
            config = replace(config, data=without_tags(config.data, segmenter))
    setup = set_up_seed(config, run, seed, device, report, split)
    if kind == "onnx":
        difference = export_network(setup, segmenter, out)
        return out, f" (largest difference from PyTorch in probability: {difference:.1g})"
    return export_masks(config, setup, run, method, masks, kind, out, report), ""


@holding_run
def evaluate_stages(
    run: Path, methods: tuple[str, ...], split: str, report: Reporter, segmenters_alone: bool = False
) -> dict[str, Any]:
    """Score the masks of every stage that the run has; writes stages.json, or stages.SPLIT.json, and returns it.

    Args:
        segmenters_alone: leave the stages out that are told tags, which on another split are first to be computed.
    """
    config = read_settings(run)
    device = set_up_torch(config.threads, config.device)
    first = config.seeds[0]
    homes = {method: method_folder(run, first, method) for method in ("cam", *config.methods, IMPORTED)}
    later = (m for m, home in homes.items() if (home / "crf").is_dir() or (home / "segmenter").is_dir())
    chosen = methods or tuple(later)
    if not chosen:
        raise InputError(f"{run} has no refined masks; run `tag2mask refine {run}` first.")
    results: dict[int, dict[str, dict[str, MaskCounts]]] = {}
    other = split and split != config.data.split
    for seed in config.seeds:
        training = set_up_seed(config, run, seed, device, report)
        setup = set_up_seed(config, run, seed, device, report, split) if other else training
        truth = Truth(require_masks(setup), setup.images)
        names = chosen_methods(config, chosen)
        results[seed] = score_seed(config, setup, training, truth, run, names, report, segmenters_alone)
    summary = ranks.once(lambda: summarise_stages(results, split or config.data.split, config.refine))
    if not methods:
        ranks.once(lambda: write_result(run / (f"stages.{split}.json" if other else "stages.json"), summary))
    return summary


def default_methods(config: RunConfig, run: Path) -> tuple[str, ...]:
    """What is refined unless told otherwise: the default method, or the last of a run without it, or imported maps."""
    method = "fpr" if "fpr" in config.methods else ("cam", *config.methods)[-1]
    first = config.seeds[0]
    trained = (method_folder(run, first, method) / "weights.safetensors").is_file()
    if not trained and method_folder(run, first, IMPORTED).is_dir():
        return (IMPORTED,)
    return (attributed(method, config.maps.method),)


@holding_run
def evaluate_run(
    run: Path, methods: tuple[str, ...], split: str, report: Reporter, maps: MapsConfig | None = None
) -> dict[str, Any]:
    """Score every method of a run against the masks; writes summary.json and details.json, returns the summary.

    Figures of another split go into ``summary.SPLIT.json``, those of maps by another attribution than the run's into
    ``summary.advcam.json``: such maps are stored, and scored as they are stored. Figures of some methods alone are
    returned but not written, as they would take the place of the others'.

    ``maps``: as in ``localize_run``.
    """
    usual = read_settings(run).maps.method
    config, chosen = with_maps(run, methods, maps, report)
    device = set_up_torch(config.threads, config.device)
    start = time.monotonic()
    results: dict[int, dict[str, MethodScores]] = {}
    names: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    for seed in config.seeds:
        setup = set_up_seed(config, run, seed, device, report, split)
        masks = require_masks(setup)
        truth = Truth(masks, setup.images)
        names, contexts = setup.images.classes.names, masks.contexts.names if masks.contexts else ()
        results[seed] = {}
        for name in chosen:
            results[seed][parts_of(name)[0]] = score_maps(config, setup, run, name, truth, report)
    other = split and split != config.data.split
    seconds = time.monotonic() - start

    def figures() -> dict[str, Any]:
        summary, details = summarise(results, seconds, split or config.data.split, names, contexts)
        if config.maps.method != "cam":
            summary["attribution"] = config.maps.method
        if not methods:
            suffix = (f".{config.maps.method}" if config.maps.method != usual else "") + (f".{split}" if other else "")
            write_result(run / f"summary{suffix}.json", summary)
            write_result(run / f"details{suffix}.json", details)
        return summary

    return ranks.once(figures)


@holding_run
def prepare_report(run: Path, report: Reporter) -> None:
    """Keep what the report shows: maps of a few images of the first seed, and the evidence of the prototypes."""
    config = read_settings(run)
    device = set_up_torch(config.threads, config.device)
    setup = set_up_seed(config, run, config.seeds[0], device, report)
    chosen = gallery(setup.images.labels)
    for method in chosen_methods(config, ()):
        if not (method_folder(run, setup.seed, method) / "weights.safetensors").is_file():
            report.warn(f"{method} is not trained yet; the report goes without it.")
            continue
        prototypes, folder = load_method(setup, method, run), method_folder(run, setup.seed, method) / "gallery"
        maps = replace(config.maps, method="cam") if method in WITHOUT_GRADIENT else config.maps
        renew(facts_of(folder), map_settings(maps), map_inputs(setup, run, method) or {}, [folder], report)
        with report.task(f"pictures of {method}") as step:
            store_maps(setup, maps, folder, step, chosen, prototypes)
        for source in ranks.once(partial(segmenter_sources, run, setup.seed, method)):
            with report.task(f"masks by the segmenter of {method}") as step:
                predict_split(setup, run, method, source, step, report, chosen)
    load_method(setup, "cam", run)
    ranks.once(lambda: collect_evidence(config, setup, run, report))
    chosen_for = {"seed": setup.seed, "images": [int(i) for i in chosen]}
    ranks.once(lambda: write_result(run / "gallery.json", chosen_for))


def gallery(labels: np.ndarray) -> list[int]:
    """Images for the report: the classes in turn, each time the next image that shows the class, fewest tags first."""
    order = np.argsort(labels.sum(1), kind="stable")
    chosen: list[int] = []
    queues = [[int(i) for i in order if labels[i, c]] for c in range(labels.shape[1])]
    while len(chosen) < GALLERY_IMAGES and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < GALLERY_IMAGES:
                chosen.append(queue.pop(0))
    return sorted(chosen)


def require_masks(setup: SeedSetup) -> Masks:
    """The masks of a set, or an error that says that figures need them."""
    masks = open_masks(setup.data, setup.images)
    if masks is None:
        raise InputError(
            f"{setup.data.root} has no masks, so there is nothing to score; maps need none: `tag2mask localize`."
        )
    return masks


def chosen_methods(config: RunConfig, methods: tuple[str, ...]) -> tuple[str, ...]:
    """The methods that the user named, or all of the run."""
    every = ("cam", *config.methods, IMPORTED)
    for method in methods:
        if method.partition("/")[0] not in every:
            raise InputError(f"method {method!r} is not in this run; it has {', '.join(every[:-1])}.")
        parts_of(method)  # `fpr/advcam`: its maps by another attribution
    return methods or every[:-1]


def with_maps(
    run: Path, methods: tuple[str, ...], maps: MapsConfig | None, report: Reporter
) -> tuple[RunConfig, tuple[str, ...]]:
    """A run's settings with others for the maps, and the names of the chosen methods' maps.

    What is said of AdvCAM becomes the run's, for the stages that come later; not before all is known to be right, as
    maps by other settings are void.
    """
    config = read_settings(run)
    wanted = replace(config, maps=maps or config.maps)
    names = all_attributed(chosen_methods(config, methods), wanted.maps.method, report)
    kept = replace(config, maps=replace(config.maps, advcam=wanted.maps.advcam))
    if kept != config:
        with locked(run):
            ranks.once(lambda: write_text(run / "settings.yaml", settings_text(kept)))
    return wanted, names


def write_settings(config: RunConfig, run: Path, resume: bool, later: bool = False) -> None:
    """Store settings and versions; going on with other settings is an error that names the first difference.

    Methods and seeds may be added to a run, and what comes after the maps may change. A folder in which no training
    has begun yet takes any settings.
    """
    path = run / "settings.yaml"
    if resume and path.is_file() and not later:
        old = read_settings(run)
        maps = replace(config.maps, method=old.maps.method, advcam=old.maps.advcam)
        config = replace(config, refine=old.refine, segment=old.segment, maps=maps)
    text = settings_text(config)
    if path.is_file() and any(run.glob("seed*")):
        # Through the settings' classes, so that a run that is older than a setting has its default.
        stored, given = yaml.safe_load(settings_text(read_settings(run))), yaml.safe_load(text)
        if resume:
            free = ("methods", "seeds", "refine", "segment")  # nothing that is trained already depends on these
            stored.update({name: given[name] for name in free})
            stored["maps"].update({name: given["maps"][name] for name in ("method", "advcam")})
        changed = first_difference(stored, given)
        if changed and not resume:
            was, now = (dict(flattened(values)).get(changed) for values in (stored, given))
            raise InputError(f"{run} holds a run with {changed} {was}, not {now}; choose another --out, or delete it.")
        if changed and not says(read_yaml(path), changed):
            raise InputError(f"{path} is older than {changed}, so the default holds; write another there.")
        if changed:
            todo = "go on with the settings of the run, or choose another --out"
            raise InputError(f"{changed} is not what {path} says; {todo}.")
    write_text(path, text)
    write_result(run / "versions.json", versions())


def settings_text(config: RunConfig) -> str:
    """What settings.yaml holds."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False, allow_unicode=True)


def read_settings(run: Path) -> RunConfig:
    """Settings of a run folder."""
    path = run / "settings.yaml"
    if not path.is_file():
        raise InputError(
            f"there is no settings.yaml in {run}; give the folder of a run (the --out of `tag2mask train`)."
        )
    content = read_yaml(path)
    if not path.read_bytes().endswith(b"\n"):
        raise InputError(f"{path} is cut off; restore it, as defaults would stand in for what is missing.")
    return config_from_dict(content, str(path))
