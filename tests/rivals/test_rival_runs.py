"""Every rival through the command line, with a small random network: trained, resumed to the same bits, evaluated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tag2mask.checkpoints import read_tensors
from tag2mask.cli import main
from tests.conftest import WriteFolder
from tests.engine.test_resume import Killed, results
from tests.rivals.conftest import WriteClip

Brought = Callable[[str], list[str]]


@pytest.fixture
def photos(write_folder: WriteFolder) -> Path:
    return write_folder()


@pytest.fixture
def brought(
    photos: Path, nothing_there: Path, write_saliency: Callable[[Path], Path], write_clip: WriteClip
) -> Brought:
    """The options with which a rival trains on the photos."""

    def options(method: str) -> list[str]:
        own = {
            "wood": lambda: ["--rivals.wood.folder", str(nothing_there), "--rivals.wood.clusters", "3"],
            "eps": lambda: ["--rivals.eps.saliency", str(write_saliency(photos))],
            "clims": lambda: ["--rivals.clims.clip", str(write_clip()), "--rivals.clims.too_similar", "-1"],
        }[method]()
        return ["--data.kind", "folder", "--data.root", str(photos), "--methods", f"continued,{method}", *own]

    return options


def train(out: Path, *settings: str) -> int:
    return main(["train", "--out", str(out), *settings])


CROPS = ["--views.kind", "crop", "--views.resize_long", "60,90", "--rectify.epochs", "1", "--classify.epochs", "1"]


@pytest.mark.parametrize("method", ["wood", "eps", "clims"])
@pytest.mark.parametrize("views", [[], ["--cache_gigabytes", "0"], CROPS], ids=["cache", "photos", "crops"])
def test_trains_and_differs_from_training_on(
    method: str, views: list[str], tmp_path: Path, brought: Brought, tiny: list[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, *tiny, *brought(method), *views) == 0
    lines = [json.loads(line) for line in (run / f"seed0/{method}/metrics.jsonl").read_text().splitlines()]
    assert all(line["others"] != 0 and line["region"] == line["pixel"] == 0 for line in lines)
    weights = [(run / f"seed0/{name}/weights.safetensors").read_bytes() for name in ("continued", method)]
    assert len(weights[0]) == len(weights[1]) and weights[0] != weights[1], "the same network, other weights"


@pytest.mark.parametrize("method", ["wood", "eps", "clims"])
def test_cut_off_after_any_epoch_and_resumed(
    method: str, tmp_path: Path, brought: Brought, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*tiny, *brought(method)]
    assert train(tmp_path / "whole", *settings) == 0
    expected = results(tmp_path / "whole")
    rename, seen, fatal = os.replace, 0, 0

    def counted(source: object, target: object) -> None:
        nonlocal seen
        if str(target).endswith(f"{method}/state.safetensors"):
            seen += 1
            if seen == fatal:
                raise Killed
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", counted)
    for fatal in (1, 3):
        seen = 0
        with pytest.raises(Killed):
            train(tmp_path / f"cut{fatal}", *settings)
        assert train(tmp_path / f"cut{fatal}", *settings, "--resume") == 0
        assert results(tmp_path / f"cut{fatal}") == expected


def test_what_is_learnt_or_measured_beside_the_network_is_in_the_state_alone(
    tmp_path: Path, brought: Brought, tiny: list[str]
) -> None:
    state = {}
    for method in ("wood", "eps"):
        home = tmp_path / method / "seed0" / method
        assert train(tmp_path / method, *tiny, *brought(method)) == 0
        state[method] = read_tensors(home / "state.safetensors")[0]
        assert not [name for name in read_tensors(home / "weights.safetensors")[0] if "background" in name or "clusters" in name]
    assert state["wood"]["host.1.clusters"].shape[0] == 3 and state["wood"]["host.1.means"].shape[0] == 3
    assert state["eps"]["host.1.background.classifier.weight"].abs().sum() > 0


def test_all_three_are_evaluated_and_reported(
    tmp_path: Path, brought: Brought, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = [*brought("wood"), *brought("eps")[6:], *brought("clims")[6:]]
    assert train(run, *tiny, *options, "--methods", "wood,eps,clims", "--rivals.wood.skip_class", "bottle") == 0
    assert "no class 'bottle'" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--quiet"]) == 0
    shown = capsys.readouterr().out
    for title in ("W-OoD", "EPS", "CLIMS"):
        assert title in shown
    assert main(["report", str(run), "--quiet"]) == 0


def test_unknown_tags_and_built_in_scenes(
    tmp_path: Path, nothing_there: Path, tiny: list[str], scenes: list[str]
) -> None:
    options = ["--tags.remove", "0.3", "--tags.suspects", "both", "--rivals.wood.folder", str(nothing_there)]
    more = ["--rivals.wood.ascent", "0", "--rivals.wood.distance_unit", "literal", "--rectify.batch_size", "1", "--rectify.epochs", "1"]
    assert train(tmp_path / "run", *tiny, *scenes, *options, *more, "--methods", "wood") == 0
