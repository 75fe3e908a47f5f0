"""The tables as text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from rich.console import Console

from metakd.comparing.compare import Comparison, compare
from metakd.comparing.formats import as_html, as_latex, as_markdown, print_report
from metakd.comparing.machine import as_csv, as_json
from metakd.comparing.records import Records
from metakd.comparing.screen import screen_report
from metakd.comparing.tables import Report, report, shown
from metakd.data.splits import SPLITS
from metakd.runs.split import split_text, write_split

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
Made = Callable[..., Path]


@pytest.fixture
def folder(made_up: Made, tmp_path: Path) -> Path:
    """Two groups over seeds, one run on other tasks, a failed and a damaged one."""
    for rate, values in ((0.1, [0.5, 0.5, 0.5]), (0.2, [0.6, 0.7, 0.8])):
        for seed, value in enumerate(values):
            figures = {
                "student": {1: [value - 0.05, value + 0.05]},
                "teacher": {1: [0.9, 0.95]},
            }
            made_up(tmp_path / "sweep_1" / f"{rate}_{seed}", figures, seed=seed,
                    settings={"meta_train.lr": rate}, info={"teacher": "e" * 64})  # fmt: skip
    other = {"evaluate.seed": 7, "meta_train.lr": 0.3}
    made_up(tmp_path / "sweep_1" / "other", {"student": {1: [0.6, 0.7]}}, settings=other)
    made_up(tmp_path / "sweep_1" / "bad", status="failed", info={"error": "100 % of R&D_disk full"})
    made_up(tmp_path / "sweep_1" / "rot").joinpath("run.json").write_text("{")
    return tmp_path


@pytest.fixture
def found(folder: Path) -> Comparison:
    return compare([folder], baseline=folder / "sweep_1" / "0.1_0")


def test_the_tables(found: Comparison) -> None:
    main, apart, without = report(found).tables
    headers = [column.header for column in main.columns]
    assert headers == [
        *("run", "meta_train.lr", "evaluate.seed", "seeds", "student 1-shot", "teacher 1-shot"),
        *("difference", "p", "parameters", "multiply-adds", "latency (ms)"),
    ]
    assert main.rows[0] == (
        *("0.1_0 +2", "0.1", "12345", "3", "50.00 ± 9.80", "92.50 ± 4.90", "baseline", ""),
        *("1,000", "500,000", "0.500"),
    )
    # t(2) · 10 / √3 = 24.84 points; 1 - √(12 / 14) = 0.0742
    assert main.rows[1] == (
        *("0.2_0 +2", "0.2", "12345", "3", "70.00 ± 24.84", "92.50 ± 4.90", "+20.00 ± 24.84"),
        *("0.074", "1,000*", "500,000*", "0.500*"),
    )
    assert [row[:5] for row in apart.rows] == [("other", "0.3", "7", "1", "65.00 ± 9.80")]
    assert [row[0] for row in without.rows] == ["bad", "rot"]
    assert without.rows[0][-3:] == ("failed", "evaluate", "100 % of R&D_disk full")
    assert without.rows[1][-3] == "damaged"
    lines = report(found).lines
    assert "not comparable: other, 0.1_0, 0.1_1, 0.1_2: other evaluation seed" in " ".join(lines)


def test_outside_pretraining_is_said_where_some_runs_are_without(
    made_up: Made, tmp_path: Path
) -> None:
    weights = ["teacher: pretrained resnet18"]
    for name, rate in (("a", 0.1), ("b", 0.2)):
        settings = {"teacher.pretrained": True, "meta_train.lr": rate}
        made_up(tmp_path / name, info={"external_pretraining": weights}, settings=settings)

    def said() -> list[str]:
        return [line for line in report(compare([tmp_path])).lines if "outside pre-tr" in line]

    assert said() == []  # all are with it
    made_up(tmp_path / "c", settings={"algorithm.name": "maml"})
    (line,) = said()
    assert line.startswith("with outside pre-training: a, b (teacher: pretrained resnet18); the ")
    found = compare([tmp_path])
    runs = json.loads(as_json(found))["runs"]
    assert [run.get("external_pretraining") for run in runs] == [weights, weights, None]
    lines = csv.DictReader(io.StringIO(as_csv(found)))
    assert sorted(line["external_pretraining"] for line in lines) == ["", weights[0], weights[0]]
    assert [one.get("external_pretraining") for one in Records(found)] == [weights, weights, None]


def test_warnings_of_runs_stand_below_the_table(made_up: Made, tmp_path: Path) -> None:
    doubt = "the teacher is right in 21.0 % of answers, near chance; type pretrain.epochs=10"
    made_up(tmp_path / "a", {"student": {1: [0.5, 0.7]}}, info={"warnings": [doubt, "x_y"]})
    made_up(tmp_path / "b", settings={"algorithm.name": "maml"}, info={"warnings": [doubt]})
    made_up(tmp_path / "c", {"student": {1: [0.1, 0.2]}}, settings={"meta_train.lr": 0.3})
    found = compare([tmp_path])
    made = report(found)
    assert [row[0] for row in made.tables[0].rows] == ["b ‡", "a ‡", "c"]
    assert [line for line in made.lines if "‡" in line] == [f"‡ b, a: {doubt}", "‡ a: x_y"]
    assert r"$\ddagger$" in as_latex(made)
    check_latex(as_latex(made))
    screen = screen_report(found, 100)
    assert [row[0][-1] for row in screen.tables[0].rows] == ["‡", "‡", "3"]
    assert any(line.startswith("‡ ") and doubt in line for line in screen.lines)
    content = json.loads(as_json(found))
    check_json(content)
    assert [run.get("warnings") for run in content["runs"]] == [[doubt, "x_y"], [doubt], None]
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [line["warnings"] for line in lines] == [doubt, f"{doubt}; x_y", ""]
    assert [one.get("warnings") for one in Records(found)] == [[doubt, "x_y"], [doubt], None]


def test_costs_of_a_task_are_shown_in_every_format(made_up: Made, tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        cost = {"parameters": 7, "bytes": 28, "task_macs": 1234 + i, "task_latency_ms": 2.5 + i}
        made_up(tmp_path / name, settings={"meta_train.lr": 0.1 + i}, cost=cost)
    found = compare([tmp_path])
    made = report(found)
    headers = [column.header for column in made.tables[0].columns]
    task = ["multiply-adds of a task", "latency of a task (ms)"]
    assert headers[-3:] == ["parameters", *task]
    assert [row[-2:] for row in made.tables[0].rows] == [("1,234*", "2.500*"), ("1,235", "3.500")]
    for text in (as_markdown(made), as_latex(made), as_html(made)):
        assert all(word in text for word in task)
    content = json.loads(as_json(found))
    check_json(content)
    assert [group["cost"]["task_macs"] for group in content["groups"]] == [1234, 1235]
    assert content["groups"][0]["front"] == ["parameters", "task_macs", "task_latency_ms"]
    assert content["groups"][1]["front"] == ["parameters"]
    (first, _) = csv.DictReader(io.StringIO(as_csv(found)))
    assert (first["task_macs"], first["on_front_task_latency_ms"]) == ("1234", "true")
    assert [one["task_latency_ms"] for one in Records(found)] == [2.5, 3.5]
    screen = screen_report(found, 200)
    assert {*task} <= {column.header for table in screen.tables for column in table.columns}


def test_class_splits_are_listed_where_they_differ(made_up: Made, tmp_path: Path) -> None:
    splits = {"a": ["abc", "d", "ef"], "b": ["bcd", "e", "fa"], "c": ["abc", "d", "ef"]}
    for i, (name, split) in enumerate(splits.items()):
        checksum = "cd" * 32 if name == "b" else "ab" * 32
        settings = {"dataset.split_seed": int(name == "b"), "meta_train.lr": 0.1 + i}
        run = made_up(tmp_path / name, settings=settings, info={"data_checksum": checksum})
        classes = {p: (list(n), [6] * len(n)) for p, n in zip(SPLITS, split, strict=True)}
        write_split(run, split_text("image_folder", classes))
    made = report(compare([tmp_path]))
    assert made.tables[-1].title == "class splits"
    assert made.tables[-1].rows == (
        ("a +1", "3: a, b, c", "1: d", "2: e, f", "2 of 2"),
        ("b", "3: b, c, d", "1: e", "2: f, a", "1 of 2"),
    )
    assert "<td>2: f, a</td>" in as_html(made)
    screen = screen_report(compare([tmp_path]), 100)
    assert any("2 different class splits" in line for line in screen.lines)
    same = report(compare([tmp_path / "a", tmp_path / "c"]))
    assert "class splits" not in [table.title for table in same.tables]


def test_on_a_terminal(found: Comparison) -> None:
    text = io.StringIO()
    print_report(report(found), Console(file=text, width=40))
    lines = text.getvalue().splitlines()
    assert any("0.2_0 +2" in line and "+20.00 ± 24.84" in line for line in lines)  # not cut off
    assert "\x1b" not in text.getvalue()


def test_a_very_wide_table_is_not_cut_off(made_up: Made, tmp_path: Path) -> None:
    for name in "ab":
        settings = {f"algorithm.options.{name * 9}{i:03}": name * 60 for i in range(30)}
        made_up(tmp_path / name, settings=settings)
    text = io.StringIO()
    print_report(report(compare([tmp_path])), Console(file=text, width=40))
    assert "…" not in text.getvalue()
    assert "algorithm.options.bbbbbbbbb029" in text.getvalue()


def test_markdown(found: Comparison) -> None:
    text = as_markdown(report(found))
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert r"| 0.1\_0 +2 | 0.1 | 12345 | 3 | 50.00 ± 9.80 |" in text
    assert "| --- | --- | --- | ---: |" in text


def test_latex(found: Comparison) -> None:
    text = as_latex(report(found))
    assert r"\usepackage{booktabs}" in text
    assert r"0.2\_0 +2 & 0.2 & 12345 & 3 & 70.00 $\pm$ 24.84" in text
    assert r"$+$20.00 $\pm$ 24.84" in text
    assert r"100 \% of R\&D\_disk full" in text
    check_latex(text)


def check_latex(text: str) -> None:
    """Hold up against LaTeX's rules what a table must not break."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\([%&_#${}]|[a-zA-Z]+)", "", body.replace(r"\\", "\n"))
    assert body.isascii()
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[%#~^\"<>|_]", re.sub(r"\$[^$]*\$", "", bare))
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    for environment in ("table", "tabular"):
        assert body.count(rf"\begin{{{environment}}}") == body.count(rf"\end{{{environment}}}") > 0
    for kinds, inside in re.findall(
        r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", body, re.DOTALL
    ):
        assert [w for w in ("top", "mid", "bottom") if rf"\{w}rule" in inside] == [
            "top",
            "mid",
            "bottom",
        ]
        for row in re.findall(r"^(.*)\\\\$", inside, re.MULTILINE):
            assert len(re.findall(r"(?<!\\)&", row)) == len(kinds) - 1, row


def test_names_that_mean_something_to_a_format(made_up: Made, tmp_path: Path) -> None:
    name = r"a|b & <i> 50 % $x_1^2$ {\bf ~#} [0] --x 'q' \"`é"
    for i, rate in enumerate((0.1, 0.2)):
        made_up(tmp_path / str(i), settings={"name": f"{name}{i}", "meta_train.lr": rate})
    found = report(compare([tmp_path]))
    assert any(f"{name}0" in cell for row in found.tables[0].rows for cell in row)
    check_latex(as_latex(found).replace("é", "e"))
    assert r"-{}-x" in as_latex(found)
    (table,) = (b for b in as_markdown(found).split("\n\n") if b.startswith("|"))
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} == {7 + 1}
    page = as_html(found)
    assert "<i>" not in page
    assert "&lt;i&gt; 50 % $x_1^2$" in page


