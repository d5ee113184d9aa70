"""`tag2mask sweep`: the same run with other settings, cell by cell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tag2mask.cli import main
from tag2mask.config import RunConfig
from tag2mask.errors import InputError
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.sweep import combinations, parsed
from tests.stages.photos import train

VARIED = "fpr.pixel_weight=0.5,8"
CELLS = ["pixel_weight=0.5", "pixel_weight=8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """The run that is varied: two methods, a removed tag in ten. Tests must not change it."""
    run = tmp_path_factory.mktemp("base") / "run"
    scenes = ["--data.cooccur.images", "24", "--data.cooccur.size", "64", "--classify.epochs", "6"]
    options = [*tiny, *scenes, "--methods", "continued,fpr", "--tags.remove", "0.1"]
    assert main(["train", "--out", str(run), *options]) == 0
    return run


@pytest.fixture(scope="module")
def swept(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells, computed at the same time. Tests must not change it."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert main(["sweep", str(run), "--out", str(out), "--vary", VARIED, "--jobs", "2", "--quiet"]) == 0
    return out


def content(folder: Path, name: str = "sweep.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def weights(run: Path, method: str) -> bytes:
    return (run / "seed0" / method / "weights.safetensors").read_bytes()


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["sweep", *map(str, arguments), "--quiet"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_cells_are_ordinary_runs_bit_for_bit(
    swept: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    again = ["--config", str(run / "settings.yaml"), "--fpr.pixel_weight", "8", "--quiet"]
    assert main(["train", "--out", str(plain), *again]) == 0
    assert main(["evaluate", str(plain), "--quiet"]) == 0
    cell = swept / CELLS[1]
    for method in ("cam", "continued", "fpr"):
        assert weights(cell, method) == weights(plain, method)
    for name in ("methods", "tags", "seeds", "images", "split"):
        assert content(cell, "summary.json")[name] == content(plain, "summary.json")[name]
    assert read_settings(cell) == read_settings(plain)
    assert (cell / "seed0" / "tags.json").read_text() == (plain / "seed0" / "tags.json").read_text()
    assert weights(swept / CELLS[0], "fpr") != weights(cell, "fpr"), "the setting does something"
    assert main(["report", str(cell), "--quiet"]) == 0


def test_the_sweep_holds_settings_figures_and_purity_of_every_cell(swept: Path, run: Path) -> None:
    result = content(swept)
    assert [row["cell"] for row in result["cells"]] == CELLS
    assert result["run"] == str(run) and result["vary"] == [VARIED] and result["split"] == "train"
    for row in result["cells"]:
        assert row["summary"] == content(swept / row["cell"], "summary.json")
        assert list(row["summary"]["methods"]) == ["cam", "continued", "fpr"]
        assert 0 <= row["purity"] <= 100
    assert not list(swept.rglob("*.partial")) and not list(swept.rglob("run.lock"))


def test_what_does_not_vary_is_shared(swept: Path, run: Path) -> None:
    """Frozen features and the CAM are the run's; nothing of the run itself has changed."""
    for name in CELLS:
        assert (swept / name / "cache").resolve() == (run / "cache").resolve()
        assert weights(swept / name, "cam") == weights(run, "cam")
        assert weights(swept / name, "continued") == weights(run, "continued")
    assert not (run / "summary.json").exists() and read_settings(run).fpr.pixel_weight not in (0.5, 8)


def test_a_second_call_computes_nothing_again_and_prints_the_same_table(
    swept: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in swept.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["sweep", str(run), "--out", str(swept), "--vary", VARIED, "--quiet", "--split", "train"]) == 0
    text = capsys.readouterr().out
    changed = {path.name for path, time in files.items() if path.stat().st_mtime_ns != time}
    assert changed == {"sweep.json"}
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3 and rows[0].startswith("| setting | fpr: matched* | gtfree")
    for row, cell in zip(rows[1:], content(swept)["cells"], strict=True):
        figures = cell["summary"]["methods"]
        values = row.strip("| ").split(" | ")
        assert values[0] == cell["cell"]
        for place, protocol in enumerate(("matched", "gtfree", "fixed", "oracle"), 1):
            assert values[place] == f"{figures['fpr'][protocol]['miou']['mean']:.1f}"
        gain = figures["fpr"]["matched"]["miou"]["mean"] - figures["continued"]["matched"]["miou"]["mean"]
        assert values[5] == f"{gain:+.1f}"
        assert values[-1] == f"{cell['purity']:.1f}"
    assert "24 images, split train, seeds 0" in text and "* reads masks" in text


