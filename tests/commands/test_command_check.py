"""`tag2mask check`: what a person would not see in a table of tags."""

from __future__ import annotations

import pytest

from tag2mask.cli import main
from tests.conftest import WriteFolder


def test_check_sees_a_name_with_a_slip(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    (root / "classes.txt").unlink()
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace("kite", "kitte", 1))
    assert main(["check", str(root), "--data.masks", "none"]) == 0
    told = capsys.readouterr().out
    assert "warning: " in told and "1 of 16 images is tagged 'kitte', and" in told and told.endswith("\n0 errors, 1 warning\n")
    assert "here 2 methods" in told, "the cost is that of `tag2mask run`"
    (root / "labels.csv").unlink()
    assert main(["check", "--data.kind", "folder", "--data.root", str(root)]) == 1
    assert "columns called image and labels" in capsys.readouterr().out
