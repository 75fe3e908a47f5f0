"""The picture of an adversarial game: its panels hold what was logged, and nothing is made up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metakd.reports import game
from metakd.reports.game import adversarial_game

pytestmark = pytest.mark.slow  # drawing takes most of the time

COURSE: dict[str, list[float]] = {
    "adversarial/discriminator_accuracy": [0.5, 0.9, 0.6],
    "adversarial/discriminator_loss": [0.69, 0.4, 0.6],
    "adversarial/generator_loss": [0.7, 1.2, 0.8],
    "adversarial/loss": [0.7, 1.2, 0.8],
    "adversarial/agreement": [0.4, 0.6, 0.8],
    "adversarial/kl": [0.9, 0.5, 0.2],
    "adversarial/offset_norm": [0.3, 0.4, 0.5],
    "adversarial/offset_spread": [0.6, 0.5, 0.4],
    "student/accuracy": [0.3, 0.4, 0.5],
    "teacher/accuracy": [0.4, 0.6, 0.7],
}
PANELS = [
    "discriminator is right",
    "losses",
    "accuracy on the query set",
    "teacher and student agree",
    "KL(teacher || student)",
    "generator's offsets",
    "",  # the spread, under the norm
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, still as objects."""
    figures: list[Any] = []

    def keep(figure: Any, out: Path, save: Any = game.save) -> Path:
        figures.append(figure)
        return save(figure, out)

    monkeypatch.setattr(game, "save", keep)
    return figures


def write(path: Path, metrics: dict[str, list[float]], stage: str = "meta_train") -> Path:
    lines = []
    for step in range(max((len(v) for v in metrics.values()), default=0)):
        now = {k: v[step] for k, v in metrics.items() if step < len(v)}
        lines.append(json.dumps({"stage": stage, "step": 10 * step, "time": 0, "metrics": now}))
    path.write_text("\n".join(lines) + "\n")
    return path


def lines_of(axes: Any) -> dict[str, Any]:
    """The courses (of three points) in a panel, by their names."""
    courses = [line for line in axes.lines if len(line.get_xdata()) == 3]
    return {line.get_label(): pytest.approx(list(line.get_ydata())) for line in courses}


def test_every_panel_shows_what_was_logged(tmp_path: Path, drawn: list[Any]) -> None:
    out = tmp_path / "new" / "game.png"
    assert adversarial_game(write(tmp_path / "metrics.jsonl", COURSE), out) == out
    axes = drawn[0].axes
    assert [a.get_title() for a in axes] == PANELS
    found = [lines_of(a) for a in axes]
    assert found[0] == {"discriminator": [50.0, 90.0, 60.0]}
    assert found[1] == {
        "$L_D$ discriminator": [0.69, 0.4, 0.6],
        "$L_G$ generator": [0.7, 1.2, 0.8],
    }
    assert found[2] == {"teacher": [40.0, 60.0, 70.0], "student": [30.0, 40.0, 50.0]}
    assert found[3] == {"agreement": [40.0, 60.0, 80.0]}
    assert found[4] == {"KL": [0.9, 0.5, 0.2]}
    assert found[5] == {"norm": [0.3, 0.4, 0.5]}
    assert found[6] == {"relative spread": [0.6, 0.5, 0.4]}
    assert all(a.get_xlim() == (0, 20) for a in axes)
    pixels = np.asarray(Image.open(out).convert("RGB"))
    for color in ("#8856a7", "#2a9d72", "#0b6bb3", "#4d4d4d"):
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(-1).any(), color


@pytest.mark.parametrize(
    ("chance", "line", "text"),
    [(None, 50.0, "50 %: cannot tell"), (0.25, 25.0, "25 %: cannot tell")],
)
def test_a_guess_is_marked(
    chance: float | None, line: float, text: str, tmp_path: Path, drawn: list[Any]
) -> None:
    course = COURSE | ({} if chance is None else {"adversarial/discriminator_chance": [chance] * 3})
    adversarial_game(write(tmp_path / "metrics.jsonl", course), tmp_path / "game.png")
    axes = drawn[0].axes[0]
    (marked,) = [x for x in axes.lines if len(x.get_xdata()) == 2]
    assert list(marked.get_ydata()) == [line, line]
    assert [t.get_text() for t in axes.texts] == [text]
    low, high = axes.get_ylim()
    assert low < line < high


def test_what_was_not_logged_has_no_panel(tmp_path: Path, drawn: list[Any]) -> None:
    course = {k: v for k, v in COURSE.items() if "discriminator" not in k and "spread" not in k}
    adversarial_game(write(tmp_path / "metrics.jsonl", course), tmp_path / "game.png")
    assert [a.get_title() for a in drawn[0].axes] == PANELS[1:6]
    assert list(lines_of(drawn[0].axes[0])) == ["$L_G$ generator"]


@pytest.mark.parametrize("points", [3, 400])
def test_a_long_course_has_running_means(points: int, tmp_path: Path, drawn: list[Any]) -> None:
    course = {k: [v[0] + 0.001 * (i % 7) for i in range(points)] for k, v in COURSE.items()}
    adversarial_game(write(tmp_path / "metrics.jsonl", course), tmp_path / "game.png")
    drawn_lines = [x for x in drawn[0].axes[3].lines if len(x.get_xdata()) == points]
    assert len(drawn_lines) == (1 if points == 3 else 2)


def test_steps_are_whole_and_named_below(tmp_path: Path, drawn: list[Any]) -> None:
    """Whatever stands lowest in its column says what its axis is; four panels make a square."""
    short = {k: v[:2] for k, v in COURSE.items()}
    for metrics, named in (
        (short, {*PANELS[3:5], ""}),
        ({k: v for k, v in short.items() if "discriminator" not in k and "generator" not in k},
         {PANELS[4], ""}),
    ):  # fmt: skip
        adversarial_game(write(tmp_path / "metrics.jsonl", metrics), tmp_path / "game.png")
        axes = drawn.pop().axes
        assert {a.get_title() for a in axes if a.get_xlabel() == "meta-iteration"} == named
        assert all(float(t).is_integer() for a in axes for t in a.get_xticks())


def test_no_game_no_picture(tmp_path: Path) -> None:
    out = tmp_path / "game.png"
    assert adversarial_game(tmp_path / "none.jsonl", out) is None
    plain = {"loss": [3.0, 2.0], "student/accuracy": [0.2, 0.3]}
    assert adversarial_game(write(tmp_path / "plain.jsonl", plain), out) is None
    once = {k: v[:1] for k, v in COURSE.items()}
    assert adversarial_game(write(tmp_path / "once.jsonl", once), out) is None
    alone = write(tmp_path / "alone.jsonl", COURSE, stage="meta_train_alone")
    assert adversarial_game(alone, out) is None
    assert not out.exists()


def test_no_global_state_is_left(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    adversarial_game(write(tmp_path / "metrics.jsonl", COURSE), tmp_path / "game.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
