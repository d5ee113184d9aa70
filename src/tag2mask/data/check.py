"""Every finding about a data set at once: the whole list that ``tag2mask check`` prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tag2mask.config import DataConfig
from tag2mask.data.files import DataError, Finding
from tag2mask.data.folder import read_folder
from tag2mask.data.images import decode_image
from tag2mask.data.masks import read_mask, survey_masks
from tag2mask.data.rows import survey_rows
from tag2mask.data.voc import read_voc

__all__ = ["Finding", "check"]


def check(config: DataConfig) -> list[Finding]:
    """All errors and warnings, in order of file and row; empty when all is well.

    Unlike the readers, which look at headers, this decodes every picture and every mask of the split, and compares
    their sizes. The built-in scenes have no files, hence no findings.
    """
    if config.kind == "cooccur":
        return []
    sizes: dict[Path, tuple[int, int]] = {}  # (H, W) of the upright pictures, in the order of the images

    def decode(path: Path) -> None:
        width, height = decode_image(path).size
        sizes[path] = (height, width)

    try:
        source = read_folder(config) if config.kind == "folder" else read_voc(config)
    except DataError as error:
        return [error.finding]
    survey = survey_rows(config, source, decode)
    if not source.names:  # without names no mask value has a meaning; the finding says why there are none
        return survey.findings
    size_of_index = list(sizes.values())

    def compare(path: Path, index: int, table: np.ndarray) -> None:
        read_mask(path, table, size_of_index[index])

    try:
        _, mask_findings = survey_masks(config, survey.images, compare)
    except DataError as error:
        mask_findings = [error.finding]
    return survey.findings + mask_findings
