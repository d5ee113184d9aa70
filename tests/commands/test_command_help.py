from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from tag2mask import __version__
from tag2mask.cli import COMMANDS, main
from tag2mask.presets import PRESETS

NAMES = (
    "demo", "check", "train", "localize", "evaluate", "report", "verify", "refine", "segment", "predict", "import", "export",
    "run", "sweep", "audit", "explore", "reproduce",
)  # fmt: skip


def test_the_installed_command_is_this_one() -> None:
    (entry,) = [e for e in entry_points(group="console_scripts") if e.name == "tag2mask"]
    assert entry.load() is main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_command_and_the_exit_codes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert tuple(COMMANDS) == NAMES
    for name, (summary, _) in COMMANDS.items():
        assert f"  {name} " in text and summary in text
    assert "0 done, 1 findings, 2 bad input, 130 stopped" in text


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"usage: tag2mask {name}" in text
    if name in ("demo", "train", "check"):
        assert "--fpr.margin" in text and "--views.size" in text
        flat = " ".join(text.split())
        assert "A pixel is suppressed when its distance to the nearest negative is below margin" in flat
        assert "from the config" not in flat and "<class" not in flat
    if name in ("train", "run"):
        assert f"Defaults: {', '.join(PRESETS)}." in " ".join(text.split())
    if name in ("localize", "evaluate"):
        assert "--methods" in text and "--split" in text


def test_help_is_instant_as_it_imports_nothing_heavy(environment: dict[str, str]) -> None:
    script = f"""
import json, sys
from tag2mask.cli import main
main(["--help"])
for name in {NAMES!r}:
    try:
        main([name, "--help"])
    except SystemExit:
        pass
heavy = ("torch", "torchvision", "timm", "sklearn", "scipy", "numpy", "PIL")
print("imported", json.dumps([name for name in heavy if name in sys.modules]))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout.rpartition("imported")[2]) == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tag2mask {__version__}\n"


def test_mistyped_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'trian', did you mean 'train'; run `tag2mask --help`.\n"
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err
