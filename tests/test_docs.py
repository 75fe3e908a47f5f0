"""What README.md and docs/ say is so: links, commands, names, and what docstrings say of docs/."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.cli import COMMANDS
from metakd.cli.ablate import ablate_parser, multirun_of
from metakd.cli.copy import run as copy
from metakd.cli.evaluate import evaluate_parser
from metakd.cli.sweep import combinations, expanded
from metakd.cli.train import replayed, resumed, train_parser
from metakd.config.locate import ALIASES, Choices, user_folder
from metakd.config.recorded import images_overrides
from metakd.errors import UserError
from metakd.searching.corners import corners
from metakd.searching.plan import plan

ROOT = Path(__file__).resolve().parents[1]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*FRONT, *sorted((ROOT / "docs").glob("*.md"))]
MAKE = (ROOT / "Makefile").read_text(encoding="utf-8")

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
EXISTING = (
    "dataset.folder",
    "dataset.splits",
    "teacher.checkpoint",
    "teacher.further_checkpoints",
    "student.checkpoint",
)
"""Settings that name what a reader has: made before the command is composed."""


SOURCES = [
    file
    for folder in ("metakd", "scripts", "tests")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file != Path(__file__)  # has wrong references on purpose
]
PAGE = re.compile(r"(?<![\w/.~-])(?:docs/)?([a-z]\w*\.md)\b(?:\)?,? sections? (\d+))?")
"""A page of docs/ and maybe a section, as docstrings, comments and pages name it."""
ELSEWHERE = {"table.md", "report.md"}  # what is written, not referred to

OTHERS = ("Axes",)
"""Classes of other packages that docstrings name."""


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """Return the `metakd` commands of a page's bash blocks, without their comments."""
    lines = "".join(blocks(page, "bash", "sh", "console")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
    return [shlex.join(w) for w in words if w and w[0].rpartition("/")[2] == "metakd"]


COMMAND_LINES = [(page, line) for page in PAGES for line in commands(page)]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who wrote out all files that the pages show."""
    write = runpy.run_path(str(ROOT / "scripts" / "write_examples.py"))["write_examples"]
    for page in PAGES:
        write(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def anchors(page: Path) -> set[str]:
    """Return the names that a page's headings can be linked by, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}"


def wrong_references(text: str) -> list[str]:
    """Return the references to pages of docs/ and their sections in `text` that lead nowhere."""
    wrong = []
    for found in PAGE.finditer(text):
        page, section = ROOT / "docs" / found[1], found[2]
        if found[1] in ELSEWHERE:
            continue
        if not page.is_file() or (section and not has_section(page, section)):
            wrong.append(found[0])
    return wrong


def has_section(page: Path, number: str) -> bool:
    """Say whether a page has the heading `## NUMBER. …`."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.search(rf"^#+ {number}\. ", text, re.MULTILINE) is not None


def test_a_wrong_reference_is_noticed() -> None:
    right = "(method.md section 3), docs/concepts.md, [concepts](concepts.md), section 6"
    assert wrong_references(right) == []
    wrong = ["method.md section 99", "docs/nowhere.md", "concepts.md), section 0"]
    assert wrong_references("; ".join(wrong)) == wrong


def test_references_to_pages_and_sections_lead_somewhere() -> None:
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in (*SOURCES, *PAGES)
        if (found := wrong_references(file.read_text(encoding="utf-8")))
    }
    assert wrong == {}


def resolved(name: str) -> object:
    """Return the module, class, function or attribute of a dotted name.

    Raises:
        ImportError: there is no such module.
        AttributeError: a module or class has no such attribute.
    """
    module, *rest = name.split(".")
    found: object = importlib.import_module(module)
    for word in rest:
        module = f"{module}.{word}"
        try:
            found = getattr(found, word)
        except AttributeError:
            found = importlib.import_module(module)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_modules_exist(page: Path) -> None:
    """`metakd.module.name` and imports from metakd, but for the page's own examples."""
    examples = runpy.run_path(str(ROOT / "scripts" / "write_examples.py"))["examples_of"](page)
    own = {Path(name).stem for name in examples}
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`(metakd(?:\.\w+)+)", text))
    for module, imported in re.findall(r"from (metakd[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    for name in names - {"metakd.log"}:
        if own.isdisjoint(name.split(".")):
            assert resolved(name) is not None, f"{page.name}: {name}"


def test_docstrings_refer_to_what_there_is() -> None:
    """`Class.name` in a docstring of metakd names a class of it and something that it has."""
    classes, said = classes_and_docstrings()
    referred = [
        (file, name, attribute)
        for file, text in said
        for name, attribute in re.findall(r"`([A-Z]\w+)\.(\w+)(?:\(\))?`", text)
        if name not in OTHERS
    ]
    wrong = [
        f"{file}: {name}.{attribute}"
        for file, name, attribute in referred
        if attribute not in attributes_of(name, classes)
    ]
    assert wrong == []
    assert len(referred) > 20


def classes_and_docstrings() -> tuple[dict[str, list[ast.ClassDef]], list[tuple[Path, str]]]:
    """Return metakd's classes by name (names need not be unique) and all its docstrings."""
    classes: dict[str, list[ast.ClassDef]] = {}
    said = []
    for file in sorted((ROOT / "metakd").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                said.append((file.relative_to(ROOT), str(node.value.value)))
    return classes, said


def attributes_of(name: str, classes: dict[str, list[ast.ClassDef]]) -> set[str]:
    """Return what a class and its bases in metakd define, also by `self.NAME =` in a method."""
    found: set[str] = set()
    for definition in classes.get(name, []):
        for node in ast.walk(definition):
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
        for base in definition.bases:
            if isinstance(base, ast.Name):
                found |= attributes_of(base.id, classes)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_files_exist(page: Path) -> None:
    """Paths into the project, in backticks, that are not those of the page's own examples."""
    text = page.read_text(encoding="utf-8")
    examples = set(runpy.run_path(str(ROOT / "scripts" / "write_examples.py"))["examples_of"](page))
    own = {Path(name).stem.removeprefix("test_") for name in examples}
    for name in re.findall(r"`((?:metakd|scripts|docs|tests|conf)/[\w/.]+\.\w+)`", text):
        if "CHOICE" in name or name in examples:
            continue
        shown = Path(name).stem.removeprefix("test_") in own  # its place inside the project
        assert shown or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"^:::\{toctree\}\n(?::.*\n)*\n((?:[^:\n]+\n)+):::$", index, re.MULTILINE)
    listed = [re.sub(r".*<(.*)>", r"\1", line) for line in "".join(trees).splitlines()]
    assert len(listed) == len(set(listed))
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert set(listed) == pages | {"notebooks/first_run", "api/modules"}


def test_pages_show_commands() -> None:
    assert len(COMMAND_LINES) > 10


@pytest.mark.parametrize(
    ("page", "line"), COMMAND_LINES, ids=[f"{p.name}:{c}" for p, c in COMMAND_LINES]
)
def test_command_composes(page: Path, line: str, reader: Path) -> None:
    command, *words = shlex.split(line)[1:]
    assert command.startswith("-") or command in COMMANDS
    if command == "train":
        asked = train_parser().read(words)
        run, _, asked.overrides = resumed(replayed(asked.overrides)[1])
        assert run is None or not asked.multirun
        jobs = jobs_of(asked.overrides, asked.config_dir) if asked.multirun else [asked.overrides]
        for job in jobs:
            make_what_it_names(job)
            metakd.compose(*job, config_dir=asked.config_dir)
    elif command == "ablate":
        typed = ablate_parser().read(words).overrides
        resumes = any(word.startswith("resume=") for word in typed)
        for job in [] if resumes else combinations(multirun_of(typed))[0]:
            metakd.compose(*job)
    elif command == "evaluate":
        evaluated = evaluate_parser().read(words)
        job = [word for word in evaluated.words[1:] if "=" in word]  # others are runs
        job += images_overrides(evaluated.images) if evaluated.images else []
        make_what_it_names(job)
        metakd.compose(*job)
    elif command == "copy":
        assert copy(words) == 0
    elif command == "list":
        folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
        groups = Choices(user_folder(folder)).groups()
        assert not words or words[0].startswith("-") or words[0] in (*groups, *ALIASES.values())


def jobs_of(words: list[str], config_dir: str | None) -> list[list[str]]:
    """Return the overrides of a multirun's jobs; of a search those at the ends of its space."""
    recipe, words = expanded(words, config_dir)
    if recipe is None:
        return combinations(words)[0]
    search = plan(recipe, words, config_dir)
    return [search.trial_words(values) for values in corners(search)][::5]


def make_what_it_names(overrides: list[str]) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        for path in value.strip("[]").split(",") if key in EXISTING else ():
            if Path(path).is_absolute():
                continue
            assert not path.startswith("~"), "name a folder that everybody could have"
            if Path(path).suffix:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).touch()
            else:
                Path(path).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_make_targets_exist(page: Path) -> None:
    for block in blocks(page, "bash", "sh", "console"):
        for target in re.findall(r"^\s*(?:\$ )?make ([\w-]+)", block, re.MULTILINE):
            assert re.search(rf"^{target}:", MAKE, re.MULTILINE), target


def test_tables_of_settings_are_current() -> None:
    script: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "document_settings.py"))
    page = script["PAGE"].read_text(encoding="utf-8")
    assert page == script["current"](page), "run python scripts/document_settings.py"
    for key in ("`task.shots`", "`evaluate.seed`", "`STAGE.lr`", "`teacher.checkpoint`"):
        assert key in page


def test_every_setting_has_a_meaning() -> None:
    script: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "document_settings.py"))
    for row in script["tables"]().splitlines():
        assert not row.startswith("| `") or row.split(" | ")[-1].strip(" |"), row


def test_the_experiment_of_the_page_chooses(reader: Path) -> None:
    config = metakd.compose("experiment=small", "seed=3", config_dir="my_conf").config
    assert (config.student.name, config.student.width, config.task.ways) == ("cnn", 16, 20)
    assert (config.meta_train.iterations, config.seed) == (500, 3)


def test_refusal_that_the_page_shows() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    \$ metakd train (.+)\n    metakd: (.+)$", page, re.MULTILINE)
    typed, answer = shown[0]
    with pytest.raises(UserError) as refused:
        metakd.compose(*shlex.split(typed))
    assert str(refused.value) == answer
