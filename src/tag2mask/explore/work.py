"""Work behind the page: one thread that does what needs the network, in pieces, and says how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from tag2mask.errors import InputError

Result = TypeVar("Result")
Steps = Iterator[tuple[int, int]]
"""Yields (done, total)."""


@dataclass
class Job:
    """How far a long piece of work is."""

    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    done: int = 0
    total: int = 0
    message: str = ""

    def told(self) -> dict[str, Any]:
        """For the page."""
        return asdict(self)


class Worker:
    """A thread that does one thing after the other. Long work takes its turn again after each step."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[], Result]) -> Result:
        """Do something short in the thread and wait for its result."""
        future: Future[Result] = Future()

        def answer() -> None:
            try:
                future.set_result(question())
            except BaseException as error:  # it belongs to the one who asks
                future.set_exception(error)

        self._queue.put(answer)
        return future.result()

    def begin(self, key: str, steps: Callable[[], Steps]) -> Job:
        """Begin long work unless it goes on already; what has failed begins again."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.state == "failed":
                job = self._jobs[key] = Job()
                self._queue.put(lambda: self._advance(job, steps()))
            return job

    def job(self, key: str) -> Job | None:
        """The work that was begun under a name."""
        with self._lock:
            return self._jobs.get(key)

    def forget(self, key: str) -> None:
        """Let work that is done begin again."""
        with self._lock:
            self._jobs.pop(key, None)

    def close(self) -> None:
        """End the thread after what it does now."""
        self._queue.put(None)
        self._thread.join(timeout=2)

    def _advance(self, job: Job, steps: Steps) -> None:
        try:
            job.state = "running"
            job.done, job.total = next(steps)
        except StopIteration:
            job.state = "done"
        except InputError as error:
            job.state, job.message = "failed", str(error)
        except Exception as error:
            job.state, job.message = "failed", f"{type(error).__name__}: {error}"
        else:
            self._queue.put(lambda: self._advance(job, steps))

    def _work(self) -> None:
        while (piece := self._queue.get()) is not None:
            piece()
