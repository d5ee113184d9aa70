"""Training curves as points of line charts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tag2mask.runs import method_folder, read_lines
from tag2mask.stages.table import TITLES

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
"""Margins of a chart for its axis labels."""
DASHES = {
    "cam": "", "continued": "7 3", "halo": "2 3", "sharpen": "5 2 1 2", "fpr": "", "focal": "9 3 2 3", "rc": "4 4",
    "pr": "1 4",
}  # fmt: skip
"""Lines differ in more than colour."""

Points = dict[str, list[tuple[float, float]]]
"""Method -> (epoch, value)."""


def training_charts(run: Path, seed: int, methods: tuple[str, ...]) -> list[dict[str, Any]]:
    """Charts of one seed: the classifier, then what was trained on from it. Charts without a line are left out."""
    rows = {method: read_lines(method_folder(run, seed, method) / "metrics.jsonl") for method in ("cam", *methods)}

    def series(name: str, factor: float = 1.0) -> Points:
        points = {m: [(line["epoch"], factor * line[name]) for line in rows[m]] for m in methods}
        return {m: values for m, values in points.items() if any(value for _, value in values)}

    classification = series("classification")
    if rows["cam"]:
        last = rows["cam"][-1]["classification"]
        classification = {m: [(0, last), *values] for m, values in classification.items()}
    charts = [
        chart("Classifier: loss", {"cam": [(row["epoch"], row["classification"]) for row in rows["cam"]]}),
        chart("Trained on: classification loss", classification),
        chart("Pixel term", series("pixel")),
        chart("Suppressed, % of activated pixels", series("suppressed_share", 100.0)),
        chart("Region term", series("region")),
    ]
    return [found for found in charts if found is not None]


def chart(title: str, lines: Points) -> dict[str, Any] | None:
    """Points in the coordinates of the picture, with ticks; None without a point."""
    lines = {method: points for method, points in lines.items() if points}
    if not lines:
        return None
    epochs = [x for points in lines.values() for x, _ in points]
    values = [y for points in lines.values() for _, y in points]
    low, high = min(values), max(values)
    y_ticks = ticks(0.0 if low < 0.6 * high else low, high, 4)
    first, last = min(epochs), max(epochs)
    x_ticks = [x for x in ticks(first, last, 6) if first <= x <= last and x == int(x)]

    def place_x(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (0.5 if last == first else (x - first) / (last - first)), 1)

    def place_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 1)

    decimals = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0])))
    return {
        "title": title,
        "x_ticks": [{"at": place_x(x), "text": f"{x:g}"} for x in x_ticks],
        "y_ticks": [{"at": place_y(y), "text": f"{y:.{decimals}f}"} for y in y_ticks],
        "lines": [
            {
                "method": method,
                "title": TITLES[method],
                "dash": DASHES.get(method, ""),
                "path": " ".join(f"{place_x(x)},{place_y(y)}" for x, y in points),
                "dots": [
                    {"x": place_x(x), "y": place_y(y), "text": f"{TITLES[method]}, epoch {x:g}: {y:.4g}"}
                    for x, y in points
                ],
            }
            for method, points in lines.items()
        ],
        "about": f"{title}, epochs {first:g} to {last:g}: "
        + "; ".join(f"{TITLES[m]} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for m, points in lines.items()),
    }


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers, at least two, the first at most ``low`` and the last at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(start, max(end, start + 1) + 1)]
