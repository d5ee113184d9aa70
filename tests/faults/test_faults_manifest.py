"""The manifest itself: lines that were cut off, several writers, many files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tag2mask.atomic import Written, replacing, write_bytes
from tag2mask.errors import InputError
from tag2mask.manifests import Manifest, entries, prove, record, write_described


def test_a_cut_off_line_costs_that_file_alone(tmp_path: Path) -> None:
    """At any byte: what was described before is, and what is described after, too."""
    manifest = Manifest(tmp_path)
    for name in ("a", "sub/ä b"):
        manifest.add(tmp_path / name, write_bytes(tmp_path / name, name.encode()))
    content = (tmp_path / "manifest.jsonl").read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first, len(content)):
        (tmp_path / "manifest.jsonl").write_bytes(content[:length])
        again = Manifest(tmp_path)
        assert again.holds(tmp_path / "a") and again.holds(tmp_path / "sub/ä b") == (length == len(content) - 1)
        again.add(tmp_path / "c", write_bytes(tmp_path / "c", b"c"))
        reread = Manifest(tmp_path)
        assert reread.holds(tmp_path / "a") and reread.holds(tmp_path / "c")
        assert reread.holds(tmp_path / "sub/ä b") == (length == len(content) - 1)


def test_several_writers(tmp_path: Path) -> None:
    writers = [Manifest(tmp_path, number) for number in range(3)]
    for number, manifest in enumerate(writers):
        path = tmp_path / f"{number}.npz"
        manifest.add(path, write_bytes(path, b"x" * number))
    assert sorted(p.name for p in tmp_path.glob("*.jsonl")) == ["manifest.1.jsonl", "manifest.2.jsonl", "manifest.jsonl"]
    everything = Manifest(tmp_path)
    assert all(everything.holds(tmp_path / f"{number}.npz") for number in range(3))
    assert not everything.holds(tmp_path / "3.npz")


def test_files_of_another_size_or_gone_are_not_held(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(tmp_path / "a", write_bytes(tmp_path / "a", b"1234"))
    (tmp_path / "a").write_bytes(b"123")
    assert not manifest.holds(tmp_path / "a")
    manifest.add(tmp_path / "a", write_bytes(tmp_path / "a", b"12"))
    assert manifest.holds(tmp_path / "a") and Manifest(tmp_path).holds(tmp_path / "a"), "one of its lines does"
    (tmp_path / "a").unlink()
    assert not manifest.holds(tmp_path / "a")


def test_a_single_file_is_described_before_it_appears(tmp_path: Path) -> None:
    """So that it is proven in every moment: by the line before, or by this one."""
    path = tmp_path / "weights.safetensors"
    write_described(path, b"first")
    record(path, Written(6, "0" * 64))  # and then the process is killed
    assert prove(path).size == 5
    write_described(path, b"second")
    assert prove(path).size == 6
    count = len(list(entries(tmp_path)))
    write_described(path, b"second")
    assert len(list(entries(tmp_path))) == count, "known already"
    path.write_bytes(b"secons")
    with pytest.raises(InputError, match="weights.safetensors is damaged"):
        prove(path)


def test_long_names_and_what_a_killed_process_leaves(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    assert not os.listdir(tmp_path)
    with replacing(path) as partial:
        partial.write_bytes(b"half")
        left = partial
    left.write_bytes(b"of a killed one")
    write_bytes(path, b"whole")
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"whole"


def test_another_writer_may_have_made_a_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    Manifest(tmp_path, writer=0).add(path, write_bytes(path, b"from one process"))
    path.unlink()
    Manifest(tmp_path, writer=1).add(path, write_bytes(path, b"and again, by the second of two"))
    assert Manifest(tmp_path).holds(path), "in whatever order their files are read"
    path.write_bytes(b"cut off")
    assert not Manifest(tmp_path).holds(path)
