"""`metakd list`: every choice with one line, also a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.config.locate import Choices, description


def test_every_choice_is_listed_with_a_description(metakd) -> None:
    answer = metakd("list")
    choices = Choices()
    for group in choices.groups():
        for name in choices.of(group):
            (line,) = (x for x in answer.out.splitlines() if x.split()[:1] == [f"{group}={name}"])
            assert len(line.split()) > 2, f"{group}/{name}.yaml begins with no '# description'"


def test_one_group(metakd) -> None:
    answer = metakd("list", "student")
    assert answer.status == 0
    assert all(line.startswith("student=") for line in answer.out.splitlines())
    assert metakd("list", "architecture").out.startswith("architecture=")


def test_unknown_group(metakd) -> None:
    answer = metakd("list", "algoritm")
    assert answer.status == 2
    assert answer.err == "metakd: algoritm: no such group. Did you mean 'algorithm'?\n"


def test_own_choices(metakd, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("# My letters\n_target_: a.B\n")
    out = metakd("list", "dataset", "--config-dir", str(tmp_path)).out
    assert any(x.split() == ["dataset=mine", "My", "letters"] for x in out.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# one\n# two\n", "one"),
        ("# @package _global_\n# row\n", "row"),
        ("\n#two\n", "two"),
        ("name: x\n# late\n", ""),
        ("", ""),
    ],
)
def test_description(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert description(file) == expected


def test_what_a_choice_brings_is_listed(metakd) -> None:
    lines = metakd("list", "algorithm").out.splitlines()
    (line,) = (x for x in lines if x.startswith("algorithm=adversarial"))
    assert line.endswith("(brings distill=kd)")
    (line,) = (x for x in lines if x.startswith("algorithm=protonet"))
    assert "brings" not in line
