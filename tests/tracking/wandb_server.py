"""As much of a W&B server as its client needs, on this machine: runs, history, files, nothing else.

What it is told can be read from `runs`. It can die (`die`) and come back on the same port
(`revive`), and hang: from `hang` on it accepts requests and never answers.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["KEY", "FakeRun", "FakeServer"]

KEY = "0123456789" * 4
"""Looks like an API key."""


@dataclass
class FakeRun:
    """What a server knows of a run.

    Attributes:
        told: the last value of each argument of upsertBucket, such as `groupName`, `config`.
        history: its rows, by line number.
        summary: the last one.
        files: content by name.
        exit_code: None while it goes on.
        starts: times that a client created it or took it up again.
    """

    told: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    starts: int = 0

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration without W&B's own part."""
        content = json.loads(self.told["config"])
        return {key: entry["value"] for key, entry in content.items() if key != "_wandb"}

    def rows(self, key: str) -> list[tuple[int, Any]]:
        """Return step and value of a metric such as `meta_train/loss`, in the order told."""
        stage = key.partition("/")[0]
        rows = [self.history[line] for line in sorted(self.history)]
        return [(row[f"{stage}/step"], row[key]) for row in rows if key in row]


class FakeServer:
    """A server on a free port of 127.0.0.1; a context that ends it."""

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.seen: list[str] = []
        self.watch: Callable[[str], None] = lambda what: None
        """Called with each operation or path before it is answered."""
        self._hangs = threading.Event()
        self._open = threading.Event()
        self._port = 0
        self._start()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self.die()

    @property
    def url(self) -> str:
        """The address, for WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self._port}"

    def die(self) -> None:
        """Refuse all connections from now on; those that are open are cut."""
        self._dead = True
        self._http.shutdown()
        self._http.server_close()

    def revive(self) -> None:
        """Answer again, where it did."""
        if not self._dead:
            self.die()
        self._hangs.clear()
        self._start()

    def hang(self) -> None:
        """Accept everything and answer nothing."""
        self._hangs.set()

    def _start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if server._hangs.is_set():
                    server._open.wait()
                if server._dead:
                    self.close_connection = True
                    return
                content = json.dumps(server._handle(self.path, body)).encode()
                if server._dead:  # while it was handled
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: a client that went away is what is tried."""

        self._dead = False
        self._http = Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def _handle(self, path: str, body: bytes) -> Any:
        if path != "/graphql":
            self.seen.append(path)
            self.watch(path)
            return self._take(path, body)
        asked = json.loads(body)
        words = asked["query"].split()
        name = words[1].partition("(")[0]
        self.seen.append(name)
        self.watch(name)
        told = asked.get("variables") or {}
        handler = getattr(self, "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), None)
        if handler is None:
            return {"errors": [{"message": f"the fake server knows no {name}"}]}
        return {"data": handler(told)}

    # --- GraphQL

    def _viewer(self, told: dict[str, Any]) -> Any:
        viewer = {
            "id": "u",
            "entity": "somebody",
            "username": "somebody",
            "email": "",
            "flags": "{}",
        }
        return {"viewer": {**viewer, "teams": {"edges": []}}}

    def _server_features_query(self, told: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _run_resume_status(self, told: dict[str, Any]) -> Any:
        run = self.runs.get(told["name"])
        bucket = None
        if run is not None:
            last = run.history[max(run.history)] if run.history else {}
            bucket = {
                "id": told["name"],
                "name": told["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.told.get("displayName"),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(last)]),
                "eventsTail": "[]",
                "config": run.told.get("config", "{}"),
                "tags": [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {**self._project(told), "bucket": bucket}}

    def _upsert_bucket(self, told: dict[str, Any]) -> Any:
        run = self.runs.setdefault(told["name"], FakeRun())
        run.told.update({key: value for key, value in told.items() if value is not None})
        # A client upserts again whenever the configuration grows; it begins with the host.
        run.starts += told.get("host") is not None
        bucket = {"id": told["name"], "name": told["name"], "displayName": told.get("displayName")}
        bucket |= {"description": None, "config": None, "sweepName": told.get("sweep")}
        bucket |= {"project": self._project(told), "historyLineCount": len(run.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": not run.history}}

    def _create_run_files(self, told: dict[str, Any]) -> Any:
        base = f"{self.url}/storage/{told['run']}"
        files = [{"name": name, "uploadUrl": f"{base}/{name}"} for name in told["files"]]
        return {"createRunFiles": {"runID": told["run"], "uploadHeaders": [], "files": files}}

    def _create_artifact(self, told: dict[str, Any]) -> Any:
        # Committed: there already, so nothing is uploaded.
        sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def _project(self, told: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": told.get("entity") or "somebody"}
        return {"id": "p", "name": told.get("project") or "uncategorized", "entity": entity}

    # --- files

    def _take(self, path: str, body: bytes) -> Any:
        parts = path.strip("/").split("/")
        if parts[0] == "storage":
            self.runs[parts[1]].files["/".join(parts[2:]).partition("?")[0]] = body
        elif parts[-1] == "file_stream":
            run, content = self.runs[parts[-2]], json.loads(body)
            for name, chunk in (content.get("files") or {}).items():
                lines = chunk["content"]
                if name == "wandb-history.jsonl":
                    for number, line in enumerate(lines, chunk["offset"]):
                        run.history[number] = json.loads(line)
                elif name == "wandb-summary.json" and lines:
                    run.summary = json.loads(lines[-1])
            if content.get("complete"):
                run.exit_code = content.get("exitcode")
        return {}
