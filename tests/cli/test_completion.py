"""`metakd completion`: scripts that shells accept, and the words they offer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metakd.cli.completion import SCRIPTS, candidates
from metakd.config.locate import conf_folder

NORMS = ("batch", "group", "layer", "none")


def named(folder: str, start: str) -> list[str]:
    """Return the names of files in a folder of conf/ that begin so."""
    return sorted(file.stem for file in (conf_folder() / folder).glob(f"{start}*.yaml"))


PROTONETS = [f"algorithm={name}" for name in named("algorithm", "protone")]
RESNETS = [f"student={name}" for name in named("architecture", "resnet")]


def test_files_that_begin_so() -> None:
    assert "algorithm=protonet" in PROTONETS
    assert {"student=resnet12", "student=resnet8"} <= set(RESNETS)
    assert "maml" in named("algorithm", "mam")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metakd tr", ["train"]),
        ("metakd list algo", ["algorithm"]),
        ("metakd completion z", ["zsh"]),
        ("metakd train --inf", ["--info"]),
        ("metakd train algo", ["algorithm.", "algorithm="]),
        ("metakd train seed=1 algorithm=protone", PROTONETS),
        ("metakd train student=resnet", RESNETS),
        ("metakd train task.sho", ["task.shots="]),
        ("metakd train task.shots=", ["task.shots=1"]),
        ("metakd train student.norm=", [f"student.norm={n}" for n in NORMS]),
        ("metakd train student.norm=gr", ["student.norm=group"]),
        ("metakd train algorithm.supports.ad", []),
        ("metakd train distill.ne", []),
        ("metakd evaluate out", []),
        ("metakd abl", ["ablate"]),
        ("metakd ablate --mark", ["--markdown"]),
        ("metakd ablate algorithm=protone", PROTONETS),
        ("metakd evaluate out algorithm=protone", PROTONETS),
        ("metakd rep", ["reproduce"]),
        ("metakd reproduce --ca", ["--cached-teacher"]),
        ("metakd reproduce out", []),
        ("metakd evaluate out --im", ["--images"]),
        ("metakd copy algo", ["algorithm="]),
        ("metakd copy algorithm=protone", PROTONETS),
        ("metakd copy algorithm=maml --fo", ["--force"]),
        ("metakd nonsense --fo", []),
    ],
)
def test_candidates(line: str, expected: list[str]) -> None:
    assert sorted(candidates(line)) == sorted(expected)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_read_by_their_shell(metakd, shell: str) -> None:
    answer = metakd("completion", shell)
    assert answer.status == 0
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    subprocess.run([shell, "-n"], input=answer.out, text=True, check=True)


def test_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "metakd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m metakd "$@"\n')
    program.chmod(0o755)
    script = (
        f'{SCRIPTS["bash"]}\nCOMP_LINE="metakd train algorithm=mam"; COMP_POINT=${{#COMP_LINE}}\n'
        '_metakd; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert sorted(done.stdout.split()) == named("algorithm", "mam"), done.stderr


def test_hydra_s_own_query(metakd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "metakd train algorithm=mam")
    offered = metakd("train", "-sc", "query=bash").out.split()
    assert sorted(offered) == [f"algorithm={name}" for name in named("algorithm", "mam")]


def test_unknown_shell(metakd) -> None:
    answer = metakd("completion", "bahs")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "Did you mean 'bash'?" in answer.err
