"""Optuna's study on disk: a journal in the multirun's folder, mended and opened."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.errors import UserError
from metakd.searching.settings import DIRECTIONS

if TYPE_CHECKING:
    import optuna

__all__ = ["JOURNAL", "STUDY", "opened", "quiet", "require_optuna"]

JOURNAL = "optuna.journal"
STUDY = "metakd"


def require_optuna(sampler: str = "tpe") -> None:
    """Refuse a search where Optuna is not installed.

    Raises:
        UserError: with what to type.
    """
    needed = {"optuna": "Optuna", **({"scipy": "SciPy"} if sampler == "gp" else {})}
    for module, name in needed.items():
        try:
            __import__(module)
        except ImportError as error:
            raise UserError(
                f"a search needs {name}, which is not installed: type pip install "
                f"'metakd[search]' ({error})"
            ) from error


def opened(path: Path, objectives: Sequence[str]) -> optuna.Study:
    """Return the study of a journal, made if there is none.

    Args:
        path: the journal.
        objectives: names of what is searched for.

    Raises:
        UserError: it cannot be read or written.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        _mend(path)
        with quiet():
            study = optuna.create_study(
                study_name=STUDY,
                storage=JournalStorage(JournalFileBackend(str(path))),
                directions=[DIRECTIONS[name] for name in objectives],
                load_if_exists=True,
            )
            if study.metric_names is None:
                study.set_metric_names(list(objectives))
            elif study.metric_names != list(objectives):
                raise ValueError(f"its objectives are {', '.join(study.metric_names)}")
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"'{path}' cannot be read: {error}; single trials still go on with metakd train "
            f"resume={path.parent / 'NUMBER'}"
        ) from error
    return study


def _mend(path: Path) -> None:
    """Take back what a killed process has left: half a line at the end, and Optuna's lock.

    Nobody else writes: the caller holds the lock of the folder.
    """
    lock = path.with_name(path.name + ".lock")
    lock.unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's remarks on what is experimental, and on packages that would be faster, off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