class InThisProcess:
    """Stands in for a pool of processes: computes one cell after the other, and sees what was there before."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.before, self.after = cache, set[Path](), set[Path]()

    def __call__(self, *_: object) -> InThisProcess:
        return self

    Pool = __enter__ = __call__

    def __exit__(self, *_: object) -> None:
        self.after = set(self.cache.rglob("*"))

    def imap_unordered(self, compute: Callable[[Any], None], cells: Iterable[Any]) -> Iterator[None]:
        self.before = set(self.cache.rglob("*"))
        return map(compute, cells)


def test_settings_before_the_cam_train_it_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a method that the run does not have."""
    monkeypatch.setattr("multiprocessing.get_context", InThisProcess(run / "cache"))
    options = ["--vary", "classify.epochs=5,7", "--methods", "halo", "--quiet"]
    assert main(["sweep", str(run), "--out", str(tmp_path), *options]) == 0
    cells = [tmp_path / "epochs=5", tmp_path / "epochs=7"]
    assert len({weights(folder, "cam") for folder in (run, *cells)}) == 3
    for cell, row in zip(cells, content(tmp_path)["cells"], strict=True):
        assert not (cell / "seed0" / "fpr").exists()
        assert list(row["summary"]["methods"]) == ["cam", "halo"]
        assert row["purity"] is None, "no prototypes, no purity"
    assert "| halo: matched*" in capsys.readouterr().out


