"""Which kinds of random change a kind of data knows."""

from __future__ import annotations

from collections.abc import Collection

from metakd.errors import UserError, nearest

__all__ = ["check_kinds"]


def check_kinds(dataset: str, asked: Collection[str], known: Collection[str], of: str) -> None:
    """Refuse kinds of random change that there are not.

    Args:
        dataset: its name.
        asked: the kinds.
        known: those that there are.
        of: what the dataset holds.

    Raises:
        UserError: naming one and the nearest that there is.
    """
    for kind in sorted({*asked} - {*known}):
        choose = f"no kind '{kind}'; choose from {', '.join(known)}.{nearest(kind, known)}"
        none = f"dataset {dataset} holds {of}, which know none: type []"
        raise UserError(f"dataset.augment: {choose if known else none}")
