"""``python -m benchmarks``: what it prints and with which code it ends. Nothing here is timed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import evaluate

ROOT = Path(__file__).parents[2]


def write_benchmark(folder: Path, name: str, measured: str) -> None:
    text = f'BAR = 1.25\nDESCRIPTION = "what {name} is"\n\ndef measure() -> float:\n    return {measured}\n'
    (folder / f"{name}.py").write_text(text)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Four benchmarks of known result in place of the real ones; a fifth cannot be imported."""
    for name, measured in {
        "under": "0.5",
        "at_bar": "1.25",
        "above": "1.26",
        "nothing": 'float("nan")',
    }.items():
        write_benchmark(tmp_path, name, measured)
    monkeypatch.syspath_prepend(tmp_path)
    modules = {name: name for name in ("under", "at_bar", "above", "nothing")} | {"missing": "no_such_module"}
    monkeypatch.setattr(command, "MODULES", modules)
    return modules


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("under", 0, "under: 0.500 (bar: at most 1.25), pass"),
        ("at_bar", 0, "at_bar: 1.250 (bar: at most 1.25), pass"),
        ("above", 1, "above: 1.260 (bar: at most 1.25), MISS"),
        ("nothing", 1, "nothing: nan (bar: at most 1.25), MISS"),
    ],
)
def test_one_benchmark_ends_with_its_ratio_and_bar(
    made_up: dict[str, str], capsys: pytest.CaptureFixture[str], name: str, code: int, line: str
) -> None:
    assert command.main([name]) == code
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_all_benchmarks_make_a_table_and_one_miss_fails_them(
    made_up: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: made_up[name] for name in ("above", "under")}
    monkeypatch.setattr(command, "MODULES", chosen)
    assert command.main([]) == 1
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["benchmark", "measured", "bar", "what"]
    assert [row.split()[:4] for row in rows] == [
        ["above", "1.260", "1.25", "MISS"],
        ["under", "0.500", "1.25", "pass"],
    ]
    monkeypatch.setattr(command, "MODULES", {"under": "under"})
    assert command.main([]) == 0


def test_an_unknown_name_lists_the_known_ones() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "evalute"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    message = "Unknown benchmark 'evalute'; give one of fpr-step, collect, evaluate, pool-memory"
    assert ended.stderr.startswith(message)


def test_evaluate_measures_masks_like_those_of_voc() -> None:
    generator = np.random.default_rng(0)
    samples = [evaluate.draw_sample(generator) for _ in range(12)]
    masks = evaluate.decode(samples)
    for sample, mask in zip(samples, masks, strict=True):
        assert Image.open(io.BytesIO(sample.png)).mode == "P"
        assert mask.shape == sample.maps.shape[1:] == (375, 500)
        assert 1 <= len(set(sample.class_ids.tolist())) == len(sample.maps) <= 3
        assert set(np.unique(mask)) <= {0, 255, *(sample.class_ids + 1)}
        assert (sample.maps.max(axis=(1, 2)) == 255).all()
    assert 0.01 < np.mean([mask == 255 for mask in masks]) < 0.1
    assert 1500 < np.mean([len(sample.png) for sample in samples]) < 6000
    assert np.isfinite(evaluate.sweep(samples, masks)).all()
