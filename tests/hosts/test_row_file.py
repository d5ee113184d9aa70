"""Frozen features on disk: what several writers put there in turns, one reader finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tag2mask.hosts.row_file import RowReader, RowWriter, create_rows


@pytest.mark.parametrize("writers", [1, 2, 3])
@pytest.mark.parametrize("shape", [(23, 2, 3, 2, 2), (9, 2, 5, 40, 40)])
def test_writers_that_take_turns_lose_no_row(tmp_path: Path, writers: int, shape: tuple[int, ...]) -> None:
    path = tmp_path / "rows.npy"
    expected = np.random.default_rng(0).random(shape).astype(np.float16)
    create_rows(path, shape)
    files = [RowWriter(path) for _ in range(writers)]
    for number, first in enumerate(range(0, shape[0], 2)):
        files[number % writers].write(first, expected[first : first + 2])
    for file in files:
        file.close()
    np.testing.assert_array_equal(np.load(path), expected)
    which, mirrored = np.array([4, 0, 8]), np.array([1, 0, 1])
    np.testing.assert_array_equal(RowReader(path).rows(which, mirrored), expected[which, mirrored])


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    create_rows(path, (4, 2, 3))
    path.write_bytes(path.read_bytes()[:-3])
    reader = RowReader(path)
    reader.rows(np.array([0]), np.array([0]))
    with pytest.raises(OSError, match=r"rows\.npy is cut off"):
        reader.rows(np.array([3]), np.array([1]))
