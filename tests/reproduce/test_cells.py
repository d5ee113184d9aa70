"""The runs that items share: resumed, cut off, broken down, of other settings, of photos that have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tag2mask.config import DataConfig
from tag2mask.errors import InputError
from tag2mask.progress import Reporter
from tag2mask.reproduce import cells as cells_module
from tag2mask.reproduce.cells import Cell, compute, merged
from tag2mask.reproduce.scales import Scale
from tests.reproduce.conftest import QUIET, TinySet, run_items


def test_what_is_finished_is_not_computed_again(tiny_scale: Scale, tmp_path: Path) -> None:
    scale = replace(tiny_scale, seeds=(0,))
    run_items(("fig8",), scale, tmp_path)
    weights = tmp_path / "runs/scenes/cam/seed0/seed0/fpr/weights.safetensors"
    summary = tmp_path / "runs/scenes/cam/seed0/summary.json"
    before = weights.stat().st_mtime_ns, summary.stat().st_mtime_ns
    run_items(("fig8",), scale, tmp_path)
    assert (weights.stat().st_mtime_ns, summary.stat().st_mtime_ns) == before
    run_items(("table5",), scale, tmp_path)
    assert weights.stat().st_mtime_ns == before[0], "another item adds methods to the run"
    assert (weights.parents[1] / "focal" / "weights.safetensors").is_file()


def test_a_run_that_breaks_down_costs_no_other(tiny_scale: Scale, tmp_path: Path) -> None:
    dataset = tiny_scale.sets[0]
    good = replace(dataset.settings(), methods=("continued",))
    bad = replace(good, rectify=replace(good.rectify, learning_rate=1e38, kind="sgd", clip_norm=0.0))
    cells = [Cell("a", bad, frozenset({"evaluate"})), Cell("b", good, frozenset({"evaluate"}))]
    failed = compute(cells, tmp_path, 1, QUIET)
    assert list(failed) == ["a"] and "no longer a number" in failed["a"]
    assert (tmp_path / "runs/b/summary.json").is_file()


def test_runs_that_start_from_a_failed_one_say_so(tiny_scale: Scale, tmp_path: Path) -> None:
    good = replace(tiny_scale.sets[0].settings(), methods=("continued",))
    bad = replace(good, classify=replace(good.classify, learning_rate=1e38, kind="sgd", clip_norm=0.0))
    cells = [Cell("a", bad, frozenset()), Cell("b", good, frozenset({"evaluate"}), start="a")]
    failed = compute(cells, tmp_path, 1, QUIET)
    assert set(failed) == {"a", "b"} and failed["b"].startswith("a, from which it trains on")


def test_a_finished_run_with_other_settings_is_not_taken(tiny_scale: Scale, tmp_path: Path) -> None:
    config = replace(tiny_scale.sets[0].settings(), methods=("continued",))
    assert compute([Cell("x", config, frozenset({"evaluate"}))], tmp_path, 1, QUIET) == {}
    other = replace(config, data=replace(config.data, cooccur=replace(config.data.cooccur, images=9)))
    with pytest.raises(InputError, match="another data.cooccur.images"):
        compute([Cell("x", other, frozenset({"evaluate"}))], tmp_path, 1, QUIET)
    refined = replace(config, refine=replace(config.refine, foreground=1.75))
    with pytest.raises(InputError, match="another refine.foreground"):
        compute([Cell("x", refined, frozenset({"evaluate"}))], tmp_path, 1, QUIET)
    more = replace(config, methods=("halo",))
    assert compute([Cell("x", more, frozenset({"evaluate"}))], tmp_path, 1, QUIET) == {}, "methods may be added"


def test_a_step_that_was_cut_off_is_done_again(tiny_scale: Scale, tmp_path: Path) -> None:
    config = replace(tiny_scale.sets[0].settings(), methods=("fpr",))
    cell = Cell("x", config, frozenset({"advcam"}), ("fpr",))
    (tmp_path / "summary.advcam.json").write_text(json.dumps({"methods": {"cam": {}, "fpr": {}}}))
    assert not cells_module.has(tmp_path, cell, "advcam"), "killed before the masks of the CRF"
    (tmp_path / "stages.advcam.json").write_text(json.dumps({"stages": {"fpr/advcam": {"seed": {}, "crf": {}}}}))
    assert cells_module.has(tmp_path, cell, "advcam")


@pytest.mark.parametrize(
    ("name", "content", "methods"),
    [
        ("summary.json", {"methods": {"cam": {}, "fpr": {}}}, ("cam", "fpr")),
        ("summary.advcam.json", {"methods": {"cam": {}, "fpr": {}}}, ("cam", "fpr")),
        ("stages.json", {"stages": {"fpr": {}}}, ("cam", "fpr")), ("stages.val.json", {"stages": {"fpr": {}}}, ("cam", "fpr")),
        ("stages.advcam.json", {"stages": {"fpr/advcam": {}}}, ("cam", "fpr")),
        ("suppressed.json", {"seeds": {"0": {}}}, ("cam",)), ("gallery.json", {"images": [1]}, ("cam",)),
    ],
)  # fmt: skip
def test_what_is_older_than_its_networks_is_made_again(
    name: str, content: dict[str, object], methods: tuple[str, ...], tiny_scale: Scale, tmp_path: Path
) -> None:
    config, path, details = tiny_scale.sets[0].settings(), tmp_path / name, tmp_path / name.replace("summary", "details")
    for method in ("cam", "fpr", "halo"):
        home = tmp_path / "seed0" / method
        home.mkdir(parents=True)
        (home / "weights.safetensors").write_bytes(b"")
        os.utime(home / "weights.safetensors", (1e9, 1e9))

    def remains() -> bool:
        path.write_text(json.dumps(content))
        details.write_text(json.dumps(content))
        for file in (path, details):
            os.utime(file, (2e9, 2e9))
        cells_module.remove_outdated(config, tmp_path)
        assert details.is_file() == path.is_file()
        return path.is_file()

    assert remains()
    os.utime(tmp_path / "seed0/halo/weights.safetensors", (3e9, 3e9))
    assert remains(), "it says nothing of that one"
    for method in methods:
        weights = tmp_path / "seed0" / method / "weights.safetensors"
        os.utime(weights, (3e9, 3e9))
        assert not remains(), f"{method} is newer"
        os.utime(weights, (1e9, 1e9))
        weights.rename(tmp_path / "aside")
        assert not remains(), f"{method} is gone"
        (tmp_path / "aside").rename(weights)
    content.clear()
    assert not remains(), "a file that says nothing is no figure"


def test_figures_of_other_photos_are_not_told_where_their_place_cannot_be_filled(
    write_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_folder(), tmp_path / "out"
    mine = TinySet("mine", DataConfig(kind="folder", root=str(root)), "demo")
    scale = Scale("laptop", (mine,), (0,), "")
    assert "| mean |" in run_items(("fig8",), scale, out)["fig8"]
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")

    def fails(step: str, cell: Cell, folder: Path, report: Reporter) -> None:
        raise RuntimeError("there is no room")

    monkeypatch.setattr(cells_module, "do", fails)
    with pytest.raises(InputError, match="there is no room"):
        run_items(("fig8",), scale, out)
    assert not (out / "runs/mine/cam/seed0/summary.json").exists()


def test_photos_of_ones_own_that_have_changed_are_looked_at_again(write_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = write_folder()
    mine = TinySet("mine", DataConfig(kind="folder", root=str(root)), "demo")
    scale = Scale("laptop", (mine,), (0,), "")
    table = root / "labels.csv"

    def told() -> str:
        run_items(("fig8",), scale, tmp_path / "out")
        return (tmp_path / "out/runs/mine/cam/seed0/summary.json").read_text()

    before = told()
    assert told() == before, "nothing has changed"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    assert json.loads(told())["images"] == json.loads(before)["images"] - 1


def test_runs_whose_start_has_its_network_go_on_where_its_other_steps_fail(
    tiny_scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do, good = cells_module.do, replace(tiny_scale.sets[0].settings(), methods=("continued",))

    def fails(step: str, cell: Cell, folder: Path, report: Reporter) -> None:
        if cell.name == "a":
            raise RuntimeError("there is no room")
        do(step, cell, folder, report)  # type: ignore[arg-type]

    monkeypatch.setattr(cells_module, "do", fails)
    evaluate: frozenset[cells_module.WorkStep] = frozenset({"evaluate"})
    failed = compute([Cell("a", good, evaluate), Cell("b", good, evaluate, start="a")], tmp_path, 1, QUIET)
    assert set(failed) == {"a"} and (tmp_path / "runs/b/summary.json").is_file()


def test_cells_of_one_name_are_one_and_must_agree(tiny_scale: Scale) -> None:
    config = replace(tiny_scale.sets[0].settings(), methods=("continued",))
    other = replace(config, methods=("halo", "continued"))
    (cell,) = merged([Cell("x", config, frozenset({"evaluate"})), Cell("x", other, frozenset({"crf"}), ("halo",))])
    assert cell.config.methods == ("continued", "halo") and cell.steps == {"evaluate", "crf"}
    with pytest.raises(ValueError, match="x"):
        merged([Cell("x", config, frozenset()), Cell("x", replace(config, threads=2), frozenset())])
