"""Killed at any moment and started again, masks and segmenters end with the same bits; and no stage reads the truth."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.stages.photos import REFINE, SEGMENT, Killed, contents, copied, killed_at, train

RESULTS = (".png", ".npz", "weights.safetensors", "metrics.jsonl", ".json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with nothing but trained maps. Tests must not change it."""
    return train(tmp_path_factory.mktemp("resume"), tiny)


def refine(run: Path, refiner: str = "irn") -> int:
    return main(["refine", str(run), "--with", refiner, *REFINE, "--quiet"])


def segment(run: Path, *options: str) -> int:
    return main(["segment", str(run), "--from", "crf", *SEGMENT, *options, "--quiet"])


def beside(run: Path, name: str) -> Path:
    """A copy of a run with the same photos."""
    shutil.rmtree(run.parent / name, ignore_errors=True)
    return copied(run, run.parent / name)


@pytest.mark.parametrize("refiner", ["irn", "psa"])
def test_refine_cut_off_at_renames(trained: Path, monkeypatch: pytest.MonkeyPatch, refiner: str) -> None:
    """Every file appears by a rename; every fifteenth of them is tried."""
    whole = beside(trained, f"whole_{refiner}")
    with killed_at(monkeypatch, 0) as calls:
        assert refine(whole, refiner) == 0
    expected = contents(whole, *RESULTS)
    assert sum(name.endswith(".png") for name in expected) == 3 * 8 and calls[0] > 40
    for fatal in range(2, calls[0] + 1, 15):
        run = beside(trained, "cut")
        with killed_at(monkeypatch, fatal), pytest.raises(Killed):
            refine(run, refiner)
        assert refine(run, refiner) == 0
        assert contents(run, *RESULTS) == expected, f"cut off at rename {fatal}"
        assert not [p for p in run.rglob("*") if p.name.endswith((".partial", ".tmp"))]


def test_segment_cut_off_at_every_rename(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its description to its weights, with a state after every epoch; the masks are there before."""
    ready = beside(trained, "ready")
    assert refine(ready, "crf") == 0
    whole = beside(ready, "whole")
    with killed_at(monkeypatch, 0) as calls:
        assert segment(whole) == 0
    expected = contents(whole, *RESULTS)
    assert 6 <= calls[0] <= 20
    for fatal in range(1, calls[0] + 1):
        run = beside(ready, "cut")
        with killed_at(monkeypatch, fatal), pytest.raises(Killed):
            segment(run)
        assert segment(run) == 0
        assert contents(run, *RESULTS) == expected, f"cut off at rename {fatal}"


@pytest.mark.slow
def test_a_segmenter_in_training_is_killed(trained: Path, environment: dict[str, str]) -> None:
    """SIGKILL in the middle of its epochs, in a process of its own."""
    run = beside(trained, "killed")
    assert refine(run, "crf") == 0
    whole, many = beside(run, "whole"), ["--segment.optimiser.epochs", "100"]
    command = [sys.executable, "-m", "tag2mask.cli", "segment", str(run), "--from", "crf", *SEGMENT, *many, "--quiet"]
    home = run / "seed0/fpr/segmenter/crf"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not (home / "metrics.jsonl").is_file() or len((home / "metrics.jsonl").read_text().splitlines()) < 3:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (home / "weights.safetensors").exists(), "it was done before it could be killed"
    for each in (run, whole):
        assert segment(each, *many) == 0
    assert contents(run, *RESULTS) == contents(whole, *RESULTS)


def test_no_stage_reads_the_truth(trained: Path) -> None:
    """Without the folder of masks, pseudo masks, walks, segmenter and predictions are the same bits."""
    truth, aside = trained.parent / "photos" / "masks", trained.parent / "masks_aside"
    results = []
    for there in (True, False):
        if not there:
            truth.rename(aside)
        try:
            run = beside(trained, "with_truth" if there else "without")
            for refiner in ("irn", "psa"):
                assert refine(run, refiner) == 0
            assert refine_val(run) == 0 and segment(run) == 0
            source = str(trained.parent / "photos/images")
            assert main(["predict", str(run), source, "--out", str(run / "out"), "--quiet"]) == 0
        finally:
            if not there:
                aside.rename(truth)
        results.append(contents(run, *RESULTS))
    assert results[0] == results[1]
    made = {"seed0/fpr/segmenter/crf/weights.safetensors", "seed0/fpr/irn/masks/val/p9.png", "out/masks/p9.png"}
    assert made <= results[0].keys()


def refine_val(run: Path) -> int:
    return main(["refine", str(run), "--split", "val", "--quiet"])
