"""`tag2mask evaluate --suppressed`: what is pushed down and lifted first, held against masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tag2mask.checkpoints import load_prototypes, load_weights
from tag2mask.cli import main
from tag2mask.config import RunConfig
from tag2mask.data.masks import IGNORE, Masks, open_masks
from tag2mask.engine import set_up_torch
from tag2mask.progress import Reporter
from tag2mask.settings import config_from_dict
from tag2mask.stages.network import SeedSetup, set_up_seed
from tag2mask.stages.suppressed import markdown
from tests.paper import ours, reference
from tests.paper.reference import Bank, Place

WriteFolder = Callable[..., Path]
NAMES = ("suppressed: precision", "suppressed: recall", "lifted: precision", "lifted: recall")


@pytest.fixture(scope="module")
def scene_run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """Scenes with contexts, two seeds. The last prototypes of `fpr` are its first: it learns for one epoch."""
    run = tmp_path_factory.mktemp("suppressed") / "run"
    scenes = ["--data.cooccur.images", "24", "--data.cooccur.size", "64", "--classify.epochs", "6"]
    options = ["--rectify.epochs", "1", "--methods", "fpr", "--seeds", "0,1", "--tags.suspects", "both"]
    assert main(["train", "--out", str(run), *tiny, *scenes, *options, "--fpr.prototypes", "2"]) == 0
    return run


def measured(run: Path) -> dict[str, Any]:
    assert main(["evaluate", str(run), "--quiet", "--suppressed"]) == 0
    return json.loads((run / "suppressed.json").read_text())


def lists_of(setup: SeedSetup, run: Path) -> Bank:
    """The prototypes that the first epoch of `fpr` was trained with, as plain lists."""
    stored = load_prototypes(run / f"seed{setup.seed}" / "fpr" / "prototypes.safetensors")
    classes = range(len(setup.images.classes))
    positive = [stored.positive[c, stored.positive_valid[c]].tolist() for c in classes]
    trimmed = [stored.trimmed[c, stored.trimmed_valid[c]].tolist() for c in classes]
    nothing: list[Any] = [[] for _ in classes]
    return Bank(positive, nothing, nothing, nothing, trimmed, nothing, stored.spread)


def of_cell(plane: np.ndarray, row: int, column: int, height: int, width: int) -> int:
    """The value of a large picture at the centre of a cell of a small grid."""
    y, x = (row + 0.5) * plane.shape[0] / height, (column + 0.5) * plane.shape[1] / width
    return int(plane[int(y), int(x)])


def by_loops(config: RunConfig, setup: SeedSetup, masks: Masks, run: Path) -> dict[str, Any]:
    """Pixel by pixel, with the choices of the loops that the paper's tests are made of."""
    fpr = config.fpr
    assert fpr.feature_space == "levels" and fpr.distance == "l2"
    load_weights(run / f"seed{setup.seed}" / "cam" / "weights.safetensors", setup.host.eval())
    with torch.no_grad():
        output = setup.host.trained_part(setup.inputs.plain(np.arange(len(setup.images))), level_features=True)
    features, maps = output.features.double(), output.maps.double()
    labels, lists = torch.tensor(setup.images.labels).double(), lists_of(setup, run)
    for image, name in json.loads((run / f"seed{setup.seed}" / "tags.json").read_text())["unknown, tagged"]:
        labels[setup.images.ids.index(image), setup.images.classes.names.index(name)] = -1
    reach = load_prototypes(run / f"seed{setup.seed}" / "fpr" / "prototypes.safetensors").lift_reach
    assert reach is not None
    chosen: dict[str, tuple[set[Place], set[Place]]] = {
        "prototypes": (
            reference.suppressed(features, maps, labels, lists, theta=fpr.theta, epsilon=0, margin=fpr.margin),
            ours.lifted(features, maps, labels, lists, margin=fpr.margin, reach=reach.tolist()),
        ),
        "activation": (
            ours.halo(maps, labels, theta=fpr.theta, below=fpr.halo_below, epsilon=0),
            ours.above_halo(maps, labels, below=fpr.halo_below, epsilon=0),
        ),
    }

    def truth(n: int, y: int, x: int) -> int:
        return of_cell(masks.mask(n), y, x, maps.shape[2], maps.shape[3])

    def cause(n: int, y: int, x: int) -> str:
        if truth(n, y, x):
            return "another class"
        context = of_cell(masks.context(n), y, x, *maps.shape[2:]) if masks.contexts else 0
        return masks.contexts.names[context - 1] if masks.contexts and context else "background"

    activated = [
        (truth(n, y, x), c)
        for n in range(len(labels)) for c in range(labels.shape[1]) if labels[n, c] == 1
        for y, x in reference.activated(maps[n, c], fpr.theta, 0)
    ]  # fmt: skip
    false = sum(value not in (c + 1, IGNORE) for value, c in activated)
    true = sum(value == c + 1 for value, c in activated)
    result = {}
    for way, sides in chosen.items():
        down, up = ([place for place in side if truth(place[0], *place[2:]) != IGNORE] for side in sides)
        right = [(n, y, x) for n, c, y, x in down if truth(n, y, x) != c + 1]
        raised = [place for place in up if truth(place[0], *place[2:]) == place[1] + 1]
        found = Counter(cause(*place) for place in right)
        parts = ((len(right), len(down)), (len(right), false), (len(raised), len(up)), (len(raised), true))
        result[way] = {name: 100 * part / max(1, whole) for name, (part, whole) in zip(NAMES, parts, strict=True)}
        result[way]["causes"] = {name: 100 * amount / len(right) for name, amount in found.items()}
    return result


