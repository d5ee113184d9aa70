"""A tiny run on photos with hostile names, a server on it, a way to talk to it byte by byte, and a browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.explore.answers import Explorer
from tag2mask.explore.server import Server
from tests.conftest import draw_photo

HOSTILE = "<img src=x onerror=window.hacked=true>"
"""Stands in a class name; a page that took it for markup would run it."""
NAMES = ("kite", HOSTILE, "pond")
HOSTILE_ID = "trip/<b onclick=alert(1)>p07"
PHOTOS = 24


@dataclass(frozen=True)
class Answer:
    """What a server sent."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def values(self) -> Any:
        return json.loads(self.content)


class Talk:
    """Requests to a server as its own page makes them, unless told otherwise."""

    def __init__(self, server: Server) -> None:
        self.server, self.port, self.token = server, server.port, server.token

    def send(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str | None] | None = None
    ) -> Answer:
        """A header of None is left out."""
        own = {"Host": f"127.0.0.1:{self.port}"}
        if method == "POST":
            own |= {"Origin": f"http://127.0.0.1:{self.port}", "X-Token": self.token, "Content-Length": str(len(body or b""))}
        given = {**own, **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body.encode() if isinstance(body, str) else body)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path: str, **parameters: Any) -> Answer:
        return self.send("GET", f"{path}?{urlencode(parameters)}" if parameters else path)

    def ask(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status == 200, answer.content
        return answer.values

    def post(self, path: str, body: bytes | str | None = None, **parameters: Any) -> Answer:
        return self.send("POST", f"{path}?{urlencode(parameters)}" if parameters else path, body)

    def count(self, **parameters: Any) -> None:
        """Let the pass over all images run to its end."""
        job = self.post("/api/counting", **parameters).values
        for _ in range(600):
            if job["state"] in ("done", "failed"):
                break
            time.sleep(0.05)
            job = self.ask("/api/counting", **parameters)
        assert job["state"] == "done", job


def write_photos(root: Path) -> Path:
    """Photos of which every third has no tag; two names hold markup."""
    (root / "images" / "trip").mkdir(parents=True)
    (root / "masks" / "trip").mkdir(parents=True)
    rows = ["image,labels"]
    for number in range(PHOTOS):
        present = [c for c in range(3) if (number % 7 + 1) >> c & 1] if number % 3 else []
        photo, mask = draw_photo([(64, 48), (50, 70)][number % 2], present, number)
        stem = HOSTILE_ID if number == 7 else f"p{number:02d}"
        photo.save(root / "images" / f"{stem}.png")
        Image.fromarray(mask).save(root / "masks" / f"{stem}.png")
        rows.append(f'"{stem}.png",{";".join(NAMES[c] for c in present)}')
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A finished run with prototypes of three epochs; tests must not write to it."""
    home = tmp_path_factory.mktemp("explore")
    data = ["--data.kind", "folder", "--data.root", str(write_photos(home / "photos"))]
    assert main(["train", "--out", str(home / "run"), *tiny, *data, "--methods", "continued,training_free,fpr"]) == 0
    return home / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that tests may write to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Talk]]:
    """Serves runs until the test is over."""
    servers: list[Server] = []

    def begin(run: Path) -> Talk:
        server = Server(Explorer(run), 0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Talk(server)

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def talk(run: Path, serve: Callable[[Path], Talk]) -> Talk:
    """A server on a copy of the run."""
    return serve(run)


# A browser

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip
VIEWS = "Number(document.getElementById('content').dataset.views ?? 0)"
"""How many views the page has shown."""
HOW = "no Chromium is found for the tests of the explorer; install it by `apt-get install -y chromium`"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser that downloads nothing."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(HOW)
        pytest.skip(HOW)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Page:
    """A page of the explorer; whatever it complains about, or asks of others, is remembered."""

    def __init__(self, browser: Any, talk: Talk, width: int = 1200, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.address = talk.server.address
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, view: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}{view}")
        self.page.wait_for_selector("h1")

    def until(self, expression: str) -> None:
        """Wait until something is true in the page; Playwright's own way to wait needs `eval`, which the page forbids."""
        end = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"{expression}: {self.page.text_content('main')}"
            time.sleep(0.05)

    def counted(self) -> None:
        """Wait until the pass over all photos is done, and shown: its bar stays until then."""
        self.until("!document.querySelector('#content .work') && !!document.querySelector('#content h1')")

    def title(self) -> str:
        return str(self.page.text_content("h1"))

    def texts(self, selector: str) -> list[str]:
        return [str(t) for t in self.page.locator(selector).all_text_contents()]

    def choose(self, selector: str, label: str, same_view: bool = False) -> None:
        """Choose in a list and wait for the view that comes of it, unless the same is only changed."""
        views = self.page.evaluate(VIEWS)
        self.page.select_option(selector, label=label)
        if not same_view:
            self.until(f"{VIEWS} > {views}")


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., Page]]:
    """Opens pages; at the end none of them has complained or asked anybody else."""
    pages: list[Page] = []

    def begin(talk: Talk, **options: Any) -> Page:
        pages.append(Page(chromium, talk, **options))
        return pages[-1]

    yield begin
    for page in pages:
        hacked = page.page.evaluate("window.hacked")
        page.context.close()
        assert not page.complaints and not page.elsewhere and hacked is None
