"""What a run has stored about its tags, as the tests of this folder read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from tag2mask.config import RunConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.settings import config_from_dict
from tag2mask.stages.network import data_of_seed

KINDS = ("unknown, not tagged", "unknown, tagged", "removed", "added")


def read_tags(run: Path) -> dict[str, list[list[str]]]:
    return json.loads((run / "seed0" / "tags.json").read_text())


def settings_of(run: Path) -> RunConfig:
    return config_from_dict(yaml.safe_load((run / "settings.yaml").read_text()), "settings.yaml")


def data_of(run: Path) -> TaggedImages:
    """The data set's own images and tags."""
    return open_images(data_of_seed(settings_of(run).data, 0))


def pairs(run: Path, kinds: tuple[str, ...]) -> np.ndarray:
    """(N, C): where tags.json lists a pair as one of these kinds."""
    images, stored = data_of(run), read_tags(run)
    found = np.zeros(images.labels.shape, bool)
    for kind in kinds:
        for image, name in stored[kind]:
            found[images.ids.index(image), images.classes.names.index(name)] = True
    return found


def weights(run: Path, method: str = "fpr") -> bytes:
    return (run / "seed0" / method / "weights.safetensors").read_bytes()
