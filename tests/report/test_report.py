"""report.html: what stands on it, that user text is harmless there, and that missing pieces make it shorter."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tag2mask.errors import InputError
from tag2mask.report import write_report
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


def test_elements_close_in_order_and_ids_are_unique(page: str) -> None:
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    links = [link.removeprefix("#") for link in parsed.attributes("a", "href")]
    assert page.startswith("<!DOCTYPE html>")
    assert len(set(ids)) == len(ids)
    assert set(links) == set(ids)
    sections = ["figures", "classes", "contexts", "maps", "negatives", "training", "settings", "missing"]
    assert sections == [name for name in ids if name in sections]


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
    assert "split train, 12 images, seeds 1, 2" in Page(page).text


def test_bars_have_the_lengths_of_their_figures_and_tell_them(page: str, details: dict[str, Any]) -> None:
    widths = [float(width) for width in Page(page).attributes("rect", "width")]
    by_seed = [details["by_seed"][str(seed)] for seed in (1, 2)]
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


def test_class_without_negatives_is_named(run: Path) -> None:
    path = run / "seed1" / "fpr" / "evidence.npz"
    with np.load(path) as file:
        arrays = dict(file)
    for pairs, pictures in (("source", "source_map"), ("shown", "nearest")):
        others = arrays[pairs][:, 0] != 1
        arrays[pairs], arrays[pictures] = arrays[pairs][others], arrays[pictures][others]
    np.savez_compressed(path, **arrays)
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    assert "Negatives of dog & son: there are none" in parsed.text
    assert not any("of dog & son" in alt for alt in parsed.attributes("img", "alt") if alt.startswith("Negative"))


def test_page_stays_small(page: str, finished_run: Path) -> None:
    size = (finished_run / "report.html").stat().st_size
    assert size == len(page.encode())
    assert size < 5_000_000


def test_training_curves_end_at_the_last_line_of_the_metrics(page: str, finished_run: Path) -> None:
    last = json.loads((finished_run / "seed1" / "halo" / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"halo (no prototypes), epoch 2: {100 * last['suppressed_share']:.4g}" in page
    assert f"halo (no prototypes), epoch 2: {last['classification']:.4g}" in page


def test_settings_versions_and_commands_are_there(page: str, finished_run: Path) -> None:
    text = Page(page).text
    assert "test_resnet" in text
    assert json.loads((finished_run / "versions.json").read_text())["torch"] in text
    assert f"tag2mask report {finished_run}" in text
    assert "pixel_weight_unit" in text


def test_run_without_masks_has_maps_but_no_figures(run: Path) -> None:
    for name in ("summary.json", "details.json", "seed1/fpr/evidence.npz"):
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
    for path in (run / "seed1" / "halo" / "gallery").iterdir():
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
    assert "split <val>, 77 images, seeds 1, 2" in text
    assert "split train, 12 images, seeds 1, 2" in text


def test_folder_without_settings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"settings\.yaml"):
        write_report(tmp_path)


def test_false_discovery_at_own_area_is_told_where_it_was_scored(
    page: str, run: Path, details: dict[str, Any]
) -> None:
    """Figures of an earlier version lack it; their report is the same without that sentence."""
    told = re.search(r"area of each class is matched by itself, it is lower in (\d+) of (\d+)", Page(page).text)
    assert told
    by_seed = [details["by_seed"][str(seed)] for seed in (1, 2)]
    lower = both = 0
    for c in range(len(CLASS_NAMES)):
        means = []
        for method in ("continued", "fpr"):
            known = [s[method]["matched"]["class_fdr_own_area"][c] for s in by_seed]
            known = [value for value in known if value is not None]
            means.append(np.mean(known) if known else None)
        if None not in means:
            both, lower = both + 1, lower + int(means[1] < means[0])
    assert [int(told[1]), int(told[2])] == [lower, both]
    for methods in details["by_seed"].values():
        for protocols in methods.values():
            for scored in protocols.values():
                scored.pop("class_fdr_own_area")
    (run / "details.json").write_text(json.dumps(details), encoding="utf-8")
    older = write_report(run).read_text(encoding="utf-8")
    assert "matched by itself" not in older and "The false discovery rate at matched area" in older
