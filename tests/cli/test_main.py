"""The dispatcher: help, version, unknown commands, exit statuses; no torch for any of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from metakd import __version__
from metakd.cli import COMMANDS


def test_help_names_the_commands(metakd) -> None:
    answer = metakd("--help")
    assert answer.status == 0
    assert all(f"\n  {command} " in answer.out for command in COMMANDS)
    assert metakd().out == answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(metakd, command: str) -> None:
    answer = metakd(command, "--help")
    assert answer.status == 0
    assert f"usage: metakd {command}" in answer.out
    assert "example" in answer.out


def test_version(metakd) -> None:
    assert metakd("--version").out == f"metakd {__version__}\n"


@pytest.mark.parametrize("words", [["version"], ["-V"]])
def test_version_in_other_words(metakd, words: list[str]) -> None:
    assert metakd(*words).out == f"metakd {__version__}\n"


@pytest.mark.parametrize("words", [["help", "train"], ["train", "help"], ["help", "list"]])
def test_help_in_other_words(metakd, words: list[str]) -> None:
    (command,) = {*words} - {"help"}
    assert metakd(*words).out == metakd(command, "--help").out
    assert metakd("help").out == metakd("--help").out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "maml"], "Did you mean 'algorithm=maml'?"),
        (["train", "algorithm", "maml"], "Did you mean 'algorithm=maml'?"),
        (["train", "--algorithm", "maml"], "type algorithm=maml"),
        (["train", "--algorithm=maml"], "type algorithm=maml"),
        (["train", "--resume", "outputs/a"], "type resume=outputs/a"),
        (["train", "--meta-train.lr", "--cfg", "job"], "type meta_train.lr=VALUE"),
        (["train", "--cgf", "job"], "Did you mean '--cfg'?"),
        (["ablate", "--seed=3"], "type seed=3"),
        (["list", "--algorithm"], "no such option"),
    ],
)
def test_settings_typed_as_options_or_words(metakd, words: list[str], hint: str) -> None:
    answer = metakd(*words)
    assert answer.status == 2
    assert hint in answer.err
    assert answer.err.count("\n") == 1


def test_an_encoding_without_our_letters() -> None:
    surroundings = os.environ | {"PYTHONIOENCODING": "cp1252"}
    for words, status in ((["list"], 0), (["train", "name=${τ}"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "metakd", *words], capture_output=True, env=surroundings
        )
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"?" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "Did you mean 'train'?"),
        ("--hlep", "Did you mean '--help'?"),
        ("algorithm=maml", "Did you mean 'metakd train algorithm=maml'?"),
        ("xyzzy", "Choose one of: train"),
    ],
)
def test_unknown_command(metakd, word: str, hint: str) -> None:
    answer = metakd(word)
    assert answer.status == 2
    assert answer.err.count("\n") == 1
    assert hint in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["copy", "algorithm=mmal"],
        ["train", "--help"],
        ["train", "--cgf", "job"],
        ["train", "algoritm=maml"],
        ["train", "--cfg", "job"],
        ["train", "-m", "algoritm=maml,anil"],
        ["evaluate", "/no/such/run"],
    ],
)
def test_neither_torch_nor_pydantic_is_imported(words: list[str]) -> None:
    late = "{'torch', 'pydantic'}"
    code = (
        f"import sys, metakd.cli; metakd.cli.main({words!r}); assert not {late} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "metakd", "trian"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "metakd: trian: no such command. Did you mean 'train'?\n"


LATE = """
import os, signal, sys
from metakd.cli import main

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.{signal})

when_modules_are_taken_down = Late()
sys.argv = ["metakd", {word!r}]
status = main()
if {at_once}:
    os.kill(os.getpid(), signal.{signal})
sys.exit(status)
"""


@pytest.mark.parametrize("at_once", [True, False], ids=["when done", "while Python ends"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("word", "status"), [("--version", 0), ("xyzzy", 2)])
def test_a_late_signal_changes_no_status(name: str, word: str, status: int, at_once: bool) -> None:
    code = LATE.format(signal=name, word=word, at_once=at_once)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == status
    assert __version__ in done.stdout if status == 0 else "xyzzy" in done.stderr
