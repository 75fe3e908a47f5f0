"""The local server: one page, its parts, and what it asks about runs; to this machine only."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from metakd.dashboard import page
from metakd.dashboard.board import Board
from metakd.dashboard.details import details_of, differences
from metakd.dashboard.series import read_series
from metakd.dashboard.watch import figures_of
from metakd.errors import UserError

__all__ = ["HOST", "PORT", "DashboardServer", "serve_on"]

HOST = "127.0.0.1"
"""Only processes of this machine can connect."""

PORT = 8420

MOST_COMPARED = 500
"""Runs in one question for differences."""

HEADERS = {
    "Content-Security-Policy": page.POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer."""


class DashboardServer(ThreadingHTTPServer):
    """Serves one folder's runs.

    Args:
        port: to listen on; 0: a free one.
        board: that is asked.
    """

    daemon_threads = True
    # Another process could otherwise take over the port while this one listens (Windows).
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")

    def __init__(self, port: int, board: Board) -> None:
        super().__init__((HOST, port), _Handler)
        self.board = board
        port = self.server_address[1]
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())

    @property
    def url(self) -> str:
        """Return where a browser finds the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a browser that closes a connection is not an error."""


def serve_on(port: int | None, board: Board) -> DashboardServer:
    """Return a listening server.

    Args:
        port: None: `PORT`, or a free one if that is taken.
        board: that it asks.

    Raises:
        UserError: the port cannot be used.
    """
    try:
        return DashboardServer(PORT if port is None else port, board)
    except OSError as error:
        if port is None:
            return DashboardServer(0, board)
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"--port {port} cannot be listened on ({reason}); name another one, or none for a "
            "free one"
        ) from error


class _Refused(Exception):  # noqa: N818 - it is an answer, no error
    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer
    protocol_version = "HTTP/1.1"
    timeout = 60
    server_version = "metakd"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            self._check_host()
            kind, content, packed = self._answer()
            status = HTTPStatus.OK
        except _Refused as refused:
            status, packed = refused.status, False
            kind, content = "text/plain; charset=utf-8", f"{refused}\n".encode()
        except BrokenPipeError:
            raise
        except Exception as error:  # one bad run must not break the page for all others
            status, packed = HTTPStatus.INTERNAL_SERVER_ERROR, False
            kind = "text/plain; charset=utf-8"
            content = f"{type(error).__name__}: {error}\n".encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - http.server calls it so

    def _check_host(self) -> None:
        """Refuse requests for another host name (DNS rebinding).

        Such a page would be of the same origin as its own name, and could read the answers.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            raise _Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server answers to {self.server.url} only (through a tunnel: use the same "
                "port on both sides)",
            )

    def _answer(self) -> tuple[str, bytes, bool]:
        """Return kind, content, and whether it is compressed."""
        address = urlsplit(self.path)
        packs = "gzip" in (self.headers.get("Accept-Encoding") or "")
        path = address.path
        if path == "/":
            return "text/html; charset=utf-8", page.html().encode("utf-8"), False
        name = path.removeprefix("/assets/")
        if path.startswith("/assets/") and name in page.PARTS:
            packed = packs and name in page.PACKED
            return page.PARTS[name], page.part(name, packed), packed
        asked = {key: values[-1] for key, values in parse_qs(address.query).items()}
        if path == "/figure":
            return "image/png", self._figure(asked), False
        answers: Mapping[str, Callable[[Mapping[str, str]], Any]] = {
            "/api/runs": lambda asked: self.server.board.changes(asked.get("since", "")),
            "/api/series": self._series,
            "/api/run": lambda asked: details_of(self._run(asked.get("run"))),
            "/api/differences": self._differences,
        }
        if path not in answers:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        content = json.dumps(answers[path](asked), allow_nan=False, separators=(",", ":"))
        return "application/json", content.encode("utf-8", "replace"), False

    def _run(self, word: str | None) -> Any:
        run = self.server.board.run(word or "")
        if run is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such run (any more)")
        return run

    def _series(self, asked: Mapping[str, str]) -> dict[str, Any]:
        run, root = self._run(asked.get("run")), self.server.board.watch.root
        return read_series(root, run.path / "metrics.jsonl", asked.get("place", ""))

    def _differences(self, asked: Mapping[str, str]) -> dict[str, Any]:
        words = asked.get("runs", "").split(",")[:MOST_COMPARED]
        baseline = self._run(asked.get("baseline"))
        return differences(self.server.board.watch, baseline, [self._run(w) for w in words if w])

    def _figure(self, asked: Mapping[str, str]) -> bytes:
        run, name = self._run(asked.get("run")), asked.get("name", "")
        # A name is compared with those that are there, never joined to a path as it came.
        if name not in figures_of(self.server.board.watch.root, run):
            raise _Refused(HTTPStatus.NOT_FOUND, "the run has no such picture")
        content: bytes = (run.path / "figures" / name).read_bytes()
        return content

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a line for every request would hide the address."""
