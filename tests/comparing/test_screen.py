"""The tables on a terminal: what differs names the rows, the rest is said once, the width fits."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from metakd.comparing.cells import Column, Report
from metakd.comparing.compare import Comparison, compare
from metakd.comparing.formats import print_report
from metakd.comparing.layout import Filled, laid_out, wrapped
from metakd.comparing.naming import row_names, short_names
from metakd.comparing.screen import screen_report

Made = Callable[..., Path]
CHOICES = (("protonet", "none"), ("protonet", "kd"), ("maml", "kd"))


def printed(comparison: Comparison, width: int) -> str:
    text = io.StringIO()
    print_report(screen_report(comparison, width), Console(file=text, width=width))
    return text.getvalue()


def tables(report: Report) -> list[list[str]]:
    return [[column.header.replace("\n", " ") for column in t.columns] for t in report.tables]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def three(made_up: Made, runs: Path) -> Comparison:
    """Three ways of training, two seeds each; student, its twin and one teacher."""
    for number, (algorithm, distill) in enumerate(CHOICES):
        for seed in (0, 1):
            path = runs / f"{number}_{seed}"
            if path.exists():
                continue
            base = 0.5 + 0.1 * number
            figures = {"student": {1: [base, base + 0.1 + 0.02 * seed, base]}}
            figures |= {"teacher": {1: [0.9, 0.9, 0.8]}} if distill == "kd" else {}
            made_up(
                path,
                figures,
                seed=seed,
                settings={
                    "algorithm.name": algorithm,
                    "distill.name": distill,
                    "meta_train.lr": 0.1 if distill == "kd" else 0.2,
                },
                info={"teacher": "e" * 64},
                cost={"parameters": 7184, "macs": 5e5 + 100 * number, "latency_ms": 0.2},
            )
    return compare([runs])


def test_rows_are_named_by_what_differs_and_the_rest_is_said_once(three: Comparison) -> None:
    main, pairs = screen_report(three, 120).tables
    assert [row[0] for row in main.rows] == ["maml kd", "protonet kd", "protonet none"]
    assert tables(screen_report(three, 120))[0] == [
        *("run", "meta_train.lr", "student 1-shot", "teacher 1-shot"),
        *("multiply-adds", "folder"),
    ]
    assert main.above == (
        "all: student=conv4_small, teacher=conv4, seeds 0, 1, parameters 7,184, latency (ms) 0.200"
    )
    assert [row[-1] for row in main.rows] == ["2_0, 2_1", "1_0, 1_1", "0_0, 0_1"]
    # Multiply-adds differ and have a front; parameters do not, whose star would say nothing.
    assert [row[-2] for row in main.rows] == ["500,200*", "500,100*", "500,000*"]
    assert len(pairs.rows) == 3


def test_a_table_of_all_pairs_where_rows_are_few(three: Comparison, made_up: Made) -> None:
    assert three.baseline is None
    pairs = screen_report(three, 100).tables[-1]
    assert pairs.title == (
        "differences on the same tasks (points); ± and p corrected for 3 comparisons"
    )
    assert [row[:3] for row in pairs.rows] == [
        ("maml kd", "protonet kd", "2 seeds"),
        ("maml kd", "protonet none", "2 seeds"),
        ("protonet kd", "protonet none", "2 seeds"),
    ]
    # Both seeds have the same difference: s is half of one answer in 225.
    assert [row[3] for row in pairs.rows] == ["+10.00 ± 4.00", "+20.00 ± 6.00", "+10.00 ± 4.00"]
    against = compare([run.path for run in three.runs], baseline=three.runs[0].path)
    assert len(screen_report(against, 140).tables) == 1  # the differences are columns then


def test_no_table_of_pairs_for_many_rows(made_up: Made, tmp_path: Path) -> None:
    for number in range(6):
        made_up(tmp_path / str(number), settings={"meta_train.lr": number + 1})
        found = compare([tmp_path])
        expected = 2 if number + 1 in (3, 4, 5) else 1
        assert len(screen_report(found, 100).tables) == expected, number


def test_a_pair_is_worked_by_hand(made_up: Made, tmp_path: Path) -> None:
    """Three errors: differences b - a -0.2, -0.3, -0.15; the smaller error is named first."""
    for name, values in (("a", [0.4, 0.6, 0.5]), ("b", [0.2, 0.3, 0.35]), ("c", [0.4, 0.6, 0.5])):
        made_up(
            tmp_path / name, {"student": {5: values}}, measure="mse",
            settings={"meta_train.lr": ord(name)},
            entry={"ways": None, "queries": None, "batchnorm": None},
        )  # fmt: skip
    pairs = screen_report(compare([tmp_path]), 100).tables[-1]
    # s = 0.076376, t(2) of 1 - 0.05 / 3 is 7.64889: 0.3373. p = 1 - t / √(t² + 2) = 0.0387 of
    # t = 0.21667 √3 / s = 4.9135, times 3.
    assert pairs.rows[0] == ("lr=98", "lr=97", "3 tasks", "-0.2167 ± 0.3373", "0.12")
    assert pairs.title == "differences on the same tasks; ± and p corrected for 3 comparisons"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_fit_the_width(three: Comparison, made_up: Made, runs: Path, width: int) -> None:
    baseline = compare([runs], baseline=runs / "0_0", grouped=False)
    for comparison in (three, baseline):
        report = screen_report(comparison, width)
        text = printed(Comparison(**{**vars_of(comparison), "notes": ()}), width)
        body = text.split("student, 1-shot:")[0].splitlines()
        titles = {line for table in report.tables for line in (table.title, table.above)}
        assert max(len(line) for line in body if line not in titles) <= width
        for cell in ("teacher", "multiply-adds", "folder", "maml kd"):
            assert cell in text


def vars_of(comparison: Comparison) -> dict:
    return {name: getattr(comparison, name) for name in Comparison.__dataclass_fields__}


def test_a_table_too_wide_is_two_accuracy_then_cost(runs: Path, three: Comparison) -> None:
    comparison = compare([runs], baseline=runs / "0_0")
    first, second = tables(screen_report(comparison, 72))
    assert first == ["run", "meta_train.lr", "student 1-shot", "difference", "p"]
    assert second == ["run", "teacher 1-shot", "multiply-adds", "folder"]
    assert len(tables(screen_report(comparison, 130))) == 1


def test_names_that_settings_do_not_tell_apart(made_up: Made, tmp_path: Path) -> None:
    for name in "ab":  # the same command twice
        made_up(tmp_path / name)
    made_up(tmp_path / "c", settings={"meta_train.lr": 0.5, "pretrain.lr": 0.25})
    comparison = compare([tmp_path])
    names, used = row_names(comparison.comparable[0].rows, comparison)
    assert sorted(names.values()) == [
        *("pretrain.lr=0.002 [a]", "pretrain.lr=0.002 [b]", "pretrain.lr=0.25"),
    ]
    assert used == ["pretrain.lr"]  # meta_train.lr tells nothing more apart; it is a column
    assert screen_report(comparison, 100).tables[0].columns[1].header == "meta_train.lr"


def test_a_switch_is_no_choice(made_up: Made, tmp_path: Path) -> None:
    """`student_alone=false` has no dot, but `false` alone would name nothing."""
    made_up(tmp_path / "a", settings={"student_alone": False, "algorithm.name": "maml"})
    made_up(tmp_path / "b", settings={"student_alone": True, "algorithm.name": "maml"})
    made_up(tmp_path / "c", settings={"student_alone": True})
    comparison = compare([tmp_path])
    names, used = row_names(comparison.comparable[0].rows, comparison)
    assert used == ["algorithm", "student_alone"]
    assert sorted(names.values()) == [
        *("maml student_alone=false", "maml student_alone=true", "protonet student_alone=true"),
    ]


def test_single_runs_of_different_seeds_are_named_by_them(made_up: Made, tmp_path: Path) -> None:
    for seed in (3, 4):
        made_up(tmp_path / str(seed), seed=seed)
    comparison = compare([tmp_path], grouped=False)
    assert {row[0] for row in screen_report(comparison, 80).tables[0].rows} == {"seed=3", "seed=4"}


def test_a_row_alone_is_named_by_what_sets_it_apart_from_other_tables(
    made_up: Made, tmp_path: Path
) -> None:
    made_up(tmp_path / "a", settings={"algorithm.name": "protonet"})
    made_up(tmp_path / "b", settings={"algorithm.name": "maml", "evaluate.seed": 7})
    found = screen_report(compare([tmp_path]), 80).tables
    assert [table.rows[0][0] for table in found] == ["protonet", "maml"]
    assert all(table.above.startswith("with: distill=embedding") for table in found)


def test_reasons_of_failures_are_wrapped(made_up: Made, tmp_path: Path) -> None:
    why = "the disk on which the run was to be written is full, so nothing could be kept of it"
    made_up(tmp_path / "bad", status="failed", info={"error": f"{why}; {why}"})
    text = printed(compare([tmp_path]), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert why.split()[-1] in text


def test_short_names() -> None:
    names = ["algorithm", "meta_train.lr", "pretrain.lr", "distill.temperature"]
    assert list(short_names(names).values()) == [
        *("algorithm", "meta_train.lr", "pretrain.lr", "temperature"),
    ]


def test_wrapped_by_hand() -> None:
    assert wrapped("outputs/glyphs_maml/0", 9) == "outputs/\nglyphs_ma\nml/0"
    assert wrapped("maml kd lr=0.1", 8) == "maml kd\nlr=0.1"
    assert wrapped("short", 8) == "short"
    assert wrapped("", 8) == ""


def test_blocks_stay_together_and_nothing_is_lost() -> None:
    name = Filled(Column("run"), ("a" * 50, "b"))
    wide = [[Filled(Column(f"{b}{i}"), ("x" * 18, "y")) for i in range(3)] for b in "pq"]
    parts = laid_out("title", "all: z", name, wide, 92)
    assert [(t.title, t.above) for t in parts] == [("title", "all: z"), ("", "")]
    assert [[c.header for c in t.columns] for t in parts] == [
        ["run", "p0", "p1", "p2"],
        ["run", "q0", "q1", "q2"],
    ]
    assert parts[0].rows[0][0] == "\n".join(["a" * 28, "a" * 22])
