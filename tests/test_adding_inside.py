"""One file of each kind more: tests that look for files take them, and nothing else is edited."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding.md"
FOLDERS = ("metakd", "conf", "scripts", "tests", "docs")
SAME_LETTERS = {
    "architecture": ("two_layers", "resnet_two_layers"),
    "algorithm": ("nearest", "maml_nearest"),
}
"""Further choices whose names begin as others' do, by group: the file that each is a copy of."""

TESTS = (
    "tests/models/test_two_layers.py",
    "tests/distillation/test_logit_l1.py",
    "tests/algorithms/test_nearest.py",
    "tests/data/test_stripes.py",
    "tests/models/test_architectures.py",
    "tests/distillation/test_choices.py",
    "tests/cli/test_completion.py",
    "tests/cli/test_list.py",
    "tests/config/test_brings.py",
    "tests/using/test_predictions.py",
    "tests/golden/test_golden.py",
    "tests/test_rooms.py",
    "tests/test_scripts.py",
)
CONCERNED = "two_layers or logit_l1 or nearest or stripes or completion or test_list or go_down"
CONCERNED += " or promised or kind_is or every_file"
"""Of the tests that there is one of for each choice, those of the new ones alone."""


def place_of(name: str, page: str) -> str:
    """Return where section 7 of the page puts one of its files."""
    room = Path(name).parts[0]
    (table,) = re.findall(r"^## 7\. .*?(?=^## )", page, re.MULTILINE | re.DOTALL)
    shown = {"mine": "metakd"}.get(room, room)
    (place,) = re.findall(rf"`({shown}/[\w/]+/{re.escape(Path(name).name)})` \|", table)
    return place


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's examples inside, as its section 7 says."""
    copy = tmp_path_factory.mktemp("project")
    left_out = shutil.ignore_patterns("__pycache__", "_build", "api")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=left_out)
    for file in ("pyproject.toml", "CONTRIBUTING.md", "README.md"):
        shutil.copy(ROOT / file, copy)
    page = PAGE.read_text(encoding="utf-8")
    examples = runpy.run_path(str(ROOT / "scripts" / "write_examples.py"))["examples_of"](PAGE)
    places = {name: place_of(name, page) for name in examples}
    modules = {
        ".".join(Path(name).with_suffix("").parts): ".".join(Path(place).with_suffix("").parts)
        for name, place in places.items()
        if name.endswith(".py")
    }
    for name, text in examples.items():
        for old, new in modules.items():
            text = re.sub(rf"\b{re.escape(old)}\b", new, text)
        assert not (copy / places[name]).exists()
        (copy / places[name]).write_text(text, encoding="utf-8")
    for group, (choice, another) in SAME_LETTERS.items():
        folder = copy / "conf" / group
        shutil.copy(folder / f"{choice}.yaml", folder / f"{another}.yaml")
    return copy


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in the copy, whose metakd it imports."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COMP_"))}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project,
        env={**own, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_s_examples_are_as_ruff_wants_them(project: Path) -> None:
    run(project, "ruff", "check", "--no-cache", "--select", "I", "--fix", "tests")
    for words in (("check",), ("format", "--check")):
        done = run(project, "ruff", *words, "--no-cache", "metakd", "tests")
        assert done.returncode == 0, done.stdout + done.stderr


def test_only_golden_figures_are_asked_for(project: Path) -> None:
    """All that is said of the new files: two algorithms have no golden figures, and what to do."""
    done = run(project, "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-k", CONCERNED, *TESTS)
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED ")}
    golden = "tests/golden/test_golden.py::test_"
    assert failed == {
        f"{golden}every_file_is_of_a_run",
        f"{golden}figures_are_those_of_before[nearest]",
        f"{golden}figures_are_those_of_before[maml_nearest]",
    }, done.stdout[-5000:] + done.stderr[-2000:]
    assert " error" not in done.stdout.splitlines()[-1]
    for name in ("nearest", "maml_nearest"):
        assert f"python scripts/golden.py --only {name} --write makes it" in done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 50
