"""Make tests/goldens/crf: what pydensecrf2 answers for small generated pictures.

Run ``python docs/make_crf_goldens.py [FOLDER]`` in an environment with ``pip install pydensecrf2`` (it needs a C++
compiler). The tests compare the project's own CRF with the files and do not need that package.

Each file holds a picture, a unary as uint8 (labels, or scores as shares of 255), the settings in the order of the
fields of ``CRFConfig``, and the answer: the probabilities as uint16 shares of 65535 and the winning labels.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tag2mask.config import CooccurConfig
from tag2mask.data.cooccur import render_scene
from tag2mask.refine import CRF_PRESETS, CRFConfig, DenseCRF, hard_energies, soft_energies

WIDTH, HEIGHT = 60, 44
LABEL_COUNTS = (2, 3, 21)
SETTINGS = ("irn", "psa", "irn", "deeplab_v2", "toco_coco", "irn", "psa", "deeplab_v1", "irn", "toco", "irn", "weclip")
"""A preset for each file; with "irn" the unary is made of hard labels, as it is published, else of scores."""

Pixels = npt.NDArray[np.uint8]


def pictures() -> dict[str, Pixels]:
    """Four pictures (H, W, 3): two scenes, noise with shapes on it, and a ramp with edges and flat colour."""
    config = CooccurConfig(images=8, size=WIDTH)
    scenes = {f"scene{index}": render_scene(config, index).image[:HEIGHT] for index in (3, 5)}
    return {**scenes, "noise": noise_with_shapes(), "ramp": ramp_with_edges()}


def noise_with_shapes() -> Pixels:
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(60, 150, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    canvas = ImageDraw.Draw(picture)
    canvas.ellipse((6, 8, 34, 40), fill=(200, 80, 40))
    canvas.polygon([(40, 6), (60, 20), (44, 43)], fill=(40, 90, 190))
    soft = np.asarray(picture, np.float64) + generator.normal(0, 6, (HEIGHT, WIDTH, 3))
    return soft.clip(0, 255).astype(np.uint8)


def ramp_with_edges() -> Pixels:
    rows, columns = np.indices((HEIGHT, WIDTH))
    picture = np.stack([columns * 255 // WIDTH, rows * 255 // HEIGHT, (rows + columns) % 64], axis=2).astype(np.uint8)
    picture[14:34, 20:46] = (128, 128, 128)
    picture[:, 54:] = picture[:, 54:] // 32 * 32
    return picture


def smooth_scores(generator: np.random.Generator, count: int) -> Pixels:
    """(L, H, W) uint8: smooth maps, as coarse as those of a network."""
    scores = np.empty((count, HEIGHT, WIDTH), np.uint8)
    for row in scores:
        coarse = Image.fromarray(generator.normal(0.35, 0.35, (6, 8)).astype(np.float32))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        row[:] = np.round(255 * smooth.clip(0, 1))
    return scores


def hard_labels(generator: np.random.Generator, count: int) -> Pixels:
    """(H, W) uint8: the best of smooth scores, with small blocks of other labels in between."""
    labels = smooth_scores(generator, count).argmax(axis=0)
    wrong = np.kron(generator.random((HEIGHT // 4, WIDTH // 4)) < 0.08, np.ones((4, 4), bool))
    return np.where(wrong, generator.integers(0, count, labels.shape), labels).astype(np.uint8)


def golden(image: Pixels, config: CRFConfig, count: int, hard: bool, seed: int) -> dict[str, np.ndarray]:
    """The arrays of one file."""
    generator = np.random.default_rng(seed)
    if hard:
        unary = {"labels": hard_labels(generator, count)}
        energies = hard_energies(unary["labels"], count, config.confidence)
    else:
        unary = {"scores": smooth_scores(generator, count)}
        energies = soft_energies(unary["scores"].astype(np.float32) / 255)
    probabilities = DenseCRF(image, config, "pydensecrf").infer(energies)  # (L, H, W)
    return {
        "image": image,
        **unary,
        "settings": np.array(astuple(config), np.float64),
        "probabilities": np.round(65535 * probabilities).astype(np.uint16),
        "winners": probabilities.argmax(axis=0).astype(np.uint8),
    }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(name, image, count) for name, image in pictures().items() for count in LABEL_COUNTS]
    for seed, ((name, image, count), preset) in enumerate(zip(cases, SETTINGS, strict=True)):
        file = io.BytesIO()
        np.savez_compressed(file, **golden(image, CRF_PRESETS[preset], count, preset == "irn", seed))
        target = folder / f"{name}_{count}_{preset}.npz"
        partial = target.with_suffix(".partial")
        partial.write_bytes(file.getvalue())
        os.replace(partial, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests" / "goldens" / "crf")
