"""Photos whose tags are tampered with."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.conftest import COLOURS, draw_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> list[str]:
    """Settings of a training on photos that even a random network tells apart, with masks."""
    root = tmp_path_factory.mktemp("photos")
    random, names, rows = np.random.default_rng(0), list(COLOURS), ["image,split,labels"]
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(60):
        present = np.flatnonzero(random.random(3) < 0.4).tolist()
        photo, mask = draw_photo((48, 48), present, number)
        photo.save(root / "images" / f"p{number:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"p{number:02d}.png")
        rows.append(f"images/p{number:02d}.png,train,{';'.join(names[c] for c in present)}")
    (root / "labels.csv").write_text("\n".join(rows))
    (root / "classes.txt").write_text("\n".join(names))
    return [*tiny, "--data.kind", "folder", "--data.root", str(root), "--rectify.epochs", "1"]
