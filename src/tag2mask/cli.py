"""The command line. Its sub-commands are the stages; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

from tag2mask import __version__
from tag2mask.atomic import told
from tag2mask.commands import (  # noqa: F401, modules fill COMMANDS
    COMMANDS,
    OUT_FOLDERS,
    SHARED_COMMANDS,
    check_out,
    maps,
    masks,
    study,
)
from tag2mask.errors import InputError
from tag2mask.launch import devices_asked, end_with_launcher, is_member, is_new, supervise

# isort: split
from tag2mask.commands import explore, reproduce  # noqa: F401, the last of the overview

EPILOG = """`tag2mask COMMAND --help` shows every option of a command.
Exit codes: 0 done, 1 findings, 2 bad input, 130 stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors become one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] == "--version":
        print(f"tag2mask {__version__}")
        return 0
    try:
        if given[0] not in COMMANDS:
            raise InputError(f"there is no command {given[0]!r}{nearest(given[0])}; run `tag2mask --help`.")
        run = COMMANDS[given[0]][1]
        if given[0] in OUT_FOLDERS and not is_member(os.environ):  # before several begin
            check_out(given)
        if given[0] in SHARED_COMMANDS and {"-h", "--help"}.isdisjoint(given):
            return shared(run, given)
        return run(given[1:])
    except InputError as error:
        if is_new(str(error)):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if is_new(told(error)):
            print(f"error: {told(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumed = "train and demo go on with --resume, others by themselves"
        print(f"stopped; what was finished is kept ({resumed})", file=sys.stderr)
        return 130


def shared(run: Callable[[list[str]], int], given: list[str]) -> int:
    """Run a command that several processes may share, as ``--devices`` or whoever started this one says."""
    count = devices_asked(given)
    if not is_member(os.environ):
        return run(given[1:]) if count == 1 else supervise(given, count)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else it warns in every step that all parameters are used
    from tag2mask.ranks import joined, rank

    end_with_launcher()
    with joined(), redirect_stdout(None if rank() else sys.stdout):
        return run(given[1:])


def usage() -> str:
    """The overview that `tag2mask --help` prints."""
    rows = "\n".join(f"  {name:<10} {summary}" for name, (summary, _) in COMMANDS.items())
    title = "tag2mask: photos with tags in, segmentation masks out."
    return f"{title}\n\nusage: tag2mask COMMAND ...\n\n{rows}\n\n{EPILOG}"


def nearest(name: str) -> str:
    """A suggestion for a mistyped command."""
    import difflib

    near = difflib.get_close_matches(name, list(COMMANDS), n=1)
    return f", did you mean {near[0]!r}" if near else ""


if __name__ == "__main__":
    sys.exit(main())
