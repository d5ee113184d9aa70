"""Files are written by NumPy, PyTorch and pickle themselves; what reads them imports no pickle."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.errors import InputError
from tag2mask.maps.pickled_arrays import Refused, read_array_file, unpickled

PROTOCOLS = [0, 1, 2, 3, 4, 5]


def write_npy(path: Path, value: Any, protocol: int, numpy_1: bool = False) -> None:
    """An ``.npy`` file of any object as NumPy writes it: protocol 2 before 1.17, 3 before 2.0, 4 since."""
    array = np.empty((), object)
    array[()] = value
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, np.lib.format.header_data_from_array_1_0(array))
    pickled = pickle.dumps(array, protocol)
    if numpy_1:  # which named its modules otherwise; protocols below 4 write names as lines
        pickled = pickled.replace(b"cnumpy._core.", b"cnumpy.core.")
        assert b"numpy._core" not in pickled
    path.write_bytes(content.getvalue() + pickled)


def same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def irn_dictionary() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What IRN's programs store, with a tensor that is a window of a larger one; and the same as arrays."""
    random = np.random.default_rng(3)
    strided = torch.from_numpy(random.random((3, 5, 8), np.float32))[1:, ::2].transpose(1, 2)
    high = np.asfortranarray(random.random((2, 9, 13), np.float32))
    content = {"keys": torch.tensor([3, 14]), "cam": strided, "high_res": high}
    return content, {"keys": np.array([3, 14]), "cam": strided.numpy(), "high_res": high}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dictionary_of_tensors_and_arrays(tmp_path: Path, protocol: int) -> None:
    content, expected = irn_dictionary()
    write_npy(tmp_path / "a.npy", content, protocol)
    same(read_array_file(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("protocol", [2, 3])
def test_files_of_numpy_1(tmp_path: Path, protocol: int) -> None:
    content, expected = irn_dictionary()
    write_npy(tmp_path / "a.npy", content | {"number": np.float32(0.5)}, protocol, numpy_1=True)
    same(read_array_file(tmp_path / "a.npy"), expected | {"number": 0.5})


def test_files_of_np_save(tmp_path: Path) -> None:
    content, expected = irn_dictionary()
    np.save(tmp_path / "a.npy", content)  # type: ignore[arg-type]
    same(read_array_file(tmp_path / "a.npy"), expected)
    same(read_array_file(tmp_path / "a.npy"), np.load(tmp_path / "a.npy", allow_pickle=True).item() | expected)
    plain = np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "b.npy", plain)
    same(read_array_file(tmp_path / "b.npy"), plain)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int64", ">i4", ">f8", "float16", "float32"])
def test_arrays_of_any_number_type_and_order(protocol: int, dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    for value in (array, np.asfortranarray(array), array[:, ::2], array[:0], np.array(array[0, 0, 1])):
        same(unpickled(pickle.dumps({"a": value}, protocol))["a"], value)
    assert unpickled(pickle.dumps([array[1, 2, 3]], protocol)) == [array[1, 2, 3].item()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool])
def test_tensors_of_any_number_type(dtype: torch.dtype) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    for value in (tensor, tensor[1:, :, 1:3], tensor.permute(2, 0, 1), tensor[:0], tensor[0, 0, 1]):
        same(unpickled(pickle.dumps({"a": value}))["a"], value.numpy())
    half = torch.linspace(0, 1, 5).to(torch.bfloat16)
    same(unpickled(pickle.dumps([half]))[0], half.float().numpy())


def test_two_names_for_one_array_and_one_for_two_tensors() -> None:
    array, tensor = np.arange(6.0), torch.arange(6.0)
    found = unpickled(pickle.dumps({"a": array, "b": array, "c": tensor[:3], "d": tensor[3:]}))
    assert found["a"] is found["b"]
    assert found["d"].tolist() == [3, 4, 5]


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_subnormal=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=12,
)