def test_what_would_move_a_terminal_s_cursor_is_not_printed(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", status="failed", info={"error": "\x1b[2Jgone\nnext"})
    made_up(tmp_path / "b", settings={"name": "x\x1b]0;title\x07"})
    found = report(compare([tmp_path]))
    for text in (as_markdown(found), as_latex(found), as_html(found)):
        assert "\x1b" not in text
    assert any("�[2Jgone next" in cell for row in found.tables[1].rows for cell in row)


class Tags(HTMLParser):
    """Notes which tags are open and what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs) -> None:
        assert not {"src", "href"} & {key for key, _ in attrs}
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html(found: Comparison) -> None:
    page = as_html(report(found))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert (tags.seen.count("table"), tags.seen.count("script")) == (3, 0)
    assert "R&amp;D_disk" in page
    assert '<td class="number">+20.00 ± 24.84</td>' in page


def test_csv(found: Comparison, folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [line["set"] for line in lines] == ["0", "0", "1", "", ""]
    best = lines[0]
    assert best["runs"].split(";") == [str(folder / "sweep_1" / f"0.2_{s}") for s in (0, 1, 2)]
    assert (best["seeds"], best["n"], best["meta_train.lr"]) == ("0;1;2", "3", "0.2")
    assert float(best["student_accuracy_1shot"]) == pytest.approx(0.7)
    assert float(best["student_accuracy_1shot_sd"]) == pytest.approx(0.1)
    assert float(best["student_accuracy_1shot_ci95"]) == pytest.approx(0.248414, abs=1e-6)
    assert float(best["difference_1shot"]) == pytest.approx(0.2)
    assert float(best["difference_1shot_p_adjusted"]) == pytest.approx(0.0742, abs=1e-4)
    assert (best["parameters"], best["on_front_parameters"]) == ("1000", "true")
    assert (lines[1]["difference_1shot"], lines[1]["on_front_parameters"]) == ("", "false")
    assert [line["status"] for line in lines[3:]] == ["failed", "damaged"]
    assert lines[3]["reason"] == "100 % of R&D_disk full"


def test_json(found: Comparison, folder: Path) -> None:
    content = json.loads(as_json(found))
    check_json(content)
    assert content["baseline"] == str(folder / "sweep_1" / "0.1_0")
    by_name = {Path(run["path"]).name: run for run in content["runs"]}
    assert {name: run["status"] for name, run in by_name.items() if run["results"] is None} == {
        "bad": "failed",
        "rot": "damaged",
    }
    assert by_name["0.2_1"]["settings"] == {"meta_train.lr": 0.2, "evaluate.seed": 12345}
    assert by_name["0.2_1"]["seed"] == 1
    assert by_name["0.2_1"]["results"]["student"]["fewshot"]["accuracy"] == pytest.approx(0.7)
    assert [(Path(p["run"]).name, Path(p["baseline"]).name) for p in content["pairs"]] == [
        (f"0.2_{s}", f"0.1_{s}") for s in (0, 1, 2)
    ]
    assert [p["difference"] for p in content["pairs"]] == pytest.approx([0.1, 0.2, 0.3])
    # Both tasks of a pair have the same difference: s is half an answer of 75, and the smallest p,
    # 1 - 2/π · atan(0.3 · 150 · √2), is multiplied by 3, which is more than twice the next one.
    p = 3 * (1 - 2 / math.pi * math.atan(45 * math.sqrt(2)))
    assert [one["p_adjusted"] for one in content["pairs"]] == pytest.approx([p] * 3, rel=1e-6)
    (pair,) = content["group_pairs"]
    assert (pair["over"], pair["seeds"], pair["tasks"]) == ("seeds", [0, 1, 2], 2)
    (apart,) = content["not_comparable"]
    assert Path(apart["runs"][0]).name == "other"
    assert apart["reason"] == "other evaluation seed (evaluate.seed): 12345 and 7"
    assert [group["set"] for group in content["groups"]] == [0, 0, 1]


def check_json(content: dict) -> None:
    """Hold a comparison against its published schema."""
    schemas = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in SCHEMAS.glob("*.schema.json")
    }
    registry = Registry().with_resources(
        (name, Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    schema = schemas["compare.schema.json"]
    Draft202012Validator.check_schema(schema)
    errors = Draft202012Validator(schema, registry=registry).iter_errors(content)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
    broken = {**content, "runs": [{**content["runs"][0], "seed": "1"}]}
    assert not Draft202012Validator(schema, registry=registry).is_valid(broken)


def test_without_a_baseline_the_json_says_null(folder: Path) -> None:
    content = json.loads(as_json(compare([folder])))
    check_json(content)
    assert content["baseline"] is None
    assert len(content["group_pairs"]) == 1


def test_nothing_to_compare(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", status="interrupted")
    found = compare([tmp_path])
    assert [table.title for table in report(found).tables] == ["without results"]
    check_json(json.loads(as_json(found)))
    assert len(as_csv(found).splitlines()) == 2
    for form in (as_markdown, as_html):
        assert "interrupted" in form(report(found))
    check_latex(as_latex(report(found)))


def test_an_empty_report_is_text() -> None:
    assert as_markdown(Report((), ("x",))) == "x\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (0.1 + 0.2, "0.3"), (3e-4, "0.0003"), ([1, 5], "[1,5]"),
        ("a\nb", "a b"), (7, "7"),
    ],
)  # fmt: skip
def test_settings_as_text(value: object, text: str) -> None:
    assert shown(value) == text
