"""The eight classes of ``cooccur``, each drawn by a pen that stands where the thing stands.

Widths and heights are in units of the pen; every painter takes the pen and a random stream of its own.
"""

from __future__ import annotations

import math

import numpy as np

from tag2mask.data.cooccur_canvas import GLASS, RUBBER, Pen, Random, near, shade, vivid


def paint_car(pen: Pen, random: Random) -> None:
    body, glass = vivid(random), near(random, GLASS, 25)
    height, radius = random.uniform(0.2, 0.27), random.uniform(0.085, 0.11)
    rear, front = random.uniform(-0.42, -0.3), random.uniform(0.12, 0.25)
    sill = 0.75 * radius
    waist, roof = sill + height, sill + 2 * height
    pen.shadow(0.55)
    pen.polygon(body, (-0.5, sill), (-0.5, waist), (0.38, waist), (0.5, sill + 0.75 * height), (0.5, sill))
    pen.polygon(body, (rear, waist), (rear + 0.1, roof), (front - 0.12, roof), (front, waist))
    low, high = sill + 1.05 * height, sill + 1.85 * height
    pen.polygon(glass, (rear + 0.05, low), (rear + 0.12, high), (front - 0.14, high), (front - 0.05, low))
    middle = (rear + front) / 2
    pen.line(body, 0.03, (middle, waist), (middle, sill + 1.9 * height))
    pen.line(shade(body, 0.7), 0.012, (middle, sill + 0.2 * height), (middle, waist))
    pen.box(shade(body, 0.75), -0.5, sill, 0.5, sill + 0.18 * height)
    pen.ellipse((250, 240, 190), 0.47, sill + 0.55 * height, 0.025, 0.03)
    pen.ellipse((190, 40, 35), -0.485, sill + 0.7 * height, 0.018, 0.035)
    pen.wheels(random, (-0.29, 0.29), radius)


def paint_bus(pen: Pen, random: Random) -> None:
    body, stripe, glass = vivid(random), vivid(random), near(random, GLASS, 25)
    height, radius = random.uniform(0.4, 0.52), random.uniform(0.075, 0.095)
    windows = int(random.integers(4, 7))
    floor = 0.75 * radius
    pen.shadow(0.55)
    pen.box(body, -0.5, floor, 0.5, floor + height)
    pen.box(shade(body, 1.2), -0.48, floor + 0.95 * height, 0.48, floor + 1.02 * height)
    pen.box(stripe, -0.5, floor + 0.22 * height, 0.5, floor + 0.38 * height)
    pitch = 0.92 / windows
    for k in range(windows):
        left = -0.46 + k * pitch
        pen.box(glass, left, floor + 0.5 * height, left + 0.8 * pitch, floor + 0.88 * height)
    pen.box(shade(glass, 0.75), 0.46 - 0.8 * pitch, floor + 0.06 * height, 0.46, floor + 0.88 * height)
    pen.wheels(random, (-0.3, 0.24), radius)


def paint_train(pen: Pen, random: Random) -> None:
    body, stripe, glass = vivid(random), vivid(random), near(random, (140, 180, 205), 25)
    length, cars = 1.35, int(random.integers(2, 4))
    height, radius = length * random.uniform(0.2, 0.28), 0.045
    step = length / cars
    floor = 1.3 * radius
    pen.shadow(0.7)
    for car in range(cars):
        left = -length / 2 + car * step
        right = left + 0.95 * step
        pen.box((40, 40, 42), left + 0.1 * step, 0.7 * radius, right - 0.1 * step, floor)
        if car < cars - 1:
            pen.box(body, left, floor, right, floor + height)
            pen.box((50, 50, 52), right, floor, left + step, floor + 0.15 * height)  # coupling
        else:
            nose = (right - 0.22 * step, floor + height), (right, floor + 0.4 * height), (right, floor)
            pen.polygon(body, (left, floor), (left, floor + height), *nose)
            lamp = right - 0.19 * step
            windscreen = (lamp, 0.9), (right - 0.05 * step, 0.52), (lamp, 0.52)
            pen.polygon(shade(glass, 0.7), *((u, floor + v * height) for u, v in windscreen))
        pen.box(stripe, left, floor + 0.18 * height, right, floor + 0.32 * height)
        for k in range(3):
            start = left + (0.08 + 0.25 * k) * step
            pen.box(glass, start, floor + 0.45 * height, start + 0.16 * step, floor + 0.8 * height)
        axles = left + 0.16 * step, left + 0.3 * step, right - 0.3 * step, right - 0.16 * step
        pen.wheels(random, axles, radius)


