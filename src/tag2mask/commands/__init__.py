"""The sub-commands. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tag2mask.atomic import CLOSED, FULL
from tag2mask.errors import InputError
from tag2mask.presets import PRESETS

WHOSE_DEFAULTS = f"Defaults: {', '.join(PRESETS)}."
"""What ``--preset`` says of itself."""
COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {}
"""Name -> summary and function, in the order of the overview."""


def command(summary: str, name: str = "") -> Callable[[Callable[[list[str]], int]], Callable[[list[str]], int]]:
    """Register a function as a sub-command, under its own name unless another is given."""

    def register(function: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        COMMANDS[name or function.__name__] = (summary, function)
        return function

    return register


SHARED_COMMANDS = ("train", "localize", "evaluate", "refine", "segment", "run")
"""What several processes, perhaps on several machines, may do together."""


OUT_FOLDERS = ("demo", "train", "run", "sweep", "import", "reproduce")
"""Commands whose ``--out`` is the folder of a run, new or not."""


def check_out(arguments: list[str]) -> None:
    """Raise an error if the ``--out`` among raw arguments is no folder and cannot become one; makes none."""
    from tag2mask.settings import values_of

    for value in values_of(arguments, "--out"):
        out = Path(value)
        try:
            there = next(place for place in (out, *out.absolute().parents) if place.exists())
            if not there.is_dir():
                raise InputError(f"--out {value}: {there} is a file, and a folder is needed; choose another name.")
            if there != out:
                Path(tempfile.mkdtemp(dir=there)).rmdir()  # permissions alone do not tell what a file system refuses
        except OSError as error:
            if error.errno in (*FULL, *CLOSED):
                raise OSError(error.errno, error.strerror, value) from error
            raise InputError(
                f"--out {value} cannot be created ({error.strerror}); choose a folder that can be written to."
            ) from error


def check_apart(out: str, root: str) -> None:
    """Raise an error if a new run would lie among the photos, where its pictures may be taken for photos or masks."""
    run, data = Path(out).resolve(), Path(root).resolve()
    if not root or not run.is_relative_to(data) or (run / "settings.yaml").is_file():
        return
    how = "is" if run == data else "lies in"
    raise InputError(f"--out {out} {how} the data folder {root}; choose a folder beside it for the run.")


def new_parser(name: str, usage: str, description: str) -> Any:
    """A parser for one command."""
    from tag2mask.settings import SettingsParser

    return SettingsParser(
        prog=f"tag2mask {name}",
        usage=usage,
        description=description,
        allow_abbrev=False,
        exit_on_error=True,
        env_prefix=False,
    )


def common(parser: Any) -> None:
    """Options of every command that works for a while."""
    parser.add_argument("--quiet", action="store_true", help="Print results and warnings alone.")
    if parser.prog.split()[-1] in SHARED_COMMANDS:
        parser.add_argument(
            "--devices", default=1, type=int,
            help="Processes of this machine that share the work, one for each GPU; the number changes no result. Many "
            "machines: start the command by torchrun or srun.",
        )  # fmt: skip


def run_parser(name: str, usage: str, description: str, methods: str = "all") -> Any:
    """A parser for the commands that work on a run folder."""
    parser = new_parser(name, usage, description)
    parser.add_argument("run", type=str, help="Folder of a run, the --out of `tag2mask train`.")
    parser.add_argument(
        "--methods", default="", type=str, help=f"Some methods alone, such as cam,fpr; default: {methods}."
    )
    parser.add_argument(
        "--split", default="", type=str, help="Another split than the one trained on, such as val."
    )
    common(parser)
    return parser


def method_names(text: str) -> tuple[str, ...]:
    """``cam,fpr`` as a tuple."""
    return tuple(name for name in text.split(",") if name)
