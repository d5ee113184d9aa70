"""A run as the explorer sees it: settings, images, which methods have what. No torch, and no photo is looked at."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from tag2mask.config import DataConfig, RunConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.data.readers import read_rows
from tag2mask.data.rows import survey_rows
from tag2mask.errors import InputError
from tag2mask.runs import method_folder
from tag2mask.settings import config_from_dict, read_yaml

MOMENTS = ("first", "last")
"""Prototypes of the first collection, with the weights of the class activation map; of the last one, with the
method's weights."""


class OpenedRun:
    """A run folder with its images, which are opened once for each seed."""

    def __init__(self, folder: Path) -> None:
        path = folder / "settings.yaml"
        if not path.is_file():
            raise InputError(
                f"there is no settings.yaml in {folder}; give the folder of a run (the --out of `tag2mask train`)."
            )
        self.folder = folder
        self.config: RunConfig = config_from_dict(read_yaml(path), str(path))
        self._images: dict[int, TaggedImages] = {}
        self._lock = threading.Lock()

    def images(self, seed: int) -> TaggedImages:
        """The images that a seed was trained on. Built-in scenes differ with the seed."""
        shared = seed if self.config.data.kind == "cooccur" else self.config.seeds[0]
        with self._lock:
            if shared not in self._images:
                self._images[shared] = read_images(seed_data(self.config.data, shared))
            return self._images[shared]

    def source(self, seed: int) -> str:
        """Where the images of a seed come from, as text."""
        return repr(seed_data(self.config.data, seed))

    def trained(self, seed: int) -> list[str]:
        """Methods with weights, in the order of the settings."""
        every = ("cam", *self.config.methods)
        return [m for m in every if (method_folder(self.folder, seed, m) / "weights.safetensors").is_file()]

    def with_prototypes(self, seed: int) -> list[str]:
        """Methods with prototypes: the default method first, else in the order of the settings."""
        found = [m for m in self.config.methods if self.prototype_file(seed, m, "last").is_file()]
        return sorted(found, key=lambda method: method != "fpr")

    def moments(self, seed: int, method: str) -> list[str]:
        """Which of ``MOMENTS`` there are prototypes of; runs of earlier versions keep the last collection alone."""
        return [m for m in MOMENTS if m == "last" or (method != "training_free" and self.epoch_files(seed, method))]

    def epoch_files(self, seed: int, method: str) -> dict[int, Path]:
        """The prototypes of each collection, by epoch from 1."""
        folder = method_folder(self.folder, seed, method) / "prototypes"
        numbers = {path: path.stem.removeprefix("epoch") for path in sorted(folder.glob("epoch*.safetensors"))}
        return {int(number): path for path, number in numbers.items() if number.isdigit()}

    def prototype_file(self, seed: int, method: str, moment: str) -> Path:
        """Where the prototypes of a moment are."""
        epochs = self.epoch_files(seed, method)
        if moment == "first" and epochs:
            return epochs[min(epochs)]
        return method_folder(self.folder, seed, method) / "prototypes.safetensors"

    def weights_file(self, seed: int, method: str, moment: str) -> Path:
        """The weights with which a moment's prototypes are seen."""
        return method_folder(self.folder, seed, "cam" if moment == "first" else method) / "weights.safetensors"


def seed_data(data: DataConfig, seed: int) -> DataConfig:
    """As ``stages.network.data_of_seed``, which would load torch."""
    if data.kind != "cooccur":
        return data
    return replace(data, cooccur=replace(data.cooccur, seed=data.cooccur.seed + seed))


def read_images(data: DataConfig) -> TaggedImages:
    """The images of a data set, without a look at each header: a photo that is damaged says so where it is shown."""
    if data.kind == "cooccur":
        return open_images(data)
    return survey_rows(data, read_rows(data), lambda row, path: None).opened()