def paint_boat(pen: Pen, random: Random) -> None:
    hull, height, sails = vivid(random), random.uniform(0.16, 0.24), random.random() < 0.6
    pen.shadow(0.45)
    if sails:
        mast = random.uniform(0.55, 0.85)
        cloth = near(random, (235, 230, 220), 20) if random.random() < 0.5 else vivid(random)
        pen.line((90, 70, 50), 0.03, (0, height), (0, height + mast))
        pen.polygon(cloth, (0.03, 1.1 * height), (0.03, height + mast), (0.42, 1.1 * height))
        jib = (-0.04, 1.1 * height), (-0.04, height + 0.85 * mast), (-0.33, 1.1 * height)
        pen.polygon(shade(cloth, 0.85), *jib)
    else:
        cabin, glass = vivid(random), near(random, GLASS, 25)
        pen.box(shade(cabin, 0.6), -0.12, 2 * height, 0, 2.9 * height)
        pen.box(shade(cabin, 0.35), -0.12, 2.7 * height, 0, 2.9 * height)
        pen.polygon(cabin, (-0.25, height), (-0.25, 2.2 * height), (0.15, 2.2 * height), (0.25, height))
        for left, right in ((-0.2, -0.07), (-0.03, 0.12)):
            pen.box(glass, left, 1.35 * height, right, 1.9 * height)
    pen.polygon(hull, (-0.5, height), (0.52, 1.1 * height), (0.36, 0), (-0.38, 0))
    band = (-0.47, 0.8 * height), (0.47, 0.85 * height), (0.45, 0.6 * height), (-0.45, 0.55 * height)
    pen.polygon(shade(hull, 0.6), *band)


def paint_plane(pen: Pen, random: Random) -> None:
    body = near(random, (215, 215, 220), 30) if random.random() < 0.5 else vivid(random)
    tail, glass = vivid(random), (60, 70, 90)
    pen.polygon(shade(body, 0.75), (-0.05, 0), (-0.22, 0.3), (-0.1, 0.3), (0.16, 0))  # far wing
    hull = (-0.5, 0.02), (-0.42, 0.09), (0.32, 0.09), (0.45, 0.05), (0.5, -0.02), (0.4, -0.07), (-0.35, -0.07)
    pen.polygon(body, *hull)
    pen.polygon(shade(body, 0.82), (-0.42, -0.035), (0.47, -0.035), (0.4, -0.07), (-0.35, -0.07))  # belly
    pen.polygon(tail, (-0.42, 0.06), (-0.53, 0.26), (-0.42, 0.26), (-0.28, 0.06))
    pen.polygon(glass, (0.36, 0.065), (0.43, 0.045), (0.47, 0.01), (0.37, 0.02))
    pen.ellipse(shade(body, 0.55), 0.02, -0.12, 0.07, 0.035)  # engine
    pen.polygon(shade(body, 0.88), (-0.08, -0.02), (-0.28, -0.32), (-0.14, -0.32), (0.16, -0.02))  # near wing
    for u in np.linspace(-0.28, 0.28, 7).tolist():
        pen.ellipse(glass, u, 0.03, 0.016, 0.02)


