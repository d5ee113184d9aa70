"""Settings from presets, YAML files and the command line: typed, checked; a mistyped key suggests the right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentParser, set_parsing_settings

from tag2mask.config import PRESETS, RunConfig
from tag2mask.errors import InputError

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class SettingsParser(ArgumentParser):
    """An argument parser whose errors are ``InputError``s that suggest the nearest option."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of exiting; the command line turns it into one line."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        raise InputError(self.with_suggestion(" ".join(message.split())))

    def with_suggestion(self, message: str) -> str:
        """The message, and the known option that is nearest to one it complains about."""
        options = [option.lstrip("-") for option in self._option_string_actions]
        for word in message.replace("'", " ").replace('"', " ").split():
            name = word.strip(".,:").lstrip("-").split("=")[0]
            if name in options or len(name) < 3:
                continue
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            if near and ("." in name or word.startswith("-") or "_" in name):
                return f"{message} Did you mean --{near[0]}?"
        return message


def add_run_settings(parser: ArgumentParser, preset: str = "laptop") -> None:
    """Add every field of ``RunConfig`` as an option, with the defaults of a preset, and ``--config FILE.yaml``."""
    if preset not in PRESETS:
        raise InputError(f"--preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}.")
    parser.add_argument("--config", action="config", help="YAML file of settings; options after it win.")
    parser.add_class_arguments(RunConfig, None)
    parser.set_defaults(dict(flattened(asdict(PRESETS[preset]))))


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
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is not a table of settings; expected lines such as `data: ...`.")
    return build(RunConfig, values, where, "")


def build(kind: type, values: Mapping[str, Any], where: str, prefix: str) -> Any:
    """An instance of a settings class from plain values; lists become tuples, nested tables nested classes."""
    hints = get_type_hints(kind)
    unknown = [key for key in values if key not in hints]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), list(hints), n=1)
        hint = f" Did you mean {prefix}{near[0]}?" if near else ""
        raise InputError(f"{where}: there is no setting {prefix}{unknown[0]}.{hint}")
    arguments = {}
    for key, value in values.items():
        if is_dataclass(hints[key]):
            arguments[key] = build(hints[key], value or {}, where, f"{prefix}{key}.")
        else:
            arguments[key] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)


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


def with_lists(arguments: Sequence[str]) -> list[str]:
    """Let the user write ``--seeds 0,1,2`` for ``--seeds [0,1,2]``."""
    several = tuple_options()
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


def preset_of(arguments: Sequence[str]) -> str:
    """The value of ``--preset`` among raw arguments: it decides the defaults, so it is read first."""
    for position, argument in enumerate(arguments):
        if argument == "--preset" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--preset="):
            return argument.partition("=")[2]
    return "laptop"