def assert_equals_the_loops(run: Path, seed: int, tmp_path: Path) -> None:
    config = config_from_dict(yaml.safe_load((run / "settings.yaml").read_text()), "settings.yaml")
    found = measured(run)
    assert found["split"] == "train" and list(found["seeds"]) == [str(each) for each in config.seeds]
    setup = set_up_seed(config, tmp_path, seed, set_up_torch(1, "cpu"), Reporter(quiet=True))
    masks = open_masks(setup.data, setup.images)
    assert masks is not None
    for way, figures in by_loops(config, setup, masks, run).items():
        of_way = found["seeds"][str(seed)][way]
        for name in NAMES:
            assert of_way[name] == pytest.approx(figures[name], abs=0.051), (way, name)
            assert of_way[name] > 0, "pixels are suppressed and lifted, some of them rightly"
        causes = {name: share for name, share in of_way["causes"].items() if share > 0}
        assert causes == pytest.approx(figures["causes"], abs=0.051)


def test_counts_equal_the_loops_on_scenes(scene_run: Path, tmp_path: Path) -> None:
    assert_equals_the_loops(scene_run, 0, tmp_path)


def test_counts_equal_the_loops_on_photos_with_ignored_pixels(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path
) -> None:
    root, run = write_folder(), tmp_path / "run"
    for path in sorted((root / "masks").glob("p0*.png"))[:6]:
        mask = np.array(Image.open(path))
        mask[:, : mask.shape[1] // 3] = IGNORE
        Image.fromarray(mask).save(path)
    options = ["--data.kind", "folder", "--data.root", str(root), "--methods", "fpr", "--rectify.epochs", "1"]
    assert main(["train", "--out", str(run), *tiny, *options]) == 0
    assert_equals_the_loops(run, 0, tmp_path / "other")
    found = measured(run)["seeds"]["0"]
    assert set(found["prototypes"]["causes"]) == {"another class", "background"}, "no contexts here"


def test_shares_are_shares_and_causes_add_up(scene_run: Path) -> None:
    for ways in measured(scene_run)["seeds"].values():
        assert set(ways) == {"prototypes", "activation"}
        for figures in ways.values():
            assert all(0 <= figures[name] <= 100 for name in NAMES)
            total = sum(figures["causes"].values())
            assert total == pytest.approx(100, abs=0.06 * len(figures["causes"])) or figures[NAMES[0]] == 0


def test_it_prints_a_table_and_leaves_the_figures_alone(scene_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scene_run / "summary.json").write_text("mine")
    found = measured(scene_run)
    text = capsys.readouterr().out
    assert text == markdown(found) + "\n" and (scene_run / "summary.json").read_text() == "mine"
    (scene_run / "summary.json").unlink()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("| ")}
    for way in ("prototypes", "activation"):
        means = [np.mean([seed[way][name] for seed in found["seeds"].values()]) for name in NAMES]
        assert rows[way][1:5] == [f"{mean:.1f}" for mean in means]
    assert "split train, seeds 0, 1. Reads masks." in text


def test_the_same_run_gives_the_same_file(scene_run: Path) -> None:
    measured(scene_run)
    first = (scene_run / "suppressed.json").read_bytes()
    measured(scene_run)
    assert (scene_run / "suppressed.json").read_bytes() == first


def test_settings_of_the_pixel_term_count(scene_run: Path) -> None:
    """Those that choose pixels at all: with an epsilon that no activation reaches, nothing is suppressed."""
    path = scene_run / "settings.yaml"
    before = path.read_text()
    config = yaml.safe_load(before)
    config["fpr"]["pixel_epsilon"] = 1e6
    path.write_text(yaml.safe_dump(config))
    try:
        for ways in measured(scene_run)["seeds"].values():
            for figures in ways.values():
                assert figures["suppressed: precision"] == figures["suppressed: recall"] == 0
                assert figures["causes"] == {} or not any(figures["causes"].values())
    finally:
        path.write_text(before)


def test_without_masks_or_a_trained_cam_it_is_an_error(
    write_folder: WriteFolder, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(masks=False), tmp_path / "run"
    options = ["--data.kind", "folder", "--data.root", str(root), "--methods", "[]"]
    assert main(["train", "--out", str(run), *tiny, *options]) == 0
    capsys.readouterr()
    for name, message in ((str(run), "has no masks"), (str(tmp_path / "gone"), "there is no settings.yaml in")):
        assert main(["evaluate", name, "--quiet", "--suppressed"]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1 and message in text
    assert not (run / "suppressed.json").exists()


@pytest.mark.parametrize("option", [("--split", "val"), ("--methods", "fpr")])
def test_options_that_it_would_not_heed_are_refused(
    option: tuple[str, str], scene_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(scene_run), "--quiet", "--suppressed", *option]) == 2
    assert "leave out --methods, --split" in capsys.readouterr().err
