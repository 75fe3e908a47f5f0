"""An experiment that is another one where torchvision's weights are on this machine.

The file of an experiment can say

    if_downloaded:
      resnet18-f37072fd.pth: photos/pretrained    # file of weights: the experiment to take then

and where torch hub's cache holds that file, the other experiment is what is composed. Nothing is
downloaded for it, and torch is not imported: the file is looked for by its name. Words that
decide on the teacher would fit one of the two only: where any is typed, the file is taken as it
is. A run records the settings that it got.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from metakd.config.locate import Choices, content_of
from metakd.errors import UserError

__all__ = ["IF_DOWNLOADED", "hub_checkpoints", "with_downloaded"]

IF_DOWNLOADED = "if_downloaded"
DECIDE = ("teacher", "pretrain", "distill")
"""Groups that say which teacher there is and what is asked of it."""


def hub_checkpoints() -> Path:
    """Return the folder in which torch hub keeps weights, as `torch.hub.get_dir` says it."""
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    home = os.getenv("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home), "hub", "checkpoints")


def with_downloaded(
    lines: Sequence[str], parsed: Sequence[Override], choices: Choices
) -> tuple[list[str], tuple[str, ...]]:
    """Replace a typed experiment whose weights are here by the other one.

    Args:
        lines: overrides, as Hydra is to see them.
        parsed: the same, parsed.
        choices: the available choices.

    Returns:
        the overrides, and a line that says which experiment was taken; none where the typed one
        has no other.

    Raises:
        UserError: the experiment's file cannot be read, or names an experiment that there is not.
    """
    found, said = list(lines), []
    typed = [p.key_or_group for p in parsed if p.key_or_group.partition(".")[0] in DECIDE]
    for i, override in enumerate(parsed):
        name = override.value()
        if override.key_or_group != "experiment" or not isinstance(name, str):
            continue
        others = _others(choices, name)
        if not others:
            continue
        folder = hub_checkpoints()
        here = [file for file in others if (folder / file).is_file()]
        if typed:
            said.append(f"experiment={name} is used as it is, since {typed[0]} is typed")
        elif here:
            other = others[here[0]]
            found[i] = f"{found[i].partition('=')[0]}={other}"
            said.append(
                f"experiment={name}: experiment={other} is used, since its teacher's weights are "
                f"here ({folder / here[0]})"
            )
        else:
            file, other = next(iter(others.items()))
            said.append(
                f"experiment={name} is used as it is: {folder} holds no {file}, with which "
                f"experiment={other} would be used"
            )
    return found, tuple(said)


def _others(choices: Choices, experiment: str) -> dict[str, str]:
    """Return by file of weights the experiment to take where it is."""
    file = choices.of("experiment").get(experiment)
    if file is None:
        return {}  # null, or refused elsewhere
    content = content_of(file)
    others = content.get(IF_DOWNLOADED) if isinstance(content, dict) else None
    if others is None:
        return {}
    if not isinstance(others, dict) or not all(
        isinstance(word, str) for pair in others.items() for word in pair
    ):
        raise UserError(f"{file}: {IF_DOWNLOADED}: expected lines like 'FILE.pth: EXPERIMENT'")
    for other in others.values():
        choices.file("experiment", other)  # refuses one that there is not
    return dict(others)
