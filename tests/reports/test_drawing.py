"""The look of figures: on white whatever the settings, and names that anybody chose."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from metakd.reports.drawing import canvas, drawing, plain, save, tidy


@drawing
def _draw(out: Path, title: str = "title") -> Path:
    figure = canvas(2, 2)
    tidy(figure.subplots(), title=title)
    return save(figure, out)


def test_a_dark_style_changes_nothing(tmp_path: Path) -> None:
    light = _draw(tmp_path / "light.png")
    before = dict(mpl.rcParams)
    with mpl.rc_context({"axes.facecolor": "black", "savefig.facecolor": "black", "font.size": 30}):
        dark = _draw(tmp_path / "dark.png")
        assert mpl.rcParams["axes.facecolor"] == "black"  # the caller's own stay
    assert dict(mpl.rcParams) == before
    assert light.read_bytes() == dark.read_bytes()
    pixels = np.asarray(Image.open(light))
    assert (pixels[2, 2] == 255).all()
    assert (pixels[130, 130] == 255).all()


def test_letters_without_a_font_are_drawn_silently(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _draw(tmp_path / "a.png", "\U00012000 你")


def test_names_become_text_that_can_be_drawn() -> None:
    assert plain("café $x$") == "café $x$"
    assert plain("a\tb\udce9\u202ec") == "a�b��c"
    assert plain("abcdefghijklmno", 9) == "abcd…lmno"
    assert plain("abcdefghi", 9) == "abcdefghi"
    assert len(plain("x" * 100, 26)) == 26
