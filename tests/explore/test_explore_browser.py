"""The page in a real headless Chromium: every control is used, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.explore.conftest import HOSTILE, HOSTILE_ID, PHOTOS, Page, Talk

Serve = Callable[[Path], Talk]


def painted(page: Page, selector: str) -> int:
    """How many pixels of a canvas are not empty."""
    script = """canvas => { const c = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                let n = 0; for (let i = 3; i < c.length; i += 4) n += c[i] > 0; return n; }"""
    return int(page.page.eval_on_selector(selector, script))


def test_from_classes_to_a_prototype_to_what_it_suppresses(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("")
    assert page.title() == "What is confused with what"
    page.counted()
    assert page.texts(".classes h2") == ["kite", HOSTILE, "pond"]
    assert "what those regions show, by the masks of the data" in page.texts(".classes h3")
    page.page.click(".classes li:nth-child(2) h2 a")
    page.until("document.querySelector('h1')?.textContent?.startsWith('What is taken for')")
    assert page.title() == f"What is taken for {HOSTILE}"
    assert painted(page, ".card canvas") > 0
    first = page.texts(".card .name")
    page.choose("#sort", "most suppressed pixels first", same_view=True)
    pixels = [int(m[1].replace(",", "")) if (m := re.search(r"suppresses ([\d,]+) map", t)) else 0 for t in page.texts(".card")]
    assert pixels == sorted(pixels, reverse=True) and pixels[0] > 0 and sorted(page.texts(".card .name")) == sorted(first)
    page.page.click(".card a")
    page.until("document.querySelector('h1')?.textContent?.startsWith('Negative')")
    assert page.page.locator(".cards .card").count() > 0 and painted(page, ".cards canvas") > 0
    assert "sort=pixels" not in page.page.url
    page.page.go_back()
    page.until("document.querySelector('h1')?.textContent?.startsWith('What is taken')")
    assert page.page.input_value("#sort") == "pixels", "the way back leads to the same order"


def test_choices_of_method_moment_and_class(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/negatives?class=0")
    page.counted()
    before = page.texts(".card")[0]
    page.choose("#moment", "after rectification")
    page.until(f"!document.querySelector('.work') && document.querySelector('.card')?.textContent !== {json.dumps(before)}")
    assert "moment=last" in page.page.url
    page.choose("#method", "FPR without training")
    page.page.wait_for_selector("#moment", state="detached")
    page.counted()
    page.choose("#class", "pond")
    page.until("document.querySelector('h1')?.textContent === 'What is taken for pond'")
    assert "method=training_free" in page.page.url


def test_the_map_is_panned_zoomed_and_hovered(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/map")
    page.page.wait_for_selector("#plane")
    state = "document.querySelector('#plane').toDataURL()"
    seen = [page.page.evaluate(state)]

    def changed() -> None:
        end = time.monotonic() + 20
        while page.page.evaluate(state) == seen[-1]:
            assert time.monotonic() < end, "the map stays as it is"
            time.sleep(0.02)
        seen.append(page.page.evaluate(state))

    box = page.page.locator("#plane").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.wheel(0, 40)
    page.until("scrollY === 40")
    assert page.page.evaluate(state) == seen[-1], "the wheel scrolls the page"
    page.page.evaluate("scrollTo(0, 0)")
    page.page.keyboard.down("Control")
    page.page.mouse.wheel(0, -400)
    page.page.keyboard.up("Control")
    changed()
    page.page.focus("#plane")
    page.page.mouse.wheel(0, -100)
    changed()
    page.page.mouse.down()
    page.page.mouse.move(x + 60, y + 40, steps=4)
    page.page.mouse.up()
    changed()
    page.page.click("text=Show all")
    page.page.mouse.move(0, 0)
    seen.append(seen[0])
    page.until(f"document.querySelector('#plane').toDataURL() === {json.dumps(seen[0])}")
    page.page.click("[aria-label='Zoom in']")
    changed()
    page.page.click("[aria-label='Zoom out']")
    changed()
    page.page.locator("#epoch").fill("0")
    assert page.texts("#epoch-words") == ["epoch 1"]
    changed()
    page.page.check("#every")
    assert page.texts("#epoch-words") == ["epochs 1 to 3"] and page.page.is_disabled("#epoch")
    changed()
    page.choose("#class", "kite", same_view=True)
    assert any("positive of kite" in text for text in page.texts("#keys li"))
    changed()
    page.page.focus("#plane")
    for key in ("+", "ArrowLeft", "ArrowUp", "-", "0"):
        page.page.keyboard.press(key)
    for _ in range(400):  # to the first negative
        page.page.keyboard.press("n")
        if "negative" in page.page.text_content(".tip"):
            break
    assert re.search(r"negative \d+ of kite", page.page.text_content(".tip"))
    page.page.wait_for_selector(".tip img")
    assert "negative" in page.page.text_content("#status"), "it is spoken, too"
    page.page.keyboard.press("Escape")
    assert page.page.is_hidden(".tip")
    page.page.keyboard.press("n")
    assert "the mean of several photos" in page.page.text_content(".tip"), "the first is a positive, without a photo"
    for _ in range(200):
        page.page.keyboard.press("ArrowLeft")
    far = page.page.evaluate(state)
    page.page.keyboard.press("ArrowLeft")
    assert page.page.evaluate(state) == far and painted(page, "#plane") > 0, "one cannot leave the points"
    page.page.uncheck("#every")
    page.page.locator("#epoch").fill("1")
    page.page.focus("#plane")
    for _ in range(400):
        page.page.keyboard.press("n")
        if "negative" in page.page.text_content(".tip"):
            break
    assert "of the first and the last epoch alone" in page.page.text_content(".tip")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".wipe")
    assert "kite in" in page.title()
    page.page.go_back()
    page.page.wait_for_selector("#plane")
    assert page.texts("#epoch-words") == ["epoch 2"] and page.page.input_value("#class") == "0", "the choices are kept"


def test_hovering_shows_where_a_point_comes_from_and_a_click_opens_it(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/map?kind=tsne&class=0")
    page.page.wait_for_selector("#plane")
    told = talk.ask("/api/plane", seed=0, method="fpr", kind="tsne")
    about = [(row, told["plane"][i]) for i, row in enumerate(told["about"]) if row[0] == 1 and row[1] == 0 and row[3] == 3]
    size = page.page.eval_on_selector("#plane", "c => [c.clientWidth, c.clientHeight]")
    _, (x, y) = about[0]
    unit = 0.46 * min(size)
    place = {"x": size[0] / 2 + x * unit, "y": size[1] / 2 - y * unit}
    page.page.hover("#plane", position=place)
    page.until(r"/negative \d+ of kite/.test(document.querySelector('.tip').textContent)")
    inside = "(([t, p]) => t.top >= p.top && t.bottom <= p.bottom && t.left >= p.left && t.right <= p.right)"
    assert page.page.evaluate(inside + "(['.tip', '.plane'].map(s => document.querySelector(s).getBoundingClientRect()))")
    assert page.page.locator(".tip .tag").count() > 0 and "click to open it" in page.page.text_content(".tip")
    page.page.click("#plane", position=place)
    page.until(r"/^Negative \d+ of kite$/.test(document.querySelector('h1')?.textContent)")
    assert "moment=last" in page.page.url


def test_more_classes_than_colours_are_grey_until_one_is_chosen(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    told = talk.ask("/api/run")
    page.page.route("**/api/run*", lambda route: route.fulfill(json={**told, "classes": [*told["classes"], *"defghi"]}))
    page.open("#/map")
    page.page.wait_for_selector("#plane")
    coloured = """(c => { const copy = new OffscreenCanvas(c.width, c.height).getContext("2d"); copy.drawImage(c, 0, 0);
        const d = copy.getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += d[i + 3] > 200 && Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 60;
        return n; })(document.querySelector("#plane"))"""
    assert painted(page, "#plane") > 0 and page.page.evaluate(coloured) == 0
    page.page.focus("#plane")
    page.page.keyboard.press("n")
    assert page.page.evaluate(coloured) > 0, "the class of what is pointed at"
    page.page.keyboard.press("Escape")
    assert page.page.evaluate(coloured) == 0
    page.page.click("#keys button:has-text('pond')")
    assert page.page.evaluate(coloured) > 0 and page.page.input_value("#class") == "2" and "class=2" in page.page.url
    assert page.page.evaluate("document.activeElement.textContent") == "every class"
    page.page.keyboard.press("Enter")
    assert page.page.evaluate(coloured) == 0 and page.page.evaluate("document.activeElement.textContent") == "pond"


def test_one_finger_scrolls_the_page_and_two_move_the_map(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk, width=360, has_touch=True, is_mobile=True)
    page.open("#/map")
    page.page.wait_for_selector("#plane")
    assert page.page.is_hidden("#plane-keys .keys") and page.page.is_visible("#plane-keys .fingers")
    page.page.locator("#plane").scroll_into_view_if_needed()
    state = "document.querySelector('#plane').toDataURL()"
    before, begin = page.page.evaluate(state), page.page.evaluate("scrollY")
    fingers = page.context.new_cdp_session(page.page)

    def move(count: int, by: tuple[int, int]) -> None:
        box = page.page.locator("#plane").bounding_box()
        x, y = box["x"] + 90, box["y"] + box["height"] / 2
        for kind, share in (("touchStart", 0), *(("touchMove", step / 8) for step in range(1, 9)), ("touchEnd", None)):
            points = [] if share is None else [{"x": x + 90 * n + by[0] * share, "y": y + by[1] * share, "id": n} for n in range(count)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    move(1, (0, -120))
    page.until(f"scrollY !== {begin}")
    assert page.page.evaluate(state) == before
    scrolled = begin
    while scrolled != (scrolled := page.page.evaluate("scrollY")):  # it rolls on
        time.sleep(0.3)
    move(2, (60, 50))
    page.until(f"{state} !== {json.dumps(before)}")
    assert page.page.evaluate("scrollY") == scrolled


def test_a_slider_wipes_between_methods(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/compare?image=2&class=0")
    clip = "[...document.querySelectorAll('.wipe canvas')].map(c => c.style.clipPath)"
    assert page.page.locator("#wipe").input_value() == "50"
    page.page.focus("#wipe")
    page.page.keyboard.press("ArrowRight")
    assert page.page.evaluate(clip)[0].replace("px", "") == "inset(0 49% 0 0)" and "51%" in page.page.evaluate(clip)[1]
    box = page.page.locator(".wipe").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + 30)
    assert page.page.locator("#wipe").input_value() in ("19", "20", "21")
    assert painted(page, ".wipe canvas") > 0
    page.choose("#right", "CAM trained on")
    page.until("document.querySelector('.wipe .side.right')?.textContent === 'CAM trained on'")
    page.choose("#left", "FPR")
    page.until("document.querySelector('.wipe .side.left')?.textContent === 'FPR'")
    page.choose("#class", "pond")
    page.until("document.querySelector('h1')?.textContent === 'pond in p02'")
    page.page.click("text=Next photo")
    page.until("document.querySelector('h1')?.textContent?.endsWith('p03')")
    page.page.click("text=Previous photo")
    page.until("document.querySelector('h1')?.textContent?.endsWith('p02')")
    page.page.keyboard.press("n")
    page.until("document.querySelector('h1')?.textContent?.endsWith('p03')")
    page.page.keyboard.press("p")
    page.until("document.querySelector('h1')?.textContent?.endsWith('p02')")


def test_photos_page_by_page(look: Callable[..., Page], talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tag2mask.explore.answers.PHOTOS_PER_PAGE", 10)
    page = look(talk)
    page.open("#/photos")
    assert page.page.locator(".card").count() == 10 and page.texts("#count") == [f"{PHOTOS} photos"]
    assert HOSTILE_ID in page.texts(".card .name") and page.page.is_disabled("button:has-text('Previous')")
    page.page.click("button:has-text('Next')")
    page.until("document.querySelector('.card .name')?.textContent === 'p10'")
    page.page.fill("#page", "3")
    page.page.press("#page", "Enter")
    page.until("document.querySelectorAll('.card').length === 4")
    assert page.page.is_disabled("button:has-text('Next')")
    page.page.click("button:has-text('Previous')")
    page.until("document.querySelectorAll('.card').length === 10")
    page.choose("#class", "photos without a tag")
    page.until("document.querySelectorAll('.tag:not(.none)').length === 0")
    page.choose("#class", "kite")
    page.until("[...document.querySelectorAll('.card')].every(c => c.textContent.includes('kite'))")
    page.page.click(".card a")
    page.page.wait_for_selector(".wipe")
    assert page.title().startswith("kite in")


def test_a_new_photo(look: Callable[..., Page], talk: Talk, trained: Path, tmp_path: Path) -> None:
    page = look(talk)
    page.open("#/new")
    photo = trained.parent / "photos" / "images" / "p02.png"
    page.page.set_input_files("#file", photo)
    page.page.wait_for_selector(".pair")
    assert page.page.locator(".chances input").count() == 3
    for box in page.page.locator(".chances input").all():
        box.check()
    assert page.page.locator(".pair").count() == 3 and page.page.locator(".pair canvas").count() == 6
    assert painted(page, ".pair canvas") > 0
    for box in page.page.locator(".chances input").all():
        box.uncheck()
    assert "Choose a class above" in page.page.text_content(".pairs")
    page.choose("#left", "FPR", same_view=True)
    page.page.wait_for_selector(".chances")
    drop = """async ([name, bytes]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })); }"""
    page.page.evaluate(drop, ["<img src=x onerror=alert(1)>.png", list(photo.read_bytes())])
    page.page.wait_for_selector(".pair")
    (tmp_path / "none.jpg").write_bytes(b"no photo at all")
    page.page.set_input_files("#file", tmp_path / "none.jpg")
    page.page.wait_for_selector(".error")
    assert "not a photo that can be read" in page.page.text_content(".error")
    page.complaints = [text for text in page.complaints if "409" not in text]  # Chromium itself tells of the status


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_scroll_one_way_and_every_control_can_be_reached(look: Callable[..., Page], talk: Talk, scheme: str) -> None:
    page = look(talk, width=360, color_scheme=scheme, has_touch=True)
    for view in ("classes", "negatives?class=1", "negative?class=0&rank=0", "map", "compare?image=7&class=1", "photos", "new", "blocked"):
        page.open(f"#/{view}")
        page.counted()
        wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 150))"
        assert page.page.evaluate("document.documentElement.scrollWidth") == 360, (view, page.page.evaluate(wide))
        heights = page.page.eval_on_selector_all("main button, main select", "all => all.map(e => e.getBoundingClientRect().height)")
        assert all(height >= 36 for height in heights), view


def test_the_keyboard_reaches_everything_and_focus_is_seen(look: Callable[..., Page], talk: Talk) -> None:
    page = look(talk)
    page.open("#/negatives?class=0")
    page.counted()
    reached = set()
    for _ in range(30):
        page.page.keyboard.press("Tab")
        seen = page.page.evaluate("(e => [e.tagName, e.id, getComputedStyle(e).outlineStyle, e.matches(':focus-visible')])(document.activeElement)")
        reached.add((seen[0], seen[1]))
        assert seen[2] != "none" or not seen[3] or seen[0] == "BODY", seen
    assert {("A", ""), ("SELECT", "method"), ("SELECT", "moment"), ("SELECT", "class"), ("SELECT", "sort"), ("INPUT", "")} <= reached
    page.open("#/photos")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("document.activeElement.id") == "content", "the way past the tabs"


def test_what_fails_is_told_and_can_be_tried_again(look: Callable[..., Page], talk: Talk, run: Path) -> None:
    page = look(talk)
    weights = run / "seed0" / "fpr" / "weights.safetensors"
    page.open("#/photos")
    content = weights.read_bytes()
    weights.write_bytes(b"damaged")
    page.page.evaluate("location.hash = '#/compare?image=1&class=0'")
    page.page.wait_for_selector(".error")
    assert "is damaged" in page.page.text_content(".error")
    weights.write_bytes(content)
    page.page.click("text=Try again")
    page.page.wait_for_selector(".wipe")
    page.page.route("**/api/images*", lambda route: route.abort())
    page.page.evaluate("location.hash = '#/photos'")
    page.page.wait_for_selector(".error")
    assert "is it still running" in page.page.text_content(".error")
    page.page.unroute("**/api/images*")
    page.page.route("**/thumbnail*", lambda route: route.fulfill(status=409, body="{}"))
    page.page.click("text=Try again")
    page.page.wait_for_selector(".broken")
    assert "this photo cannot be read" in page.texts(".broken")
    page.complaints = [text for text in page.complaints if "Failed to load resource" not in text]


def test_a_run_without_prototypes_says_so(look: Callable[..., Page], run: Path, serve: Serve) -> None:
    for path in run.rglob("prototypes*.safetensors"):
        path.unlink()
    page = look(serve(run))
    for view in ("classes", "negatives", "map"):
        page.open(f"#/{view}")
        assert "prototypes" in page.page.text_content(".empty")
    for path in run.rglob("*.safetensors"):
        path.unlink()
    page = look(serve(run))
    for view in ("classes", "compare", "new"):
        page.open(f"#/{view}")
        assert "Nothing is trained" in page.page.text_content(".empty")
