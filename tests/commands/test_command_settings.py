from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.cli import main
from tag2mask.config import RunConfig
from tag2mask.errors import InputError
from tag2mask.presets import AUTHORS, PAPER, PRESETS
from tag2mask.settings import SettingsParser, add_run_settings, config_from_dict, flattened, run_config, with_lists


def parsed(*arguments: str, preset: str = "laptop") -> RunConfig:
    parser = SettingsParser(prog="test", exit_on_error=True)
    add_run_settings(parser, preset)
    return run_config(parser.parse_args(with_lists(arguments)))


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", "--out", str(tmp_path / "run"), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    return captured.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("--fpr.margn 0.5", "--fpr.margin"),
        ("--fpr.margn=0.5", "--fpr.margin"),
        ("--view.size 64", "--views.size"),
        ("--views.sise 64", "--views.size"),
        ("--data.cooccur.imges 3", "--data.cooccur.images"),
        ("--resum", "--resume"),
        ("--clasify.epochs 3", "--classify.epochs"),
        ("--seed 1", "--seeds, --data.cooccur.seed, --tags.seed"),
        (
            "--epochs 3",
            "--classify.epochs, --rectify.epochs, --refine.optimiser.epochs, --segment.optimiser.epochs",
        ),
        ("--cooccur.images 3", "--data.cooccur.images"),
    ],
)
def test_mistyped_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, suggestion: str
) -> None:
    text = refusal(tmp_path, capsys, *arguments.split())
    assert arguments.split("=")[0].split()[0] in text and text.endswith(f"Did you mean {suggestion}?")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--views.size many", ["--views.size", "'many'", "a whole number"]),
        ("--views.size 8", ["views.size", "8", "at least 32"]),
        ("--views.kind sqare", ["--views.kind", "'sqare'", "'square', 'crop'", "Did you mean square?"]),
        ("--host.output_stride 12", ["--host.output_stride", "12", "8, 16, 32"]),
        ("--fpr.theta 1.5", ["fpr.theta", "1.5", "from 0 to below 1"]),
        ("--fpr.pixel_lift -1", ["fpr.pixel_lift", "-1", "0 or more"]),
        ("--fpr.feature_space level", ["--fpr.feature_space", "'level'", "'levels', 'trained'"]),
        ("--fpr.region_weight 0.1", ["fpr.feature_space is 'levels'", "`trained`", "region_weight"]),
        ("--fpr.pixel_detach true --host.side 0", ["fpr.feature_space is 'levels'", "`trained`", "pixel_detach"]),
        ("--preset paper --fpr.feature_space levels", ["fpr.feature_space is 'levels'", "`trained`"]),
        ("--fpr.theta high", ["--fpr.theta", "'high'", "a number"]),
        ("--maps.flip perhaps", ["--maps.flip", "'perhaps'", "true or false"]),
        ("--classify.epochs -1", ["classify.epochs", "-1"]),
        ("--rectify.batch_size 0", ["rectify.batch_size", "0"]),
        ("--seeds a,b", ["--seeds", "'a'"]),
        ("--seeds 0,0", ["seeds", "each seed once"]),
        ("--seeds", ["--seeds", "expected one argument"]),
        ("--methods fprr", ["methods", "'fprr'", "continued", "Did you mean fpr?"]),
        ("--maps.scales 1,0", ["maps.scales", "above 0"]),
        ("--views.resize_long 3", ["--views.resize_long", "2 elements"]),
        ("--data.kind folder", ["data.root", "the folder of the data set"]),
        ("--data.kind folder --data.root /no/such/place", ["/no/such/place"]),
        ("--preset papr", ["'papr'", "laptop", "paper", "authors"]),
        ("--device tpu", ["'tpu'", "`cpu`"]),
        ("photos", ["photos", "--data.kind folder --data.root photos", "`tag2mask run photos`"]),
    ],
)
def test_wrong_value_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, parts: list[str]
) -> None:
    assert main(["train", "--quiet", "--out", str(tmp_path / "run"), *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and "<class" not in captured.err
    for part in parts:
        assert part in captured.err


def test_terms_that_train_the_features_need_trained_ones() -> None:
    trained = ("--fpr.feature_space", "trained")
    assert parsed("--fpr.region_weight", "0.1", *trained).fpr.region_weight == 0.1
    assert parsed("--fpr.pixel_detach", "true", "--host.side", "0", *trained).fpr.pixel_detach
    paper = parsed("--fpr.feature_space", "levels", "--fpr.region_weight", "0", preset="paper").fpr
    assert (paper.feature_space, paper.pixel_form) == ("levels", "mean")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            "--fpr.pixel_detach true --host.side 0 --fpr.feature_space trained --host.rectified_maps refined",
            ["fpr.pixel_detach", "host.rectified_maps own"],
        ),
        ("--host.kind seam --methods focal", ["host.kind is 'seam'", "focal"]),
        ("--host seam --fpr.classification focal", ["host.kind is 'seam'", "focal"]),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, parts: list[str]
) -> None:
    text = refusal(tmp_path, capsys, *arguments.split())
    assert all(part in text for part in parts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "--out is missing; see --help."), (["evaluate"], "RUN is missing; see --help."),
        (["sweep", "runs/x"], "--out and --vary are missing; see --help."),
    ],
)  # fmt: skip
def test_what_is_required_is_named_as_it_is_typed(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.strip() == f"error: {expected}"


def test_yaml_file_and_what_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data:\n  cooccur: {images: 5, size: 96}\nviews: {size: 64}\nfpr:\n  margin: 0.6\n"
        "classify: {learning_rate: 1e-2}\nseeds: [3, 4]\nhost:\n  levels: []\n  neck: 0\nmaps: {scales: [1, 0.5]}\n"
    )
    config = parsed("--config", str(path), "--views.size", "80", "--data.cooccur.images=7")
    assert (config.data.cooccur.images, config.data.cooccur.size, config.views.size) == (7, 96, 80)
    assert (config.fpr.margin, config.classify.learning_rate, config.seeds) == (0.6, 0.01, (3, 4))
    assert (config.host.levels, config.host.neck, config.maps.scales) == ((), 0, (1.0, 0.5))
    assert config.rectify == RunConfig().rectify
    assert parsed(f"--config={path}").views.size == 64
    assert parsed("--config", str(path), preset="paper").fpr == PAPER.__class__(**{**asdict(PAPER), "margin": 0.6})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("fpr:\n  margn: 0.5\n", ["there is no setting fpr.margn", "Did you mean fpr.margin?"]),
        ("viws:\n  size: 64\n", ["there is no setting viws", "Did you mean views?"]),
        ("data:\n  cooccur:\n    imges: 3\n", ["data.cooccur.imges", "Did you mean data.cooccur.images?"]),
        ("fpr.margin: 0.5\n", ["there is no setting fpr.margin"]),
        ("views: 3\n", ["views is not a table"]),
        ("views:\n", ["views is not a table"]),
        ("", ["is not a table of settings"]),
        ("- a\n- b\n", ["is not a table of settings"]),
        ("fpr: {}\nviews: [1\nx: 3\n", ["is not YAML: line 3, column 2: expected ',' or ']'"]),
        ("\tviews: {}\n", ["is not YAML: line 1, column 1: "]),
        ("views: {kind: \x07}\n", ["is not YAML: special characters are not allowed"]),
    ],
)
def test_yaml_file_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, parts: list[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    for text in (refusal(tmp_path, capsys, "--config", str(path)), refusal(tmp_path, capsys, f"--config={path}")):
        assert str(path) in text and "<unicode string>" not in text
        for part in parts:
            assert part in text


def test_yaml_file_with_a_wrong_value_or_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, where = tmp_path / "a.yaml", f"{tmp_path / 'a.yaml'}: views.size is 'many'; expected a whole number."
    file.write_text("views:\n  size: many\n")
    assert refusal(tmp_path, capsys, "--config", str(file)) == where
    assert refusal(tmp_path, capsys, f"--config={file}", "--views.size", "64") == where
    file.write_text("views:\n  size: 64\n")
    assert "--views.size is 'many'" in refusal(tmp_path, capsys, "--config", str(file), "--views.size", "many")
    (tmp_path / "b.yaml").write_text("fpr:\n  theta: 7\n")
    assert "fpr.theta is 7" in refusal(tmp_path, capsys, "--config", str(tmp_path / "b.yaml"))
    assert str(tmp_path / "c.yaml") in refusal(tmp_path, capsys, "--config", str(tmp_path / "c.yaml"))
    (tmp_path / "d.yaml").write_bytes(b"views: {size: 64} # gr\xfc\xdfe\n")
    assert "d.yaml is not YAML" in refusal(tmp_path, capsys, "--config", str(tmp_path / "d.yaml"))


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("0,1", (0, 1)), ("[0,1]", (0, 1)), ("7", (7,)), ("2, 5", (2, 5))],
)
def test_lists_on_the_command_line(written: str, seeds: tuple[int, ...]) -> None:
    assert parsed("--seeds", written).seeds == seeds
    assert parsed(f"--seeds={written}").seeds == seeds
    assert parsed("--methods", "fpr,halo").methods == ("fpr", "halo")
    assert parsed("--methods", "[]").methods == ()


