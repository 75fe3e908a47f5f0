"""Files for contributors and servers agree with pyproject.toml, the Makefile and `.ci/run`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKE = (ROOT / "Makefile").read_text(encoding="utf-8")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def recipe(target: str) -> list[str]:
    """Return the lines that `make target` runs, with the Makefile's folder of programs."""
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKE, re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in lines.splitlines()]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # programs of .venv, so no versions of their own
    hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]]
    linted = [re.sub(r"( --check)? \.$", "", line) for line in recipe("lint")]
    assert hooks == linted
    assert {hook["language"] for hook in repository["hooks"]} == {"unsupported"}


def test_setup_installs_what_pre_commit_needs() -> None:
    dev = {re.split(r"[^\w-]", d)[0]: d for d in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert {"ruff", "mypy"} <= dev.keys()
    least = read(".pre-commit-config.yaml")["minimum_pre_commit_version"]
    assert dev["pre-commit"] == f"pre-commit>={least}"


def test_the_server_checks_every_version_and_both_ends_of_torch() -> None:
    check = read(".github/workflows/ci.yml")["jobs"]["check"]
    said = [c.rpartition(" :: ")[2] for c in PROJECT["project"]["classifiers"] if "Python ::" in c]
    assert check["strategy"]["matrix"]["python"] == said
    least, most = re.findall(r"[\d.]+", PROJECT["project"]["requires-python"])
    assert said[0] == least
    assert int(most.split(".")[1]) == int(said[-1].split(".")[1]) + 1
    assert check["strategy"]["matrix"]["torch"] == ["oldest", "newest"]
    assert "/.github/oldest.txt" in check["env"]["PIP_CONSTRAINT"]
    assert re.search(r"^PYTHON \?=", MAKE, re.MULTILINE)  # check["env"]["PYTHON"] decides it
    assert check["env"]["PYTHON"] == "python"


def test_the_server_runs_what_has_to_pass() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    for target in re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(), re.MULTILINE):
        assert recipe(target)


def test_the_server_makes_the_site() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["docs"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make docs"]
    install, build, _ = recipe("docs")
    assert install.endswith("-e '.[docs]'")
    assert " -W " in build  # a warning is an error
    extras = PROJECT["project"]["optional-dependencies"]["docs"]
    assert {"furo", "myst-nb", "sphinx"} == {re.split(r"[^\w-]", name)[0] for name in extras}
    folder = build.rpartition(" ")[2].rpartition("/")[0]
    assert f"{folder}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_oldest_torch_is_that_of_the_project() -> None:
    pinned = re.findall(r"^(\w+)==([\d.]+)\.\*$", (ROOT / ".github/oldest.txt").read_text(), re.M)
    needed = dict(
        d.split(">=") for d in PROJECT["project"]["dependencies"] if d.startswith("torch")
    )
    assert dict(pinned) == needed


def test_citation_agrees() -> None:
    citation = read("CITATION.cff")
    for key in ("version", "license", "keywords"):
        assert citation[key] == PROJECT["project"][key], key


@pytest.mark.parametrize("file", FORMS, ids=lambda f: f.name)
def test_issue_forms_ask_something(file: Path) -> None:
    form = read(str(file.relative_to(ROOT)))
    if file.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    ids = [question["id"] for question in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    assert all(question["attributes"]["label"] for question in form["body"])


def test_the_source_archive_holds_what_tests_read() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in (".ci", ".github", ".pre-commit-config.yaml", "CITATION.cff", "CONTRIBUTING.md"):
        assert name in included
