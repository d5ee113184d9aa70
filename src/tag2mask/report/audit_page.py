"""audit.html: suspected tags with their pictures, to accept or reject, on one page that opens from disk."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from tag2mask import __version__
from tag2mask.noise import KINDS
from tag2mask.progress import Step
from tag2mask.report.page import environment
from tag2mask.report.pictures import BLANK, photo_uri
from tag2mask.runs import write_text
from tag2mask.stages.audit import COLUMNS, Audit, Box, Neighbour, Suspect

PHOTO_LONGEST = 300
CROP_LONGEST = 200
EXAMPLE_LONGEST = 150
"""Longest sides of pictures, in pixels."""
MARGIN = 0.15
"""What a crop shows around its box, as a share of the box: the map's cells are coarse."""
PHOTOS_IN_MEMORY = 64


class Cuttings:
    """The photos and crops of a page. Each is encoded once; the page names it by its CSS class."""

    def __init__(self, audit: Audit) -> None:
        self.uris: dict[str, str] = {}
        self.ids = audit.images.ids
        self._sizes: dict[str, tuple[int, int]] = {}
        self._photo = lru_cache(PHOTOS_IN_MEMORY)(audit.images.image)

    def cut(self, image: int, box: Box | None, longest: int, caption: str = "") -> dict[str, Any]:
        """CSS class, size and caption of a photo, or of the part of it in ``box``."""
        name = f"photo{image}x{longest}" + "".join(f"-{round(1000 * share)}" for share in box or ())
        if name not in self.uris:
            photo = self._photo(image)
            part = photo if box is None else photo.crop(widened(box, photo))
            width, height = (round(side * longest / max(part.size)) for side in part.size)
            self.uris[name], self._sizes[name] = photo_uri(part, longest), (max(1, width), max(1, height))
        return {"photo": name, "size": self._sizes[name], "caption": caption or self.ids[image]}


def widened(box: Box, photo: Image.Image) -> tuple[int, int, int, int]:
    """A box with its margin, in pixels inside the photo, not empty."""
    left, top, right, bottom = box
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    width, height = photo.size
    x, y = int(max(0.0, left - across) * width), int(max(0.0, top - down) * height)
    return (
        x, y, max(x + 1, round(min(1.0, right + across) * width)), max(y + 1, round(min(1.0, bottom + down) * height))
    )  # fmt: skip


def write_audit_page(run: Path, audit: Audit, step: Step) -> Path:
    """Write ``audit/audit.html`` into a run folder and return its path."""
    cuttings = Cuttings(audit)
    cards = []
    for number, suspect in enumerate(audit.suspects):
        cards.append(card_of(audit, suspect, cuttings))
        step(number + 1, len(audit.suspects))
    templates = environment()
    script = templates.loader.get_source(templates, "audit.js")[0] if templates.loader else ""
    names = audit.images.classes.names
    used = {suspect.class_index for suspect in audit.suspects}
    text = templates.get_template("audit.html").render(
        title="Suspected tags",
        lead=lead(audit),
        caution=audit.caution,
        program=f"tag2mask {__version__}",
        run=str(run),
        images=len(audit.images),
        cards=cards,
        classes=[name for c, name in enumerate(names) if c in used],
        kinds=KINDS,
        pictures=cuttings.uris,
        blank=BLANK,
        data={"columns": COLUMNS, "rows": audit.rows, "key": key_of(audit.rows)},
        script=script,
        script_hash=script_hash(script),
        command=command(run, audit),
    )
    path = run / "audit" / "audit.html"
    write_text(path, text)
    return path


def card_of(audit: Audit, suspect: Suspect, cuttings: Cuttings) -> dict[str, Any]:
    """What the page shows of one suspect."""
    left, top, right, bottom = suspect.box
    photo = cuttings.cut(suspect.image, None, PHOTO_LONGEST)
    return {
        "name": audit.images.classes.names[suspect.class_index],
        "kind": suspect.kind,
        "image": audit.images.ids[suspect.image],
        "tags": audit.images.label_names(suspect.image),
        "score": f"{suspect.score:.2f}",
        "probability": f"{suspect.probability:.2f}",
        "likeness": f"{suspect.likeness:.2f}",
        "cleanlab": {None: "", True: "agrees", False: "does not flag it"}[suspect.cleanlab],
        "photo": photo["photo"],
        "size": photo["size"],
        "frame": [round(100 * share, 1) for share in (left, top, right - left, bottom - top)],
        "crop": cuttings.cut(suspect.image, suspect.box, CROP_LONGEST),
        "neighbours": [
            cuttings.cut(near.image, near.box, EXAMPLE_LONGEST, caption(audit, near)) for near in suspect.neighbours
        ],
    }


def caption(audit: Audit, near: Neighbour) -> str:
    """Words under a labelled example."""
    return f"{audit.images.ids[near.image]}, {near.distance:.2f} away"


def lead(audit: Audit) -> str:
    """The figures in one or two sentences."""
    missing, wrong = audit.flagged["missing"], audit.flagged["wrong"]
    photos = f"{len(audit.images)} photo{'' if len(audit.images) == 1 else 's'}"
    text = f"Of {photos}, {looking(missing, 'missing')} and {looking(wrong, 'wrong')}."
    if not missing + wrong:
        text = f"{photos}, no suspect."
    if len(audit.suspects) < missing + wrong:
        text += f" Here are the {len(audit.suspects)} most suspicious; --limit shows more."
    if audit.not_judged:
        text += f" Too little could be learnt of {', '.join(audit.not_judged)} to judge their tags."
    return text


def looking(count: int, kind: str) -> str:
    """``1 tag looks missing``."""
    return f"{count} tag looks {kind}" if count == 1 else f"{count} tags look {kind}"


def command(run: Path, audit: Audit) -> str:
    """What to type once decisions are saved; nothing for the built-in scenes, which have no label file."""
    if audit.data.kind == "cooccur":
        return ""
    suffix = "csv" if audit.data.kind == "folder" else "json"
    return f"tag2mask audit {shlex.quote(str(run))} --apply decisions.csv --labels-out corrected.{suffix}"


def script_hash(script: str) -> str:
    """The page's policy runs this script and no other, whatever a file name or a tag may hold."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def key_of(rows: Sequence[Sequence[str]]) -> str:
    """Name under which a browser keeps the decisions about these suspects."""
    return "tag2mask audit " + hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
