"""Server of the page, for this machine only.

It listens on the loopback interface, and answers only GET requests that name this host and begin with a secret printed
with the address. Neither other users of the machine nor pages of other sites can therefore request anything. Images are
requested by their number in predictions.csv, never by a path.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from ccd_lightning.errors import UserError
from ccd_lightning.viewer.exports import chosen_rows, write_pictures, write_table
from ccd_lightning.viewer.pictures import Pictures
from ccd_lightning.viewer.results import ShownResults
from ccd_lightning.viewer.scoring import Scorer
from ccd_lightning.writing import short_text

HOST = "127.0.0.1"
HOST_PATTERN = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")  # any port, which may be forwarded to this one
PAGE = Path(__file__).with_name("page")
SCRIPTS = ("viewer.js", "grid.js", "large.js", "model.js", "zoom.js")
FILES = {
    "": "text/html",
    "viewer.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(SCRIPTS, "text/javascript"),
}
HEADERS = {
    "Cache-Control": "no-store",  # images may be of patients: the browser must not store copies
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
IDLE = 60.0  # seconds after which a connection without requests is closed
PICTURE = re.compile(r"(thumbnail|image|map|lines|mask)/(\d{1,9})")


class Answer(NamedTuple):
    """An HTTP response."""

    content: bytes
    kind: str
    headers: dict[str, str] = {}  # noqa: RUF012 - of a tuple, and never changed
    status: HTTPStatus = HTTPStatus.OK


class ViewServer(ThreadingHTTPServer):
    """Serves the page for some results.

    Args:
        results: Results to show.
        port: Port to listen on; 0 selects a free one.
        trust: Whether to import the class that the checkpoint names.

    Raises:
        OSError: If the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, results: ShownResults, port: int = 0, trust: bool = False) -> None:
        self.results = results
        self.scorer = Scorer(results.checkpoint, trust)
        self.pictures = Pictures(results, self.scorer)
        self.secret = secrets.token_urlsafe(16)
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Binds the socket without looking up the host name as `HTTPServer` does, which may need the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/{self.secret}/"

    def warm_up(self) -> None:
        """Loads the detector in another thread, so that the first map appears sooner."""
        threading.Thread(target=self.scorer.threshold, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores connections closed by the browser, which does so for pictures that it no longer needs."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer | None:
        """Returns the response to a request, or None if the path does not exist.

        Args:
            path: Path below the secret.
            query: Query of the request.

        Raises:
            UserError: If an image, a mask or the detector cannot be read.
            ValueError: If the query is not one that the page sends.
        """
        if path in FILES:
            return Answer((PAGE / (path or "index.html")).read_bytes(), f"{FILES[path]}; charset=utf-8")
        if path == "results.json":
            return self._describe()
        if path in ("chosen.csv", "chosen.zip"):
            return self._export(path, query)
        if (found := PICTURE.fullmatch(path)) and int(found[2]) < len(self.results.rows):
            return self._picture(found[1], int(found[2]))
        return None

    def _describe(self) -> Answer:
        threshold = self.results.threshold
        if math.isnan(threshold) and not self.results.labelled:  # predictions do not contain it
            threshold = self.scorer.threshold()
        content = self.results.description(threshold, self.scorer.refusal())
        return Answer(json.dumps(content, allow_nan=False).encode(), "application/json")

    def _picture(self, name: str, index: int) -> Answer:
        if name == "thumbnail":
            return Answer(self.pictures.thumbnail(index), "image/jpeg")
        if name in ("map", "lines"):
            found = self.pictures.anomaly_map(index)
            layer = found.colours if name == "map" else found.lines
            return Answer(layer, "image/png", {"X-Score": repr(found.score)})
        if name == "mask":
            return Answer(self.pictures.mask(index), "image/png")
        image = self.pictures.image(index)
        return Answer(image, "image/png", {"X-Size": "{}x{}".format(*self.pictures.sizes[index])})

    def _export(self, path: str, query: dict[str, list[str]]) -> Answer:
        rows = chosen_rows(query.get("rows", [""])[0], len(self.results.rows))
        threshold = float(query.get("threshold", ["nan"])[0])
        table = write_table(self.results, rows, threshold)
        headers = {"Content-Disposition": f'attachment; filename="{path}"'}
        if path == "chosen.csv":
            return Answer(table, "text/csv; charset=utf-8", headers)
        return Answer(write_pictures(self.results, self.scorer, rows, threshold, table), "application/zip", headers)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET requests. The base class rejects all others."""

    server: ViewServer
    protocol_version = "HTTP/1.1"  # one connection for many thumbnails
    server_version, sys_version = "ccd", ""
    timeout = IDLE

    def do_GET(self) -> None:
        """Answers a request."""
        try:
            answer = self._answer()
        except UserError as error:
            answer = _sentence(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except ValueError as error:
            answer = _sentence(HTTPStatus.BAD_REQUEST, f"Not a request of this page: {short_text(error)}")
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # any decoder error in one file must not hide the others
            answer = _sentence(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {short_text(error, 300)}")
        self.send_response(answer.status)
        for name, value in {**HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def _answer(self) -> Answer:
        if not HOST_PATTERN.fullmatch(self.headers.get("Host", "")):
            return _sentence(HTTPStatus.FORBIDDEN, "This server only answers requests to its own address.")
        try:
            parts = urlsplit(self.path)
        except ValueError:  # not a valid address
            return _sentence(HTTPStatus.NOT_FOUND, "Not found.")
        secret, slash, path = parts.path.removeprefix("/").partition("/")
        found = None
        if slash and secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            found = self.server.answer(path, parse_qs(parts.query))
        return found or _sentence(HTTPStatus.NOT_FOUND, "Not found. Open the address that ccd view printed.")

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing, because a line per thumbnail would not be useful."""


def _sentence(status: HTTPStatus, text: str) -> Answer:
    return Answer(text.encode(errors="backslashreplace"), "text/plain; charset=utf-8", {}, status)
