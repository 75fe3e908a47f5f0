"""`metakd dashboard`: what it prints, serves, writes and refuses; no torch for any of it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from metakd.cli import main
from metakd.cli.completion import candidates
from metakd.dashboard.server import serve_on

Made = Callable[..., Path]


@pytest.fixture
def outputs(made_up: Made, tmp_path: Path) -> Path:
    for seed in (0, 1):
        made_up(tmp_path / "outputs" / str(seed), seed=seed)
    return tmp_path / "outputs"


def test_export(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page with spaces.html"
    assert main(["dashboard", str(outputs), "--export", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"2 runs in {file} (")
    assert err == ""
    assert '"seed":1' in file.read_text()


def test_the_folder_is_outputs_unless_given(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(outputs.parent)
    assert main(["dashboard", "--export", "page.html"]) == 0
    assert capsys.readouterr().out.startswith("2 runs in page.html")


def test_pictures_that_were_left_out_are_said(
    outputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (outputs / "0" / "figures").mkdir()
    (outputs / "0" / "figures" / "a.png").write_bytes(b"12345")
    monkeypatch.setattr("metakd.dashboard.export.MOST_PICTURES", 4)
    assert main(["dashboard", str(outputs), "--export", str(tmp_path / "page.html")]) == 0
    assert "1 images were left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], "'nowhere' does not exist"),
        (["outputz"], "Did you mean 'outputs'?"),
        (["file"], "'file' is a file"),
        (["outputs", "empty"], "dashboard takes one folder, not 2"),
        (["outputs", "--port", "x"], "--port x: expected a whole number from 0 to 65535"),
        (["outputs", "--port", "65536"], "--port 65536: expected"),
        (["outputs", "--port", "-1"], "expected"),
        (["outputs", "--port"], "--port"),
        (["outputs", "--prot", "80"], "--port"),
        (["outputs", "--export"], "--export"),
        (
            ["outputs", "--export", "page.html", "--port", "80"],
            "--port and --export are mutually exclusive",
        ),
        (
            ["outputs", "--export", "page.html", "--open"],
            "--open and --export are mutually exclusive",
        ),
        (["empty", "--export", "page.html"], "there is no run in"),
        (["outputs", "--export", "no/page.html"], "--export 'no/page.html' cannot be written"),
        (["outputs", "--export", "empty"], "--export 'empty' cannot be written"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(outputs.parent)
    Path("empty").mkdir()
    Path("file").write_text("")
    assert main(["dashboard", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.count("\n") == 1
    assert not Path("page.html").exists()


def test_a_taken_port_is_one_line(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metakd.dashboard.board import Board

    with serve_on(0, Board(outputs)) as server:
        port = str(server.server_address[1])
        assert main(["dashboard", str(outputs), "--port", port]) == 2
    err = capsys.readouterr().err
    assert f"--port {port} cannot be listened on" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_told_to_end(outputs: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "metakd", "dashboard", str(outputs), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have us ignore Ctrl-C in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"runs of {outputs}: http://127.0.0.1:")
        address = urlsplit(line.split(": ", 1)[1].split()[0])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        connection.request("GET", "/api/runs")
        assert connection.getresponse().status == 200
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "metakd: interrupted\n")


def test_open(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(
        "metakd.dashboard.server.DashboardServer.serve_forever", lambda *_, **__: None
    )
    assert main(["dashboard", str(outputs), "--port", "0"]) == 0
    assert opened == []
    assert main(["dashboard", str(outputs), "--port", "0", "--open"]) == 0
    assert opened[0].startswith("http://127.0.0.1:")


def test_no_torch_is_imported(outputs: Path, tmp_path: Path) -> None:
    words = ["dashboard", str(outputs), "--export", str(tmp_path / "page.html")]
    code = (
        "import sys, metakd.cli, metakd.dashboard.server\n"
        f"assert metakd.cli.main({words!r}) == 0\n"
        "assert not {'torch', 'hydra', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--help"]) == 0
    assert "metakd dashboard outputs/sweep --open" in capsys.readouterr().out
    assert "dashboard" in candidates("metakd dash")
    assert candidates("metakd dashboard --ex") == ["--export"]
    assert candidates("metakd dashboard outputs/") == []
