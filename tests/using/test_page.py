"""docs/using.md does what it says: its commands and its Python are carried out in order."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import metakd
from metakd.cli import main
from metakd.data.images import ImageData

PAGE = Path(__file__).resolve().parents[2] / "docs" / "using.md"


@pytest.fixture
def reader(
    tmp_path: Path, glyph_run: Path, glyphs: ImageData, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of somebody who has trained a student and has pictures of letters."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "letters").symlink_to(glyph_run)
    images, labels = glyphs.test.examples, glyphs.test.labels
    for number, name in enumerate(("ka", "mo", "ti")):
        for part, pictures in (("few", slice(0, 2)), ("new", slice(4, 8))):
            folder = tmp_path / "letters" / part / name
            folder.mkdir(parents=True)
            for i, picture in enumerate(images[labels == 2 * number][pictures]):
                Image.fromarray(picture[0].numpy()).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page(
    reader: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scope: dict[str, Any] = {}
    blocks = re.findall(
        r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert [language for language, _ in blocks].count("python") == 4
    for language, text in blocks:
        if language == "python":
            exec(text, scope)
            continue
        for line in text.splitlines():
            run_line(line, capfd)
    assert json.loads((reader / "answers.json").read_text())["classes"] == ["ka", "mo", "ti"]
    assert (reader / "answers.csv").is_file()
    assert (reader / "confusion.png").is_file()
    assert len(scope["names"]) == len(scope["strange"]) == 12
    assert scope["probabilities"].shape == (12, 3)
    assert 0 <= scope["right"] <= 1
    assert scope["again"].classes_.tolist() == ["another", "ka", "mo", "ti"]


def run_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    words, _, target = line.partition(" > ")
    program, command, *arguments = shlex.split(words)
    assert program == "metakd"
    if command == "train":  # a short one lies there
        composed = metakd.compose(*arguments)
        assert composed.run_dir == Path.cwd() / "outputs" / "letters"
        return
    assert main([command, *arguments]) == 0
    out, _ = capfd.readouterr()
    if target:
        Path(target).write_text(out)


def test_the_function_of_the_page(
    used: Callable[..., Any], made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    *_, text = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    words = ("algorithm=maml", "student=mlp", "student.width=8", "dataset=sinusoid")
    learner, recipe = made((1,), 1, *words, "pretrain=none", "warmstart=none")
    model = used(recipe, learner.state_dict(), None)
    monkeypatch.setattr(metakd, "load", lambda run: model)
    scope: dict[str, Any] = {"metakd": metakd}
    exec(text, scope)
    assert scope["learn_a_sine"]("outputs/sines") <= 1