def test_features_of_new_seeds_and_splits_are_there_before_the_cells_start(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells share them, and cells that run at the same time must not write them at once."""
    copy, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "cache")
    pool = InThisProcess(copy / "cache")
    monkeypatch.setattr("multiprocessing.get_context", pool)
    options = ["--methods", "continued", "--seeds", "0,3", "--split", "val", "--jobs", "2", "--quiet"]
    assert main(["sweep", str(copy), "--out", str(out), "--vary", "rectify.epochs=1,2", *options]) == 0
    assert sum(path.name == "manifest.json" for path in pool.before) == 4, "two seeds, two splits"
    assert pool.after == pool.before
    result = content(out, "sweep.val.json")
    assert [cell["summary"]["seeds"] for cell in result["cells"]] == [[0, 3], [0, 3]] and result["split"] == "val"
    assert all(cell["summary"]["split"] == "val" for cell in result["cells"])
    assert weights(out / "epochs=1", "cam") == weights(run, "cam"), "of the seed that the run has"


def test_wrong_settings_are_told_before_anything_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    cases = {
        "fpr.thta=0.1,0.2": "Did you mean --fpr.theta?",
        "fpr.theta=0.1,2": "fpr.theta is 2.0; expected a share from 0 to below 1",
        "fpr.theta=0.1,much": "--fpr.theta is 'much'; expected a number",
        "fpr.pixel_form=ratio,ration": "--fpr.pixel_form is 'ration'; expected one of 'ratio', 'mean', 'softplus'",
        "fpr.theta.x=1": "fpr.theta",
        "fpr.theta=[0.1": "--vary 'fpr.theta=[0.1': the values are not YAML",
        "fpr.theta": "expected a setting and its values, such as fpr.theta=0.1,0.2",
        "fpr.theta=": "expected a setting and its values, such as fpr.theta=0.1,0.2",
    }
    for varied, message in cases.items():
        assert message in error(capsys, run, "--out", out, "--vary", varied)
    good = ["--vary", "fpr.theta=0.1"]
    assert "there is no settings.yaml in" in error(capsys, tmp_path / "gone", "--out", out, *good)
    assert "--jobs is 0; expected 1 or more" in error(capsys, run, "--out", out, *good, "--jobs", "0")
    assert "--seeds 'a'; expected numbers" in error(capsys, run, "--out", out, *good, "--seeds", "a")
    assert "fprr" in error(capsys, run, "--out", out, *good, "--methods", "fprr")
    assert not out.exists()


def test_photos_without_masks_have_nothing_to_compare_cells_by(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = train(tmp_path, tiny, masks=False), tmp_path / "out"
    text = error(capsys, run, "--out", out, "--vary", VARIED)
    assert f"{run} is on photos without masks" in text and "sweep a run whose data have some" in text
    assert not out.exists()


def test_a_cell_of_another_sweep_is_not_taken_for_this_one(
    swept: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures would stand in the table under settings that they are not of."""
    copy = tmp_path / "out"
    shutil.copytree(swept, copy, symlinks=True)
    given = ["--out", copy, "--vary", VARIED]
    text = error(capsys, run, *given, "--methods", "fpr")
    assert str(copy / CELLS[0]) in text and "methods" in text and "choose another --out" in text
    assert "seeds" in error(capsys, run, *given, "--seeds", "0,1")
    assert content(copy) == content(swept)


# Values and names of cells


def names(base: RunConfig, *varied: str) -> list[str]:
    return [name for name, _ in combinations(base, varied)]


def test_every_combination_is_a_cell_with_its_settings(run: Path) -> None:
    base = read_settings(run)
    cells = combinations(base, ["fpr.theta=0.1,.2", "tags.suspects=keep,both", "maps.scales=[[1.0],[1.0,0.5]]"])
    assert len(dict(cells)) == 8
    found = [(config.fpr.theta, config.tags.suspects, config.maps.scales) for _, config in cells]
    assert found == [(t, s, m) for t in (0.1, 0.2) for s in ("keep", "both") for m in ((1.0,), (1.0, 0.5))]
    assert cells[0][0] == "theta=0.1,suspects=keep,scales=[1.0]"
    for _, config in cells:
        same = yaml.safe_load(json.dumps(config.data.cooccur.__dict__))
        assert same == base.data.cooccur.__dict__ and config.host == base.host and config.methods == base.methods


def test_what_does_not_vary_is_the_run_s(run: Path) -> None:
    base = read_settings(run)
    ((_, config),) = combinations(base, [f"fpr.theta={base.fpr.theta}"])
    assert config == base


def test_numbers_may_be_written_as_people_do(run: Path) -> None:
    for text, value in (("1e-3", 0.001), (".5", 0.5), ("3", 3.0)):
        ((_, config),) = combinations(read_settings(run), [f"classify.learning_rate={text}"])
        assert config.classify.learning_rate == value


def test_names_are_names_of_folders(run: Path) -> None:
    assert names(read_settings(run), "host.weights=timm,a/b.pt") == ["weights=timm", "weights=a_b.pt"]
    assert parsed("fpr.theta=[0.1, 0.2]") == parsed("fpr.theta=0.1,0.2") == ("fpr.theta", [0.1, 0.2])
    cells = combinations(RunConfig(), ["fpr.support=off,drop", "host.dilate=false"])
    assert [config.fpr.support for _, config in cells] == ["off", "drop"], "a word, not a truth value"
    assert not any(config.host.dilate for _, config in cells)
    with pytest.raises(InputError, match="expected a setting and its values"):
        parsed("fpr.theta")


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["fpr.theta=[]"], "at least one value"),
        (["seeds=0,1"], "--seeds"),
        (["methods=fpr"], "--methods"),
        (["fpr.theta=0.1", "fpr.theta=0.2"], "each setting once"),
        (["fpr.theta=0.1,0.1"], "two cells would be called"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], vary: list[str], words: str
) -> None:
    options = [part for text in vary for part in ("--vary", text)]
    assert words in error(capsys, run, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_cell_that_breaks_down_is_a_row_and_the_others_are_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate at which nothing is a number any more is a result."""
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--vary", "rectify.learning_rate=0.001,1e30", "--methods", "continued"]
    assert main(["sweep", str(run), *arguments, "--quiet"]) == 0
    good, bad = content(out)["cells"]
    assert "summary" in good and "no longer a number" in bad["failed"]
    assert "failed: the loss is no longer a number" in capsys.readouterr().out
