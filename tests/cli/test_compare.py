"""`metakd compare`: what is printed, refused and written; no torch for any of it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.cli.completion import candidates

Made = Callable[..., Path]


@pytest.fixture
def sweep(made_up: Made, tmp_path: Path) -> Path:
    """Three jobs of a multirun, of which one failed."""
    folder = tmp_path / "sweep"
    for job, values in enumerate(([0.5, 0.6, 0.6, 0.7], [0.6, 0.8, 0.7, 0.9])):
        made_up(folder / str(job), {"student": {1: values}}, settings={"meta_train.lr": job + 1})
    made_up(folder / "2", status="failed", info={"error": "no memory"})
    return folder


def test_help_has_examples(metakd) -> None:
    answer = metakd("compare", "--help")
    assert (answer.status, answer.err) == (0, "")
    assert "metakd compare outputs/sweep --baseline" in answer.out
    for option in ("--json", "--csv", "--markdown", "--latex", "--html", "--no-group", "--shots"):
        assert option in answer.out
    assert "compare " in metakd("--help").out


def test_a_table_with_everything(metakd, sweep: Path) -> None:
    answer = metakd("compare", str(sweep), "--baseline", str(sweep / "0"))
    assert (answer.status, answer.err) == (0, "")
    assert "80.00" not in answer.out
    above = "all: algorithm=protonet, distill=embedding, student=conv4_small, parameters 1,000, "
    assert above in answer.out
    line = next(line for line in answer.out.splitlines() if line.split()[:1] == ["lr=2"])
    assert "75.00 ± 12.65" in line
    assert "+15.00 ± 9.19" in line
    assert "0.014" in line
    assert line.split()[-1] == "1"  # its folder
    assert (
        "lr=2 is better than lr=1, by 15.00 ± 9.19 points on the same 4 tasks (p = 0.014)"
        in answer.out
    )
    failed = next(line for line in answer.out.splitlines() if "no memory" in line)
    assert "failed" in failed.split()


def test_json_is_alone_on_standard_output(metakd, sweep: Path) -> None:
    answer = metakd("compare", str(sweep), "--json", "--baseline", str(sweep / "0"))
    assert (answer.status, answer.err) == (0, "")
    content = json.loads(answer.out)
    assert (content["schema"], content["baseline"]) == (1, str(sweep / "0"))
    assert [(run["path"], run["status"]) for run in content["runs"]] == [
        (str(sweep / "0"), "finished"),
        (str(sweep / "1"), "finished"),
        (str(sweep / "2"), "failed"),
    ]
    (pair,) = content["pairs"]
    assert (pair["run"], pair["baseline"]) == (str(sweep / "1"), str(sweep / "0"))
    assert (pair["model"], pair["tasks"]) == ("student", 4)
    assert pair["difference"] == pytest.approx(0.15)
    assert pair["p_adjusted"] == pytest.approx(0.0138466, abs=1e-6)
    assert content["not_comparable"] == []


@pytest.mark.parametrize(
    ("option", "begins"),
    [("--csv", "set,runs,name,"), ("--markdown", "**5-way accuracy"), ("--latex", "% \\use")],
)
def test_other_formats(metakd, sweep: Path, option: str, begins: str) -> None:
    answer = metakd("compare", str(sweep), option)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith(begins)
    assert "no memory" in answer.out


def test_no_group(metakd, made_up: Made, tmp_path: Path) -> None:
    for seed in (1, 2):
        made_up(tmp_path / str(seed), seed=seed)
    for words, expected in (((), ["2"]), (("--group",), ["2"]), (("--no-group",), ["1", "1"])):
        lines = csv.DictReader(io.StringIO(metakd("compare", str(tmp_path), "--csv", *words).out))
        assert [line["n"] for line in lines] == expected


def test_a_page(metakd, sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    answer = metakd("compare", str(sweep), "--json", "--html", str(page))
    assert (answer.status, json.loads(answer.out)["schema"]) == (0, 1)
    assert "no memory" in page.read_text(encoding="utf-8")
    answer = metakd("compare", str(sweep), "--html", str(tmp_path / "no" / "page.html"))
    assert (answer.status, answer.err.count("\n"), answer.out) == (2, 1, "")
    assert "cannot be written (no such file or directory)" in answer.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "compare: which runs?"),
        (("nowhere",), "'nowhere' does not exist."),
        ((".",), "there is no run in '.'; name a run's folder"),
        ((".", "--json", "--csv"), "--json and --csv are mutually exclusive"),
        ((".", "--group", "--no-group"), "--group and --no-group are mutually exclusive"),
        ((".", "--model", "studnet"), "Did you mean 'student'?"),
        ((".", "--shots", "one"), "--shots one: expected whole numbers, at least 1"),
        ((".", "--shots", "0"), "--shots 0: expected whole numbers"),
        ((".", "--jsn"), "--jsn: no such option of metakd compare. Did you mean '--json'?"),
        ((".", "--baseline"), "expected one argument"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_refusals(
    metakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = metakd("compare", *words)
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert complaint in answer.err


def test_a_failed_baseline(metakd, sweep: Path) -> None:
    answer = metakd("compare", str(sweep), "--baseline", str(sweep / "2"))
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "has no figures to compare with (status failed: no memory)" in answer.err


def test_relative_paths(metakd, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep)
    content = json.loads(metakd("compare", "1", "./0", "--baseline", "../sweep/0", "--json").out)
    assert [run["path"] for run in content["runs"]] == [str(sweep / "1"), str(sweep / "0")]
    assert content["baseline"] == str(sweep / "0")


def test_five_hundred_runs(metakd, made_up: Made, tmp_path: Path) -> None:
    for i in range(500):
        figures = {"student": {1: [0.5, 0.7, 0.6, 0.1 * (i % 5)]}}
        made_up(tmp_path / str(i), figures, seed=i % 5, settings={"meta_train.lr": i // 5 + 1})
    content = json.loads(
        metakd("compare", str(tmp_path), "--baseline", str(tmp_path / "0"), "--json").out
    )
    assert (len(content["runs"]), len(content["groups"])) == (500, 100)
    assert (len(content["pairs"]), len(content["group_pairs"])) == (495, 99)


def test_no_torch_is_imported(sweep: Path) -> None:
    code = (
        "import sys, metakd.cli\n"
        "for options in ((), ('--json',), ('--latex',)):\n"
        f"    metakd.cli.main(['compare', {str(sweep)!r}, *options])\n"
        "assert not {'torch', 'hydra', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_completion() -> None:
    assert "compare" in candidates("metakd com")
    assert candidates("metakd compare --mark") == ["--markdown"]
    assert candidates("metakd compare outputs/") == []  # the shell completes file names
