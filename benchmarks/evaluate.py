"""A threshold sweep against decoding the masks that it needs: 500x375 images, 20 classes and background.

The masks look like those of PASCAL VOC: one to four objects with ragged outlines, drawn over each other, each
with a border of ignored pixels; PNG files with a palette, of about 3 kB, as real ones are.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tag2mask.data.classes import palette
from tag2mask.score import IGNORE, ScoreHistograms, miou_by_level

BAR = 1.5
DESCRIPTION = "one sweep over all 255 thresholds / decoding the masks, 500x375 images, 21 classes"

WIDTH, HEIGHT = 500, 375
CLASSES = 20
IMAGES = 48
REPEATS = 31
BORDER = 5
"""Width in pixels of the ignored border around an object, as in VOC."""


@dataclass(frozen=True)
class Sample:
    """One image as evaluation meets it: the mask in its file, the maps of its present classes in memory."""

    png: bytes
    class_ids: npt.NDArray[np.intp]
    maps: npt.NDArray[np.uint8]
    """(P, H, W)."""


def measure() -> float:
    """Median of sweep time / decoding time; both run in turn, so that load on the machine meets both."""
    generator = np.random.default_rng(0)
    samples = [draw_sample(generator) for _ in range(IMAGES)]
    masks = decode(samples)
    sweep(samples, masks)  # now both have run once: first touches of memory are no part of the work
    ratios = []
    for _ in range(REPEATS):
        sweeping = seconds(lambda: sweep(samples, masks))
        ratios.append(sweeping / seconds(lambda: decode(samples)))
    return statistics.median(ratios)


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode(samples: list[Sample]) -> list[npt.NDArray[np.uint8]]:
    """The masks (H, W) uint8 from their PNG bytes."""
    return [np.asarray(Image.open(io.BytesIO(sample.png))) for sample in samples]


def sweep(samples: list[Sample], masks: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float64]:
    """(255,) mIoU at every threshold level, from nothing but maps and decoded masks."""
    histograms = ScoreHistograms(CLASSES, images=len(samples))
    for index, (sample, mask) in enumerate(zip(samples, masks, strict=True)):
        histograms.add(index, sample.class_ids, sample.maps, mask)
    return miou_by_level(histograms)


def draw_sample(generator: np.random.Generator) -> Sample:
    """A mask with one to three classes, as a palette PNG, and a smooth map for each class."""
    class_ids = generator.choice(CLASSES, size=generator.integers(1, 4), replace=False)
    mask = Image.new("P", (WIDTH, HEIGHT))
    mask.putpalette(palette(IGNORE).tobytes())
    canvas = ImageDraw.Draw(mask)
    objects = np.concatenate([class_ids, generator.choice(class_ids, size=generator.integers(0, 2))])
    for class_id in objects:
        outline = draw_outline(generator)
        canvas.polygon(outline, fill=int(class_id) + 1)
        canvas.line([*outline, outline[0]], fill=IGNORE, width=BORDER)
    file = io.BytesIO()
    mask.save(file, "PNG")
    maps = np.stack([draw_map(generator) for _ in class_ids])  # (P, H, W)
    return Sample(png=file.getvalue(), class_ids=class_ids, maps=maps)


def draw_outline(generator: np.random.Generator) -> list[tuple[float, float]]:
    """A ragged closed curve: an ellipse whose radius sways at ten frequencies, the higher the less."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    frequency = np.arange(1, 11)[:, None]
    phase = generator.uniform(0, 2 * np.pi, (10, 1))
    amplitude = generator.uniform(0, 0.3, (10, 1)) / frequency
    sway = (amplitude * np.cos(frequency * angle + phase)).sum(axis=0)  # (10, 200) -> (200,)
    radius_x, radius_y = generator.uniform(30, 150), generator.uniform(30, 120)
    x = generator.uniform(0.2, 0.8) * WIDTH + radius_x * (1 + sway) * np.cos(angle)
    y = generator.uniform(0.2, 0.8) * HEIGHT + radius_y * (1 + sway) * np.sin(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def draw_map(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 like a class activation map: coarse, resized smoothly, half of it zero, maximum 255."""
    coarse = Image.fromarray(generator.normal(size=(HEIGHT // 16, WIDTH // 16)).astype(np.float32))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))  # (H, W)
    shares: npt.NDArray[np.float32] = np.maximum(smooth, 0) / smooth.max()
    return np.round(255 * shares).astype(np.uint8)
