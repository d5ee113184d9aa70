"""Settings from presets, YAML files and the command line: typed, checked; a mistyped key suggests the right one."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from tag2mask.config import RunConfig
from tag2mask.errors import InputError
from tag2mask.presets import PRESETS, for_host

set_parsing_settings(docstring_parse_attribute_docstrings=True)

WRONG_VALUE = re.compile(r'Parser key "(?P<key>[^"]+)": Expected (?P<kind>.+?)\. Got value: (?P<value>.*)')
MISSING = re.compile(r"the following arguments are required: (?P<names>.*)")
RETIRED = {
    "fpr.lift_from": "fpr.lift_fewer took its place, by another rule: leave it out, or use that version; a run that "
    "was trained with it is to be trained again.",
}
"""Settings that there are no more, and what to do."""
KINDS = {"a <class 'int'>": "a whole number", "a <class 'float'>": "a number", "a <class 'bool'>": "true or false"}
"""How the parser calls a type, and how a person would."""


class SettingsParser(ArgumentParser):
    """An argument parser whose errors are ``InputError``s that suggest the nearest option."""

    arguments: Sequence[str] = ()
    """What is being parsed, for messages."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of exiting; the command line turns it into one line."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        message = " ".join(message.split())
        wrong = WRONG_VALUE.fullmatch(message)
        if wrong:
            kind = re.sub(r"a typing\.Literal\[(.*)\]", r"one of \1", wrong["kind"])
            whose = self.origin(wrong["key"], wrong["value"])
            raise InputError(with_nearest(f"{whose} is {wrong['value']!r}; expected {KINDS.get(kind, kind)}."))
        missing = MISSING.fullmatch(message)
        if missing:
            names = [f"--{name}" if f"--{name}" in self._option_string_actions else name.upper()
                     for name in missing["names"].split(", ")]  # fmt: skip
            raise InputError(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing; see --help.")
        raise InputError(self.with_suggestion(message))

    def parse_args(self, args: Sequence[str], **options: Any) -> Any:  # type: ignore[override]
        """As in the base class; the keys of YAML files are looked at first, as its own message suggests nothing."""
        if "--config" in self._option_string_actions:
            self.arguments = args
            for path in config_files(args):
                check_keys(RunConfig, read_yaml(path), str(path))
        return super().parse_args(list(args), **options)

    def origin(self, key: str, value: str) -> str:
        """Where a wrong value was written: the option, or the YAML file and its key."""
        typed = any(argument.partition("=")[0] == f"--{key}" for argument in self.arguments)
        for path in reversed(config_files(self.arguments)):
            written = dict(flattened(read_yaml(path)))
            if key in written and (not typed or str(written[key]) == value):
                return f"{path}: {key}"
        return f"--{key}"

    def with_suggestion(self, message: str) -> str:
        """The message, and the known option that is nearest to one it complains about, or those that end like it."""
        options = [option.lstrip("-") for option in self._option_string_actions]
        _, found, strange = message.partition("nrecognized arguments: ")
        takes_folder = any(action.dest == "root" and not action.option_strings for action in self._actions)
        if found and not strange.startswith("-") and "data.root" in options and not takes_folder:
            from tag2mask.data.layout import layout_of

            folder = max((a for a in self.arguments if strange.startswith(a)), key=len, default=strange)
            kind, name = layout_of(Path(folder)) if Path(folder).is_dir() else "folder", shlex.quote(folder)
            said = f"--data.kind {kind} --data.root {name}"
            return f"{message}. For a folder of photos say {said}, or run `tag2mask run {name}`."
        for word in message.replace("'", " ").replace('"', " ").split():
            name = word.strip(".,:").lstrip("-").split("=")[0]
            if name in RETIRED:
                return f"--{name} is a setting of an earlier version. {RETIRED[name]}"
            if name in options or len(name) < 3:
                continue
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            near += [option for option in options if option.endswith(f".{name}")]
            if near and ("." in name or word.startswith("-") or "_" in name):
                return f"{message}. Did you mean {', '.join(f'--{option}' for option in dict.fromkeys(near))}?"
        return message


def add_run_settings(parser: ArgumentParser, preset: str = "laptop", host: str | None = None) -> None:
    """Add every field of ``RunConfig`` as an option, with the defaults of a preset, and ``--config FILE.yaml``.

    ``host``: what ``host_of`` found, for commands that take ``--host NAME``; the defaults are then that host's.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}.")
    parser.add_argument("--config", action="config", help="YAML file of settings; options after it win.")
    parser.add_class_arguments(RunConfig, None)
    if host is not None:
        option = parser._option_string_actions["--host"]
        option.metavar = "NAME"
        option.help = "cam, seam, mctformer, or a host of one's own: its kind and the settings that go with it."
    parser.set_defaults(dict(flattened(asdict(for_host(PRESETS[preset], host) if host else PRESETS[preset]))))


def run_config(values: Any) -> RunConfig:
    """The ``RunConfig`` of parsed values; options of the command itself are left out."""
    names = {field.name for field in fields(RunConfig)}
    plain = {name: value for name, value in values.as_dict().items() if name in names}
    return config_from_dict(plain, "the settings")


def config_from_dict(values: Mapping[str, Any], where: str) -> RunConfig:
    """Build and check a ``RunConfig`` from nested plain values, as they stand in settings.yaml.

    Raises:
        InputError: names ``where`` and the key.
    """
    check_keys(RunConfig, values, where)
    return build(RunConfig, values, where)


def read_yaml(path: Path) -> Any:
    """What a YAML file of settings holds. Raises ``InputError`` that names the file, and the line that is wrong."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a YAML file of settings.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)  # other kinds know no line
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise InputError(f"{path} is not YAML: {place}{what}.") from error


def check_keys(kind: type, values: Any, where: str, prefix: str = "") -> None:
    """Raise ``InputError`` for a key that a settings class does not have, at any depth; it suggests the nearest one."""
    if not isinstance(values, Mapping):
        what = f"{where}: {prefix.rstrip('.')}" if prefix else where
        raise InputError(f"{what} is not a table of settings; expected lines such as `name: value`.")
    hints = get_type_hints(kind)
    for key, value in values.items():
        if f"{prefix}{key}" in RETIRED:
            raise InputError(f"{where}: {prefix}{key} is a setting of an earlier version. {RETIRED[f'{prefix}{key}']}")
        if key not in hints:
            near = difflib.get_close_matches(str(key), list(hints), n=1)
            hint = f" Did you mean {prefix}{near[0]}?" if near else ""
            raise InputError(f"{where}: there is no setting {prefix}{key}.{hint}")
        if is_dataclass(hints[key]):
            check_keys(hints[key], value, where, f"{prefix}{key}.")


def build(kind: type, values: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """An instance of a settings class from plain values; lists become tuples, nested tables nested classes."""
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if is_dataclass(hints[key]):
            arguments[key] = build(hints[key], value, where, f"{prefix}{key}.")
        else:
            arguments[key] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**arguments)
    except InputError as error:  # a class that serves twice cannot know which of its two names is meant
        own = f"{prefix.rstrip('.').rpartition('.')[2]}."  # `psa.` of `refine.psa.`
        known = next((part for part in (prefix, own) if str(error).startswith(part)), "")
        raise InputError(with_nearest(f"{prefix.removesuffix(known)}{error}")) from error
    except TypeError as error:
        raise InputError(f"{where}: a value of {prefix or 'the settings'} is of the wrong type ({error}).") from error


def with_nearest(message: str) -> str:
    """A message that lists the values there are, and which of them is nearest to the one that was given."""
    found = re.search(r" is '(?P<value>[^']+)'; expected one of (?P<names>.+)\.$", message)
    names = [name.strip("'`") for name in found["names"].split(", ")] if found else []
    near = difflib.get_close_matches(found["value"], names, n=1) if found else []
    return f"{message} Did you mean {near[0]}?" if near else message


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested table."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def tuple_options() -> frozenset[str]:
    """Options that take several values, such as ``--seeds``."""
    return frozenset(
        f"--{name}" for name, value in flattened(asdict(RunConfig())) if isinstance(value, tuple)
    )


def with_lists(arguments: Sequence[str], *parts: str) -> list[str]:
    """Let the user write ``--seeds 0,1,2`` for ``--seeds [0,1,2]``; with ``parts``, in those parts' settings alone."""
    within = tuple(f"--{part}." for part in parts)
    several = {option for option in tuple_options() if not parts or option.startswith(within)}
    result: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in several:
            result += [name, bracketed(value)]
        elif result and result[-1] in several and not argument.startswith("--"):
            result.append(bracketed(argument))
        else:
            result.append(argument)
    return result


def bracketed(value: str) -> str:
    """``0,1`` as ``[0,1]``; what has brackets already stays."""
    return value if value.startswith(("[", "(")) else f"[{value}]"


def values_of(arguments: Sequence[str], option: str) -> list[str]:
    """What raw arguments say behind an option, in their order: ``--out x`` or ``--out=x``."""
    found = []
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        chosen = value if equals else following
        if name == option and chosen:  # without one the parser says what is missing
            found.append(chosen)
    return found


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The files of ``--config`` among raw arguments."""
    return [Path(value) for value in values_of(arguments, "--config")]


def given(arguments: Sequence[str], name: str) -> bool:
    """Whether raw arguments, or a file of ``--config`` among them, say anything of a setting or a table of them."""
    typed = any(f"{argument.partition('=')[0]}.".startswith(f"--{name}.") for argument in arguments)
    return typed or any(says(read_yaml(path), name) for path in config_files(arguments))


def preset_of(arguments: Sequence[str]) -> str:
    """The value of ``--preset`` among raw arguments: it decides the defaults, so it is read first."""
    return (values_of(arguments, "--preset") or ["laptop"])[-1]


def host_of(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Raw arguments without ``--host NAME``, and the name, empty if there is none; it decides defaults as well."""
    rest, host = [], ""
    if arguments and arguments[-1] == "--host":
        raise InputError("--host has no name behind it; expected cam, seam, mctformer, or a host of one's own.")
    for position, argument in enumerate(arguments):
        if argument.startswith("--host="):
            host = argument.partition("=")[2]
        elif position and arguments[position - 1] == "--host":
            host = argument
        elif argument != "--host":
            rest.append(argument)
    return rest, host


def first_difference(stored: Any, given: Any, prefix: str = "") -> str:
    """Dotted name of the first setting that differs; empty if none does."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in {**stored, **given}:
            found = first_difference(stored.get(key), given.get(key), f"{prefix}{key}.")
            if found:
                return found
        return ""
    return "" if stored == given else prefix.rstrip(".")


def says(content: Any, name: str) -> bool:
    """Whether settings as a file has them, nested, say anything of a dotted name."""
    for key in name.split("."):
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True