def test_presets() -> None:
    assert {"laptop", "demo", "paper", "authors"} <= set(PRESETS)
    for name, preset in PRESETS.items():
        assert parsed(preset=name) == preset
    assert parsed(preset="paper").fpr == PAPER and parsed(preset="authors").fpr == AUTHORS
    assert parsed("--fpr.margin", "0.5", preset="authors").fpr.margin == 0.5


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_settings_survive_their_file(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(parsed_as_lists(PRESETS[preset])))
    assert config_from_dict(yaml.safe_load(path.read_text()), str(path)) == PRESETS[preset]
    assert parsed("--config", str(path)) == PRESETS[preset]


def parsed_as_lists(value: object) -> object:
    if is_dataclass(value):
        return {field.name: parsed_as_lists(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


KEYS = sorted(name for name, _ in flattened(asdict(RunConfig())))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KEYS), st.data())
def test_a_key_with_one_wrong_letter_is_always_an_error(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = key[:place] + data.draw(st.sampled_from("qxz")) + key[place + 1 :]
    if wrong in KEYS:
        return
    with pytest.raises(InputError, match="unrecognized|Did you mean"):
        parsed(f"--{wrong}", "1")
    table: dict[str, object] = {}
    inner = table
    *parents, last = wrong.split(".")
    for parent in parents:
        inner = inner.setdefault(parent, {})  # type: ignore[assignment]
    inner[last] = 1
    with pytest.raises(InputError, match="mine.yaml: there is no setting"):
        config_from_dict(table, "mine.yaml")


def test_every_setting_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for key in KEYS:
        _, found, after = text.partition(f"\n  --{key} ")
        assert found, key
        description = " ".join(after.split("\n  --")[0].split())
        assert len(description.rpartition("(type")[0].split()) > 2, f"{key} has no description: {description}"
