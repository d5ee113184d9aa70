"""The same work on many images, in one process for each core."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from typing import TypeVar

from tag2mask.progress import Step

Job = TypeVar("Job")
Result = TypeVar("Result")
JOBS_FOR_A_PROCESS = 24
"""Fewer are done sooner than a new process has started."""
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_workers = 1
WAITING = 4
"""Jobs that wait for each process; so memory stays bounded when jobs carry arrays."""


def over_images(
    work: Callable[[Job], Result], jobs: Iterable[Job], count: int, processes: int, step: Step, done: int = 0,
    received: Callable[[Job, Result], None] = lambda job, result: None,
) -> None:  # fmt: skip
    """Do ``work`` for every job, in no particular order.

    Args:
        work: a function of a module, and jobs that can be pickled.
        count: number of jobs.
        processes: 0 for one each core; this process alone where there are few jobs.
        step: told ``done`` + finished jobs of ``done`` + ``count``.
        received: called in this process with every finished job and what ``work`` returned.

    Raises:
        Whatever ``work`` raises first; jobs that have begun are finished before.
    """
    workers = min(processes or available_cores(), count // JOBS_FOR_A_PROCESS)
    total = done + count
    if workers <= 1:
        for number, job in enumerate(jobs, 1):
            received(job, work(job))
            step(done + number, total)
        return
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
    with ProcessPoolExecutor(workers, context, initializer=start_worker) as pool:
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        finished = 0

        def receive() -> None:
            nonlocal finished
            job, future = waiting.popleft()
            received(job, future.result())
            finished += 1
            step(done + finished, total)

        try:
            for job in jobs:
                if len(waiting) >= WAITING * workers:
                    receive()
                waiting.append((job, pool.submit(work, job)))
            while waiting:
                receive()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def available_cores() -> int:
    """The cores that this process may use, where the system tells, else all of the machine; at least 1.

    Processes that work on one run and share a machine share its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * _workers))


def cores_are_shared() -> bool:
    """Whether this is one of several workers that are busy at once."""
    return _workers > 1


def start_worker(workers: int = 1) -> None:
    """What a worker does first: one thread, as cores are shared out already, and no life after its parent's.

    ``workers``: how many do the same, among whom ``available_cores`` are shared out.

    A killed parent cannot tell its workers to stop; they would go on for hours, and hold the locks of what they write.
    """
    global _workers
    _workers = workers
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    threading.Thread(target=end_with_parent, daemon=True).start()


def keep_freed_memory() -> None:
    """Have the C library keep a quarter of a GB of freed memory for the next batch.

    Given back to the system and asked for again after every batch it costs a seventh of a training's time. Blocks in
    use may keep more from going back. Other C libraries than glibc are left as they are.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((TRIM_THRESHOLD, 2**28), (TOP_PAD, 2**26), (MMAP_THRESHOLD, 2**25)):
            mallopt(parameter, size)


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
