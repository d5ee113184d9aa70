"""The run folder: settings, versions, seeds, metrics as JSON lines; one writer at a time."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from tag2mask import __version__
from tag2mask.atomic import FULL, named, write_bytes
from tag2mask.errors import InputError
from tag2mask.launch import is_member
from tag2mask.progress import Reporter

BEAT_SECONDS = 20.0
"""How often whoever holds a lock touches it."""
LOCK_SECONDS = 0.2
"""How long a process that makes or takes over a lock may need to write its number into it."""
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow", "safetensors")


def seed_folder(run: Path, seed: int) -> Path:
    """What belongs to one seed."""
    return run / f"seed{seed}"


def method_folder(run: Path, seed: int, method: str) -> Path:
    """Where a method's weights, metrics, prototypes and maps lie."""
    return seed_folder(run, seed) / method


def mask_folder(run: Path, seed: int, method: str, stage: str, split: str) -> Path:
    """Where the masks of a stage lie.

    ``seed``: ``seed0/fpr/masks/train``; ``irn``: ``seed0/fpr/irn/masks/train``; those of a segmenter that has learnt
    from them, ``segmenter:irn``: ``seed0/fpr/segmenter/irn/masks/train``.
    """
    home = method_folder(run, seed, method)
    return (home if stage == "seed" else home / stage.replace(":", "/")) / "masks" / split


def versions() -> dict[str, str]:
    """Versions of this program, Python, and the packages that decide what is computed."""
    found = {"tag2mask": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically; not-a-number is not JSON and must have been replaced."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read JSON that this program wrote; ``what`` names it in the error."""
    if not path.is_file():
        raise InputError(f"there is no {what} at {path}; is this the folder of a finished run?")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); make it again.") from error


def append_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a file of JSON lines."""
    with named(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def keep_lines(path: Path, count: int) -> None:
    """Keep the first ``count`` rows: those of the epochs that a resumed run does not repeat."""
    if path.is_file():
        rows = read_lines(path)[:count]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


class BusyError(InputError):
    """Another process holds a folder."""


@contextmanager
def locked_in_turn(folder: Path, report: Reporter) -> Iterator[None]:
    """``locked``, once whoever holds the folder has finished: for what several runs share, and each leaves whole."""

    @contextmanager
    def waited() -> Iterator[None]:
        with ExitStack() as held:
            told = False
            while True:
                try:
                    held.enter_context(_locked(folder))
                    break
                except BusyError as error:
                    if not told:
                        report.say(f"waiting: {error}")
                    told = True
                    time.sleep(LOCK_SECONDS)
            yield

    with _for_all(waited):
        yield


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder; an ``InputError`` says who else does. A lock whose process has ended is taken over.

    Of processes that work on one run together, the first holds it for all. Within one process it may be held again by
    what is called meanwhile. On a folder that cannot be written to it is the first thing that fails.
    """
    with _for_all(lambda: _locked(run)):
        yield


@contextmanager
def _for_all(hold: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """What one process holds by itself, and the first of several for all."""
    if is_member(os.environ):
        from tag2mask import ranks  # which is PyTorch's, and who looks at a run needs no network

        if ranks.world() > 1:
            with ExitStack() as held:
                ranks.once(lambda: held.enter_context(hold()))
                yield
                ranks.wait()
            return
    with hold():
        yield


_held: set[tuple[str, Path]] = set()
"""Numbers of processes and the locks they hold; those that a forked process inherits are its parent's."""


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    run.mkdir(parents=True, exist_ok=True)
    path, mine = run / "run.lock", f"{os.getpid()}@{platform.node()}"
    key = (mine, path.resolve())
    if key in _held:
        yield
        return
    try:
        with named(path), path.open("x") as file:
            file.write(mine)
    except FileExistsError:
        owner = _owner(path)
        if owner != mine and not _alive(owner, path):
            own = path.with_name(f"{path.name}.{os.getpid()}")
            own.write_text(mine)
            os.replace(own, path)
            time.sleep(LOCK_SECONDS)  # of several that take over at once, the last one to write has it
            owner = _owner(path)
        if owner != mine:
            who = owner.removesuffix(f"@{platform.node()}")
            raise BusyError(
                f"another process ({who}) is writing to {run}; wait for it, choose another --out, or delete {path}."
            ) from None
    except OSError as error:
        if error.errno in FULL:  # it is there, and empty
            path.unlink(missing_ok=True)
        raise
    _held.add(key)
    try:
        for left in run.glob(f"{path.name}.*"):  # by one that was killed while it took over
            if not _alive(left.suffix.removeprefix("."), left):
                left.unlink(missing_ok=True)
        ended = threading.Event()
        threading.Thread(target=_show_life, args=(path, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
    finally:
        _held.discard(key)
        if _owner(path) == mine:
            path.unlink(missing_ok=True)


Given = ParamSpec("Given")
Result = TypeVar("Result")


def holding_run(work: Callable[Concatenate[Path, Given], Result]) -> Callable[Concatenate[Path, Given], Result]:
    """Hold the run folder, the first argument of ``work``, from its first moment to its last, where there is one."""

    @wraps(work)
    def held(run: Path, *arguments: Given.args, **options: Given.kwargs) -> Result:
        if not run.is_dir():  # which ``work`` tells
            return work(run, *arguments, **options)
        with locked(run):
            return work(run, *arguments, **options)

    return held


def _owner(path: Path) -> str:
    """What a lock holds, the number of a process and its machine; empty when there is none."""
    for _ in range(2):
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            return ""
        if text:
            return text
        time.sleep(LOCK_SECONDS)  # it has just been made and is not written yet, or never will be
    return ""


def _show_life(path: Path, ended: threading.Event) -> None:
    """Touch a lock now and then, for the processes of other machines."""
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _alive(owner: str, lock: Path) -> bool:
    """Whether the process that a lock names is there; of another machine's: whether it has touched the lock lately."""
    number, _, host = owner.partition("@")
    if not number.isdigit():
        return False
    if host not in ("", platform.node()):
        with suppress(OSError):
            return time.time() - lock.stat().st_mtime < 10 * BEAT_SECONDS
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
