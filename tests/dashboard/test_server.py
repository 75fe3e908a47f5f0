"""The local server: to this machine, by its own name, its own folder, nothing else."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metakd.dashboard import page
from metakd.dashboard.board import Board
from metakd.dashboard.server import HEADERS, DashboardServer, serve_on
from metakd.errors import UserError

Made = Callable[..., Path]


@pytest.fixture
def server(evil: Path) -> Iterator[DashboardServer]:
    with serve_on(0, Board(evil)) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: DashboardServer, path: str, method: str = "GET", host: str | None = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and content; `host` None sends none."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    if host is not None:
        connection.putheader("Host", host or f"127.0.0.1:{port}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content


def rows(server: DashboardServer):
    return {row["path"]: row for row in json.loads(ask(server, "/api/runs")[2])["rows"]}


def test_listens_to_this_machine_only(server: DashboardServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


STRANGE_HOSTS = (
    *(
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.example",
        "localhost",
    ),
    *("localhost.evil.example:{port}", "[::1]:{port}", "0.0.0.0:{port}", None),
)


def test_answers_to_its_own_name_only(server: DashboardServer) -> None:
    for host in STRANGE_HOSTS:
        named = host and host.format(port=server.server_address[1])
        for path in ("/", "/api/runs", "/assets/page.css"):
            status, headers, content = ask(server, path, host=named)
            assert status == 421, (host, path)
            assert b"this server answers to http://127.0.0.1:" in content
            assert b"sweep" not in content
            assert headers["content-type"].startswith("text/plain")


def test_two_host_names_are_none(server: DashboardServer) -> None:
    port = server.server_address[1]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        words = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n"
        connection.sendall((words + "Connection: close\r\n\r\n").encode())
        assert b" 421 " in connection.recv(4096).split(b"\r\n")[0]


def test_its_own_names(server: DashboardServer) -> None:
    for host in ("127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}"):
        status, _, content = ask(server, "/", host=host.format(port=server.server_address[1]))
        assert (status, content) == (200, page.html().encode())


def test_every_answer_says_what_a_browser_may_do(server: DashboardServer) -> None:
    word = next(iter(rows(server).values()))["id"]
    for path in ("/", "/assets/app.js", "/api/runs", f"/api/run?run={word}", "/nothing"):
        _, headers, _ = ask(server, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert {name.lower() for name in HEADERS} <= headers.keys()
        assert "access-control-allow-origin" not in headers


def test_the_page_has_no_inline_code() -> None:
    text = page.html()
    assert "onclick" not in text
    assert "style=" not in text
    assert "<script>" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_all_parts_are_served(server: DashboardServer) -> None:
    for name, kind in page.PARTS.items():
        status, headers, content = ask(server, f"/assets/{name}")
        assert (status, headers["content-type"]) == (200, kind)
        assert content == page.part(name)
    packed = ask(server, "/assets/echarts.min.js", **{"Accept-Encoding": "gzip"})
    assert packed[1]["content-encoding"] == "gzip"
    assert len(packed[2]) < len(page.part("echarts.min.js")) / 2


NO_PATHS = (
    *(
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/assets/../server.py",
        "/assets/",
    ),
    *(
        "/assets/..%2f..%2fserver.py",
        "/assets/page.html",
        "/assets/echarts.min.js.gz",
        "/etc/passwd",
    ),
    *("//etc/passwd", "/sweep/0/run.json", "/outputs/sweep/0/run.json", "/index.html", "/api"),
    *("/api/runs/", "/figure/../../secret.txt", "http://evil.example/etc/passwd"),
)


def test_no_other_path_is_there(server: DashboardServer, evil: Path) -> None:
    (evil.parent / "secret.txt").write_text("secret")
    for path in NO_PATHS:
        status, _, content = ask(server, path)
        assert (status, content) == (404, b"there is no such page\n"), path


NO_PICTURES = (
    *(
        "../run.json",
        "../../../secret.png",
        "..%2f..%2f..%2fsecret.png",
        "%2fetc%2fpasswd",
        "out.png",
    ),
    *("/etc/passwd", "", "sample_tasks.png%00", ".", "nothing.png"),
)


def test_pictures_are_those_of_the_run_only(server: DashboardServer, evil: Path) -> None:
    (evil.parent / "secret.png").write_text("secret")
    (evil / "sweep" / "0" / "figures" / "out.png").symlink_to(evil.parent / "secret.png")
    word = rows(server)["sweep/0"]["id"]
    for name in NO_PICTURES:
        status, _, content = ask(server, f"/figure?run={word}&name={name}")
        assert (status, content) == (404, b"the run has no such picture\n"), name
    status, headers, content = ask(server, f"/figure?run={word}&name=sample_tasks.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert content.startswith(b"\x89PNG")


def test_no_other_run_is_there(server: DashboardServer) -> None:
    for path in ("/api/run", "/api/series", "/figure", "/api/differences"):
        for word in ("", "x", "../sweep/0", "sweep/0", "/", "0" * 5000):
            status, _, content = ask(server, f"{path}?run={word}&baseline={word}")
            assert (status, content) == (404, b"there is no such run (any more)\n"), (path, word)


def test_what_the_page_asks_of_a_run(server: DashboardServer) -> None:
    known = rows(server)
    word = known["sweep/3"]["id"]
    details = json.loads(ask(server, f"/api/run?run={word}")[2])
    assert details["settings"]["algorithm.name"] == "maml"
    assert details["results"]["student.fewshot.tasks"] == 4
    assert details["info"]["stage"] == "evaluate"
    assert "algorithm.kinds" not in details["settings"]
    series = json.loads(ask(server, f"/api/series?run={word}")[2])
    assert series["stages"]["meta_train"]["metrics"]["loss"][:2] == [2.0, 1.0]
    more = json.loads(ask(server, f"/api/series?run={word}&place={series['place']}")[2])
    assert more["stages"] == {}


def test_differences_are_those_of_compare(server: DashboardServer, evil: Path) -> None:
    from metakd.comparing.compare import compare

    known = rows(server)
    words = [known[path]["id"] for path in ("sweep/0", "sweep/1", "sweep/2", "elsewhere", "failed")]
    asked = f"/api/differences?baseline={words[0]}&runs={','.join(words)}"
    found = json.loads(ask(server, asked)[2])
    sweep = [evil / "sweep" / name for name in "012"]
    expected = compare(sweep, baseline=sweep[0], grouped=False)
    assert [(p["run"], p["difference"], p["ci95"], p["p_adjusted"]) for p in found["pairs"]] == [
        (words[i], p.difference, p.half, p.p_adjusted) for i, p in enumerate(expected.pairs, 1)
    ]
    assert [(a["run"], a["reason"]) for a in found["apart"]] == [
        (words[3], "other evaluation seed (evaluate.seed): 12345 and 7")
    ]


def test_other_methods_are_refused(server: DashboardServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        assert ask(server, "/api/runs", method)[0] == 501
    status, headers, content = ask(server, "/", "HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["content-length"]) == len(page.html().encode())


def test_a_bad_run_does_not_end_the_server(
    server: DashboardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken <b>")

    monkeypatch.setattr("metakd.dashboard.server.read_series", fail)
    word = rows(server)["sweep/0"]["id"]
    status, headers, content = ask(server, f"/api/series?run={word}")
    assert (status, content) == (500, b"ValueError: broken <b>\n")
    assert headers["content-type"].startswith("text/plain")
    assert ask(server, "/")[0] == 200


def test_a_port_that_is_taken(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(evil)
    with serve_on(0, board) as first:
        port = first.server_address[1]
        with pytest.raises(UserError, match=f"--port {port} cannot be listened on .*in use"):
            serve_on(port, board)
        monkeypatch.setattr("metakd.dashboard.server.PORT", port)
        with serve_on(None, board) as second:  # the usual one is taken: a free one
            assert second.server_address[1] not in (0, port)