def paint_sheep(pen: Pen, random: Random) -> None:
    wool, face = near(random, (222, 215, 200), 25), near(random, (60, 50, 45), 30)
    pen.shadow(0.45)
    for u in (-0.25, -0.12, 0.12, 0.25):
        pen.line(face, 0.06, (u, 0.2), (u, 0))
    tufts = random.random((22, 3))
    for turn, reach, tone in tufts[np.argsort(tufts[:, 2])].tolist():  # lighter tufts in front
        angle, far = 2 * math.pi * turn, math.sqrt(reach)
        place = (0.34 * far * math.cos(angle), 0.38 + 0.17 * far * math.sin(angle))
        pen.ellipse(shade(wool, 0.85 + 0.2 * tone), *place, 0.11, 0.1)
    pen.ellipse(face, 0.43, 0.47, 0.1, 0.13)
    pen.ellipse(shade(face, 0.8), 0.34, 0.55, 0.06, 0.03)
    pen.ellipse((235, 235, 230), 0.46, 0.51, 0.018, 0.018)


def paint_cow(pen: Pen, random: Random) -> None:
    coats = ((230, 225, 220), (120, 75, 45), (60, 50, 48), (190, 150, 110))
    coat = near(random, coats[random.integers(len(coats))], 15)
    patch = shade(coat, 0.35) if sum(coat) > 350 else (225, 220, 215)
    horn, nose = (225, 215, 190), (215, 165, 160)
    pen.shadow(0.5)
    for u in (-0.3, -0.2, 0.18, 0.28):
        leg = (u - 0.03, 0.3), (u + 0.03, 0.3), (u + 0.025, 0), (u - 0.025, 0)
        pen.polygon(shade(coat, 0.8), *leg)
        pen.box(shade(coat, 0.35), u - 0.027, 0, u + 0.027, 0.035)
    pen.line(shade(coat, 0.7), 0.025, (-0.39, 0.42), (-0.46, 0.18))
    pen.ellipse(coat, 0, 0.38, 0.4, 0.19)
    for right, up, wide, high in random.random((int(random.integers(2, 5)), 4)).tolist():
        place = (0.52 * (right - 0.5), 0.38 + 0.16 * (up - 0.5))
        pen.ellipse(patch, *place, 0.05 + 0.05 * wide, 0.04 + 0.03 * high)
    for u, lean in ((0.4, -0.05), (0.52, 0.05)):
        pen.line(horn, 0.03, (u, 0.6), (u + lean, 0.7))
    pen.ellipse(coat, 0.46, 0.5, 0.09, 0.13)
    pen.ellipse(nose, 0.49, 0.42, 0.065, 0.05)
    pen.ellipse((20, 18, 18), 0.485, 0.53, 0.016, 0.018)


def paint_bird(pen: Pen, random: Random) -> None:
    feathers, leg = vivid(random), (190, 130, 60)
    wing = shade(feathers, 0.6)
    for u in (-0.03, 0.09):
        pen.line(leg, 0.04, (u, 0.16), (u, 0))
    pen.polygon(wing, (-0.3, 0.33), (-0.62, 0.16), (-0.58, 0.02), (-0.2, 0.18))
    pen.ellipse(feathers, 0, 0.35, 0.34, 0.22)
    pen.ellipse(shade(feathers, 1.3), 0.08, 0.27, 0.2, 0.12)
    pen.ellipse(feathers, 0.3, 0.58, 0.16, 0.15)
    pen.polygon((235, 170, 50), (0.43, 0.63), (0.62, 0.55), (0.43, 0.5))
    pen.polygon(wing, (-0.25, 0.38), (0.1, 0.46), (0.02, 0.2))
    pen.ellipse(RUBBER, 0.34, 0.61, 0.035, 0.035)


PAINTERS = (paint_car, paint_bus, paint_train, paint_boat, paint_plane, paint_sheep, paint_cow, paint_bird)
"""In the order of ``cooccur.CLASSES``."""

RELATIVE_WIDTH = (1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.9, 0.6)
"""Width of the pen for each class, so that birds are smaller than buses; a train is 1.35 units long."""

LARGEST_TILT = (0.0, 0.0, 0.0, 0.0, 0.35, 0.0, 0.0, 0.0)
"""Radians: only planes climb and dive."""
