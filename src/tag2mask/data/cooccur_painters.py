"""The places of ``cooccur``: sky and neutral ground, the six contexts, clutter, and the post in front."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tag2mask.data.cooccur_canvas import (
    Band,
    Canvas,
    Pen,
    Point,
    Random,
    clipped,
    grain,
    near,
    noise,
    shade,
    vivid,
)

# The backdrop that belongs to no context

SKIES = ((120, 170, 225), (170, 180, 190), (225, 180, 150), (90, 120, 180))
GROUNDS = ((165, 140, 110), (175, 172, 165), (120, 95, 75), (225, 225, 230), (205, 185, 140), (150, 120, 120))

STANDING = (0.35, 0.95)
"""Part of a strip of ground on which feet, wheels and hulls are."""


def paint_sky(canvas: Canvas, random: Random, horizon: float) -> None:
    side = canvas.side
    top = near(random, SKIES[random.integers(len(SKIES))], 20)
    lighter = random.uniform(15, 65)

    def tone(rows: int) -> np.ndarray:
        ramp = np.linspace(0, lighter, rows, dtype=np.float32)
        return noise(random, rows, side, 0.15 * side) * 12 + ramp[:, None]

    canvas.texture([(0, 0), (side, 0), (side, horizon), (0, horizon)], top, tone)


def paint_ground(canvas: Canvas, random: Random, horizon: float) -> None:
    """Far hills in front of the sky, then earth, gravel, sand or snow down to the lower edge."""
    side = canvas.side
    earth = near(random, GROUNDS[random.integers(len(GROUNDS))], 18)
    heights = random.random(7) * random.choice((0.0, 0.05, 0.11)) * side
    haze = shade(near(random, (120, 130, 140), 25), 0.95)
    ridge = [(side * k / 6, horizon - height) for k, height in enumerate(heights.tolist())]
    canvas.polygon(haze, [(0, horizon), *ridge, (side, horizon)])
    tone = grain(random, side, fine=26, coarse=36)
    canvas.texture([(0, horizon), (side, horizon), (side, side), (0, side)], earth, tone)


# Contexts. Those on the ground return the strips on which their things stand


def paint_road(canvas: Canvas, random: Random, band: Band) -> list[Band]:
    side, grey = canvas.side, random.uniform(60, 115)
    asphalt = grain(random, side, fine=22, coarse=20, cell=0.008)
    canvas.texture(band.outline(), (grey, grey, grey + 2), asphalt)
    paint = near(random, (235, 225, 170) if random.random() < 0.5 else (235, 235, 235), 15)
    step = side * random.uniform(0.06, 0.12)
    for x in np.arange(-random.random() * step, side, step).tolist():
        end = x + 0.55 * step
        canvas.line(paint, [(x, band.level(x, 0.5)), (end, band.level(end, 0.5))], side * 0.012)
    kerb = near(random, (190, 190, 185), 15)
    for share in (0.0, 1.0):
        canvas.line(kerb, band.across(share), side * 0.01)
    return [band.part(*STANDING)]


def paint_rails(canvas: Canvas, random: Random, band: Band) -> list[Band]:
    """One or two tracks; trains stand on the near rail of a track."""
    side, height = canvas.side, band.bottom - band.top
    gravel = grain(random, side, fine=70, coarse=25, cell=0.008)
    canvas.texture(band.outline(), near(random, (130, 112, 95), 22), gravel)
    wood, steel = near(random, (72, 52, 38), 14), near(random, (185, 185, 195), 18)
    second_track, step = random.random(), side * random.uniform(0.035, 0.055)
    lean = random.uniform(-0.25, 0.25)
    near_rails = []
    tracks = 2 if height > 0.2 * side and second_track < 0.5 else 1
    for track in range(tracks):
        upper, lower = (track + 0.18) / tracks, (track + 0.82) / tracks
        slant = lean * height / tracks
        for x in np.arange(-random.random() * step - abs(slant), side + abs(slant), step).tolist():
            foot, head = band.level(x, lower), band.level(x, upper)
            wide = 0.42 * step
            canvas.polygon(wood, [(x, foot), (x + wide, foot), (x + wide + slant, head), (x + slant, head)])
        near_rail = upper + 0.78 * (lower - upper)
        near_rails.append(band.part(near_rail, near_rail))
        for share in (0.22, 0.78):
            place = upper + share * (lower - upper)
            rail = band.across(place)
            canvas.line(shade(steel, 0.45), [(x, y + side * 0.008) for x, y in rail], side * 0.012)
            canvas.line(steel, rail, side * 0.012)
    return near_rails


def paint_water(canvas: Canvas, random: Random, band: Band) -> list[Band]:
    side = canvas.side
    frequency = (90 + 51 * random.random()) / side

    def waves(rows: int) -> np.ndarray:
        bend = noise(random, rows, side, max(4.0, 0.095 * side)) * 14
        phase = bend + np.arange(rows, dtype=np.float32)[:, None] * frequency
        phase += np.arange(side, dtype=np.float32) * (10 / side)
        levels: np.ndarray = np.sin(phase) * 16 + noise(random, rows, side, max(1.5, 0.024 * side)) * 24
        return levels

    canvas.texture(band.outline(), near(random, (55, 110, 150), 28), waves)
    foam = near(random, (190, 215, 230), 20)
    for along, across, length in random.random((int(random.integers(8, 22)), 3)).tolist():
        x, long = along * side, side * (0.02 + 0.07 * length)
        y = band.level(x, 0.04 + 0.92 * across)
        canvas.line(foam, [(x, y), (x + long / 2, y - 0.008 * side), (x + long, y)], side * 0.008)
    return [band.part(*STANDING)]


def paint_grass(canvas: Canvas, random: Random, band: Band) -> list[Band]:
    side = canvas.side
    green = near(random, (85, 135, 55), 25)
    canvas.texture(band.outline(), green, grain(random, side, fine=50, coarse=35))
    greens = [near(random, shade(green, factor), 8) for factor in np.linspace(0.65, 1.3, 8)]
    blades = random.random((int(300 * (band.bottom - band.top) / side), 5))
    blades = blades[np.argsort(blades[:, 1])]  # near blades cover far ones
    for along, across, length, lean, hue in blades.tolist():
        x, long = along * side, side * (0.015 + 0.025 * length)
        y = band.level(x, across)
        canvas.line(greens[int(hue * 8)], [(x, y), (x + 0.8 * (lean - 0.5) * long, y - long)], side / 128)
    return [band.part(*STANDING)]


def paint_clouds(canvas: Canvas, random: Random, band: Band) -> None:
    side = canvas.side
    for _ in range(int(random.integers(2, 5))):
        x, y = random.uniform(0, side), random.uniform(band.top, band.bottom * 0.85)
        radius, white = side * random.uniform(0.05, 0.1), random.uniform(215, 252)
        puffs = int(random.integers(6, 12))
        spots = random.standard_normal((puffs, 2)) * (1.3 * radius, 0.35 * radius) + (x, y)
        radii = (random.random((puffs, 2)) * (0.5, 0.3) + (0.5, 0.4)) * radius
        levels = np.sort(white - 22 * random.random(puffs))  # the darkest puffs lie behind
        for place, size, level in zip(spots.tolist(), radii.tolist(), levels.tolist(), strict=True):
            canvas.ellipse(clipped(level, level, level + 5), *place, *size)


def paint_foliage(canvas: Canvas, random: Random, band: Band) -> list[list[Point]]:
    """Leafy branches that reach in from one side; returns them, from left to right, for birds to sit on."""
    side = canvas.side
    from_left = random.random() < 0.5
    bark, green = near(random, (95, 65, 40), 15), near(random, (60, 115, 50), 25)
    greens = [near(random, shade(green, factor), 8) for factor in np.linspace(0.7, 1.35, 8)]
    branches = []
    count = int(random.integers(2, 4))
    for number in range(count):
        height = band.top + (number + random.random()) / count * (band.bottom - band.top)
        reach = side * random.uniform(0.5, 0.95)
        drops = (height + random.standard_normal(5) * side * 0.025).tolist()
        columns = [reach * k / 4 if from_left else side - reach * k / 4 for k in range(5)]
        branch = list(zip(columns, drops, strict=True))
        for k, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(branch)):
            canvas.line(bark, [(x0, y0), (x1, y1)], side * (0.022 - 0.004 * k))
            for _ in range(int(random.integers(5, 9))):
                along, size, flat, hue = random.random(4).tolist()
                right, down = random.standard_normal(2).tolist()
                radius = side * (0.012 + 0.016 * size)
                x = x0 + (x1 - x0) * along + right * side * 0.03
                y = y0 + (y1 - y0) * along + down * side * 0.035
                canvas.ellipse(greens[int(hue * 8)], x, y, radius, radius * (0.45 + 0.45 * flat))
        branches.append(branch if from_left else branch[::-1])
    return branches


# Clutter: things that carry no tag; the tyres look like parts of vehicles


def paint_clutter(canvas: Canvas, random: Random, horizon: float) -> None:
    side = canvas.side
    for _ in range(int(random.integers(0, 4))):
        kind, (along, depth, size) = int(random.integers(5)), random.random(3).tolist()
        share = 0.06 * depth if kind == 0 else 0.1 + 0.9 * depth  # houses stand at the horizon, not in a lake
        pen = Pen(canvas, along * side, horizon + share * (side - horizon), side)
        CLUTTER[kind](pen, random, 0.05 + 0.09 * size)


def paint_house(pen: Pen, random: Random, size: float) -> None:
    wall = near(random, (200, 175, 150), 40)
    door, roof = shade(wall, 0.45), near(random, (140, 75, 60), 35)
    pen.box(wall, -size, 0, size, 1.2 * size)
    pen.polygon(roof, (-1.2 * size, 1.1 * size), (0, 1.9 * size), (1.2 * size, 1.1 * size))
    pen.box(door, -0.3 * size, 0, 0.1 * size, 0.6 * size)
    pen.box(door, 0.35 * size, 0.45 * size, 0.75 * size, 0.8 * size)


def paint_rock(pen: Pen, random: Random, size: float) -> None:
    grey = near(random, (120, 115, 110), 30)
    pen.shadow(1.1 * size)
    angles = np.linspace(0, math.pi, 7)
    reach = random.uniform(0.65, 1, (7, 2))
    points = [
        (size * math.cos(angle) * right, 0.8 * size * math.sin(angle) * up)
        for angle, (right, up) in zip(angles.tolist(), reach.tolist(), strict=True)
    ]
    pen.polygon(grey, *points)
    pen.polygon(shade(grey, 1.2), *points[2:5], (0, 0.35 * size))


def paint_sign(pen: Pen, random: Random, size: float) -> None:
    pen.line(near(random, (90, 90, 95), 20), 0.014, (0, 0), (0, 2.6 * size))
    plate = vivid(random)
    pen.ellipse((230, 230, 230), 0, 2.6 * size, 0.42 * size, 0.42 * size)
    pen.ellipse(plate, 0, 2.6 * size, 0.34 * size, 0.34 * size)


def paint_crate(pen: Pen, random: Random, size: float) -> None:
    wood = near(random, (150, 115, 75), 35)
    half = 0.6 * size
    pen.shadow(1.2 * half)
    pen.box(wood, -half, 0, half, 0.9 * size)
    for height in (0.3, 0.6):
        pen.line(shade(wood, 0.65), 0.008, (-half, height * size), (half, height * size))
    pen.line(shade(wood, 0.55), 0.012, (-half, 0), (half, 0.9 * size))


def paint_tyre(pen: Pen, random: Random, size: float) -> None:
    pen.shadow(0.55 * size)
    pen.wheels(random, (0.0,), 0.45 * size)


CLUTTER = (paint_house, paint_rock, paint_sign, paint_crate, paint_tyre)


def paint_post(canvas: Canvas, random: Random, horizon: float) -> None:
    """A post in front of everything."""
    side = canvas.side
    along, thick, tall = random.random(3).tolist()
    left, width = along * side, side * (0.02 + 0.03 * thick)
    grey = near(random, (100, 95, 90), 30)
    top = 0.0 if tall < 0.3 else 0.8 * horizon
    for colour, start, end in ((grey, 0.0, 1.0), (shade(grey, 1.25), 0.15, 0.45)):
        x0, x1 = left + start * width, left + end * width
        canvas.polygon(colour, [(x0, top), (x1, top), (x1, side), (x0, side)])
