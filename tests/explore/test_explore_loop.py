"""In a real headless Chromium: from a tick to another training, and what a page of another origin can do."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.explore.conftest import Page, Talk

Serve = Callable[[Path], Talk]


def test_one_loop_from_a_tick_to_another_training(
    look: Callable[..., Page], talk: Talk, run: Path, serve: Serve, environment: dict[str, str]
) -> None:
    page = look(talk)
    page.open("#/blocked")
    assert "Nothing is on the list" in page.page.text_content(".empty")
    page.page.click(".empty a")
    page.page.wait_for_selector(".card")
    page.counted()
    row = talk.ask("/api/negatives", seed=0, method="fpr", moment="first", **{"class": 0})["prototypes"][0]
    page.page.focus(".card input[type=checkbox]")
    page.page.keyboard.press("Space")
    page.page.wait_for_selector(".card.blocked")
    page.until("document.querySelector('#views').textContent.includes('Block list (1)')")
    assert (run / "blocked.csv").read_text() == f"image,class\n{row['id']},kite\n"
    page.page.click("text=Block list (1)")
    command = page.page.text_content("#command")
    page.page.click("text=Copy the command")
    page.until("/Copied|Ctrl-C/.test(document.querySelector('button.main').textContent)")
    assert page.texts(".card .name") == ["kite"]
    words = shlex.split(command)
    subprocess.run([sys.executable, "-m", "tag2mask.cli", *words[1:]], env=environment, check=True, timeout=300)
    after = look(serve(Path(words[words.index("--out") + 1])))
    after.open("#/negatives?class=0")
    after.counted()
    listed = talk.server.explorer  # the first run still shows it
    assert listed.negatives(0, "fpr", "first", 0)["prototypes"][0]["blocked"]
    hrefs = after.page.eval_on_selector_all(".card img", "all => all.map(i => new URL(i.src).searchParams.get('image'))")
    assert hrefs and str(row["image"]) not in hrefs, "the wrong prototype is gone"
    after.page.click("text=Block list (1)")
    after.page.wait_for_selector(".card button")
    after.page.click(".card button")
    after.page.wait_for_selector(".empty")


def test_a_photo_that_is_not_tagged_can_be_blocked_where_maps_are_compared(look: Callable[..., Page], talk: Talk, run: Path) -> None:
    page = look(talk)
    page.open("#/compare?image=0&class=2")
    page.page.check(".facts input[type=checkbox]")
    page.until("document.querySelector('#views').textContent.includes('Block list (1)')")
    page.page.uncheck(".facts input[type=checkbox]")
    page.until("!document.querySelector('#views').textContent.includes('(1)')")
    assert (run / "blocked.csv").read_text() == "image,class\n"


def test_another_page_cannot_reach_the_explorer(chromium: Any, talk: Talk, run: Path) -> None:
    """A page of another origin on the same machine, in the same browser, which tries what a browser lets it try."""

    class Hostile(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    hostile = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{hostile.server_address[1]}/")
    script = """async ([address, token]) => { const told = {}, ask = async (name, path, options) => {
          try { const r = await fetch(address + path, options); told[name] = r.type === "opaque" ? "opaque" : await r.text(); } catch { told[name] = "refused"; } };
        const body = JSON.stringify({ image: 0, class: 0, blocked: true });
        await ask("read", "api/run", {});
        await ask("blind", "api/run", { mode: "no-cors" });
        await ask("simple", "api/blocked", { method: "POST", mode: "no-cors", body });
        await ask("token", "api/blocked", { method: "POST", headers: { "X-Token": token }, body });
        told.image = await new Promise((done) => { const i = new Image(); i.onload = () => done("loaded"); i.onerror = () => done("refused"); i.src = address + "thumbnail?seed=0&image=0"; });
        const frame = document.createElement("iframe"); frame.src = address; document.body.append(frame);
        await new Promise((done) => { frame.onload = done; setTimeout(done, 2000); });
        try { told.frame = frame.contentDocument ? frame.contentDocument.body.textContent : "refused"; } catch { told.frame = "refused"; }
        return told; }"""
    told = page.evaluate(script, [talk.server.address, talk.token])
    context.close()
    hostile.shutdown()
    hostile.server_close()
    assert told == {name: "refused" for name in ("read", "blind", "simple", "token", "image", "frame")}
    assert not (run / "blocked.csv").exists()
