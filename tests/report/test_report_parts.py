"""Words, tables, charts and pictures of the report, each by itself."""

from __future__ import annotations

import base64
import io
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tag2mask.maps.store import StoredMaps
from tag2mask.report.curves import chart, ticks
from tag2mask.report.figures import Figures, context_tables, difference_rows, miou_table
from tag2mask.report.gallery import MOST_NEGATIVES, chosen_ranks, predicted
from tag2mask.report.pictures import HEAT, heat_uri, regions_uri
from tag2mask.report.words import what_was_done, with_figures
from tag2mask.stages.pipeline import read_settings


def picture_of(uri: str) -> Image.Image:
    """The picture behind a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def changed(summary: dict[str, Any], details: dict[str, Any], **miou: tuple[float, float]) -> Figures:
    """Figures with other mIoU (gtfree, matched), equal in both seeds, and differences that fit them."""
    for method, (gtfree, matched) in miou.items():
        summary["methods"].setdefault(method, deepcopy(summary["methods"]["halo"]))
        summary["methods"][method]["gtfree"]["miou"] = {"mean": gtfree, "std": 0.0}
        summary["methods"][method]["matched"]["miou"] = {"mean": matched, "std": 0.0}
    gain = miou["fpr"][0] - miou["continued"][0]
    for seed in ("1", "2"):
        entry = details["differences"][seed]["continued"]["gtfree"]
        entry.update(difference=gain, low=gain - 1, high=gain + 1)
    return Figures(summary, details)


@pytest.mark.parametrize(
    ("fpr", "title", "said"),
    [
        (
            (46.6, 45.0),
            "FPR: +6.6 mIoU over CAM trained on",
            ["gains 6.6 points", "above zero for 2", "are better"],
        ),
        ((35.0, 33.0), "FPR: −5.0 mIoU against CAM trained on", ["loses 5.0 points", "does not help", "below zero"]),
        ((40.2, 40.1), "FPR: no gain over CAM trained on", ["none to speak of", "on both sides of zero"]),
        ((46.6, 40.0), "FPR: +6.6 mIoU over CAM trained on", ["comes from another threshold, not from better maps"]),
        ((37.0, 45.0), "FPR: −3.0 mIoU against CAM trained on", ["cuts them at the wrong place"]),
    ],
)
def test_words_follow_the_figures(
    finished_run: Path, summary: dict[str, Any], details: dict[str, Any], fpr: tuple[float, float], title: str,
    said: list[str],
) -> None:  # fmt: skip
    figures = changed(summary, details, cam=(39.9, 39.9), continued=(40.0, 40.0), halo=(42.0, 42.0), fpr=fpr)
    words = with_figures(read_settings(finished_run), figures)
    everything = " ".join([words.lead, *words.remarks])
    assert words.title == title
    assert all(part in everything for part in said), everything
    assert ("a push on low activations does not do the same" in everything) == (fpr[1] - 42 >= 0.5)
    assert "plateau" not in everything


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("fpr",), "training went on for 3 epochs with False Positive Rectification (FPR). No mask"),
        (("focal",), "training went on for 3 epochs by focal BCE. No mask"),
        (("continued", "fpr"), "training went on in 2 ways, each for 3 epochs: with the tags alone (CAM trained on) and with"),
        (("training_free", "fpr"), "training went on for 3 epochs with False Positive Rectification (FPR). FPR without training mul"),
    ],
)
def test_what_was_done_is_a_sentence(finished_run: Path, methods: tuple[str, ...], said: str) -> None:
    config = read_settings(finished_run)
    config = replace(config, methods=methods, rectify=replace(config.rectify, epochs=3))
    assert f"From the same weights {said}" in what_was_done(config, 12, 3)


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ({"halo": 42.0}, "3.0 points ahead of halo, the control without prototypes."),
        ({"halo": 42.0, "sharpen": 40.0}, "3.0 points ahead of halo, the stronger control without prototypes."),
        ({"halo": 42.0, "sharpen": 44.8}, "0.2 points ahead of sharpen, the stronger control without prototypes."),
        ({"halo": 42.0, "sharpen": 47.5}, "2.5 points behind sharpen, the stronger control without prototypes."),
    ],
)
def test_words_compare_with_the_stronger_control(
    finished_run: Path, summary: dict[str, Any], details: dict[str, Any], controls: dict[str, float], said: str
) -> None:
    miou = {name: (value, value) for name, value in controls.items()}
    figures = changed(summary, details, continued=(40.0, 40.0), fpr=(45.0, 45.0), **miou)
    config = read_settings(finished_run)
    config = replace(config, methods=tuple(dict.fromkeys((*config.methods, *controls))))
    words = with_figures(config, figures)
    remarks = " ".join(words.remarks)
    assert said in remarks
    assert ("the prototypes matter" in remarks) == ("sharpen" in controls and "3.0 points ahead" in said)
    assert ("high ones up (sharpen" in words.lead) == ("sharpen" in controls)


def test_words_without_a_control_do_not_speak_of_prototypes(
    finished_run: Path, summary: dict[str, Any], details: dict[str, Any]
) -> None:
    del summary["methods"]["halo"]
    remarks = " ".join(with_figures(read_settings(finished_run), Figures(summary, details)).remarks)
    assert "At matched area (a diagnostic" in remarks and "prototypes" not in remarks


def test_words_warn_of_an_unfinished_baseline_and_of_seeds_far_apart(
    finished_run: Path, summary: dict[str, Any], details: dict[str, Any]
) -> None:
    figures = changed(summary, details, cam=(30.0, 30.0), continued=(40.0, 40.0), halo=(40.0, 40.0), fpr=(50.0, 50.0))
    summary["methods"]["cam"]["gtfree"]["miou"]["std"] = 12.0
    remarks = " ".join(with_figures(read_settings(finished_run), figures).remarks)
    assert "gained 10.0 points over CAM: the classifier had not reached its plateau" in remarks
    assert "The seeds are far apart" in remarks


def test_words_without_the_control_compare_nothing(
    finished_run: Path, summary: dict[str, Any], details: dict[str, Any]
) -> None:
    del summary["methods"]["continued"]
    words = with_figures(read_settings(finished_run), Figures(summary, details))
    assert "CAM trained on is not among the scored methods" in words.lead
    assert words.tiles == []


def test_the_highest_of_every_column_is_marked_and_so_is_what_is_printed_as_high(
    summary: dict[str, Any], details: dict[str, Any]
) -> None:
    """Pixel AP is a column like the others."""
    for number, method in enumerate(("cam", "continued", "halo", "fpr")):
        for protocol in ("gtfree", "fixed", "matched", "oracle"):
            summary["methods"][method][protocol]["miou"]["mean"] = 40.0 + number % 2
        summary["methods"][method]["matched"]["pixel_ap"]["mean"] = 70.0 - number if number else 68.98
    table = {row["method"]: row for row in miou_table(Figures(summary, details))}
    assert all(cell["best"] == (name in ("continued", "fpr")) for name, row in table.items() for cell in row["cells"])
    assert {name for name, row in table.items() if row["pixel_ap"]["best"]} == {"cam", "continued"}


def test_intervals_lie_on_one_axis_around_zero(summary: dict[str, Any], details: dict[str, Any]) -> None:
    entries = details["differences"]["1"]["halo"]["matched"]
    entries.update(difference=-8.0, low=-10.0, high=-6.0)
    for seed, table in details["differences"].items():
        for reference, protocols in table.items():
            for protocol, entry in protocols.items():
                if (seed, reference, protocol) != ("1", "halo", "matched"):
                    entry.update(difference=2.0, low=-1.0, high=5.0)
    rows = difference_rows(Figures(summary, details))
    places = {(r["reference"], r["protocol"], i["seed"]): i for r in rows for i in r["intervals"]}
    assert len(places) == 16
    worst, other = places["halo", "matched", 1], places["continued", "gtfree", 2]
    assert (worst["verdict"], other["verdict"]) == ("below", "open")
    assert 0 < worst["low"] < worst["middle"] < worst["high"] < 50 < other["middle"] < other["high"] < 100
    assert (50 - worst["low"]) == pytest.approx(10 * (50 - other["low"]), abs=0.2)


def test_context_shares_add_up_over_classes(summary: dict[str, Any], details: dict[str, Any]) -> None:
    table = context_tables(Figures(summary, details), own=(0, None, 1))
    assert table is not None
    for row in table["overall"]:
        expected = []
        for seed in ("1", "2"):
            scored = details["by_seed"][seed][row["method"]]["matched"]
            pixels = scored["predicted_pixels"][1:]
            on_grass = sum(p * (s[0] or 0) for p, s in zip(pixels, scored["context_shares"], strict=True))
            expected.append(on_grass / max(sum(pixels), 1))
        assert row["cells"][0] == f"{np.mean(expected):.1f}"
    assert [[cell["own"] for cell in row["cells"]] for row in table["classes"]] == [
        [True, False], [False, False], [False, True]
    ]  # fmt: skip
    assert context_tables(Figures(summary, details | {"contexts": []})) is None


def test_heat_colours_rise_in_luminance() -> None:
    luminance = HEAT @ np.array([0.2126, 0.7152, 0.0722])
    assert (luminance[3:] > luminance[:-3]).all()  # but for the rounding to 8 bits
    assert luminance[0] < 30
    assert luminance[-1] > 220


def test_heat_overlay_keeps_the_order_of_the_map() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 200))
    overlay = picture_of(heat_uri(ramp)).convert("RGBA")
    grey = np.asarray(overlay.convert("RGB").convert("L"), int)[:, 5]
    alpha = np.asarray(overlay)[:, 5, 3].astype(int)
    assert max(overlay.size) <= 96
    assert (np.diff(grey) >= -1).all()
    assert grey[-1] - grey[0] > 180
    assert (np.diff(alpha) >= 0).all()


def test_regions_are_filled_outlined_and_veiled() -> None:
    regions = np.zeros((20, 20), np.uint8)
    regions[5:15, 5:15], regions[0, 0] = 7, 3
    overlay = np.asarray(picture_of(regions_uri(regions, {7: (200, 100, 0)}, fill=0.4, veil=0.2)).convert("RGBA"))
    assert overlay[10, 10].tolist() == [200, 100, 0, 102]
    assert overlay[5, 10, 3] == overlay[10, 14, 3] == 255
    assert overlay[0, 10].tolist() == [0, 0, 0, 51]
    assert overlay[0, 0].tolist() == [0, 0, 0, 51]  # a region without a colour is nothing


def test_prediction_is_the_largest_map_above_the_level() -> None:
    generator = np.random.default_rng(1)
    maps = generator.integers(0, 256, (3, 6, 7)).astype(np.uint8)
    found = predicted(StoredMaps(np.array([4, 2, 9]), maps, np.zeros(10)), 128)
    for y in range(6):
        for x in range(7):
            values = maps[:, y, x].tolist()
            expected = values.index(max(values)) + 1 if max(values) >= 128 else 0
            assert found[y, x] == expected
    assert not predicted(StoredMaps(np.zeros(0, np.int16), np.zeros((0, 6, 7), np.uint8), np.zeros(10)), 1).any()


def test_negatives_that_suppress_most_are_shown_then_the_most_confident() -> None:
    nearest = np.full((2, 3, 3), 255, np.uint8)
    nearest[0, 0] = 6
    nearest[1, 0, :2] = 8
    nearest[1, 1, 0] = 11
    assert chosen_ranks(nearest, 12) == [0, 1, 2, 3, 4, 6, 8, 11]
    assert chosen_ranks(np.full((0,), 255, np.uint8), 2) == [0, 1]
    assert len(chosen_ranks(nearest, 40)) == MOST_NEGATIVES


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4), st.integers(3, 7))
def test_ticks_are_few_even_and_cover_the_range(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    steps = np.diff(found)
    assert 2 <= len(found) <= count + 2
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span - 1e-6 * span
    assert np.allclose(steps, steps[0])


@pytest.mark.parametrize("values", [[0.3], [0.0], [5.0, 5.0], [1e-9, 2e-9], [0.31, 0.30]])
def test_a_chart_of_few_or_equal_points_stays_inside_its_frame(values: list[float]) -> None:
    found = chart("loss", {"cam": [(epoch, value) for epoch, value in enumerate(values, start=1)]})
    assert found is not None
    assert all(0 < dot["x"] < 340 and 0 < dot["y"] < 210 for dot in found["lines"][0]["dots"])
    assert len({tick["text"] for tick in found["y_ticks"]}) == len(found["y_ticks"])
    assert chart("loss", {"cam": []}) is None
