"""Where the configuration files are, and which choices they offer; needs no Hydra, no torch."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.errors import UserError, nearest
from metakd.plain_data import UnreadableError, parse_yaml, read_text

__all__ = [
    "ALIASES",
    "Choices",
    "conf_folder",
    "content_of",
    "description",
    "supports_of",
    "user_folder",
]

ALIASES = {"teacher": "architecture", "student": "architecture"}
"""Groups that are offered from another group's folder."""


def conf_folder() -> Path:
    """Return the folder of the built-in configuration files.

    It stands inside the package when that was installed from a wheel, and beside it in a
    checkout (also with an editable install).
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RuntimeError(f"metakd is not installed completely: no conf/ in {package}")


def user_folder(typed: str | Path | None) -> Path | None:
    """Return the user's own configuration folder (`--config-dir`) as an absolute path.

    Raises:
        UserError: there is no such folder.
    """
    if typed is None:
        return None
    folder = Path(typed).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir {typed}: there is no such folder")
    return folder


class Choices:
    """The groups and choices that the built-in folder and maybe a user's own one offer.

    Attributes:
        folders: the folders that are looked in, first the user's: its files win.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self.folders = [f for f in (config_dir, conf_folder()) if f is not None]

    def groups(self) -> list[str]:
        """Return the names that can be typed left of `=` to choose, in alphabetical order."""
        found = {
            d.name
            for folder in self.folders
            for d in folder.iterdir()
            if d.is_dir() and not d.name.startswith((".", "_")) and d.name != "hydra"
        }
        offered = {alias for alias, folder in ALIASES.items() if folder in found}
        return sorted((found | offered | {"experiment"}) - set(ALIASES.values()))

    def of(self, group: str) -> dict[str, Path]:
        """Return the files of a group's choices by name (`omniglot/maml` in subfolders)."""
        found: dict[str, Path] = {}
        # A file in a folder of the group's own name beats one of the folder that it borrows from.
        names = [n for n in (group, ALIASES.get(group)) if n is not None]
        for folder in self.folders:
            for name in names:
                root = folder / name
                for file in sorted(root.rglob("*.yaml")):
                    found.setdefault(file.relative_to(root).with_suffix("").as_posix(), file)
        return dict(sorted(found.items()))

    def file(self, group: str, choice: str) -> Path:
        """Return the file of a choice.

        Raises:
            UserError: there is no such choice.
        """
        choices = self.of(group)
        if choice not in choices:
            hint = nearest(choice, choices)
            if not hint:
                hint = f" Choose one of: {', '.join(choices)}." if choices else " There is none."
            raise UserError(f"{group}={choice}: no such choice.{hint}")
        return choices[choice]


def content_of(file: Path) -> Any:
    """Return what a configuration file holds, which may be anything that YAML can say.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return copy.deepcopy(_parsed(read_text(file)))
    except UnreadableError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """Parse a text once: every composition reads the same files several times."""
    return parse_yaml(text)


def supports_of(group: str, choice: str) -> Mapping[str, Any]:
    """Return the facts that a choice's file states."""
    found: Mapping[str, Any] = (content_of(Choices().file(group, choice)) or {}).get("supports", {})
    return found


def description(file: Path) -> str:
    """Return the one-line description of a choice: the comment that its file begins with.

    A `# @package …` line belongs to Hydra and is passed over.
    """
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            text = line.strip()
            if text.startswith("#") and not text.lstrip("# ").startswith("@package"):
                return text.lstrip("# ").strip()
            if text and not text.startswith("#"):
                break
    return ""
