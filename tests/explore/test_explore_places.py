"""In a real headless Chromium: focus, scroll and choices stay with the reader, and what cannot be shown says why."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tag2mask.explore.statistics import save_arrays
from tag2mask.stages.pipeline import read_settings
from tests.explore.conftest import HOSTILE_ID, PHOTOS, Page, Talk

Serve = Callable[[Path], Talk]
FOCUS = "(e => e.id || e.dataset.key || e.textContent)(document.activeElement)"


def titled(page: Page, pattern: str) -> None:
    page.until(f"/{pattern}/.test(document.querySelector('h1')?.textContent)")


def test_the_focus_stays_on_the_control_that_was_used(
    look: Callable[..., Page], talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tag2mask.explore.answers.PHOTOS_PER_PAGE", 10)
    page = look(talk)
    page.open("#/negatives?class=0")
    page.page.focus("#sort")
    page.counted()
    assert page.page.evaluate(FOCUS) == "sort", "the pass over all photos is done"
    page.page.focus("#class")
    page.page.keyboard.press("End")
    titled(page, "for pond$")
    assert page.page.evaluate(FOCUS) == "class"
    page.open("#/compare?image=2&class=0")
    page.page.focus("text=Next photo")
    for stem in ("p03", "p04"):
        page.page.keyboard.press("Enter")
        titled(page, f"{stem}$")
        assert page.page.evaluate(FOCUS) == "next photo"
    page.page.focus("#right")
    page.page.keyboard.press("Home")
    page.until("document.querySelector('.wipe .side.right')?.textContent === 'CAM'")
    assert page.page.evaluate(FOCUS) == "right"
    page = look(talk, width=400)
    page.open("#/photos")
    page.page.focus("button:has-text('Next')")
    assert page.page.evaluate("scrollY") > 0
    page.page.keyboard.press("Enter")
    page.until("document.querySelector('.card .name')?.textContent === 'p10'")
    assert page.page.evaluate("scrollY") == 0 and page.page.evaluate(FOCUS) == "next page"
    page.page.keyboard.press("Enter")
    page.until("document.querySelectorAll('.card').length === 4")
    assert page.page.evaluate(FOCUS) == "previous page", "there is no next one"


def test_the_ring_of_a_card_is_seen(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/photos")
    page.page.focus(".card:nth-child(2) a")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Shift+Tab")
    box = page.page.locator(".card:nth-child(2) a").bounding_box()
    beside = {"x": box["x"] - 5, "y": box["y"] + 40, "width": 4, "height": 20}
    with Image.open(io.BytesIO(page.page.screenshot(clip=beside))) as shot:
        red, _, blue = (np.asarray(shot.convert("RGB"))[..., channel] for channel in range(3))
        assert ((blue > 150) & (red < 150)).any()


def test_the_way_back_leads_to_the_same_place(look: Callable[..., Page], talk: Talk) -> None:
    talk.count(seed=0, method="fpr", moment="first")
    page = look(talk)
    page.open("#/negatives?class=0")
    card = page.page.locator(".card a").last
    card.scroll_into_view_if_needed()
    scroll, href = page.page.evaluate("scrollY"), card.get_attribute("href")
    assert scroll > 0
    card.click()
    titled(page, "^Negative")
    last = page.title()
    assert page.page.evaluate("scrollY") == 0 and page.page.is_disabled("text=Next negative")
    page.page.focus("text=Previous negative")
    page.page.keyboard.press("Enter")
    page.until(f"![undefined, {json.dumps(last)}].includes(document.querySelector('h1')?.textContent)")
    assert page.page.evaluate(FOCUS) == "previous negative"
    page.page.go_back()
    page.until(f"document.querySelector('h1')?.textContent === {json.dumps(last)}")
    page.page.go_back()
    titled(page, "^What is taken")
    page.until(f"scrollY === {scroll}")
    assert page.page.evaluate("document.activeElement.getAttribute('href')") == href
    page.page.reload()
    page.page.wait_for_selector(".card")
    page.until(f"scrollY === {scroll}")


def test_choices_are_kept_from_photo_to_photo(look: Callable[..., Page], talk: Talk) -> None:
    of_pond = talk.ask("/api/images", seed=0, **{"class": 2})["images"]
    page = look(talk)
    page.open("#/photos?class=2")
    page.page.click(".card a")
    page.page.wait_for_selector(".wipe")
    page.page.locator("#wipe").fill("80")
    for way, row in (("Next", of_pond[1]), ("Next", of_pond[2]), ("Previous", of_pond[1])):
        page.page.click(f"text={way} photo")
        titled(page, f"^pond in {re.escape(row['id'])}$")  # the new page stands, and its buttons go on from its photo
        page.page.wait_for_selector(".wipe")
        assert page.page.input_value("#wipe") == "80"
    page.page.click("#among a")
    page.until("document.querySelector('h1')?.textContent === 'Photos'")
    assert page.page.input_value("#class") == "2"
    page.open("#/negatives?class=0")
    page.counted()
    page.choose("#sort", "most photos first", same_view=True)
    page.choose("#moment", "after rectification")
    page.until("location.hash.includes('moment=last')")
    assert page.page.input_value("#sort") == "photos"
    page.counted()
    assert "it has learnt from these prototypes" in page.page.text_content("#learnt")
    page.page.click("#learnt a")
    page.until("location.hash.includes('moment=first') && !document.querySelector('#learnt')")


def test_numbers_are_explained(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.page.route("**/api/counting*", lambda route: route.fulfill(json={"state": "waiting"}))
    page.open("#/negatives?class=0")
    rows = talk.ask("/api/negatives", seed=0, method="fpr", moment="first", **{"class": 0})["prototypes"]
    told = "[...document.querySelectorAll('.card')].map(c => [c.querySelector('img').alt, c.querySelector('input').ariaLabel])"
    assert page.page.evaluate(told) == [[row["id"], f"{row['id']} really shows kite"] for row in rows], "nothing is lit yet"
    assert "lit where" not in page.page.text_content("main") and "A map pixel is" in page.page.text_content(".lead")
    page.page.unroute("**/api/counting*")
    page.page.reload()
    page.page.wait_for_selector(".work")
    page.counted()
    assert page.page.evaluate(told)[0][0] == f"{rows[0]['id']}, lit where kite is activated"
    assert re.search(r"probability of kite (below 0\.1|[\d.]+)\s%", page.texts(".card .text")[0])

    maps = talk.ask("/api/maps", seed=0, image=2, left="cam", right="fpr", **{"class": 0})
    maps["methods"][0]["maps"]["0"]["peak"], maps["methods"][0]["probabilities"] = 0.0, [0.0004, 0.004, 0.9996]
    page.page.route("**/api/maps*", lambda route: route.fulfill(json=maps))
    page.open("#/compare?image=2&class=0")
    assert page.texts(".read")[0] == "CAM: probability of kite below 0.1\u00a0%. The map of kite is empty here."
    page.open("#/compare?image=2&class=0&right=cam")
    assert page.texts(".facts .amount") == ["above 99.9\u00a0%", "0.4\u00a0%", "below 0.1\u00a0%"]


def test_negatives_that_were_all_trimmed_are_told(look: Callable[..., Page], run: Path, serve: Serve) -> None:
    for path in (run / "seed0" / "fpr").rglob("prototypes*/epoch001.safetensors"):
        tensors = load_file(path)
        tensors["trimmed_valid"][0] = False
        tensors["trimmed_valid"][2] = tensors["negative_valid"][2] = False
        found = int(tensors["negative_valid"][0].sum())
        save_file(tensors, path)
    page = look(serve(run))
    page.open("#/classes")
    kept = f"{found} found, none kept: fewer than a quarter of those that were ranked have their like in photos of other things."
    assert kept in page.texts(".classes li")[0] and "No photo without the tag pond makes its map fire" in page.texts(".classes > li")[2]
    page.open("#/negatives?class=0")
    assert kept in page.page.text_content(".empty")


def test_a_list_of_other_data_stops_ticks_alone(look: Callable[..., Page], run: Path, serve: Serve) -> None:
    (run / "blocked.csv").write_text("image,class\nnobody,kite\n")
    page = look(serve(run))
    page.open("#/negatives?class=0")
    page.counted()
    assert page.page.locator(".tick input:not(:disabled)").count() == 0 and page.page.locator(".card").count() > 0
    page.page.click("text=Block list")
    page.page.wait_for_selector(".error")
    assert "there is no image 'nobody' in the data" in page.page.text_content(".error")
    (run / "blocked.csv").write_text("image,class\np09,kite\np12,pond\n")
    page.page.click("text=Read it again")
    page.page.wait_for_selector(".card")
    page.page.focus(".card button")
    page.page.keyboard.press("Enter")
    page.until("document.querySelectorAll('.card').length === 1")
    assert page.page.text_content("#status") == "p09 is off the block list for kite"
    assert page.page.evaluate("document.activeElement.ariaLabel") == "Take p12 off the list for pond"
    asked: list[str] = []
    page.page.route("**/api/blocked*", lambda route: (asked.append(route.request.url), route.abort()))
    for press in (1, 2):
        page.page.keyboard.press("Enter")
        end = time.monotonic() + 60
        while len(asked) < press:
            assert time.monotonic() < end, "it asks"
            page.page.wait_for_timeout(20)
        page.until("document.querySelectorAll('.card .error').length > 0")
        page.page.wait_for_timeout(200)
        assert page.page.locator(".card .error").count() == 1, "of the last press alone"
    page.open("#/compare?image=0&class=1")
    for _ in range(2):
        page.page.click(".facts input[type=checkbox]")
        page.until("document.querySelectorAll('.facts .error').length === 1 && !document.querySelector('.facts input').disabled")
    page.page.route("**/api/run*", lambda route: route.fulfill(status=500, body='{"error": "broken"}'))
    page.open("")
    assert page.title() == "This run cannot be opened" and "broken" in page.page.text_content(".error")
    page.complaints = [text for text in page.complaints if "Failed to load resource" not in text]


def test_a_photo_that_cannot_be_read_is_left_out(look: Callable[..., Page], run: Path, serve: Serve, tmp_path: Path) -> None:
    root, copy = Path(read_settings(run).data.root), tmp_path / "photos"
    copy.mkdir()
    for path in sorted(root.rglob("*.*")):
        (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(root)).write_bytes(path.read_bytes())
    (copy / "images" / "p01.png").write_bytes(b"no photo")
    (run / "settings.yaml").write_text((run / "settings.yaml").read_text().replace(str(root), str(copy)))
    talk = serve(run)
    talk.count(seed=0, method="fpr", moment="first")
    page = look(talk)
    page.open("#/classes")
    assert page.texts("#unreadable") == ["Left out, as it cannot be read: p01."] and page.page.locator(".classes > li").count() == 3
    statistics = talk.server.explorer.statistics(0, "fpr", "first")
    assert statistics is not None and statistics.unreadable == [1] and statistics.probability(1, 0) is None
    assert (statistics.logits.any(axis=1) == [image != 1 for image in range(PHOTOS)]).all(), "the others of its batch are there"
    shutil.copy2(root / "images" / "p01.png", copy / "images" / "p01.png")
    assert talk.server.explorer.statistics(0, "fpr", "first") is None, "it is mended, and looked at again"
    talk.count(seed=0, method="fpr", moment="first")
    mended = talk.server.explorer.statistics(0, "fpr", "first")
    assert mended is not None and not mended.unreadable and mended.logits[1].any()
    assert mended is talk.server.explorer.statistics(0, "fpr", "first")
    path = next((run / "explore").glob("seed0-fpr-first-*.npz"))
    with np.load(path) as file:
        save_arrays(path, {**file, "unreadable": np.array([1]), "unreadable_facts": np.array([[8, 8]])})
    (copy / "images" / "p01.png").rename(tmp_path / "p01.png")
    away = talk.server.explorer.statistics(0, "fpr", "first")
    assert away is not None and away.unreadable == [1], "a disk that is away mends nothing"
    (copy / "images" / "p01.png").write_bytes(b"no photo")
    page.open("#/compare?image=1&class=0")
    page.page.wait_for_selector(".error")
    page.page.click("text=Next photo")
    titled(page, "p02$")
    page.page.wait_for_selector(".wipe")
    page.complaints = [text for text in page.complaints if "Failed to load resource" not in text]


def test_addresses_of_other_runs_lead_on(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/negatives?class=99")
    assert "This run has no class number 99" in page.page.text_content(".error")
    page.page.click("text=The same view without these choices")
    titled(page, "^What is taken for kite$")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_borders_of_controls_are_seen(look: Callable[..., Page], talk: Talk, scheme: str) -> None:
    page = look(talk, color_scheme=scheme)
    page.open("#/compare?image=7&class=1")
    assert HOSTILE_ID in page.title()
    colours = """[...document.querySelectorAll("main button, main select")].map(e => [getComputedStyle(e).borderTopColor,
        getComputedStyle(e).backgroundColor, getComputedStyle(document.body).backgroundColor])"""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    for border, *grounds in page.page.evaluate(colours):
        for ground in grounds:
            assert max(light(border) / light(ground), light(ground) / light(border)) >= 3, (border, ground)
