"""Paired differences over tasks and seeds, worked out by hand; tasks are checked before."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.comparing.gather import Run, read
from metakd.comparing.pairing import RowPair, pair_rows

Made = Callable[..., Path]
A = [0.6, 0.8, 0.7, 0.9]
B = [0.5, 0.6, 0.6, 0.7]
"""Differences 0.1, 0.2, 0.1, 0.2: mean 0.15, s = 0.1 / √3."""
HALF = 3.182446 * 0.1 / math.sqrt(3) / 2
"""t(3) · s / √4"""
P = 1 - 2 * (math.atan(3) + 0.3) / math.pi
"""t = 0.15 / (s / 2) = 3√3, so θ = atan(t / √3) = atan 3; P(|T| <= t) = 2/π · (θ + sin θ cos θ)."""


@pytest.fixture
def run(made_up: Made, tmp_path: Path) -> Callable[..., Run]:
    def make(name: str, values: list[float] = A, **how) -> Run:
        return read(made_up(tmp_path / name, {"student": {1: values}}, **how))

    return make


def only(found: tuple[list[RowPair], list]) -> RowPair:
    (pair,), apart = found
    assert apart == []
    return pair


def test_a_pair_of_runs_by_hand(run: Callable[..., Run]) -> None:
    pair = only(pair_rows([((run("a"),), (run("b", B),))], "student", [1]))
    assert (pair.pairs[0].tasks, pair.pairs[0].measure, pair.is_over_seeds) == (
        4,
        "accuracy",
        False,
    )
    assert pair.difference == pytest.approx(0.15, abs=1e-15)
    assert pair.half == pytest.approx(HALF, abs=1e-6)
    assert pair.p == pair.p_adjusted == pytest.approx(P, abs=1e-12)
    assert pair.p == pytest.approx(0.0138, abs=1e-4)
    assert pair.better == pair.difference


def test_single_runs_of_different_seeds_are_two_models(run: Callable[..., Run]) -> None:
    pair = only(pair_rows([((run("a", seed=1),), (run("b", B, seed=2),))], "student", [1]))
    assert pair.difference == pytest.approx(0.15)


def test_over_seeds_by_hand(run: Callable[..., Run]) -> None:
    # Mean differences of the seeds 0.1, 0.2, 0.3: mean 0.2, s = 0.1, t(2) · s / √3 = 0.24841.
    base = tuple(run(f"b{s}", [0.5, 0.4], seed=s) for s in (1, 2, 3))
    row = tuple(
        run(f"a{s}", [0.5 + d + 0.05, 0.4 + d - 0.05], seed=s)
        for s, d in ((1, 0.1), (2, 0.2), (3, 0.3))
    )
    pair = only(pair_rows([(row, base)], "student", [1]))
    assert [one.difference for one in pair.pairs] == pytest.approx([0.1, 0.2, 0.3])
    assert [(one.run.seed, one.baseline.seed) for one in pair.pairs] == [(1, 1), (2, 2), (3, 3)]
    assert (pair.difference, pair.is_over_seeds) == (pytest.approx(0.2), True)
    assert pair.half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    # t = 2√3 on two degrees: p = 1 - t / √(t² + 2) = 1 - √(12 / 14).
    assert pair.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)


def test_seeds_are_matched(run: Callable[..., Run]) -> None:
    base = tuple(run(f"b{s}", B, seed=s) for s in (1, 2))
    row = tuple(run(f"a{s}", seed=s) for s in (2, 3))
    (pair,), (apart,) = pair_rows([(row, base)], "student", [1])
    assert [(one.run.seed, one.baseline.seed) for one in pair.pairs] == [(2, 2)]
    assert not pair.is_over_seeds
    assert apart.partly
    assert apart.reason == "no run of that seed on the other side: seed 1, 3"
    assert [r.path.name for r in apart.runs] == ["a3", "b1"]
    found, (apart,) = pair_rows([(row[1:], base)], "student", [1])
    assert (found, apart.reason) == ([], "no seed in common: 1, 2 and 3")


def test_holm_corrects_for_the_number_of_pairs(run: Callable[..., Run]) -> None:
    base = (run("b", B),)
    same = (run("c", [0.6, 0.5, 0.7, 0.6]),)  # differences 0.1, -0.1, 0.1, -0.1: t = 0
    pairs, _ = pair_rows([((run("a"),), base), (same, base)], "student", [1])
    assert [pair.p for pair in pairs] == pytest.approx([P, 1.0])
    assert [pair.p_adjusted for pair in pairs] == pytest.approx([2 * P, 1.0])
    assert [pair.pairs[0].p_adjusted for pair in pairs] == pytest.approx([2 * P, 1.0])


def test_a_smaller_error_is_better(made_up: Made, tmp_path: Path) -> None:
    runs = [
        read(made_up(tmp_path / n, {"student": {5: v}}, measure="mse", entry={"ways": None}))
        for n, v in (("a", B), ("b", A))
    ]
    pair = only(pair_rows([((runs[0],), (runs[1],))], "student", [5]))
    assert (pair.difference, pair.better) == (pytest.approx(-0.15), pytest.approx(0.15))


def test_the_order_of_lines_does_not_matter(run: Callable[..., Run]) -> None:
    a, b = run("a"), run("b", B)
    path = a.path / "episodes.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(rows)]) + "\n")
    pair = only(pair_rows([((a,), (b,))], "student", [1]))
    assert pair.half == pytest.approx(HALF, abs=1e-6)


def test_other_shots_are_other_tasks(made_up: Made, tmp_path: Path) -> None:
    one = read(made_up(tmp_path / "a", {"student": {1: A}}))
    five = read(made_up(tmp_path / "b", {"student": {5: A}}))
    both = read(made_up(tmp_path / "c", {"student": {5: B, 1: B}}))
    found, (apart,) = pair_rows([((one,), (five,))], "student", [1, 5])
    assert (found, apart.reason) == ([], "other shots: measured with 5 and 1")
    pairs, _ = pair_rows([((one,), (both,)), ((five,), (both,))], "student", [1, 5])
    assert [pair.pairs[0].shots for pair in pairs] == [1, 5]


HEAD = "model,shots,steps,batchnorm,task,accuracy\n"


def lines(*values: str) -> str:
    return HEAD + "".join(f"student,1,,inductive,{v}\n" for v in values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "episodes.csv cannot be read (no such file or directory)"),
        ("", "episodes.csv is damaged (no column 'model')"),
        (HEAD, "episodes.csv has 0 tasks, results.json 4"),
        (lines("0,0.6", "1,0.8", "2,0.7"), "episodes.csv has 3 tasks, results.json 4"),
        (lines("0,0.6", "1,0.8", "2,0.7", "3,0.1"), "does not belong to results.json (mean"),
        (lines("0,0.6", "1,0.8", "2,0.7", "2,0.9"), "line 5: task 2 stands there twice"),
        (lines("0,0.6", "1,0.8", "2,0.7", "3,nan"), "line 5: nan is no figure"),
        (lines("0,0.6", "1,0.8", "2,0.7", "3"), "line 5 has 5 of 6 columns"),
        (lines("0,0.6", "1,0.8", "2,0.7", "4,0.9"), "other task numbers in episodes.csv of"),
        (lines("0,0.6", "1,0.8", "2,0.7", "3,much"), "episodes.csv is damaged"),
    ],
    ids=range(10),
)
def test_tasks_that_cannot_be_paired_are_not(
    run: Callable[..., Run], content: str | None, reason: str
) -> None:
    a, b = run("a"), run("b", B)
    if content is None:
        (a.path / "episodes.csv").unlink()
    else:
        (a.path / "episodes.csv").write_text(content)
    found, (apart,) = pair_rows([((a,), (b,))], "student", [1])
    assert found == []
    assert reason in apart.reason
    assert str(a.path) in apart.reason
    assert apart.runs == (a, b)


def test_a_model_that_was_not_evaluated(run: Callable[..., Run]) -> None:
    found, (apart,) = pair_rows([((run("a"),), (run("b"),))], "student_alone", [1])
    assert found == []
    assert "has no figures of the student alone" in apart.reason


def test_teachers_that_all_seeds_share(made_up: Made, tmp_path: Path) -> None:
    """Two networks: their difference is over tasks, and has no zero spread over three seeds."""

    def row(name: str, values: list[list[float]]) -> tuple[Run, ...]:
        return tuple(
            read(
                made_up(
                    tmp_path / f"{name}{i}",
                    {"student": {1: [*A[:-1], 0.1 * i]}, "teacher": {1: own}},
                    seed=i,
                    info={"teacher": f"{name}{own}"},
                )
            )
            for i, own in enumerate(values)
        )

    base = row("b", [B, B, B])
    pair = only(pair_rows([(row("a", [A, A, A]), base)], "teacher", [1]))
    assert not pair.is_over_seeds
    assert (pair.pairs[0].run.seed, pair.pairs[0].baseline.seed) == (0, 0)
    assert (pair.half, pair.p) == (pytest.approx(HALF, abs=1e-6), pytest.approx(P, abs=1e-12))
    pair = only(pair_rows([(row("c", [A, A, B]), base)], "teacher", [1]))
    assert [one.run.seed for one in pair.pairs] == [0, 2]
    pair = only(pair_rows([(row("d", [A, A, A]), row("e", [B, B, B]))], "student", [1]))
    assert len(pair.pairs) == 3


def test_seeds_that_decide_nothing(run: Callable[..., Run]) -> None:
    """As of networks that were not trained: two networks, and no spread over three seeds."""
    row, base = (
        tuple(run(f"{name}{seed}", values, seed=seed) for seed in range(3))
        for name, values in (("a", A), ("b", B))
    )
    pair = only(pair_rows([(row, base)], "student", [1]))
    assert not pair.is_over_seeds
    assert (pair.half, pair.p) == (pytest.approx(HALF, abs=1e-6), pytest.approx(P, abs=1e-12))
    # Seeds of which the mean differences alone are the same do decide something.
    shifted = (run("s0", A, seed=0), run("s1", [*A[1:], A[0]], seed=1))
    pair = only(pair_rows([(shifted, base[:2])], "student", [1]))
    # s is half of one answer in 300: t = 0.15 · 600 · √2.
    assert pair.is_over_seeds
    assert pair.half == pytest.approx(12.7062 / 600 / math.sqrt(2), rel=1e-5)
    assert pair.p == pytest.approx(1 - 2 / math.pi * math.atan(90 * math.sqrt(2)), rel=1e-6)
    # One whose seeds do decide something has its spread over them.
    others = tuple(run(f"c{seed}", [*A[:-1], 0.1 * seed], seed=seed) for seed in range(3))
    assert only(pair_rows([(others, base)], "student", [1])).is_over_seeds
