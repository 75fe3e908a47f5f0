"""What README.md and docs/ say is so: links, commands, tables of settings."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.cli import COMMANDS
from metakd.cli.ablate import ablate_parser, multirun_of
from metakd.cli.evaluate import evaluate_parser
from metakd.cli.sweep import combinations, expanded
from metakd.cli.train import replayed, resumed, train_parser
from metakd.config.judging import images_overrides
from metakd.config.locate import ALIASES, Choices, user_folder
from metakd.errors import UserError
from metakd.searching.corners import corners
from metakd.searching.plan import plan

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE = (ROOT / "Makefile").read_text(encoding="utf-8")

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
EXISTING = ("dataset.folder", "dataset.splits", "teacher.checkpoint", "student.checkpoint")
"""Settings that name what a reader has: made before the command is composed."""


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
        judged = evaluate_parser().read(words)
        job = judged.words[1:] + (images_overrides(judged.images) if judged.images else [])
        make_what_it_names(job)
        metakd.compose(*job)
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
        if key in EXISTING and not Path(value).is_absolute():
            assert not value.startswith("~"), "name a folder that everybody could have"
            if Path(value).suffix:
                Path(value).parent.mkdir(parents=True, exist_ok=True)
                Path(value).touch()
            else:
                Path(value).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_make_targets_exist(page: Path) -> None:
    for block in blocks(page, "bash", "sh", "console"):
        for target in re.findall(r"^\s*(?:\$ )?make (\w+)", block, re.MULTILINE):
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
