"""Other sites, other names for this machine, paths, and text that wants to be markup."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tag2mask.explore import photos, server
from tests.explore.conftest import HOSTILE, HOSTILE_ID, Talk

BLOCK = json.dumps({"image": 0, "class": 0, "blocked": True})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", None])
@pytest.mark.parametrize("path", ["/", "/api/run", "/thumbnail?seed=0&image=0", "/page/app.js"])
def test_another_host_is_refused(talk: Talk, host: str | None, path: str) -> None:
    """A name that an attacker points at 127.0.0.1 stands in the Host header."""
    answer = talk.send("GET", path, headers={"Host": host and host.format(port=talk.port)})
    assert answer.status == 403 and talk.token.encode() not in answer.content


def test_both_names_of_this_machine_are_answered(talk: Talk) -> None:
    for name in ("127.0.0.1", "localhost"):
        assert talk.send("GET", "/", headers={"Host": f"{name}:{talk.port}"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}, {"Origin": None},
        {"X-Token": None}, {"X-Token": "wrong"}, {"X-Token": "äöü"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/blocked", "/api/counting?seed=0&method=fpr&moment=last", "/api/new?seed=0&left=cam&right=fpr"])
def test_another_site_cannot_write(talk: Talk, run: Path, path: str, headers: dict[str, str | None]) -> None:
    encoded = {k: v.encode("utf-8").decode("latin-1") if v else v for k, v in headers.items()}
    assert talk.send("POST", path, BLOCK, encoded).status == 403
    assert not (run / "blocked.csv").exists() and talk.ask("/api/counting", seed=0, method="fpr", moment="last")["state"] == "none"


def test_another_site_cannot_read(talk: Talk) -> None:
    for site in ("cross-site", "same-site"):
        assert talk.send("GET", "/api/run", headers={"Sec-Fetch-Site": site}).status == 403
    assert talk.send("GET", "/api/run", headers={"Sec-Fetch-Site": "same-origin"}).status == 200


def test_every_start_has_another_token_and_it_stands_in_the_page_alone(talk: Talk, run: Path, serve) -> None:  # type: ignore[no-untyped-def]
    other = serve(run)
    assert other.token != talk.token and len(talk.token) >= 32
    assert talk.token in talk.get("/").content.decode()
    assert talk.token not in talk.get("/api/run").content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py", "/page/%2e%2e/server.py", "/page/..%2fserver.py", "/../../../../etc/passwd", "/page//etc/passwd",
        "/page/index.html", "/page/", "//etc/passwd", "/settings.yaml", "/page/app.js/..", "/page/app.js%00", "/api/", "/api/none",
    ],
)  # fmt: skip
def test_paths_lead_nowhere(talk: Talk, path: str) -> None:
    answer = talk.get(path)
    assert answer.status == 404 and "error" in answer.values


@pytest.mark.parametrize("path", ["/thumbnail", "/photo"])
@pytest.mark.parametrize("image", ["../../settings.yaml", "/etc/passwd", "-1", "24", "1e3", "٣", "", "0x1", "9" * 400, "1.0", " 1"])
def test_photos_are_numbers(talk: Talk, path: str, image: str) -> None:
    answer = talk.get(path, seed=0, image=image)
    assert answer.status == 400 and "expected a number from 0 to 23" in answer.values["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": 1}, {"seed": "0/../.."}, {"method": "../cam"}, {"method": "cam"}, {"moment": "middle"}, {"class": 3}, {"class": "-1"}, {"seed": ""},
    ],
)  # fmt: skip
def test_parameters_are_out_of_a_list(talk: Talk, parameters: dict[str, object]) -> None:
    assert talk.get("/api/negatives", **{"seed": 0, "method": "fpr", "moment": "last", "class": 0, **parameters}).status == 400


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", "{}", '{"image":0,"class":0}', '{"image":"0","class":0,"blocked":true}', '{"image":-1,"class":0,"blocked":true}',
     '{"image":24,"class":0,"blocked":true}', '{"image":true,"class":0,"blocked":true}', '{"image":0,"class":0,"blocked":1}',
     '{"image":0,"class":0,"blocked":true,"file":"/etc/passwd"}', '{"image":1e999,"class":0,"blocked":true}', "\xff", "[" * 60_000],
)  # fmt: skip
def test_only_a_pair_can_be_blocked(talk: Talk, run: Path, body: str) -> None:
    assert talk.post("/api/blocked", body.encode("latin-1")).status == 400
    assert not (run / "blocked.csv").exists()


def test_every_answer_keeps_other_pages_out(talk: Talk) -> None:
    for path in ("/", "/page/app.js", "/api/run", "/nowhere", "/thumbnail?seed=0&image=0"):
        headers = talk.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_nothing_comes_from_elsewhere() -> None:
    for name, content in server.page_files().items():
        assert not re.search(rb"https?:|//[a-z0-9-]+\.[a-z]", content), name
        assert b"innerHTML" not in content and b"insertAdjacentHTML" not in content and b"eval(" not in content, name


def test_hostile_names_are_values(talk: Talk) -> None:
    assert talk.ask("/api/run")["classes"][1] == HOSTILE and HOSTILE.encode() not in talk.get("/").content
    row = talk.ask("/api/images", seed=0)["images"][7]
    assert row["id"] == HOSTILE_ID
    assert talk.get("/api/run").headers["content-type"].startswith("application/json")


def picture(size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds next to nothing."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a photo"), (b"GIF89a", "not a photo"), (b"<svg onload=alert(1)/>", "not a photo"), (picture()[:60], "not a photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo"),
        (bomb(9000, 9000), "9000 x 9000 pixels; expected at most 64 million"), (bomb(60000, 60000), "million"),
    ],
)  # fmt: skip
def test_uploads_that_are_no_photo_or_too_large(talk: Talk, content: bytes, message: str) -> None:
    answer = talk.post("/api/new", content, seed=0, left="cam", right="fpr")
    assert answer.status == 409 and message in answer.values["error"]


def test_uploads_are_bounded_before_they_are_read(talk: Talk) -> None:
    for length, status in ((str(photos.MOST_BYTES + 1), 413), ("9" * 30, 413), ("-1", 411), ("", 411), (None, 411), ("²", 411)):
        headers = {"Content-Length": length if length != "²" else "\xb2"}
        answer = talk.send("POST", "/api/new?seed=0&left=cam&right=fpr", None, headers)
        assert answer.status == status, length
    answer = talk.send("POST", "/api/new?seed=0&left=cam&right=fpr", None, {"Content-Length": "5", "Transfer-Encoding": "chunked"})
    assert answer.status == 411


def test_a_large_photo_is_reduced_before_the_network_sees_it(talk: Talk) -> None:
    answer = talk.post("/api/new", picture((3000, 1500), "JPEG"), seed=0, left="cam", right="cam")
    assert answer.status == 200 and max(answer.values["size"]) == photos.NEW_LONGEST


def test_other_ways_to_ask_are_refused(talk: Talk) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert talk.send(method, "/").status == 501
    assert talk.send("POST", "/nowhere", "{}").status == 404
    assert talk.get("/api/run?" + "&".join(f"a{i}=1" for i in range(30))).status in (400, 500)


def test_the_server_hears_this_machine_alone(talk: Talk) -> None:
    assert talk.server.socket.getsockname()[0] == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", talk.port), timeout=5) as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" 403 " in line.recv(100), "no Host at all"
