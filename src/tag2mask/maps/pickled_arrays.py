"""Arrays out of pickled ``.npy`` files, without running them.

A pickle is a program for a small stack machine; what makes it dangerous is that it may name any function and call it.
Here the program is only read (``pickletools`` lists it), and a machine of our own follows it that knows plain values,
NumPy arrays and PyTorch tensors, and nothing else: ten names, each of which stands for a function of this file.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tag2mask.errors import InputError


class Refused(ValueError):
    """A pickle that wants more than arrays; the text says what."""


def read_array_file(path: Path) -> Any:
    """What an ``.npy`` file holds.

    Args:
        path: written by ``np.save`` from an array of numbers, or from any one object, which NumPy then pickles
            (protocols 2 to 5).

    Returns:
        A numeric array as it is; of an object the object: dict, list, tuple, str, number, numeric array. PyTorch
        tensors come out as arrays.

    Raises:
        InputError: names the file; it is missing, damaged, or names something that is neither number nor array.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            _, _, dtype = header[version](file)
            if not dtype.hasobject:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            content = unpickled(file.read())
        if not isinstance(content, _Array) or len(content.objects) != 1:
            raise Refused("it holds an array of several objects; expected one dictionary or one array")
        return content.objects[0]
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; correct the folder or the list of ids.") from None
    except Refused as error:
        raise InputError(f"{path}: {error}; nothing of it was run.") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers raise nearly anything
        kind = type(error).__name__
        raise InputError(f"{path} is damaged or no .npy file ({kind}); copy or make it again.") from error


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names: a string, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class _DType:
    """An element type, made in two steps; object while ``number`` is None."""

    number: np.dtype | None


@dataclass(eq=False)
class _Array:
    """An object array, made in two steps. Numeric ones become ``values``."""

    objects: list[Any]
    values: np.ndarray | None = None


_VALUE_OPCODES = frozenset(
    (
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    )
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def unpickled(data: bytes) -> Any:
    """Follow a pickle with plain values and arrays alone; ``Refused`` names whatever else it asks for."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each open mark
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        elif name in _VALUE_OPCODES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS", "POP_MARK"):
            items, stack = stack, below.pop()
            _close(name, items, stack)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(_plain(item) for item in stack[-count:])]
        elif name == "APPEND":
            _close("APPENDS", [stack.pop()], stack)
        elif name == "SETITEM":
            value = stack.pop()
            _close("SETITEMS", [stack.pop(), value], stack)
        elif name == "POP":
            stack.pop()
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute = stack.pop()
            stack.append(_known(stack.pop(), attribute))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif name == "STOP":
            return stack.pop()
        else:
            raise Refused(f"the pickle has the instruction {name}, which arrays do not need")
    raise Refused("the pickle has no end")


def _close(name: str, items: list[Any], stack: list[Any]) -> None:
    """What is done with the items since the last mark."""
    items = [_plain(item) for item in items]
    if name == "TUPLE":
        stack.append(tuple(items))
    elif name == "LIST":
        stack.append(items)
    elif name == "DICT":
        stack.append(dict(zip(items[::2], items[1::2], strict=True)))
    elif name == "APPENDS" and isinstance(stack[-1], list):
        stack[-1].extend(items)
    elif name == "SETITEMS" and isinstance(stack[-1], dict):
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name != "POP_MARK":
        raise Refused(f"the pickle fills something that is neither list nor dictionary ({name})")


def _plain(item: Any) -> Any:
    """A finished array as NumPy's own; anything else as it is."""
    return item.values if isinstance(item, _Array) and item.values is not None else item


def _known(module: Any, name: Any) -> _Name:
    found = _Name(str(module), str(name))
    if str(found) not in _FUNCTIONS and str(found) != "numpy.ndarray":
        raise Refused(f"the pickle names {found}, which is neither a number nor an array")
    return found


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Name) or str(function) not in _FUNCTIONS:
        raise Refused(f"the pickle calls {function if isinstance(function, _Name) else 'a value'}")
    return _FUNCTIONS[str(function)](*arguments)


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, _DType):
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise Refused(f"the pickle has numbers in the byte order {order!r}")
        if target.number is not None and order != "|":
            target.number = target.number.newbyteorder(order)
    elif isinstance(target, _Array):
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _DType):
            raise Refused("the pickle has an array without an element type")
        if dtype.number is not None:
            target.values = _numbers(content, dtype, shape, "F" if fortran else "C")
        elif isinstance(content, list):
            target.objects = content
        else:
            raise Refused("the pickle has an array of objects without its list")
    else:
        raise Refused(f"the pickle sets the state of a {type(target).__name__}, which arrays do not need")


def _numbers(content: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if dtype.number is None:
        raise Refused("the pickle has objects where numbers are expected")
    return np.frombuffer(content, dtype.number).reshape(shape, order=order)


def _dtype(code: str, *_: Any) -> _DType:
    if re.fullmatch(r"O\d*", code):
        return _DType(None)
    if re.fullmatch(r"b1|[iuf][1248]", code):
        return _DType(np.dtype(code))
    raise Refused(f"the pickle has elements of type {code!r}; expected numbers")


def _scalar(dtype: _DType, content: bytes) -> Any:
    return _numbers(content, dtype, (), "C").item()


def _new_array(*_: Any) -> _Array:
    return _Array([])


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise Refused(f"the pickle has bytes written as {encoding!r}")
    return text.encode("latin1")


def _storage(content: bytes) -> torch.storage.TypedStorage:
    """The numbers of a tensor; PyTorch's reader for weights allows no other names than its own either."""
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # its own kind of refusal is a class of the module pickle
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise Refused(f"a tensor in the pickle names {named[1]}, which is no number") from error
        raise
    if not isinstance(loaded, torch.storage.TypedStorage):
        raise Refused("the pickle has a tensor without numbers")
    return loaded


def _tensor(
    storage: torch.storage.TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    flat = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)  # (K,)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count: int = prod(list[int](size))
    if min((offset, *size, *stride)) < 0 or count > len(flat) or (count and last >= len(flat)):
        raise Refused("the pickle has a tensor that is larger than its numbers")
    view = torch.as_strided(flat, size, stride, offset)
    return (view.float() if view.dtype == torch.bfloat16 else view).numpy()  # NumPy has no bfloat16


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, function in (
            ("multiarray._reconstruct", _new_array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _numbers),
        )
    },
    "_codecs.encode": _encoded,  # bytes in protocol 2
    "__builtin__.bytes": lambda: b"",  # of no argument: a number would ask for as much memory
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
}
"""The names that a pickle may use and what they stand for here."""
