"""Killed at any moment and resumed, a run ends with the same bits as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tag2mask.cli import main
from tag2mask.errors import InputError
from tag2mask.runs import locked

EPOCHS = 40


class Killed(BaseException):
    """What a simulated kill raises; nothing catches it."""


def train(out: Path, *settings: str) -> int:
    return main(["train", "--out", str(out), *settings])


def results(run: Path) -> dict[str, bytes]:
    """Everything that a training computes, but for its unfinished states."""
    wanted = ("weights.safetensors", "state.safetensors", "prototypes.safetensors", "metrics.jsonl", "settings.yaml")
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.name in wanted}


def epochs(run: Path, method: str) -> list[int]:
    path = run / "seed0" / method / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.is_file() else []


def snapshot(run: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.rglob("*") if p.is_file()}


@pytest.fixture
def small(tiny: list[str], scenes: list[str]) -> list[str]:
    return [*tiny, *scenes, "--methods", "fpr"]


@pytest.fixture
def long(tiny: list[str], scenes: list[str]) -> list[str]:
    many = ["--classify.epochs", str(EPOCHS), "--rectify.epochs", str(EPOCHS)]
    gentle = ["--classify.learning_rate", "0.3", "--rectify.learning_rate", "0.01"]
    return [*tiny, *scenes, *many, *gentle, "--methods", "fpr"]


def start(out: Path, settings: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tag2mask.cli", "train", "--out", str(out), *settings]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen[str], run: Path, method: str, lines: int, delay: float) -> None:
    """Kill -9 once the process holds the run and ``method`` has finished ``lines`` epochs, and ``delay`` seconds."""
    deadline, lock = time.monotonic() + 240, run / "run.lock"
    while not lock.is_file() or lock.read_text().split("@")[0] != str(process.pid) or len(epochs(run, method)) < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    assert process.poll() is None, "it was done before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def compare_killed_run(out: Path, settings: list[str], environment: dict[str, str], moments: list[tuple[str, int]]) -> None:
    draw = random.Random()
    for number, (method, lines) in enumerate(moments):
        process = start(out / "killed", [*settings, *(["--resume"] if number else [])], environment)
        kill_when(process, out / "killed", method, lines, draw.uniform(0, 0.05))
        assert (out / "killed" / "run.lock").read_text().split("@")[0] == str(process.pid)
        assert not (out / "killed" / "seed0" / "fpr" / "weights.safetensors").exists()
    process = start(out / "killed", [*settings, "--resume"], environment)
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 0, text
    assert train(out / "whole", *settings) == 0
    assert results(out / "killed") == results(out / "whole")
    for method in ("cam", "fpr"):
        assert epochs(out / "killed", method) == list(range(1, EPOCHS + 1))
    assert not [p for p in (out / "killed").rglob("*") if p.name.endswith((".partial", ".lock"))]


def test_killed_while_training_and_resumed(tmp_path: Path, long: list[str], environment: dict[str, str]) -> None:
    draw = random.Random()
    moments = [("cam", draw.randint(0, EPOCHS - 10)), ("fpr", draw.randint(0, EPOCHS - 10))]
    compare_killed_run(tmp_path, long, environment, moments)


@pytest.mark.slow
def test_killed_many_times_and_resumed(tmp_path: Path, long: list[str], environment: dict[str, str]) -> None:
    counts = sorted(random.Random().sample(range(EPOCHS - 10), 5))
    compare_killed_run(tmp_path, long, environment, [(m, n) for m in ("cam", "fpr") for n in counts])


def test_cut_off_before_any_rename(tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file appears by a rename; cutting the run off at each of them visits every state that a folder can be in."""
    rename, calls, fatal = os.replace, 0, -1

    def counted(source: object, target: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            raise Killed
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", counted)
    assert train(tmp_path / "whole", *small) == 0
    expected, moments = results(tmp_path / "whole"), calls
    assert moments >= 12
    for fatal in range(1, moments + 1):
        run, calls = tmp_path / f"cut{fatal}", 0
        with pytest.raises(Killed):
            train(run, *small)
        assert train(run, *small, "--resume") == 0
        assert results(run) == expected, f"cut off at rename {fatal}"
        assert not list(run.rglob("*.partial")), f"cut off at rename {fatal}"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_metrics_line_that_was_cut_off(tmp_path: Path, small: list[str], keep: float) -> None:
    assert train(tmp_path / "run", *small) == 0
    expected = results(tmp_path / "run")
    folder = tmp_path / "run" / "seed0" / "fpr"
    text = (folder / "metrics.jsonl").read_text()
    last = text.splitlines(keepends=True)[-1]
    (folder / "weights.safetensors").unlink()
    (folder / "metrics.jsonl").write_text(text + last[: int(keep * len(last))])
    assert train(tmp_path / "run", *small, "--resume") == 0
    assert results(tmp_path / "run") == expected


def test_finished_folder_needs_resume_and_loses_nothing(
    tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *small) == 0
    before = snapshot(tmp_path / "run" / "seed0")
    assert train(tmp_path / "run", *small) == 2
    assert "holds a training already; add --resume" in capsys.readouterr().err
    assert snapshot(tmp_path / "run" / "seed0") == before
    assert train(tmp_path / "run", *small, "--resume") == 0
    assert snapshot(tmp_path / "run" / "seed0") == before, "what is finished is not trained again"


@pytest.mark.parametrize(
    ("change", "name", "both"),
    [
        (["--fpr.margin", "0.7"], "fpr.margin", "fpr.margin 0.95, not 0.7"),
        (["--data.cooccur.seed", "3"], "data.cooccur.seed", "data.cooccur.seed 0, not 3"),
        (["--methods", "fpr,halo", "--threads", "2"], "threads", "methods ['fpr'], not ['fpr', 'halo']"),
        (["--seeds", "1", "--cache_gigabytes", "0"], "cache_gigabytes", "seeds [0], not [1]"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str], change: list[str], name: str, both: str
) -> None:
    assert train(tmp_path / "run", *small) == 0
    before = snapshot(tmp_path / "run")
    capsys.readouterr()
    for resume in ([], ["--resume"]):
        assert train(tmp_path / "run", *small, *change, *resume) == 2
        text = capsys.readouterr().err
        assert (f"error: {name} is not what " if resume else f"holds a run with {both}; ") in text
        assert text.count("\n") == 1
    assert snapshot(tmp_path / "run") == before


def test_methods_and_seeds_may_be_added(tmp_path: Path, small: list[str]) -> None:
    assert train(tmp_path / "run", *small) == 0
    before = snapshot(tmp_path / "run" / "seed0")
    assert train(tmp_path / "run", *small, "--methods", "fpr,halo", "--seeds", "0,1", "--resume") == 0
    after = snapshot(tmp_path / "run" / "seed0")
    assert {path: after[path] for path in before} == before
    assert train(tmp_path / "once", *small, "--methods", "fpr,halo", "--seeds", "0,1") == 0
    assert results(tmp_path / "run") == results(tmp_path / "once")
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert (settings["methods"], settings["seeds"]) == (["fpr", "halo"], [0, 1])


def test_methods_do_not_depend_on_each_other(tmp_path: Path, small: list[str]) -> None:
    for methods in ("halo,continued,fpr", "fpr,halo"):
        assert train(tmp_path / methods, *small, "--methods", methods) == 0
    several, fewer = results(tmp_path / "halo,continued,fpr"), results(tmp_path / "fpr,halo")
    assert len(fewer) > 5
    assert {k: v for k, v in fewer.items() if "seed0" in k} == {k: several[k] for k in fewer if "seed0" in k}


def test_a_try_that_failed_before_training_claims_nothing(
    tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *small, "--host.backbone", "test_resnett") == 2
    assert "Did you mean" in capsys.readouterr().err
    assert train(tmp_path / "run", *small) == 0


def test_a_run_of_an_earlier_version_says_which_setting_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By no guess at another setting, as the number would mean something else there."""
    (tmp_path / "settings.yaml").write_text("fpr:\n  lift_from: 0.5\n")
    assert main(["evaluate", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "settings.yaml: fpr.lift_from is a setting of an earlier version" in said and "trained again" in said
    assert "Did you mean" not in said
    assert train(tmp_path / "other", "--fpr.lift_from", "0.5") == 2
    assert "--fpr.lift_from is a setting of an earlier version" in capsys.readouterr().err


def test_two_processes_on_one_folder(
    tmp_path: Path, small: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys, pathlib; from tag2mask.runs import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert train(tmp_path / "run", *small) == 2
        text = capsys.readouterr().err
        assert f"another process ({other.pid}) is writing to {tmp_path / 'run'}" in text and text.count("\n") == 1
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.lock"]
        other.communicate("")
    assert train(tmp_path / "run", *small) == 0
    assert not (tmp_path / "run" / "run.lock").exists()


@pytest.mark.parametrize("owner", ["ended", "", "not a number"])
def test_stale_lock_is_taken_over(tmp_path: Path, owner: str) -> None:
    if owner == "ended":
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        owner = str(process.pid)
    (tmp_path / "run.lock").write_text(owner)
    with locked(tmp_path):
        assert (tmp_path / "run.lock").read_text().split("@")[0] == str(os.getpid())
    assert not (tmp_path / "run.lock").exists()


def test_lock_of_a_process_that_lives_is_kept_as_it_is(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as other:
        (tmp_path / "run.lock").write_text(str(other.pid))
        with pytest.raises(InputError), locked(tmp_path):
            pass
        assert (tmp_path / "run.lock").read_text() == str(other.pid)
        other.communicate("\n")


RACE = """
import multiprocessing, pathlib, sys, time
from tag2mask.errors import InputError
from tag2mask.runs import locked

def race(barrier, run, results):
    barrier.wait()
    try:
        with locked(run):
            time.sleep(0.5)
            results.put("held")
    except InputError:
        results.put("refused")

context = multiprocessing.get_context("fork")
for number in range(6):
    run = pathlib.Path(sys.argv[1], str(number))
    run.mkdir()
    if number % 2:
        (run / "run.lock").write_text("999999999")  # of a process that has ended
    barrier, results = context.Barrier(5), context.Queue()
    several = [context.Process(target=race, args=(barrier, run, results)) for _ in range(5)]
    for one in several:
        one.start()
    seen = sorted(results.get(timeout=60) for _ in several)
    for one in several:
        one.join()
    assert seen == ["held"] + 4 * ["refused"], seen
    assert not list(run.iterdir())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the race forks")
def test_of_several_at_once_one_holds_the_lock(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_lock_goes_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(Killed), locked(tmp_path):
        raise Killed
    assert not (tmp_path / "run.lock").exists()
