"""What a folder was made of, settings and inputs: JSON beside a folder of maps or masks, in that of a training.

What was made of something else is void, and this is said: maps and masks are removed, a training is set aside.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tag2mask import ranks
from tag2mask.atomic import read_back
from tag2mask.manifests import Manifest, prove, proven
from tag2mask.progress import Reporter
from tag2mask.runs import read_json, write_json

TRAINING = "training.json"
WEIGHTS, STATE, PROTOTYPES = "weights.safetensors", "state.safetensors", "prototypes.safetensors"
SET_ASIDE = "set_aside"

Inputs = dict[str, str]
"""Name -> hash of what a folder is made from, or a word for how."""


def facts_of(folder: Path) -> Path:
    """The file that says how a folder of maps or masks was made."""
    return folder.with_name(f"{folder.name}.json")


def known_facts(facts: Path) -> dict[str, Any]:
    """What it says; nothing where it is not there."""
    known: dict[str, Any] = read_json(facts, "description of the masks") if facts.is_file() else {}
    return known


def identity(facts: Path) -> str:
    """Hash (16 digits) of settings and inputs, and so of all that they were made of."""
    known = known_facts(facts)
    content = json.dumps([known.get("settings"), known.get("from")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def hash_of(path: Path) -> str:
    """Hash (16 digits) of trained weights or prototypes. Raises ``InputError`` where they are damaged."""
    return prove(path).sha256[:16]


def remove(folder: Path) -> None:
    """Delete a folder, if it is there; what cannot be deleted is an error, or it would be trusted later."""
    if folder.exists():
        shutil.rmtree(folder)


def renew(facts: Path, settings: dict[str, Any], inputs: Inputs, folders: list[Path], report: Reporter) -> None:
    """Remove what was made with other settings or of other inputs, and say so; afterwards ``facts`` has these.

    What nothing is known of is removed, too: it may be the rest of what was being removed.
    """
    def make_room() -> None:
        known = known_facts(facts)
        if known.get("settings") == settings and known.get("from") == inputs:
            return
        if any(folder.exists() for folder in folders):
            report.say(f"{folders[0]}: {what_changed(known, settings, inputs)}, so it is made anew.")
        for folder in folders:
            remove(folder)
        write_json(facts, {"settings": settings, "from": inputs})

    ranks.once(make_room)


def describe_import(folder: Path, ids: Sequence[str]) -> None:
    """Describe maps that another program made and that have just been written; their content is their origin."""
    manifest, content = Manifest(folder), hashlib.sha256()
    for name in ids:
        written = read_back(folder / f"{name}.npz")
        manifest.add(folder / f"{name}.npz", written)
        content.update(written.sha256.encode())
    write_json(facts_of(folder), {"settings": {"imported": content.hexdigest()[:16]}, "from": {}})


def what_changed(known: dict[str, Any], settings: dict[str, Any] | None, inputs: Inputs) -> str:
    """The reason, for a line that says what is made anew."""
    if "from" not in known:
        return "it does not say what it was made of"
    before = known["from"]
    names = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
    if settings is not None and known.get("settings") != settings:
        names = ["settings"]  # said alone: the inputs change with them
    told = " and the ".join([", the ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"the {told} have changed"


def begin_training(run: Path, folder: Path, inputs: Inputs, report: Reporter) -> None:
    """Set aside a training on other inputs, and drop what is damaged of one; afterwards the folder has these inputs.

    A training that does not say what it was made of, as those of earlier versions, is taken as it is.
    """
    known = known_facts(folder / TRAINING)
    if known and known.get("from") != inputs:
        place = set_aside(run, folder)
        report.say(f"{folder}: {what_changed(known, None, inputs)}, so it is trained anew; before: {place}.")
    drop_damaged(folder, report)
    if not (folder / TRAINING).is_file() and not any((folder / name).is_file() for name in (WEIGHTS, STATE)):
        write_json(folder / TRAINING, {"from": inputs})


def drop_damaged(folder: Path, report: Reporter) -> None:
    """Remove damaged weights: they are made again from the last state or, where that is damaged, from the start.

    A state is no longer needed where the weights are whole.
    """
    there = [folder / name for name in (WEIGHTS, STATE, PROTOTYPES) if (folder / name).is_file()]
    if not (folder / WEIGHTS).is_file():  # a training that is gone on with reads what it has collected
        there += sorted((folder / "prototypes").glob("epoch*.safetensors"))
    damaged = [path.name for path in there if not proven(path)]
    if not damaged or (damaged == [STATE] and (folder / WEIGHTS).is_file()):
        return
    start = "from the last state" if damaged == [WEIGHTS] and (folder / STATE).is_file() else "from the start"
    report.warn(f"{folder / damaged[0]} is damaged (not what was written): this training is done again {start}.")
    for path in there:
        if start == "from the start" or path.name in damaged:
            path.unlink()


def set_aside(run: Path, folder: Path) -> Path:
    """Move a folder of a run to where nothing looks for it, in one step; returns its new place."""
    number = 1
    while (place := run / SET_ASIDE / str(number) / folder.relative_to(run)).exists():
        number += 1
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, place)
    return place
