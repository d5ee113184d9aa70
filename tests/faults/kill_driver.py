"""A process that forks the program and kills it: between any two operations on files, or after some milliseconds.

It has imported everything, so that a fork begins at once. ``kill_driver.py PLAN.json`` prints what came out as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import tag2mask.stages.demo  # noqa: F401, with it all stages
from tag2mask.cli import main
from tag2mask.stages.verify import verify_run

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(fatal: int, root: Path) -> list[int]:
    """Count the changes of files below ``root``; before the one with the number ``fatal`` this process is killed.

    What is removed may be named without its folder, so all removals count.
    """
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if event in CHANGES or (opened and str(arguments[0]).startswith(str(root))):
            seen[0] += 1
            if seen[0] == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def forked(command: list[str], run: Path, fatal: int = 0, seconds: float = 0.0) -> int | None:
    """Run a command on ``run`` in a fork, killed before a change or after some time.

    Returns the number of its changes; None if it was killed.
    """
    log, counted = run.parent / "log", run.parent / "counted"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            seen = watch(fatal, run)
            code = main([part.replace("RUN", str(run)) for part in command])
            counted.write_text(str(seen[0]))
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        return None
    if code:
        raise RuntimeError(f"{command}: exit code {code}\n{log.read_text()}")
    return int(counted.read_text())


def state_of(run: Path) -> dict[str, str]:
    """Hash of every file but manifests, in which stands once more what was made once more.

    Nor counts the lock of a cache: nobody takes it until there is another cache to be filled.
    """
    without = ("manifest.jsonl", "cache/run.lock")
    every = (p for p in run.rglob("*") if p.is_file() and not str(p).endswith(without))
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in every}


def compared(run: Path, expected: dict[str, str]) -> list[str]:
    """Files that differ from the expected ones, and what ``tag2mask verify`` finds."""
    found = state_of(run)
    different = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
    faults, _ = verify_run(run, lambda done, total, note="": None)
    return different + [f"{fault.kind}: {fault.path}" for fault in faults]


def left_alone(commands: list[list[str]], root: Path) -> tuple[list[int], list[float], list[dict[str, str]]]:
    """Changes, seconds and files after each command of a run that nobody kills; keeps what was there before each."""
    whole = root / "whole"
    whole.mkdir()
    changes, seconds, after = [], [], []
    for number, command in enumerate(commands):
        shutil.copytree(whole, root / f"before{number}")
        start = time.monotonic()
        changes.append(forked(command, whole) or 0)
        seconds.append(time.monotonic() - start)
        after.append(state_of(whole))
    return changes, seconds, after


def kill_and_go_on(plan: dict[str, Any], root: Path) -> dict[str, Any]:
    """``kills`` by command, and ``different``: what a run that was killed has otherwise than one that was left alone.

    ``every``: before each so many-th change, always from where the command began. Else ``kills`` times before a change
    and ``timed`` times at any moment, the same run all the time.
    """
    draw, cut = random.Random(plan["seed"]), root / "cut"
    changes, seconds, after = left_alone(plan["commands"], root)
    kills, different = [0] * len(changes), []
    for number, command in enumerate(plan["commands"]):
        if plan["every"]:
            moments = [(count, 0.0) for count in range(1, changes[number] + 1, plan["every"])]
        else:
            moments = [(draw.randint(1, max(1, changes[number] // 2)), 0.0) for _ in range(plan["kills"])]
            moments += [(0, draw.uniform(0, seconds[number] / 2)) for _ in range(plan["timed"])]
        for turn, (fatal, delay) in enumerate(moments):
            if plan["every"]:
                shutil.rmtree(cut, ignore_errors=True)
                shutil.copytree(root / f"before{number}", cut)
            kills[number] += forked(command, cut, fatal, delay) is None
            if plan["every"] or turn == len(moments) - 1:
                forked(command, cut)
                different += [f"{number}, {command[0]}, {fatal}: {name}" for name in compared(cut, after[number])]
    return {"changes": changes, "seconds": seconds, "kills": kills, "different": different}


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    print(json.dumps(kill_and_go_on(json.loads(path.read_text()), path.parent)))
