from __future__ import annotations

import io

import pytest
from rich.console import Console

from tag2mask import progress
from tag2mask.progress import Reporter


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Reporter().task("work") as step:
        for done in range(1, 101):
            now += 1.0
            step(done, 100, f"loss {done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: 1/100, 99 s left loss 1"
    assert lines[1] == "work: 11/100, 89 s left loss 11", "one line in ten seconds"
    assert len(lines) == 11 and lines[-1] == "work: 100/100, 0 s left loss 100"


def test_bar_on_a_terminal() -> None:
    reporter = Reporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with reporter.task("frozen features") as step:
        for done in range(1, 6):
            step(done, 5, "note of the step")
    assert isinstance(reporter.console.file, io.StringIO)
    text = reporter.console.file.getvalue()
    assert "frozen features" in text and "5/5" in text and "note of the step" in text


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(quiet=True)
    reporter.say("a remark")
    with reporter.task("work") as step:
        step(1, 1)
    reporter.warn("no negative is left for [bold]cat[/bold]")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warning: no negative is left for [bold]cat[/bold]\n")


def test_remarks_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().say("a remark of [x] " + "long words " * 30)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
