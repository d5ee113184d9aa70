"""A fifth host: ten lines and a line in the table of hosts, then every command takes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tag2mask.cli import main
from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts import Host
from tag2mask.hosts.table import HOSTS, build_host
from tag2mask.presets import PRESETS, for_host


class ToyHost(Host):
    def __init__(self, config: HostConfig, class_count: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Conv2d(8, class_count, 1, bias=False)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def maps(self, features: Tensor) -> Tensor:
        return self.classifier(features)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOSTS, "toy", ToyHost)


@pytest.fixture
def settings(scenes: list[str]) -> list[str]:
    return [
        "--preset", "demo", *scenes, "--host", "toy", "--views.size", "64", "--classify.epochs", "2",
        "--rectify.epochs", "2", "--methods", "continued,halo,paper,training_free,fpr", "--threads", "1", "--quiet",
    ]  # fmt: skip


def test_every_command_takes_it(toy: None, settings: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *settings]) == 0
    assert main(["localize", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--suppressed", "--quiet"]) == 0
    assert main(["report", str(run), "--quiet"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["methods"]) == ["cam", "continued", "halo", "paper", "training_free", "fpr"]
    assert "toy" in (run / "settings.yaml").read_text()
    weights = {m: load_file(run / "seed0" / m / "weights.safetensors") for m in ("cam", "continued", "fpr")}
    assert not torch.equal(weights["fpr"]["body.0.weight"], weights["continued"]["body.0.weight"])
    assert len(list((run / "seed0" / "fpr" / "prototypes").glob("epoch*"))) == 2, "every collection is kept"


def test_killed_and_resumed_it_has_the_same_weights(
    toy: None, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "--out", str(tmp_path / "whole"), *settings, "--methods", "fpr"]) == 0
    import tag2mask.engine as engine

    real, calls = engine.save_state, []

    def cut(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "save_state", cut)
    assert main(["train", "--out", str(tmp_path / "cut"), *settings, "--methods", "fpr"]) == 130
    monkeypatch.setattr(engine, "save_state", real)
    assert main(["train", "--out", str(tmp_path / "cut"), *settings, "--methods", "fpr", "--resume"]) == 0
    for method in ("cam", "fpr"):
        one, other = (load_file(tmp_path / r / "seed0" / method / "weights.safetensors") for r in ("whole", "cut"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_host_leaves_out_has_a_default(toy: None) -> None:
    torch.manual_seed(0)
    host = build_host(HostConfig(kind="toy"), 3)
    images = torch.randn(2, 3, 32, 48)
    output = host(images)
    assert output.features.shape == (2, 8, 8, 12) and output.maps.shape == (2, 3, 8, 12)
    torch.testing.assert_close(output.logits, output.maps.mean((2, 3)))
    assert host.frozen_part(images)[0] is images
    (group,) = host.parameter_groups(PRESETS["demo"].classify, side=False)
    assert {id(p) for p in group["params"]} == {id(p) for p in host.parameters()}
    host.train().freeze_batch_norm(learning=False)
    assert not host.body[1].training and host.body[0].training


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match="host.kind is 'seem'; expected one of cam, seam, mctformer. Did you mean seam?"):
        build_host(HostConfig(kind="seem"), 3)


@pytest.mark.parametrize("arguments", [["--host", "mctformer"], ["--host=mctformer"]])
def test_the_command_line_takes_a_hosts_settings_as_defaults(arguments: list[str]) -> None:
    from tag2mask.settings import SettingsParser, add_run_settings, host_of, run_config

    rest, host = host_of(["--threads", "1", *arguments, "--classify.epochs", "3"])
    assert rest == ["--threads", "1", "--classify.epochs", "3"] and host == "mctformer"
    parser = SettingsParser()
    add_run_settings(parser, "demo", host)
    config = run_config(parser.parse_args(rest))
    expected = for_host(PRESETS["demo"], "mctformer")
    assert config.host == expected.host and config.rectify == expected.rectify
    assert config.classify.epochs == 3 and np.isclose(config.classify.learning_rate, expected.classify.learning_rate)


@pytest.mark.parametrize("name", ["seam", "mctformer", "mctformer_plus"])
def test_a_published_recipe_with_its_own_host_stays_as_it_is(name: str) -> None:
    """``--preset seam --host seam``: not the settings for small sets in the published ones' place."""
    assert for_host(PRESETS[name], PRESETS[name].host.kind) == PRESETS[name]
    assert for_host(PRESETS[name], "cam").host.kind == "cam"


def test_host_without_a_name_is_not_taken_for_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), "--host"]) == 2
    assert "--host has no name behind it" in capsys.readouterr().err


class LookingHost(ToyHost):
    peaks_are_evidence = False


def test_maxima_that_are_no_evidence_set_no_floor(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tag2mask.maps.store import load_maps
    from tag2mask.score import absent_floor

    monkeypatch.setitem(HOSTS, "toy", LookingHost)
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), *settings, "--methods", "continued"]) == 0
    assert main(["localize", str(run), "--methods", "continued", "--quiet"]) == 0
    peaks = np.stack([load_maps(path).peaks for path in (run / "seed0/continued/maps/train").glob("*.npz")])
    assert len(peaks) == 14 and not peaks.any()
    assert absent_floor(peaks, np.random.default_rng(0).random(peaks.shape) < 0.3) == 1