@given(plain_values, st.sampled_from(PROTOCOLS))
@settings(max_examples=60, deadline=None)
def test_plain_values_come_out_as_from_pickle(value: Any, protocol: int) -> None:
    assert unpickled(pickle.dumps([value, value, OrderedDict()], protocol)) == [value, value, {}]


class Call:
    """Pickled, this is a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Trap(dict):
    """An object of a class of its own, with a state."""


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_array_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "executed"
    calls = {
        f"{os.system.__module__}.system": Call(os.system, f"mkdir {made}"),
        f"{os.mkdir.__module__}.mkdir": Call(os.mkdir, str(made)),
        "eval": Call(eval, f"__import__('os').mkdir({str(made)!r})"),
        "getattr": Call(getattr, str(made), "join"),
        "torch.serialization.load": Call(torch.load, str(made)),
        f"{np.load.__module__}.load": Call(np.load, str(made)),
    }
    for name, call in calls.items():
        for value in (call, {"keys": np.arange(2), "cam": call}, [call], {("a", call): 1}):
            write_npy(tmp_path / "a.npy", value, protocol)
            message = refusal(tmp_path / "a.npy")
            assert name in message and "nothing of it was run" in message
    assert not made.exists()


def test_nothing_is_run_inside_a_tensor(tmp_path: Path) -> None:
    made = tmp_path / "executed"
    inner = pickle.dumps(Call(os.mkdir, str(made)), 2)
    write_npy(tmp_path / "a.npy", Call(torch.storage._load_from_bytes, inner), 4)
    assert f"names {os.mkdir.__module__}.mkdir, which is no number" in refusal(tmp_path / "a.npy")
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    write_npy(tmp_path / "a.npy", Call(torch.storage._load_from_bytes, buffer.getvalue()), 4)
    assert "a tensor without numbers" in refusal(tmp_path / "a.npy")
    assert not made.exists()


def test_objects_with_a_class_are_refused_by_its_name(tmp_path: Path) -> None:
    trap = Trap(a=1)
    trap.state = 5  # type: ignore[attr-defined]
    for protocol in PROTOCOLS:
        write_npy(tmp_path / "a.npy", trap, protocol)
        assert "Trap" in refusal(tmp_path / "a.npy") or "copyreg" in refusal(tmp_path / "a.npy") or protocol < 2
    for text in (b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.", b"\x80\x02\x82\x01.", b"P1\n."):
        with pytest.raises((Refused, ValueError)):
            unpickled(text)


@pytest.mark.parametrize(
    "arguments",
    [(0, (7,), (1,)), (4, (3,), (1,)), (0, (2, 2), (4, 2)), (0, (10**12,), (0,)), (-1, (2,), (1,)), (5, (2,), (-1,))],
)
def test_tensors_do_not_reach_beyond_their_numbers(arguments: tuple[Any, ...]) -> None:
    storage = torch.arange(6.0)._typed_storage()
    call = Call(torch._utils._rebuild_tensor_v2, storage, *arguments, False, OrderedDict())
    with pytest.raises(Refused, match="larger than its numbers"):
        unpickled(pickle.dumps(call))


def test_object_arrays_inside_and_several_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None], object))
    assert "several objects" in refusal(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([np.datetime64(5, "D")], object))
    assert "elements of type 'M8'" in refusal(tmp_path / "a.npy")


def test_file_that_is_damaged_anywhere(tmp_path: Path) -> None:
    content, expected = irn_dictionary()
    path, other = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(path, content)  # type: ignore[arg-type]
    sound = path.read_bytes()
    for length in range(0, len(sound), 31):
        other.write_bytes(sound[:length])
        refusal(other)
    for place in range(0, len(sound), 7):
        other.write_bytes(sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :])
        try:
            assert read_array_file(other) is not None  # other numbers, say: there is no checksum
        except InputError as error:
            assert str(other) in str(error)
    other.write_bytes(sound)
    same(read_array_file(other), expected)


def test_missing_file_and_other_formats(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "gone.npy")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    assert "no .npy file" in refusal(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(b"")
    refusal(tmp_path / "a.npy")
    refusal(tmp_path)
