"""Is a run what its manifests say? Every file that they describe is read whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tag2mask.atomic import Written, read_back
from tag2mask.errors import InputError
from tag2mask.manifests import FILES, entries
from tag2mask.progress import Step
from tag2mask.stages.origin import SET_ASIDE

ELSEWHERE = (SET_ASIDE, "explore", "audit", "photos")
"""Folders of a run that no stage trusts."""
DESCRIBED = (".safetensors", ".npz", ".npy", ".png")
CACHE = "manifest.json"
"""Of a folder of frozen features."""
TODO = {
    ".safetensors": "the command that made it makes it again (train --resume, refine, segment)",
    ".npz": "delete it and run its stage again (localize, refine, report); what stands on it is made anew, too",
    ".png": "delete it and run its stage again (localize, refine, evaluate --stages)",
    ".npy": "delete its folder; frozen features are computed anew",
    ".json": "delete it and run its stage again, unless it was changed on purpose",
}


@dataclass(frozen=True)
class Fault:
    """One file that is not what a manifest says."""

    kind: Literal["damaged", "missing", "not described"]
    path: Path

    @property
    def todo(self) -> str:
        """What to do, for a message."""
        if self.kind == "missing":
            return "its stage makes it again when it is run"
        if self.kind == "not described":
            return "of an earlier version, or cut off before it was described; maps and masks are made again"
        return TODO.get(self.path.suffix, "delete it and run its stage again")


def verify_run(run: Path, step: Step) -> tuple[list[Fault], int]:
    """Look at every manifest of a run, and at the files that none describes.

    Returns:
        Faults by path, and the number of files that are as they were written.

    Raises:
        InputError: there is no run.
    """
    if not (run / "settings.yaml").is_file():
        raise InputError(f"there is no settings.yaml in {run}; give the folder of a run, the --out of `train`.")
    known: dict[Path, set[Written]] = {}
    faults: list[Fault] = []
    for folder in sorted(p for p in [run, *run.rglob("*")] if p.is_dir() and not elsewhere(run, p)):
        if any(folder.glob(FILES)):
            for entry in entries(folder):
                known.setdefault(folder / entry.name, set()).add(entry.written)
        if (folder / CACHE).is_file():
            try:
                files = json.loads((folder / CACHE).read_text())["files"]
                known |= {folder / name: {Written(*written)} for name, written in files.items()}
            except (ValueError, LookupError, TypeError, AttributeError):
                faults.append(Fault("damaged", folder / CACHE))
    sound = 0
    for number, (path, written) in enumerate(sorted(known.items()), 1):
        if not path.is_file():
            faults.append(Fault("missing", path))
        elif read_back(path) not in written:
            faults.append(Fault("damaged", path))
        else:
            sound += 1
        step(number, len(known))
    for path in others(run, set(known)):
        faults.append(Fault("damaged" if path.suffix == ".json" else "not described", path))
    return sorted(faults, key=lambda fault: fault.path), sound


def others(run: Path, known: set[Path]) -> Iterator[Path]:
    """Files that no manifest describes and one should, and descriptions that are no JSON."""
    for path in sorted(run.rglob("*")):
        if path in known or elsewhere(run, path) or not path.is_file():
            continue
        if path.suffix in DESCRIBED:
            yield path
        if path.suffix == ".json" and path.name != CACHE:
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                yield path


def elsewhere(run: Path, path: Path) -> bool:
    """Whether a path lies where no stage trusts anything."""
    return any(part in ELSEWHERE for part in path.relative_to(run).parts)
