"""The scripts that make the tables of the docs: what they would run, and how they count."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metakd
from metakd.config.checks import check
from metakd.config.locate import Choices

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import algorithms_table

    return algorithms_table


def test_algorithms_of_the_table_are_trained_as_their_kind_is(table: ModuleType) -> None:
    assert table.settings("maml") == table.GRADIENT
    assert table.settings("protonet") == table.METRIC
    assert "algorithm.inner_lr=0.02" in table.settings("reptile")
    assert table.OWN.keys() <= Choices().of("algorithm").keys()


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_every_command_of_the_table_can_be_composed(
    algorithm: str, table: ModuleType, tmp_path: Path
) -> None:
    words = table.command(algorithm, 1, tmp_path / "run", table.SHORT)
    assert words[:4] == [sys.executable, "-m", "metakd", "train"]
    config = metakd.compose(*words[4:]).config
    assert config.algorithm.name == algorithm
    assert config.evaluate.shots == [1, 5]
    untrained = [*words[4:], *table.untrained(algorithm)]
    start = metakd.compose(*untrained).config
    assert start.meta_train.iterations == 0
    assert not start.algorithm.supports.trained_start


def test_seconds_leave_validations_out(table: ModuleType, tmp_path: Path) -> None:
    lines = [(0, 100.0, False), (10, 101.0, False), (19, 150.0, True), (20, 151.0, False),
             (30, 154.0, False)]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "stage": "meta_train",
                    "step": step,
                    "time": time,
                    "metrics": {"validate/accuracy": 0.5} if validated else {"loss": 1.0},
                }
            )
            + "\n"
            for step, time, validated in lines
        )
    )
    assert table.step_seconds(tmp_path) == pytest.approx((0.1 + 0.3) / 2)


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import every_algorithm

    return every_algorithm


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_every_algorithm_is_run(algorithm: str, every: ModuleType, tmp_path: Path) -> None:
    words = every.command(algorithm, tmp_path / algorithm)
    assert metakd.compose(*words[4:]).config.algorithm.name == algorithm


def test_every_algorithm_is_shown(every: ModuleType, tmp_path: Path) -> None:
    measured = [
        {"accuracy": 0.5, "tasks": 600, "shots": 1, "batchnorm": "inductive"},
        {"accuracy": 0.75, "tasks": 600, "shots": 5, "batchnorm": "inductive"},
        {"accuracy": 0.9, "tasks": 600, "shots": 1, "batchnorm": "transductive"},
        {"accuracy": 0.1, "tasks": 100, "shots": 1, "batchnorm": "inductive"},
    ]
    student = {"fewshot": measured[0], "fewshot_all": measured}
    (tmp_path / "results.json").write_text(json.dumps({"student": student}))
    (tmp_path / "seconds.txt").write_text("12.3\n")
    line = every.row("adversarial", tmp_path)
    assert line == "| adversarial | distill=kd | 12.3 | 50.0 / 75.0 |  |  |"


def test_starts_on_a_folder_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import folder_scale

    size = ["--images", "400", "--width", "30", "--height", "20"]
    short = [
        "dataset.image_size=16",
        "meta_train.iterations=1",
        "student.width=4",
        "task.queries=2",
    ]
    folder_scale.main([*size, "--output", str(tmp_path / "scale"), *short, "dataset.in_memory=0"])
    first, second = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [cells[1:4] for cells in (first, second)] == [
        [" 400 ", " 30 × 20 ", f" {which} "] for which in ("first", "second")
    ]
    assert float(second[5]) > 0
    assert 0.1 < float(second[6]) < 4
    # The second start takes what the first one kept.
    assert len(list((tmp_path / "scale/400/cache/prepared").iterdir())) == 1


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import outside_teacher

    return outside_teacher


SHORT_OUTSIDE = (
    *("dataset=glyphs", "dataset.images_per_class=4", "dataset.image_size=32"),
    *("dataset.views=1", "dataset.augment=[]"),
    *("meta_train.iterations=1", "meta_train.validate_tasks=2", "meta_train.batch_size=4"),
    *("evaluate.tasks=3", "evaluate.shots=[]", "task.queries=2", "student_alone=false"),
)


def test_every_student_of_an_outside_teacher_can_be_composed(
    outside: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "theirs.pth").touch()
    teacher = outside.teacher_words(tmp_path / "theirs.pth", "resnet18", 64, False)
    for student in outside.STUDENTS.values():
        config = metakd.compose(*outside.COMMON, *teacher, *student).config
        assert (config.distill.name, config.pretrain.enabled) == ("embedding", False)
        assert config.teacher.options["image_size"] == 64


def test_students_of_an_outside_teacher(
    outside: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    timm: Any = pytest.importorskip("timm", reason="needs pip install 'metakd[timm]'")
    torch: Any = pytest.importorskip("torch")
    weights = timm.create_model("test_efficientnet").state_dict()
    torch.save({f"other.{name}": tensor for name, tensor in weights.items()}, tmp_path / "port.pth")
    given = [str(tmp_path / "port.pth"), "--model=test_efficientnet", "--pixels=32"]
    given += ["--students=conv4_64", f"--output={tmp_path / 'out'}", "--seeds", "1"]
    given += ["--words", *SHORT_OUTSIDE]
    assert outside.main(given) == 0
    assert "conv4_64\n\n| setting | student | teacher |" in capsys.readouterr().out
    (made,) = (tmp_path / "out").glob("*/results.json")
    before = made.stat().st_mtime_ns
    assert outside.main(given) == 0
    assert made.stat().st_mtime_ns == before  # it is not made twice
    given[1] = "--model=test_resnet"
    assert outside.main(given) == 2
    assert "port.pth: its tensors are not those of timm's test_resnet" in capsys.readouterr().err


@pytest.fixture
def text_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import text_table

    return text_table


def test_tfidf_by_hand(text_table: ModuleType) -> None:
    known = [["pay", "the", "bill"], ["the", "hat"], ["the"]]
    found = text_table.tfidf([["the", "new", "the"], ["bill"]], known)  # columns bill, new, the
    of = {n: math.log(4 / (1 + n)) + 1 for n in (0, 1, 3)}
    assert found[0].tolist() == pytest.approx([0, of[0], 2 * of[3]])
    assert found[1].tolist() == pytest.approx([of[1], 0, 0])


def test_a_line_of_texts_has_mean_and_deviation(text_table: ModuleType) -> None:
    def results(one: float, five: float) -> dict[str, Any]:
        entries = [{"shots": s, "steps": 5, "accuracy": a} for s, a in ((1, one), (5, five))]
        other = {"shots": 1, "steps": 0, "accuracy": 0.2}
        cost = {"parameters": 961000, "bytes": 3844000, "latency_ms": 0.1}
        own = {"fewshot": entries[0], "fewshot_all": [other, *entries], "cost": cost}
        return {"student": own}

    found = text_table.line("a bag", "student", [results(0.6, 0.9), results(0.62, 0.9)])
    assert found == "| a bag | 61.0 ± 1.4 | 90.0 ± 0.0 | 0.96M | 3.8 MB | 100 |"


def test_every_row_of_the_texts_can_be_composed(text_table: ModuleType, tmp_path: Path) -> None:
    for row in text_table.ROWS:
        words = text_table.settings(row, tmp_path, tmp_path / "more.txt")
        config = metakd.compose("dataset=clinc150", *words).config
        assert config.student.name == ("text_bag" if row == "text_bag" else "transformer")
        distilled = row in ("text_bag", "transformer")
        assert (config.teacher.name == "huggingface") == distilled
        assert (config.warmstart.unlabelled is not None) == distilled
        assert config.distill.supports.uses_teacher == distilled


def test_the_table_of_texts_is_made(
    text_table: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"{word} {n}" for word in ("pay", "fly", "eat", "sing") for n in range(3)]
    rows = [f"please {name} of {n},{name}\n" for name in names for n in range(7)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(rows))
    small = ["task.ways=2", "task.queries=2", "task.train_queries=2", "student.width=8"]
    data = ["dataset=text_table", f"dataset.folder={tmp_path / 'texts.csv'}"]
    given = [str(tmp_path), "--shortened", "--rows", "tfidf", "protonet", "--seeds", "0"]
    given += [f"--output={tmp_path / 'out'}", "--words", *data, *small]
    assert text_table.main(given) == 0
    shown = capsys.readouterr().out.splitlines()[-4:]
    assert shown[2].startswith("| tf-idf, nearest centroid | 100.0 | 100.0 |")
    assert shown[3].startswith("| transformer, protonet | ")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/results.json")}
    assert len(times) == 1
    assert text_table.main(given) == 0
    assert times == {p: p.stat().st_mtime_ns for p in times}  # none is made twice


def test_unlabelled_texts_are_words_and_texts_with_other_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import unlabelled_texts

    vocabulary = {"model": {"vocab": {"[CLS]": 0, "##ing": 1, "tea": 2, "hat": 3, "a": 4}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    (tmp_path / "words.txt").write_text("tea\nhat\nTea\ntea\n")
    for file in ("tokenizer.json", "words.txt"):
        assert unlabelled_texts.vocabulary(tmp_path / file) == ["hat", "tea"]
    texts = ["pay my old bill now"]
    made = list(unlabelled_texts.made(["hat", "tea"], texts, exchanges=2, rows=3, seed=0))
    assert made[:3] == ["hat", "tea", *texts]
    for text in made[3:5]:
        changed = [w for w, own in zip(text.split(), texts[0].split(), strict=True) if w != own]
        assert 1 <= len(changed) <= 3
        assert {*changed} <= {"hat", "tea"}
    assert all({*row.split()} <= {"hat", "tea"} and 2 <= len(row.split()) <= 6 for row in made[5:])
    assert made == list(unlabelled_texts.made(["hat", "tea"], texts, exchanges=2, rows=3, seed=0))
    assert len(made) == 8


@pytest.fixture
def export_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import export_table

    return export_table


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_every_run_of_the_exports_can_be_composed(algorithm: str, export_table: ModuleType) -> None:
    config = metakd.compose(*export_table.settings(algorithm)).config
    check(config)
    assert (config.algorithm.name, config.student.width) == (algorithm, 8)
    assert config.distill.name == ("kd" if algorithm == "adversarial" else "none")


def test_the_table_of_exports_is_made(
    export_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [
        *("student.width=4", "dataset.image_size=16", "dataset.images_per_class=8"),
        *("meta_train.iterations=2", "meta_train.validate_every=2", "meta_train.validate_tasks=2"),
        *("task.ways=3", "task.queries=2", "task.train_queries=2", "evaluate.tasks=3"),
    ]
    given = ["--output", str(tmp_path), "--algorithms", "protonet", "--formats", "torch"]
    given += ["--", *short]
    assert export_table.main(given) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    said = json.loads((tmp_path / "protonet/exports/student_torch/bundle.json").read_text())
    off, right = said["parity"]["difference"], said["parity"]["accuracy"]
    assert line.startswith(
        f"| protonet |  | {off['largest']:.1e} ({off['pytorch']:.1e}) |  | "
        f"{100 * right['runtime']:.1f} ({100 * right['pytorch']:.1f}) | "
        f"{said['parity']['bytes']['model']:,}; "
    )
    note = tmp_path / "protonet/exports/student_torch.json"
    assert export_table.main(given) == 0  # nothing is made again
    assert capsys.readouterr().out.splitlines()[-1] == line
    note.unlink()
    assert export_table.main(given) == 0  # killed before the seconds were noted
    assert capsys.readouterr().out.splitlines()[-1].endswith(" |  |")
    shutil.rmtree(note.with_suffix(""))
    note.write_text(json.dumps({"seconds": 1.0, "reason": "too large"}))
    assert export_table.main(given) == 0
    assert "| not exported: too large |" in capsys.readouterr().out.splitlines()[-1]
    measured = {**off, "strayed": {"runtime": 1, "pytorch": 2, "most": 4}}
    row = export_table.row(
        "maml", {"said": {**said, "parity": {**said["parity"], "difference": measured}}}
    )
    assert row.split(" | ")[3] == "1 (2)"


def test_learned_compression_shortened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch_pruning", reason="needs pip install 'metakd[compress]'")
    pytest.importorskip("optuna", reason="needs pip install 'metakd[search]'")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import learned_compression

    from metakd.compression import choosing
    from metakd.pipeline import compression_table

    widths = ("width=8", "widths=[6,8,8,8]")
    students = tuple(("glyphs", "protonet", "conv4", width, 1) for width in widths)
    for name, value in (
        *(("STUDENTS", students), ("SEARCHED", (1, 2, 3)), ("EVALUATED", 2)),
        *(("FOLDS", 2), ("TEST_POOL", 100), ("TEST_TASKS", 4)),
    ):
        monkeypatch.setattr(learned_compression, name, value)
    monkeypatch.setattr(compression_table.judge_of, "__defaults__", ("validate", 100, 4))
    for name, value in (("DRAWN", 32), ("NEIGHBOURS", 8), ("BEST", 4), ("ROUNDS", 1)):
        monkeypatch.setattr(choosing, name, value)
    given = ["--output", str(tmp_path), "--strategies", "3"]
    assert learned_compression.main(given) == 0
    report = (tmp_path / "report.md").read_text()
    printed = capsys.readouterr().out
    assert printed.endswith(report)
    assert report.startswith("2 held-out compression tasks of 2 students\n")
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:9]] == [
        f"| {name}" for name in learned_compression.methods()
    ]
    found = [json.loads(file.read_text()) for file in (tmp_path / "tasks").glob("*.json")]
    mean = 100 * sum(one["test"]["uniform"] for one in found) / 2
    assert rows[2].startswith(f"| uniform | {mean:.2f} |  | ")
    for one in found:  # a search is as good as its best evaluation, wherever it is cut
        assert one["validate"]["search 3"] >= one["validate"]["search 1"]
    monkeypatch.setattr(learned_compression, "search", None)
    assert learned_compression.main(given) == 0  # nothing is done again
    assert capsys.readouterr().out.endswith(report)
