"""The explorer on a run of 5,000 photos: how long one waits, as a share of what one may wait for.

First page: from the start of `tag2mask explore` in a process of its own until the page, its scripts, the run and what
its classes are confused with have arrived; at most 1 s. Paging: a page of 60 photos with its small photos, which nobody
has asked for before, over six connections as a browser has them; at most 200 ms. Counted is the processor's time of the
explorer, which is what the clock shows on a machine of its own with one core; the clock's is printed beside it.
"""

from __future__ import annotations

import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import yaml
from PIL import Image
from safetensors.numpy import save_file

from tag2mask.config import DataConfig, RunConfig
from tag2mask.explore.answers import PHOTOS_PER_PAGE

BAR = 1.0
DESCRIPTION = "explorer, 5,000 photos: first page / 1 s, or a page of new small photos / 200 ms, whichever is more"

PHOTOS, CLASSES, NEGATIVES, CHANNELS = 5000, 20, 40, 512
FIRST_SECONDS, PAGE_SECONDS = 1.0, 0.2
STARTS, PAGES = 5, 12
CONNECTIONS = 6


def measure() -> float:
    """The larger of the two shares, in the processor's time."""
    clocks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder))
        starts = [explored(run, first_page) for _ in range(STARTS)]
        clock, first = (statistics.median(values) for values in zip(*starts, strict=True))
        page = (explored(run, lambda host: first_and_pages(host, clocks))[1] - first) / PAGES
    print(
        f"processor: first page {first:.2f} s, paging {1000 * page:.0f} ms; "
        f"clock, with whatever else runs here: {clock:.2f} s, {1000 * statistics.median(clocks):.0f} ms",
        file=sys.stderr,
    )
    return max(first / FIRST_SECONDS, page / PAGE_SECONDS)


def write_run(folder: Path) -> Path:
    """Photos with tags, and a run folder with settings and prototypes; the weights are not looked at."""
    random = np.random.default_rng(0)
    root, run = folder / "photos", folder / "run"
    (root / "images").mkdir(parents=True)
    (run / "seed0" / "fpr").mkdir(parents=True)
    rows = ["image,labels"]
    for number in range(PHOTOS):
        photo = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((320, 240))
        photo.save(root / "images" / f"{number:05}.jpg")
        tags = ";".join(f"class {c}" for c in np.flatnonzero(random.random(CLASSES) < 0.1))
        rows.append(f"images/{number:05}.jpg,{tags}")
    (root / "labels.csv").write_text("\n".join(rows))
    config = RunConfig(data=DataConfig(kind="folder", root=str(root)), methods=("fpr",))
    (run / "settings.yaml").write_text(yaml.safe_dump(plain(asdict(config))))
    valid = np.ones((CLASSES, NEGATIVES), bool)
    features = random.random((CLASSES, NEGATIVES, CHANNELS), np.float32)
    source = random.integers(0, PHOTOS, (CLASSES, NEGATIVES))
    save_file(
        {"trimmed": features, "trimmed_valid": valid, "trimmed_source": source, "negative_valid": valid},
        run / "seed0" / "fpr" / "prototypes.safetensors",
    )
    return run


def plain(values: object) -> object:
    """Tuples as lists, at any depth, for YAML."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    return [plain(value) for value in values] if isinstance(values, (tuple, list)) else values


def explored(run: Path, look: Callable[[str], object]) -> tuple[float, float]:
    """(seconds of the clock, seconds of the processor) from the start of the explorer until ``look`` has looked."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tag2mask.cli", "explore", str(run), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        look(urlsplit(process.stdout.readline().split()[1]).netloc)
        clock = time.perf_counter() - start
    finally:
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0  # it is waited for
    return clock, usage.ru_utime + usage.ru_stime


def first_page(host: str) -> http.client.HTTPConnection:
    """The page, its files, and what it asks before it shows the classes."""
    connection = http.client.HTTPConnection(host)
    page = fetched(connection, "/").decode()
    imports = re.findall(r"/page/\w+\.js", fetched(connection, "/page/app.js").decode())
    questions = ("/api/run", "/api/classes?seed=0&method=fpr&moment=last")
    for path in (*re.findall(r"/page/[\w.]+", page), *imports, *questions):
        fetched(connection, path)
    return connection


def first_and_pages(host: str, clocks: list[float]) -> None:
    """The first page, then ``PAGES`` pages of photos; adds how long each took by the clock."""
    connections = [first_page(host), *(http.client.HTTPConnection(host) for _ in range(CONNECTIONS - 1))]

    def small(lane: int, page: int) -> None:
        for image in range(page * PHOTOS_PER_PAGE + lane, (page + 1) * PHOTOS_PER_PAGE, CONNECTIONS):
            fetched(connections[lane], f"/thumbnail?seed=0&image={image}")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for page in range(PAGES):
            start = time.perf_counter()
            fetched(connections[0], f"/api/images?seed=0&page={page}")
            list(pool.map(small, range(CONNECTIONS), [page] * CONNECTIONS))
            clocks.append(time.perf_counter() - start)


def fetched(connection: http.client.HTTPConnection, path: str) -> bytes:
    """What the server answers; anything but 200 is a mistake of the benchmark."""
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, (path, content)
    return content
