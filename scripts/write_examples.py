"""Write the files that a page of the documentation shows into a folder, to try them.

python scripts/write_examples.py docs/adding.md my_folder
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["examples_of", "main", "write_examples"]

# A line that holds a path alone, in backticks, and then a block with the file's content.
_FILE = re.compile(r"^`([\w./]+\.\w+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples_of(page: Path) -> dict[str, str]:
    """Return the content of every file that `page` shows, by its path."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


def write_examples(page: Path, folder: Path) -> list[Path]:
    """Write the files that `page` shows into `folder` and return them.

    Raises:
        FileExistsError: one of them is there already; nothing was written.
    """
    files = {folder / name: text for name, text in examples_of(page).items()}
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} exists already")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return list(files)


def main(argv: Sequence[str]) -> int:
    """Write a page's files and name them."""
    if len(argv) != 2:
        print(f"usage: python {Path(__file__).name} PAGE FOLDER", file=sys.stderr)
        return 2
    try:
        written = write_examples(Path(argv[0]), Path(argv[1]))
    except OSError as error:
        print(f"write_examples: {error}", file=sys.stderr)
        return 2
    for file in written:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
