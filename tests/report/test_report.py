"""report.html: what stands on it, that user text is harmless there, and that missing pieces make it shorter."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tag2mask.errors import InputError
from tag2mask.maps.store import StoredMaps
from tag2mask.report import write_report
from tag2mask.report.curves import chart, ticks
from tag2mask.report.figures import Figures, context_tables, difference_rows
from tag2mask.report.gallery import MOST_NEGATIVES, chosen_ranks, predicted
from tag2mask.report.pictures import HEAT, heat_uri, regions_uri
from tag2mask.report.words import with_figures
from tag2mask.stages.pipeline import read_settings

CLASS_NAMES = ('<script>alert("cat")</script>', "dog & son", '"><img src=x onerror=alert(1)>')
METHODS = {
    "cam": "CAM", "continued": "CAM trained on", "halo": "halo (no prototypes)", "fpr": "FPR, the default"
}  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


class Page(HTMLParser):
    """A page's elements, texts and tables; raises where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is there twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for element, attributes in self.elements if element == tag and name in attributes]


def picture_of(uri: str) -> Image.Image:
    """The picture behind a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_elements_close_in_order_and_ids_are_unique(page: str) -> None:
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    links = [link.removeprefix("#") for link in parsed.attributes("a", "href")]
    assert page.startswith("<!DOCTYPE html>")
    assert len(set(ids)) == len(ids)
    assert set(links) == set(ids)
    assert set(ids) == {"figures", "classes", "contexts", "maps", "negatives", "training", "settings"}


def test_names_of_the_user_are_text_and_nothing_else(page: str) -> None:
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "iframe", "object", "embed", "b onclick", "i"}
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    for name in (*CLASS_NAMES, "<i>grass</i>", '3 <b onclick="x">&'):
        assert name in parsed.text
        assert name not in page
    assert any(CLASS_NAMES[0] in alt for alt in parsed.attributes("img", "alt"))


def test_nothing_is_fetched(page: str) -> None:
    parsed = Page(page)
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    assert not {tag for tag, _ in parsed.elements} & {"link", "base"}
    urls = re.findall(r"url\(([^)]*)\)", page)
    assert urls
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
    assert "@import" not in page
    assert any("default-src 'none'" in content for content in parsed.attributes("meta", "content"))


def test_every_figure_of_the_summary_is_there_with_its_protocol(page: str, summary: dict[str, Any]) -> None:
    rows = Page(page).rows
    start = next(i for i, row in enumerate(rows) if row[0] == "method")
    assert [head.split()[0] for head in rows[start][1:5]] == ["gtfree", "fixed", "matched", "oracle"]
    assert ["reads masks" in head for head in rows[start][1:]] == [False, False, True, True, True]
    for row, (method, figures) in zip(rows[start + 1 :], summary["methods"].items(), strict=False):
        assert row[0] == METHODS[method]
        for text, protocol in zip(row[1:], ("gtfree", "fixed", "matched", "oracle"), strict=False):
            miou = figures[protocol]["miou"]
            assert text == f"{miou['mean']:.1f} ±{miou['std']:.1f}"
    for protocol in ("gtfree", "fixed", "matched", "oracle"):
        at = next(i for i, row in enumerate(rows) if len(row) == 1 and row[0].startswith(protocol))
        assert ("reads masks" in rows[at][0]) == (protocol in ("matched", "oracle"))
        assert rows[at + 1] == ["method", "mIoU", "precision", "recall", "FDR", "leak", "threshold"]
        for row, figures in zip(rows[at + 2 :], summary["methods"].values(), strict=False):
            assert row[4] == f"{figures[protocol]['fdr']['mean']:.1f} ±{figures[protocol]['fdr']['std']:.1f}"
    assert "split train, 12 images, seeds 0, 1" in Page(page).text


def test_bars_have_the_lengths_of_their_figures_and_tell_them(page: str, details: dict[str, Any]) -> None:
    widths = [float(width) for width in Page(page).attributes("rect", "width")]
    by_seed = [details["by_seed"][str(seed)] for seed in (0, 1)]
    assert len(widths) == page.count("</title></rect>") == 4 * (2 * len(CLASS_NAMES) + 1)
    for c in range(len(CLASS_NAMES)):
        iou, fdr = widths[8 * c : 8 * c + 4], widths[8 * c + 4 : 8 * c + 8]
        for found, method in zip(iou, METHODS, strict=True):
            assert found == pytest.approx(np.mean([s[method]["gtfree"]["iou"][c + 1] for s in by_seed]), abs=0.006)
        for found, method in zip(fdr, METHODS, strict=True):
            known = [s[method]["matched"]["class_fdr"][c] for s in by_seed]
            known = [value for value in known if value is not None]
            assert found == pytest.approx(np.mean(known) if known else 0, abs=0.006)
    assert f"dog &amp; son, CAM: IoU, gtfree {widths[8]:.1f} %" in page


def test_pictures_have_alternatives_photos_and_sizes(page: str) -> None:
    images = [attributes for tag, attributes in Page(page).elements if tag == "img"]
    alts = [image["alt"] for image in images]
    assert sum(alt.startswith("Ground truth of") for alt in alts) == 12
    assert sum(alt.startswith("FPR, the default: heat map") for alt in alts) == 15  # 9 images with a tag, 3 with two
    assert sum(alt.startswith("Negative ") for alt in alts) >= 1
    assert sum("suppressed pixels of" in alt for alt in alts) >= 1
    for image in images:
        photo = image["class"].split()[1]
        assert f".{photo} {{ background-image: url(data:image/jpeg;base64," in page
        assert (image["width"], image["height"]) == ("80", "60")


def test_page_stays_small(page: str, finished_run: Path) -> None:
    size = (finished_run / "report.html").stat().st_size
    assert size == len(page.encode())
    assert size < 5_000_000


def test_training_curves_end_at_the_last_line_of_the_metrics(page: str, finished_run: Path) -> None:
    last = json.loads((finished_run / "seed0" / "halo" / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"halo (no prototypes), epoch 2: {100 * last['suppressed_share']:.4g}" in page
    assert f"halo (no prototypes), epoch 2: {last['classification']:.4g}" in page


def test_settings_versions_and_commands_are_there(page: str, finished_run: Path) -> None:
    text = Page(page).text
    assert "test_resnet" in text
    assert json.loads((finished_run / "versions.json").read_text())["torch"] in text
    assert f"tag2mask report {finished_run}" in text
    assert "pixel_weight_unit" in text


def test_run_without_masks_has_maps_but_no_figures(run: Path) -> None:
    for name in ("summary.json", "details.json", "seed0/fpr/evidence.npz"):
        (run / name).unlink()
    settings = run / "settings.yaml"
    settings.write_text(settings.read_text().replace("  masks: ''", "  masks: none"))
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    assert read_settings(run).data.masks == "none"
    assert "tag2mask evaluate" in parsed.text
    assert "the data has no masks" in parsed.text
    assert "no evidence was collected" in parsed.text
    assert "as the run was not scored" in parsed.text
    assert "mIoU" not in parsed.text
    alts = parsed.attributes("img", "alt")
    assert sum(alt.startswith("FPR, the default: prediction") for alt in alts) == 12
    assert not any(alt.startswith("Ground truth") for alt in alts)


def test_run_of_settings_and_weights_alone_makes_a_page(run: Path) -> None:
    for path in sorted(run.rglob("*"), reverse=True):
        if path.is_file() and path.name not in ("settings.yaml", "weights.safetensors"):
            path.unlink()
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    assert {"img", "svg"} & {tag for tag, _ in parsed.elements} == set()
    assert "this run keeps none yet" in parsed.text
    assert "test_resnet" in parsed.text


def test_run_whose_photos_are_gone_still_shows_its_figures(run: Path) -> None:
    settings = run / "settings.yaml"
    settings.write_text(settings.read_text().replace("data <1>", "gone"))
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    assert "the photos cannot be read" in parsed.text
    assert "mIoU in percent" in parsed.text
    assert not parsed.attributes("img", "src")


def test_maps_of_one_method_may_be_missing(run: Path) -> None:
    for path in (run / "seed0" / "halo" / "gallery").iterdir():
        path.unlink()
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    alts = parsed.attributes("img", "alt")
    assert "The maps of halo" in parsed.text
    assert not any(alt.startswith("halo") for alt in alts)
    assert any(alt.startswith("FPR, the default: heat map") for alt in alts)


def test_figures_of_another_split_stand_beside_the_first(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text()) | {"split": "<val>", "images": 77}
    (run / "summary.val.json").write_text(json.dumps(summary))
    (run / "details.val.json").write_text((run / "details.json").read_text())
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "split <val>, 77 images, seeds 0, 1" in text
    assert "split train, 12 images, seeds 0, 1" in text


def test_folder_without_settings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"settings\.yaml"):
        write_report(tmp_path)


def changed(summary: dict[str, Any], details: dict[str, Any], **miou: tuple[float, float]) -> Figures:
    """Figures with other mIoU (gtfree, matched), equal in both seeds, and differences that fit them."""
    for method, (gtfree, matched) in miou.items():
        summary["methods"][method]["gtfree"]["miou"] = {"mean": gtfree, "std": 0.0}
        summary["methods"][method]["matched"]["miou"] = {"mean": matched, "std": 0.0}
    gain = miou["fpr"][0] - miou["continued"][0]
    for seed in ("0", "1"):
        entry = details["differences"][seed]["continued"]["gtfree"]
        entry.update(difference=gain, low=gain - 1, high=gain + 1)
    return Figures(summary, details)


@pytest.mark.parametrize(
    ("fpr", "title", "said"),
    [
        ((46.6, 45.0), "FPR: +6.6 mIoU over CAM trained on", ["FPR gains 6.6 points", "above zero for 2", "are better"]),
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
    assert ("the prototypes matter" in everything) == (fpr[1] - 42 >= 0.5)
    assert "plateau" not in everything


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


def test_intervals_lie_on_one_axis_around_zero(summary: dict[str, Any], details: dict[str, Any]) -> None:
    entries = details["differences"]["0"]["halo"]["matched"]
    entries.update(difference=-8.0, low=-10.0, high=-6.0)
    for seed, table in details["differences"].items():
        for reference, protocols in table.items():
            for protocol, entry in protocols.items():
                if (seed, reference, protocol) != ("0", "halo", "matched"):
                    entry.update(difference=2.0, low=-1.0, high=5.0)
    rows = difference_rows(Figures(summary, details))
    places = {(r["reference"], r["protocol"], i["seed"]): i for r in rows for i in r["intervals"]}
    assert len(places) == 16
    worst, other = places["halo", "matched", 0], places["continued", "gtfree", 1]
    assert (worst["verdict"], other["verdict"]) == ("below", "open")
    assert 0 < worst["low"] < worst["middle"] < worst["high"] < 50 < other["middle"] < other["high"] < 100
    assert (50 - worst["low"]) == pytest.approx(10 * (50 - other["low"]), abs=0.2)


def test_context_shares_add_up_over_classes(summary: dict[str, Any], details: dict[str, Any]) -> None:
    table = context_tables(Figures(summary, details), own=(0, None, 1))
    assert table is not None
    for row in table["overall"]:
        expected = []
        for seed in ("0", "1"):
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
    assert (np.diff(luminance) > -0.5).all()
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
    found = predicted(StoredMaps(np.array([4, 2, 9]), maps), 128)
    for y in range(6):
        for x in range(7):
            values = maps[:, y, x].tolist()
            expected = values.index(max(values)) + 1 if max(values) >= 128 else 0
            assert found[y, x] == expected
    assert not predicted(StoredMaps(np.zeros(0, np.int16), np.zeros((0, 6, 7), np.uint8)), 1).any()


def test_negatives_that_suppress_most_are_shown_then_the_most_confident() -> None:
    nearest = np.full((2, 3, 3), 255, np.uint8)
    nearest[0, 0] = 6
    nearest[1, 0, :2] = 8
    assert chosen_ranks(nearest, 10) == [0, 1, 6, 8]
    assert chosen_ranks(np.full((0,), 255, np.uint8), 2) == [0, 1]
    assert len(chosen_ranks(nearest, 10)) == MOST_NEGATIVES


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
