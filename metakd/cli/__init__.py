"""The command line: one module a subcommand; none of them imports torch before it computes."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from metakd.cli.closed_pipe import survive_closed_pipes
from metakd.cli.waiting_threads import let_waiting_threads_sleep
from metakd.errors import RunError, UserError, nearest

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "run the whole pipeline: teacher, student, evaluation",
    "evaluate": "evaluate a finished run again, also on other tasks or data",
    "compress": "make a finished run's student smaller: fewer channels, integers",
    "predict": "adapt a trained student to examples of new classes and classify images",
    "export": "write a trained student for another runtime: ONNX, OpenVINO, ExecuTorch",
    "compare": "compare runs: settings, accuracy, paired differences, cost",
    "ablate": "what meta-learning and distillation each contribute: a 2 x 2 ablation",
    "dashboard": "show runs in a browser, also while they train, or as one HTML file",
    "reproduce": "repeat a run and check that every figure is the same",
    "list": "list the choices of each configuration group",
    "copy": "copy a choice's file into your own configuration folder, to edit",
    "doctor": "check this machine: versions, devices, datasets, login",
    "completion": "print a shell completion script",
}
"""Subcommands (modules of this package with a function `run`) and what they do."""

INTERRUPTED = 130
NOTE = "metakd.log: "
"""Prefix of the note that names the log with an exception's traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1, 2 or 130."""
    # Not list(...): once imported, the module `list` of this package hides the builtin here.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    _show_what_can_be_shown()
    let_waiting_threads_sleep()
    if threading.current_thread() is not threading.main_thread():
        return guarded(lambda: _dispatch(words))
    signal.signal(signal.SIGTERM, _interrupt)
    if arguments is not None:
        return guarded(lambda: _dispatch(words))
    survive_closed_pipes()
    # A late Ctrl-C must not make a finished run look killed: once all is done, it ends the process
    # with the status that is due. What is registered first is called last: after that Python
    # restores the default handlers, unless signals are ignored.
    atexit.register(_on_signals, signal.SIG_IGN)
    status = guarded(lambda: _dispatch(words))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    _on_signals(lambda number, frame: os._exit(status))
    return status


def _show_what_can_be_shown() -> None:
    """Print `?` for characters that the terminal's encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not a text file, or closed
            if (stream.encoding or "").lower().replace("-", "") != "utf8":
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _on_signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set the handler of SIGINT and SIGTERM; ignored signals stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, action)


def guarded(action: Callable[[], int]) -> int:
    """Call `action`; turn any exception into one line on standard error and an exit status."""
    try:
        return action()
    except UserError as error:
        _complain(str(error).replace("\n", " "))
        return 2
    except RunError as error:
        _complain(str(error).replace("\n", " "))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except Exception as error:  # one line and status 1; the traceback is kept
        logs = [n for n in getattr(error, "__notes__", ()) if n.startswith(NOTE)]
        if not logs:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        where = f" (traceback in {logs[0].removeprefix(NOTE)})" if logs else ""
        reason = " ".join(str(error).split())
        _complain(f"unexpected {type(error).__name__}: {reason}{where}")
        return 1


def _complain(line: str) -> None:
    """Print a line on standard error; errors in writing it are ignored."""
    with contextlib.suppress(OSError):
        print("metakd:", line, file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _dispatch(words: list[str]) -> int:
    command = words[0] if words else "--help"
    if command == "help" and len(words) > 1:
        command, words = words[1], [words[1], "--help"]
    elif words[1:] == ["help"] and not os.path.exists("help"):
        words = [command, "--help"]
    if command in ("--help", "-h", "help"):
        print(_help())
        return 0
    if command in ("--version", "-V", "version"):
        from metakd import __version__

        print(f"metakd {__version__}")
        return 0
    if command not in COMMANDS:
        known = ["--help", "--version"] if command.startswith("-") else COMMANDS
        hint = nearest(command, known)
        if not hint:
            hint = f" Choose one of: {', '.join(COMMANDS)}."
            if "=" in command:
                hint = f" Did you mean 'metakd train {command}'?"
        kind = "option" if command.startswith("-") else "command"
        raise UserError(f"{command}: no such {kind}.{hint}")
    module = importlib.import_module(f"metakd.cli.{command}")
    status: int = module.run(words[1:])
    return status


def _help() -> str:
    lines = [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "MetaKD: small networks that learn new classes from a few examples, taught by a large",
            "one.",
            "",
            "usage: metakd COMMAND [ARGUMENTS]      metakd COMMAND --help      metakd --version",
            "",
            *lines,
            "",
            "example: metakd train                  # the default run, minutes on a CPU",
            "         metakd train dataset=omniglot algorithm=maml task=5way_5shot",
        ]
    )
