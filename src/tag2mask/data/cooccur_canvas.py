"""What the scenes of ``cooccur`` are painted with: a canvas that keeps labels, a pen, colours and textures.

Every stroke writes the picture and a label layer together, so a pixel is neutral, of one class, or of one
context, and the masks are exact. Lengths are in pixels of the canvas, twice as wide as the finished scene.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Random = np.random.Generator
Tone = Callable[[int], np.ndarray]
"""The grey pattern of a texture: number of rows -> (rows, N) float32 levels to add to a colour."""

SUPERSAMPLING = 2
NEUTRAL = 0
FIRST_CONTEXT = 101  # labels 1..100 are classes, 101.. are contexts

GLASS: Colour = (150, 190, 210)
RUBBER: Colour = (28, 28, 30)


class Canvas:
    """A picture and its label layer, both (N, N), N = 2 * size; ``label`` is what the next strokes are."""

    def __init__(self, size: int) -> None:
        side = size * SUPERSAMPLING
        self._use(Image.new("RGB", (side, side)), Image.new("L", (side, side), NEUTRAL))

    def _use(self, image: Image.Image, labels: Image.Image) -> None:
        self.image, self.labels, self.side = image, labels, image.width
        self.draw_image, self.draw_labels = ImageDraw.Draw(image), ImageDraw.Draw(labels)
        self.label = NEUTRAL

    def copy(self) -> Canvas:
        twin = Canvas.__new__(Canvas)
        twin._use(self.image.copy(), self.labels.copy())
        return twin

    def polygon(self, colour: Colour, points: Sequence[Point]) -> None:
        self.draw_image.polygon(points, fill=colour)
        self.draw_labels.polygon(points, fill=self.label)

    def ellipse(self, colour: Colour, x: float, y: float, radius_x: float, radius_y: float) -> None:
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        self.draw_image.ellipse(box, fill=colour)
        self.draw_labels.ellipse(box, fill=self.label)

    def line(self, colour: Colour, points: Sequence[Point], width: float) -> None:
        pixels = max(1, round(width))
        self.draw_image.line(points, fill=colour, width=pixels)
        self.draw_labels.line(points, fill=self.label, width=pixels)

    def shadow(self, x: float, y: float, radius_x: float, radius_y: float) -> None:
        """Darken an ellipse; the pixels stay what they are, so labels do not change."""
        width, height = max(2, round(2 * radius_x)), max(2, round(2 * radius_y))
        veil = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(veil)
        for shrink, opacity in ((0.0, 35), (0.12, 75)):
            box = (width * shrink, height * shrink, width * (1 - shrink) - 1, height * (1 - shrink) - 1)
            draw.ellipse(box, fill=opacity)
        self.image.paste((15, 15, 20), (round(x - radius_x), round(y - radius_y)), veil)

    def texture(self, points: Sequence[Point], colour: Sequence[float], tone: Tone) -> None:
        """Fill a polygon with ``colour`` plus the pattern of ``tone``."""
        top = max(0, math.floor(min(y for _, y in points)))
        rows = min(self.side, math.ceil(max(y for _, y in points)) + 1) - top
        if rows <= 0:
            return
        base = np.asarray(colour, np.float32)
        levels = np.clip(tone(rows)[..., None] + base, 0, 255)  # (rows, N) -> (rows, N, 3)
        stencil = Image.new("1", (self.side, rows))
        ImageDraw.Draw(stencil).polygon([(x, y - top) for x, y in points], fill=1)
        self.image.paste(Image.fromarray(levels.astype(np.uint8)), (0, top), stencil)
        self.labels.paste(self.label, (0, top, self.side, top + rows), stencil)

    def finished(self) -> tuple[Image.Image, np.ndarray, np.ndarray]:
        """The picture, the class mask and the context map at the finished size; the maps are (S, S) uint8."""
        shape = (self.side // SUPERSAMPLING, self.side // SUPERSAMPLING)
        labels = np.asarray(self.labels.resize(shape, Image.Resampling.NEAREST))  # (2S, 2S) -> (S, S)
        is_context = labels >= FIRST_CONTEXT
        mask = np.where(is_context, 0, labels).astype(np.uint8)
        context = np.where(is_context, labels - (FIRST_CONTEXT - 1), 0).astype(np.uint8)
        return self.image.reduce(SUPERSAMPLING), mask, context


@dataclass(frozen=True)
class Pen:
    """Draws one thing in its own coordinates: origin where it stands, u forwards, v up, width 1 or so."""

    canvas: Canvas
    x: float
    y: float
    unit: float
    facing: int = 1
    tilt: float = 0.0

    def at(self, u: float, v: float) -> Point:
        along = u * math.cos(self.tilt) + v * math.sin(self.tilt)
        up = v * math.cos(self.tilt) - u * math.sin(self.tilt)
        return self.x + self.facing * along * self.unit, self.y - up * self.unit

    def polygon(self, colour: Colour, *points: Point) -> None:
        self.canvas.polygon(colour, [self.at(u, v) for u, v in points])

    def box(self, colour: Colour, left: float, bottom: float, right: float, top: float) -> None:
        self.polygon(colour, (left, bottom), (left, top), (right, top), (right, bottom))

    def ellipse(self, colour: Colour, u: float, v: float, radius_u: float, radius_v: float) -> None:
        self.canvas.ellipse(colour, *self.at(u, v), radius_u * self.unit, radius_v * self.unit)

    def line(self, colour: Colour, width: float, *points: Point) -> None:
        self.canvas.line(colour, [self.at(u, v) for u, v in points], width * self.unit)

    def shadow(self, half_width: float) -> None:
        self.canvas.shadow(self.x, self.y, half_width * self.unit, half_width * self.unit * 0.16)

    def wheels(self, random: Random, places: Sequence[float], radius: float) -> None:
        hub = near(random, (150, 150, 155), 20)
        for u in places:
            self.ellipse(RUBBER, u, radius, radius, radius)
            self.ellipse(hub, u, radius, radius * 0.5, radius * 0.5)


@dataclass(frozen=True)
class Band:
    """A strip of ground across the picture; ``tilt`` is how much lower its right end is than its middle."""

    top: float
    bottom: float
    tilt: float
    side: int

    def level(self, x: float, share: float) -> float:
        """Row at column ``x``, ``share`` of the way from the upper to the lower edge."""
        return self.top + share * (self.bottom - self.top) + self.tilt * (2 * x / self.side - 1)

    def across(self, share: float) -> list[Point]:
        return [(0.0, self.level(0, share)), (float(self.side), self.level(self.side, share))]

    def outline(self) -> list[Point]:
        return [*self.across(0), *reversed(self.across(1))]

    def part(self, upper: float, lower: float) -> Band:
        """The strip between two shares of this one; where both are the same, a line."""
        height = self.bottom - self.top
        return Band(self.top + upper * height, self.top + lower * height, self.tilt, self.side)

    def slope(self) -> float:
        """Radians; positive where the strip falls to the right."""
        return math.atan(2 * self.tilt / self.side)


# Colours and textures


def near(random: Random, base: Sequence[float], spread: float) -> Colour:
    """A colour at most ``spread`` levels from ``base`` in each channel."""
    red, green, blue = (random.random(3) * 2 - 1) * spread + base
    return clipped(red, green, blue)


def vivid(random: Random) -> Colour:
    """A colour of any hue, for paint and feathers: colour alone must not tell the classes apart."""
    hue, saturation, value = random.random(3)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.15 + 0.8 * saturation, 0.3 + 0.65 * value)
    return clipped(255 * red, 255 * green, 255 * blue)


def shade(colour: Sequence[float], factor: float) -> Colour:
    red, green, blue = colour
    return clipped(red * factor, green * factor, blue * factor)


def clipped(red: float, green: float, blue: float) -> Colour:
    return (min(255, max(0, int(red))), min(255, max(0, int(green))), min(255, max(0, int(blue))))


def noise(random: Random, rows: int, columns: int, cell: float) -> np.ndarray:
    """Smooth value noise, (rows, columns) float32 in -0.5..0.5: one random level every ``cell`` pixels."""
    coarse = random.integers(0, 256, (int(rows / cell) + 2, int(columns / cell) + 2), np.uint8)
    fine = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(fine, np.float32) / 255 - 0.5


def grain(random: Random, side: int, fine: float, coarse: float, cell: float = 0.012) -> Tone:
    """Small grains that span ``fine`` levels on large stains that span ``coarse`` levels."""
    grain_cell, stain_cell = max(1.5, cell * side), max(4.0, 0.1 * side)

    def tone(rows: int) -> np.ndarray:
        return noise(random, rows, side, grain_cell) * fine + noise(random, rows, side, stain_cell) * coarse

    return tone
