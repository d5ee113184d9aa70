"""Starts the processes of a run on one machine, and ends them together. It needs no torch.

They find each other as torchrun's do, by the same environment variables; so torchrun and Slurm may start them as well,
on many machines.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tag2mask.errors import InputError

SECONDS_TO_END = 20.0
"""The others have heard of a process that ended, and may say so and end by themselves; then they are stopped."""
POLL_SECONDS = 0.1
TOLD = "TAG2MASK_TOLD"
"""Names a folder in which the processes note what has been said, as most mistakes are everyone's."""
LAUNCHER = "TAG2MASK_LAUNCHER"
"""Tells the processes the number of the one that has started them."""


def is_member(environment: Mapping[str, str]) -> bool:
    """Whether somebody has started this process as one of several: this module, torchrun, or Slurm's srun."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return int(environment.get("WORLD_SIZE", "1")) > 1
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # srun's: the batch script itself is one process
    return "SLURM_PROCID" in environment and tasks > 1 and environment.get("SLURM_JOB_NAME") not in (
        "bash", "interactive",
    )  # fmt: skip


def devices_asked(arguments: Sequence[str]) -> int:
    """The number behind ``--devices``, 1 where it is not given."""
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--devices":
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            if not value.isdigit() or int(value) < 1:
                raise InputError(f"--devices {value!r}; expected how many processes are to work, such as 2.")
            return int(value)
    return 1


def supervise(arguments: Sequence[str], count: int) -> int:
    """Run ``tag2mask`` with these arguments as ``count`` processes that know of each other; returns the exit code.

    When one ends with an error, the others end, too: none is left waiting for it.
    """
    return run_members([sys.executable, "-m", "tag2mask.cli", *arguments], count)


def run_members(command: Sequence[str], count: int) -> int:
    """Run a command as ``count`` processes; the exit code as of ``supervise``."""
    with tempfile.TemporaryDirectory() as told:
        environment = {
            **os.environ, TOLD: told, LAUNCHER: str(os.getpid()), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": f"tag2mask-{os.getpid()}",
        }  # fmt: skip
        members = [
            subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(count)
        ]
        with ended_with_this_process(members):
            return wait_for(members)


def is_new(message: str) -> bool:
    """Whether none of the processes that this module has started has said this before; else it is said."""
    if TOLD not in os.environ:
        return True
    try:
        (Path(os.environ[TOLD]) / hashlib.sha256(message.encode()).hexdigest()).touch(exist_ok=False)
    except OSError:
        return False
    return True


def wait_for(members: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended; the first exit code that is not 0, after one sentence about it."""
    codes = [member.poll() for member in members]
    while all(code in (None, 0) for code in codes):
        if None not in codes:
            return 0
        time.sleep(POLL_SECONDS)
        codes = [member.poll() for member in members]
    deadline = time.monotonic() + SECONDS_TO_END
    while any(member.poll() is None for member in members) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    codes = [member.poll() for member in members]
    rank, code = next((r, c) for r, c in enumerate(codes) if c is not None and c != 0)
    killed = next(((r, c) for r, c in enumerate(codes) if c is not None and c < 0), None)
    if killed is not None:
        rank, code = killed
        print(
            f"error: process {rank} of {len(members)} was ended by {signal.Signals(-code).name}, so the others have "
            "stopped; what was finished is kept: run the same command again, `train` with --resume.", file=sys.stderr
        )  # fmt: skip
        return 1
    return code


@contextmanager
def ended_with_this_process(members: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Whatever ends this process, an error, a signal, Ctrl-C, ends the others (see ``end_with_launcher``)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for member in members:
            if member.poll() is None:
                member.kill()
        for member in members:
            member.wait()


def end_with_launcher() -> None:
    """In a process that this module has started: watch for the end of the one that did, and end at once."""
    launcher = int(os.environ.get(LAUNCHER, "0"))

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os._exit(1)

    if launcher == os.getppid():
        threading.Thread(target=watch, daemon=True).start()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
