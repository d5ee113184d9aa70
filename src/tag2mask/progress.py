"""One way to say how far things are: bars with ETA on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0
_silent = False


def silence(silent: bool) -> None:
    """Of several processes that do the same work one is enough to tell of it."""
    global _silent
    _silent = silent


class Step(Protocol):
    """Called as a piece of work goes on."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Reporter:
    """Shows messages and the progress of one piece of work at a time, on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """One line, unless quiet."""
        if not (self.quiet or _silent):
            self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line, also when quiet."""
        if not _silent:
            self.console.print(f"warning: {text}", markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """A piece of work; yields the function to call as it goes on."""
        if self.quiet or _silent:
            yield lambda done, total, note="": None
        elif self.console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=None, note="")
                yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)
        else:
            yield self._lines(title)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip

    def _lines(self, title: str) -> Step:
        start = time.monotonic()
        last = start - SECONDS_BETWEEN_LINES

        def step(done: int, total: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < SECONDS_BETWEEN_LINES:
                return
            last = now
            left = f", {(now - start) / done * (total - done):.0f} s left" if done else ""
            print(f"{title}: {done}/{total}{left} {note}".rstrip(), file=sys.stderr, flush=True)

        return step
