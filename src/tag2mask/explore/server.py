"""The explorer's server: loopback alone, and deaf to whatever another page in the same browser might send.

Reading needs the right Host header (a name that was rebound to 127.0.0.1 has another one), writing also the right
Origin and a token that is drawn at each start. Photos are numbers, never paths.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tag2mask.errors import InputError
from tag2mask.explore.answers import Explorer
from tag2mask.explore.photos import LARGE, MOST_BYTES
from tag2mask.explore.questions import Question, Refused

ADDRESS = "127.0.0.1"
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
MOST_JSON = 64 * 1024
SECONDS = 60
"""A connection that says nothing for so long is closed."""
TOKEN_PLACE = "__TOKEN__"


class Reply(NamedTuple):
    """What is sent back."""

    content: bytes
    kind: str = "application/json; charset=utf-8"
    keep: bool = False
    """Whether the browser may keep it for a while."""


def page_files() -> dict[str, bytes]:
    """The files of the page by name: what is not here cannot be asked for."""
    folder = files("tag2mask.explore") / "page"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(tuple(KINDS))}


class Server(ThreadingHTTPServer):
    """Answers questions about one run."""

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int) -> None:
        super().__init__((ADDRESS, port), Handler)
        self.explorer, self.token, self.page = explorer, secrets.token_urlsafe(24), page_files()
        self.port = int(self.server_address[1])
        self.hosts = {f"{name}:{self.port}" for name in (ADDRESS, "localhost")}
        self.address = f"http://{ADDRESS}:{self.port}/"

    def server_close(self) -> None:
        """Close the socket and end the threads of the explorer."""
        super().server_close()
        self.explorer.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tag2mask", ""
    timeout = SECONDS
    wbufsize, disable_nagle_algorithm = 1 << 16, True  # an answer leaves in one piece, at once

    def do_GET(self) -> None:
        """Pages, photos and questions."""
        self.answer(self.get)

    def do_POST(self) -> None:
        """What changes something, or costs time."""
        self.answer(self.post)

    def answer(self, respond: Callable[[], Reply]) -> None:
        """Send what ``respond`` returns, or its refusal in one sentence."""
        try:
            self.check_host()
            reply, status = respond(), HTTPStatus.OK
        except Refused as error:
            reply, status = told({"error": str(error)}), error.status
        except InputError as error:
            reply, status = told({"error": str(error)}), HTTPStatus.CONFLICT
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:
            reply = told({"error": f"The explorer failed: {type(error).__name__}: {error}"})
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        if status != HTTPStatus.OK and self.command == "POST":
            self.close_connection = True  # what it sent may still be on the way
        self.reply(reply, status)

    def check_host(self) -> None:
        """Refuse requests that were not meant for this server, and those that another site made."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"This server answers at {self.server.address} alone.")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Refused(HTTPStatus.FORBIDDEN, "Another site may not ask this server.")

    def get(self) -> Reply:
        """Answer by path."""
        url = urlsplit(self.path)
        page = self.server.page
        if url.path == "/":
            return Reply(page["index.html"].replace(TOKEN_PLACE.encode(), self.server.token.encode()), KINDS[".html"])
        name = url.path.removeprefix("/page/")
        if name in page and url.path != name and name != "index.html":
            return Reply(page[name], KINDS[name[name.rindex(".") :]])
        question = Question(self.server.explorer, parse_qs(url.query, keep_blank_values=True, max_num_fields=20))
        if url.path == "/thumbnail":
            return Reply(question.thumbnail(), "image/jpeg", keep=True)
        if url.path == "/photo":
            return Reply(question.photo(LARGE), "image/jpeg", keep=True)
        if url.path in self.READ:
            return told(self.READ[url.path](question))
        raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    READ: ClassVar[dict[str, Callable[[Question], dict[str, Any]]]] = {
        "/api/run": Question.run,
        "/api/classes": Question.classes,
        "/api/negatives": Question.negatives,
        "/api/uses": Question.uses,
        "/api/counting": Question.counting,
        "/api/plane": Question.plane,
        "/api/images": Question.images,
        "/api/image": Question.one_image,
        "/api/maps": Question.maps,
        "/api/blocked": Question.blocked,
    }

    def post(self) -> Reply:
        """Answer what comes from our own page, with its token."""
        origins = {f"http://{host}" for host in self.server.hosts}
        if self.headers.get("Origin", "") not in origins:
            raise Refused(HTTPStatus.FORBIDDEN, "Another site may not write here.")
        if not hmac.compare_digest(self.headers.get("X-Token", "").encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "The explorer was started anew; load this page again.")
        url = urlsplit(self.path)
        question = Question(self.server.explorer, parse_qs(url.query, keep_blank_values=True, max_num_fields=20))
        if url.path == "/api/counting":
            self.body(MOST_JSON)
            return told(question.begin_counting())
        if url.path == "/api/new":
            return told(question.new_photo(self.body(MOST_BYTES)))
        if url.path == "/api/blocked":
            try:
                values = json.loads(self.body(MOST_JSON))
            except (ValueError, RecursionError):
                raise Refused(HTTPStatus.BAD_REQUEST, "This is not JSON.") from None
            return told(question.block(values))
        raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def body(self, most: int) -> bytes:
        """What the request holds, at most so many bytes."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
        if len(length) > 12 or int(length) > most:
            reason = f"This is more than {most / 1_048_576:.2g} MB; send less."
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "The request was cut off.")
        return content

    def reply(self, reply: Reply, status: HTTPStatus) -> None:
        """Send an answer with the headers that keep other pages out."""
        self.send_response(status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.content)))
        keep = reply.keep and status == HTTPStatus.OK
        self.send_header("Cache-Control", "private, max-age=600" if keep else "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests and connections that end are not news; what fails is told on the page."""


def told(values: dict[str, Any]) -> Reply:
    """Values as JSON."""
    return Reply(json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
