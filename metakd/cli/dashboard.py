"""`metakd dashboard [FOLDER]`: the runs in a browser, and as one file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser
from metakd.errors import UserError

__all__ = ["dashboard_parser", "run"]

HELP = """\
usage: metakd dashboard [FOLDER] [--port N] [--open] [--export FILE]

Shows the runs below FOLDER (outputs) in a browser, also while they train: a table to sort, filter
and group, learning curves, settings against results, accuracy against cost, sample tasks, and
differences between runs. The page is served to this machine only and needs no network. Ctrl-C
stops it.

examples:
  metakd dashboard                          # then open the printed address
  metakd dashboard outputs/sweep --open
  metakd dashboard outputs --export runs.html

options:
  --port N         listen on this port (8420, or a free one if it is in use; 0: a free one)
  --open           open the page in your browser
  --export FILE    write the page and its data as one HTML file, and exit

Exit status: 0 after --export; 130 when ended by Ctrl-C; 2 if there is no such folder, no run to
export, or the port is in use."""


def dashboard_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("dashboard", HELP)
    parser.add_argument("folder", nargs="*")
    parser.add_argument("--port")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--export")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C, or write it."""
    asked = dashboard_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if len(asked.folder) > 1:
        raise UserError(
            f"dashboard takes one folder, not {len(asked.folder)}; name one that contains them all"
        )
    folder = Path(asked.folder[0] if asked.folder else "outputs").expanduser()
    if asked.export is not None:
        for name, given in (("--port", asked.port is not None), ("--open", asked.open)):
            if given:
                raise UserError(f"{name} and --export are mutually exclusive")
        return _export(folder, Path(asked.export).expanduser())
    return _serve(folder, _port(asked.port), asked.open)


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise UserError(f"--port {text}: expected a whole number from 0 to 65535")
    return int(text)


def _export(folder: Path, file: Path) -> int:
    from metakd.dashboard.export import export

    done = export(folder, file)
    size = f"{done['bytes'] / 1e6:.1f} MB"
    print(f"{done['runs']} runs in {file} ({size}, {done['pictures']} images)")
    if done["left_out"]:
        print(
            f"metakd: {done['left_out']} images were left out to keep the file small; they are "
            "in the runs' figures/",
            file=sys.stderr,
        )
    return 0


def _serve(folder: Path, port: int | None, opens: bool) -> int:
    from metakd.dashboard.board import Board
    from metakd.dashboard.server import PORT, serve_on

    board = Board(folder)
    with serve_on(port, board) as server:
        if port is None and server.server_address[1] != PORT:
            print(f"metakd: port {PORT} is in use; using another one", file=sys.stderr)
        print(f"runs of {board.watch.root}: {server.url}  (Ctrl-C ends it)", flush=True)
        if opens:
            import webbrowser

            webbrowser.open(server.url)
        server.serve_forever(poll_interval=0.2)
    return 0
