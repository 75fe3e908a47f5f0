"""Sets of comparable rows, groups over seeds, baselines, fronts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.comparing.compare import Comparison, compare, figure_of
from metakd.comparing.sentences import sentences, title
from metakd.errors import UserError

Made = Callable[..., Path]
GOOD = {"student": {1: [0.6, 0.8, 0.7, 0.9]}}
BAD = {"student": {1: [0.5, 0.6, 0.6, 0.7]}}


def lr(value: float) -> dict[str, float]:
    return {"meta_train.lr": value}


def rows(comparison: Comparison, number: int = 0) -> list[list[str]]:
    return [[run.path.name for run in row] for row in comparison.comparable[number].rows]


def said(comparison: Comparison) -> list[str]:
    return list(sentences(comparison, lambda row: row[0].path.name))


def test_two_runs(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", BAD, settings=lr(0.1))
    made_up(tmp_path / "b", GOOD, settings=lr(0.2))
    found = compare([tmp_path])
    assert rows(found) == [["b"], ["a"]]  # best first
    assert found.settings == {"meta_train.lr": "meta_train.lr"}
    (pair,) = found.pairs
    assert (pair.row[0].path.name, pair.difference) == ("b", pytest.approx(0.15))
    assert (found.baseline, found.apart) == (None, ())
    assert title(found.comparable[0]) == (
        "5-way accuracy (%), 4 meta-test tasks of glyphs, evaluation seed 12345, ± 95 % interval"
    )
    assert said(found)[0] == (
        "student, 1-shot: b is better than a, by 15.00 ± 9.19 points on the same 4 tasks "
        "(p = 0.014). This holds for these two trained models; only more seeds tell of the "
        "settings."
    )


def test_a_difference_that_is_none(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"student": {1: [0.5, 0.8, 0.6, 0.7]}}, settings=lr(0.1))
    made_up(tmp_path / "b", {"student": {1: [0.7, 0.6, 0.8, 0.6]}}, settings=lr(0.2))
    (line,) = (line for line in said(compare([tmp_path])) if line.startswith("student"))
    # Differences 0.2, -0.2, 0.2, -0.1: mean 0.025, s = 0.2062, t(3) · s / 2 = 0.328.
    assert line.startswith(
        "student, 1-shot: no difference between b and a is resolved (2.50 ± 32.8"
    )


def test_against_a_baseline(made_up: Made, tmp_path: Path) -> None:
    base = made_up(tmp_path / "base", BAD)
    for name, values in (("b", [0.6, 0.8, 0.7, 0.9]), ("c", [0.5, 0.6, 0.6, 0.8])):
        made_up(
            tmp_path / name, {"student": {1: values}}, settings=lr(len(name + values.__str__()))
        )
    made_up(tmp_path / "d", BAD, settings={"evaluate.seed": 1})
    found = compare([tmp_path], baseline=base)
    assert found.baseline_run is not None
    assert found.baseline_run.path == base
    assert [(p.row[0].path.name, p.baseline[0].path.name) for p in found.pairs] == [
        ("b", "base"),
        ("c", "base"),
    ]
    smallest, largest = sorted(p.p for p in found.pairs)
    assert sorted(p.p_adjusted for p in found.pairs) == [
        pytest.approx(2 * smallest),
        pytest.approx(largest),
    ]
    (apart,) = found.apart
    assert [run.path.name for run in apart.runs] == ["d", "base"]
    assert apart.reason == "other evaluation seed (evaluate.seed): 12345 and 1"
    assert rows(found, 1) == [["d"]]  # in a table of its own
    # t(3) at 1 - 0.05 / 2 is 4.17653 in place of 3.18245: 9.19 · 1.31237 = 12.06.
    assert "b is better than base, by 15.00 ± 12.06 points" in said(found)[0]
    assert "interval and p corrected for 2 comparisons" in said(found)[0]


def test_a_baseline_from_elsewhere_is_put_beside(made_up: Made, tmp_path: Path) -> None:
    base = made_up(tmp_path / "elsewhere" / "base", BAD)
    made_up(tmp_path / "here" / "a", GOOD, settings=lr(0.1))
    found = compare([tmp_path / "here"], baseline=base)
    assert [run.path.name for run in found.runs] == ["base", "a"]
    assert len(found.pairs) == 1


def test_baselines_that_cannot_be_one(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a")
    made_up(tmp_path / "b", status="failed", info={"error": "no memory"})
    with pytest.raises(UserError, match=r"holds 2 runs; name one of them, such as '.*a'"):
        compare([tmp_path], baseline=tmp_path)
    with pytest.raises(UserError, match=r"no figures to compare with \(status failed: no memory\)"):
        compare([tmp_path], baseline=tmp_path / "b")
    with pytest.raises(UserError, match="does not exist"):
        compare([tmp_path], baseline=tmp_path / "c")


def seeds(made_up: Made, folder: Path, values: list[float], rate: float, start: int = 1) -> None:
    for i, value in enumerate(values):
        figures = {"student": {1: [value - 0.05, value + 0.05]}, "teacher": {1: [0.9, 0.95]}}
        made_up(
            folder / f"{rate}_{start + i}", figures, seed=start + i, settings=lr(rate),
            info={"teacher": "e" * 64},
        )  # fmt: skip


def test_groups_over_seeds_by_hand(made_up: Made, tmp_path: Path) -> None:
    seeds(made_up, tmp_path, [0.5, 0.5, 0.5], 0.1)
    seeds(made_up, tmp_path, [0.6, 0.7, 0.8], 0.2)
    found = compare([tmp_path], baseline=tmp_path / "0.1_2")  # any of its group
    assert rows(found) == [["0.2_1", "0.2_2", "0.2_3"], ["0.1_1", "0.1_2", "0.1_3"]]
    figure = figure_of(found.comparable[0].rows[0], "student", 1)
    assert figure is not None
    assert (figure.mean, figure.deviation, figure.seeds) == (
        pytest.approx(0.7),
        pytest.approx(0.1),
        3,
    )
    assert figure.half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    (pair,) = found.pairs
    assert [one.difference for one in pair.pairs] == pytest.approx([0.1, 0.2, 0.3])
    assert pair.difference == pytest.approx(0.2)
    # Three seeds share one teacher: that is one network, with its interval over tasks.
    teacher = figure_of(found.comparable[0].rows[0], "teacher", 1)
    assert teacher is not None
    assert (teacher.mean, teacher.seeds, teacher.deviation) == (pytest.approx(0.925), 1, None)
    (line,) = (line for line in said(found) if line.startswith("student"))
    # p = 1 - √(12 / 14) = 0.074
    assert line == (
        "student, 1-shot: no difference between 0.2_1 and 0.1_1 is resolved (20.00 ± 24.84 points "
        "over 3 seeds, each on the same 2 tasks; p = 0.074)."
    )


def test_runs_of_60_and_200_tasks_are_compared_on_60(made_up: Made, tmp_path: Path) -> None:
    few = [0.5 + 0.01 * (i % 7) for i in range(60)]
    many = [value + (0.1 if i % 2 else 0.2) for i, value in enumerate(few)] + [0.0] * 140
    made_up(tmp_path / "few", {"student": {1: few}}, settings={"evaluate.tasks": 60})
    made_up(tmp_path / "many", {"student": {1: many}}, settings={"evaluate.tasks": 200})
    found = compare([tmp_path])
    assert (rows(found), found.comparable[0].tasks) == ([["few"], ["many"]], (60, 200))
    assert found.apart == ()
    (pair,) = found.pairs
    assert (pair.pairs[0].tasks, pair.row[0].path.name) == (60, "few")
    assert pair.difference == pytest.approx(-0.15)  # on the shared tasks the other one is better
    # s of 30 times 0.1 and 30 times 0.2 is 0.05 · √(60 / 59); t(59) = 2.000995.
    assert pair.half == pytest.approx(2.000995 * 0.05 / math.sqrt(59), abs=1e-7)
    assert title(found.comparable[0]).startswith("5-way accuracy (%), 60 to 200 meta-test tasks")
    assert said(found)[0].startswith(
        "student, 1-shot: many is better than few, by 15.00 ± 1.30 points on the same 60 tasks"
    )
    assert (
        "these runs were evaluated on 60 and 200 tasks: accuracies are over all of a run's, "
        "differences over the first 60, which both have" in found.notes
    )


def test_three_numbers_of_tasks(made_up: Made, tmp_path: Path) -> None:
    for n in (4, 6, 9):
        values = [0.5 + 0.01 * n * i for i in range(n)]
        made_up(tmp_path / str(n), {"student": {1: values}}, settings={"evaluate.tasks": n})
    found = compare([tmp_path], baseline=tmp_path / "9")
    assert sorted(pair.pairs[0].tasks for pair in found.pairs) == [4, 6]
    assert any("4, 6 and 9 tasks" in n and "the first 4 to 6, which" in n for n in found.notes)


def test_no_groups_if_not_wanted(made_up: Made, tmp_path: Path) -> None:
    seeds(made_up, tmp_path, [0.5, 0.6], 0.1)
    found = compare([tmp_path], grouped=False)
    assert rows(found) == [["0.1_2"], ["0.1_1"]]
    assert len(found.pairs) == 1


def test_seeds_evaluated_on_other_tasks_are_no_group(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", seed=1)
    made_up(tmp_path / "b", seed=2, info={"data_checksum": "cd" * 32})
    found = compare([tmp_path])
    assert [rows(found, i) for i in (0, 1)] == [[["a"]], [["b"]]]
    (apart,) = found.apart
    assert apart.reason.startswith("other data (checksum)")


def test_runs_that_do_not_record_their_data_are_compared_with_none(
    made_up: Made, tmp_path: Path
) -> None:
    for name in "ab":
        made_up(tmp_path / name, settings=lr(ord(name)), info={"data_checksum": None})
    found = compare([tmp_path])
    assert len(found.comparable) == 2
    assert [apart.reason for apart in found.apart] == ["not recorded: data (checksum)"]
    assert found.pairs == ()


def test_shots(made_up: Made, tmp_path: Path) -> None:
    both = {"student": {1: [0.5, 0.6], 5: [0.7, 0.9]}}
    made_up(tmp_path / "a", both, settings=lr(0.1))
    made_up(tmp_path / "b", both, settings=lr(0.2))
    assert compare([tmp_path]).comparable[0].shots == (1,)
    assert "also measured: 5-shot (--shots 1,5)" in compare([tmp_path]).notes
    found = compare([tmp_path], shots=[1, 3])
    assert found.notes[0] == "no run was evaluated 3-shot; there are --shots 1,5"
    assert "also measured: 5-shot (--shots 1,5)" in found.notes
    with pytest.raises(UserError, match=r"evaluated 3-shot; .* metakd evaluate RUN task.shots=3"):
        compare([tmp_path], shots=[3])
    found = compare([tmp_path], shots=[5, 1])
    assert found.comparable[0].shots == (1, 5)
    assert [pair.pairs[0].shots for pair in found.pairs] == [1, 5]
    assert found.notes == ()


def test_other_shots_stand_apart(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"student": {1: [0.5, 0.6]}}, settings={"task.shots": 1})
    made_up(tmp_path / "b", {"student": {5: [0.7, 0.9]}}, settings={"task.shots": 5})
    found = compare([tmp_path])
    assert [s.shots for s in found.comparable] == [(1,), (5,)]
    assert [apart.reason for apart in found.apart] == ["other shots: measured with 1 and 5"]


def test_a_run_with_both_shots_joins_the_others(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", {"student": {1: [0.5, 0.6]}}, settings={"task.shots": 1})
    made_up(tmp_path / "b", {"student": {5: [0.7, 0.9]}}, settings={"task.shots": 5})
    made_up(tmp_path / "c", {"student": {1: [0.5, 0.7], 5: [0.7, 0.8]}})
    found = compare([tmp_path])
    assert [len(s.rows) for s in found.comparable] == [3]
    pairs = {frozenset((p.row[0].path.name, p.baseline[0].path.name)) for p in found.pairs}
    assert pairs == {frozenset("ac"), frozenset("bc")}
    assert [apart.reason for apart in found.apart] == ["other shots: measured with 5 and 1"]


def test_the_other_models(made_up: Made, tmp_path: Path) -> None:
    twins = {**GOOD, "student_alone": BAD["student"]}
    made_up(tmp_path / "a", twins, settings=lr(0.1))
    made_up(tmp_path / "b", {**twins, "student_alone": GOOD["student"]}, settings=lr(0.2))
    made_up(tmp_path / "c", GOOD, settings=lr(0.3))
    found = compare([tmp_path], model="student_alone")
    assert rows(found) == [["b"], ["a"]]
    assert rows(found, 1) == [["c"]]
    assert found.pairs[0].difference == pytest.approx(0.15)
    assert [apart.reason for apart in found.apart] == ["no figures of the student alone"]


def test_the_front(made_up: Made, tmp_path: Path) -> None:
    for name, accuracy, parameters in (("a", 0.5, 100), ("b", 0.7, 200), ("c", 0.6, 300)):
        figures = {"student": {1: [accuracy, accuracy + 0.1]}}
        made_up(tmp_path / name, figures, settings=lr(accuracy), cost={"parameters": parameters})
    (found,) = compare([tmp_path]).comparable
    assert [row[0].path.name for row in found.rows] == ["b", "c", "a"]
    assert found.fronts == {"parameters": (True, False, True)}


def test_latencies_within_noise_make_no_front(made_up: Made, tmp_path: Path) -> None:
    for name, accuracy, latency in (("a", 0.5, 0.204), ("b", 0.7, 0.207)):
        cost = {"latency_ms": latency, "latency_ms_spread": 0.002}
        figures = {"student": {1: [accuracy, accuracy + 0.1]}}
        made_up(tmp_path / "noisy" / name, figures, settings=lr(accuracy), cost=cost)
        made_up(tmp_path / "exact" / name, figures, settings=lr(accuracy),
                cost={"latency_ms": latency})  # fmt: skip
        # Two seeds tell by themselves how far their latencies scatter.
        for seed, off in ((0, -0.002), (1, 0.002)):
            made_up(tmp_path / "seeds" / f"{name}{seed}", figures, settings=lr(accuracy), seed=seed,
                    cost={"latency_ms": latency + off})  # fmt: skip
    fronts = {n: compare([tmp_path / n]).comparable[0].fronts for n in ("noisy", "exact", "seeds")}
    assert fronts == {
        "noisy": {"latency_ms": (True, False)},  # b, which is better, first
        "exact": {"latency_ms": (True, True)},
        "seeds": {"latency_ms": (True, False)},
    }


def test_latencies_of_different_machines_make_no_front(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", settings=lr(0.1), info={"processor": "one", "device": "cpu"})
    made_up(tmp_path / "b", settings=lr(0.2), info={"processor": "two", "device": "cpu"})
    found = compare([tmp_path])
    assert set(found.comparable[0].fronts) == {"parameters", "macs"}
    assert any(note.startswith("latencies were measured on different") for note in found.notes)


TASK = {"task_macs": 300, "task_latency_ms": 2.0}


def test_costs_of_whole_tasks_have_fronts(made_up: Made, tmp_path: Path) -> None:
    better = {"task_macs": 500, "task_latency_ms": 1.0}
    for name, accuracy, cost in (("a", 0.5, TASK), ("b", 0.7, better)):
        figures = {"student": {1: [accuracy, accuracy + 0.1]}}
        made_up(tmp_path / name, figures, settings=lr(accuracy), cost=cost)
    (found,) = compare([tmp_path]).comparable
    assert [row[0].path.name for row in found.rows] == ["b", "a"]
    assert found.fronts == {"task_macs": (True, True), "task_latency_ms": (True, False)}


def test_costs_of_tasks_of_different_shots_make_no_front(made_up: Made, tmp_path: Path) -> None:
    values = [0.5, 0.6]
    made_up(tmp_path / "a", {"student": {1: values, 5: values}}, settings=lr(0.1), cost=TASK)
    made_up(tmp_path / "b", {"student": {5: values, 1: values}}, settings=lr(0.2), cost=TASK)
    found = compare([tmp_path])
    assert found.comparable[0].fronts == {}
    assert any(note.startswith("costs of a task are of tasks of") for note in found.notes)
    made_up(tmp_path / "c", {"student": {5: values}}, settings=lr(0.3), cost=TASK)
    alike = compare([tmp_path / "b", tmp_path / "c"])
    assert set(alike.comparable[0].fronts) == set(TASK)
    assert not any(note.startswith("costs of a task") for note in alike.notes)


def test_task_latencies_of_different_machines_make_no_front(made_up: Made, tmp_path: Path) -> None:
    for name in ("one", "two"):
        made_up(tmp_path / name, settings=lr(len(name)), cost=TASK, info={"processor": name})
    assert set(compare([tmp_path]).comparable[0].fronts) == {"task_macs"}


def test_too_many_pairs_ask_for_a_baseline(made_up: Made, tmp_path: Path) -> None:
    for i in range(33):  # 528 pairs
        made_up(tmp_path / str(i), {"student": {1: [0.5, 0.6]}}, settings=lr(i))
    found = compare([tmp_path])
    assert found.pairs == ()
    assert "33 rows make 528 pairs" in found.notes[0]
    assert len(compare([tmp_path], baseline=tmp_path / "7").pairs) == 32


def test_different_commits_are_said(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", settings=lr(0.1), info={"git_commit": "1" * 40})
    made_up(tmp_path / "b", settings=lr(0.2), info={"git_commit": "2" * 40})
    assert "these runs were made by 2 different commits of the project" in compare([tmp_path]).notes
    made_up(tmp_path / "c", settings=lr(0.3),
            info={"git_commit": "1" * 40, "git_diff_sha256": "a" * 64})  # fmt: skip
    (note,) = compare([tmp_path / "a", tmp_path / "c"]).notes
    assert "with different changes that were not committed" in note
    assert compare([tmp_path / "a"]).notes == ()


def test_regression(made_up: Made, tmp_path: Path) -> None:
    for name, values in (("a", [0.4, 0.6, 0.5]), ("b", [0.2, 0.3, 0.35])):
        made_up(
            tmp_path / name, {"student": {5: values}}, measure="mse", settings=lr(values[0]),
            entry={"ways": None, "queries": None, "batchnorm": None},
        )  # fmt: skip
    found = compare([tmp_path])
    assert rows(found) == [["b"], ["a"]]  # the smaller error first
    assert title(found.comparable[0]).startswith("mean squared error, 3 meta-test tasks")
    # Differences b - a: -0.2, -0.3, -0.15; mean -0.21667, s = 0.076376, t(2) · s / √3 = 0.18973.
    assert said(found)[0].startswith(
        "student, 5-shot: b has a smaller error than a, by 0.2167 ± 0.1897 on the same 3 tasks"
    )


@pytest.mark.parametrize(("part", "called"), [("test", "test"), ("validate", "validation")])
def test_examples_of_a_whole_dataset_are_named(
    part: str, called: str, made_up: Made, tmp_path: Path
) -> None:
    for name, answers in (("a", [1, 1, 0]), ("b", [1, 0, 0])):
        run = made_up(tmp_path / name, settings={**lr(sum(answers)), "evaluate.part": part})
        mean = sum(answers) / 3
        entry = {"accuracy": mean, "ci95": 0.5, "images": 3, "classes": 2, "loss": 1.0}
        entry["state"] = "last_epoch"
        student = {"whole": entry, "whole_all": [entry], "cost": {"parameters": 1, "bytes": 4}}
        (run / "results.json").write_text(json.dumps({"schema": 1, "student": student}))
        lines = [f"student,,,,{i},{float(a)},last_epoch" for i, a in enumerate(answers)]
        head = "model,shots,steps,batchnorm,task,accuracy,state"
        (run / "episodes.csv").write_text("\n".join([head, *lines, ""]))
    sentence, *_ = said(compare([tmp_path]))
    assert f"on the same 3 {called} examples; p = 0.42" in sentence


def test_seeds_that_decide_nothing_are_one_network(made_up: Made, tmp_path: Path) -> None:
    seeds(made_up, tmp_path, [0.5, 0.5, 0.5], 0.1)
    seeds(made_up, tmp_path, [0.6, 0.7, 0.8], 0.2)
    found = compare([tmp_path])
    trained, untrained = found.comparable[0].rows
    figures = [figure_of(row, "student", 1) for row in (trained, untrained)]
    assert [figure and figure.seeds for figure in figures] == [3, 1]
    # 1.96 · s / √2 of 0.45 and 0.55, s = 0.1 / √2.
    assert figures[1] is not None
    assert figures[1].half == pytest.approx(1.96 * 0.05)
    (note,) = (note for note in found.notes if "decided nothing" in note)
    assert note.startswith("3 runs of different seeds have the same figures ('0.1_1' …)")


def test_equal_accuracies_of_different_networks_are_several(made_up: Made, tmp_path: Path) -> None:
    """An accuracy is a count: that of one number of shots can be the same by chance."""
    for seed in (0, 1):
        figures = {"student": {1: [0.5, 0.6], 5: [0.7, 0.8 + 0.1 * seed]}}
        made_up(tmp_path / str(seed), figures, seed=seed)
    found = compare([tmp_path])
    (row,) = found.comparable[0].rows
    figure = figure_of(row, "student", 1)
    assert figure is not None
    assert (figure.mean, figure.seeds) == (pytest.approx(0.55), 2)
    # Two tasks of 75 answers: s is half of one in 150.
    assert figure.half == pytest.approx(12.7062 / 300 / math.sqrt(2), rel=1e-5)
    assert not any("decided nothing" in note for note in found.notes)
