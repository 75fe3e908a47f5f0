"""MetaKD: small networks that learn new tasks from a few examples, taught by a large one.

From Python, what the command line does is one line::

    import metakd

    results = metakd.train("algorithm=maml", "task.shots=5")
    results["student"]["fewshot"]["accuracy"]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metakd.comparing.records import Records
    from metakd.config.compose import Composed
    from metakd.using.classifier import FewShotClassifier
    from metakd.using.regressor import FewShotRegressor

__version__ = "0.1.0"

__all__ = ["__version__", "compare", "compose", "evaluate", "load", "reproduce", "resume", "train"]


def compose(*overrides: str, config_dir: str | Path | None = None) -> Composed:
    """Compose a run's config as `metakd train OVERRIDES` does and check it.

    Args:
        overrides: what would be typed, e.g. ``"algorithm=maml"``.
        config_dir: folder of the user's own config files (`--config-dir`).

    Raises:
        UserError: something that cannot be used, with the nearest valid name.
    """
    from metakd.config.checks import check
    from metakd.config.compose import compose as compose_config

    composed = compose_config(overrides, None if config_dir is None else Path(config_dir))
    check(composed.config)
    return composed


def train(
    *overrides: str, config_dir: str | Path | None = None, quiet: bool = True
) -> dict[str, Any]:
    """Run the whole pipeline and return the content of results.json, and the run's `folder`.

    Args:
        overrides: what would be typed after `metakd train`.
        config_dir: folder of the user's own config files (`--config-dir`).
        quiet: neither progress nor the final table.

    Raises:
        UserError: something that was given cannot be used; no run folder was made.
    """
    composed = compose(*overrides, config_dir=config_dir)
    from metakd import pipeline

    return pipeline.train(composed, quiet=quiet)


def resume(
    run: str | Path,
    *overrides: str,
    config_dir: str | Path | None = None,
    changed: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Go on with a run that was stopped, to the same end; return the content of results.json.

    Args:
        run: the run's folder.
        overrides: what is to differ from the run's own config.
        config_dir: folder of the user's own config files.
        changed: allow overrides that make it another run.
        quiet: neither progress nor the final table.

    Raises:
        UserError: not a run, one in progress, or one with another config or other data.
    """
    from metakd import pipeline

    return pipeline.resume(Path(run), overrides, config_dir, changed=changed, quiet=quiet)


def evaluate(
    run: str | Path,
    *overrides: str,
    config_dir: str | Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Judge a finished run's models again, as `metakd evaluate RUN OVERRIDES` does.

    Args:
        run: the run's folder.
        overrides: what is to be different, e.g. ``"task.shots=5"``, ``"dataset=omniglot"``.
        config_dir: folder of the user's own config files (`--config-dir`).
        quiet: neither progress nor the final table.

    Raises:
        UserError: not a run, or it cannot be judged so.
    """
    from metakd import pipeline

    return pipeline.evaluate_run(Path(run), overrides, config_dir, quiet=quiet)


def load(
    path: str | Path,
    which: str = "student",
    *,
    device: str = "auto",
    batch_size: int = 256,
    batchnorm: str | None = None,
    steps: int | None = None,
    plugins: Sequence[str] = (),
) -> FewShotClassifier | FewShotRegressor:
    """Return a run's model as an object with scikit-learn's conventions: `fit`, `predict` ….

    Neither the data that it was trained on nor its folder is needed.

    Args:
        path: a run's folder, or one that the object's `save` wrote.
        which: `student`, `student_alone` or `teacher`, of a run.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        batch_size: pictures that are read and asked about at once.
        batchnorm: `inductive` (an answer depends on the examples and the one picture alone) or
            `transductive` (on all pictures of a call); None: as saved, else inductive.
        steps: of adaptation; None: as saved, else as the run was judged.
        plugins: modules whose classes the caller permits, for a run that used some.

    Raises:
        UserError: neither a run nor a saved learner, or one that cannot be used here.
    """
    from metakd import pipeline

    return pipeline.load(
        Path(path),
        which,
        device=device,
        batch_size=batch_size,
        batchnorm=batchnorm,
        steps=steps,
        plugins=plugins,
    )


def reproduce(
    run: str | Path,
    *overrides: str,
    config_dir: str | Path | None = None,
    output: str | Path | None = None,
    cached_teacher: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Run a finished run again and compare every figure, as `metakd reproduce RUN` does.

    Args:
        run: the run's folder.
        overrides: where things lie, on what it runs, e.g. ``"data_root=/data"``.
        config_dir: folder of the user's own config files.
        output: the new run's folder; None: one below `output_root`.
        cached_teacher: take the teacher from the cache if it is there.
        quiet: neither progress nor the final table.

    Returns:
        the comparison: `same`, `figures`, `different`, `differences`, `changed`; `again` is the
        new run's folder.

    Raises:
        UserError: not a finished run, or one that cannot be repeated.
    """
    from metakd import pipeline

    return pipeline.reproduce(
        Path(run),
        overrides,
        config_dir,
        output=None if output is None else Path(output),
        cached_teacher=cached_teacher,
        quiet=quiet,
    )


def compare(
    *paths: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    model: str = "student",
    shots: int | Sequence[int] = (),
    grouped: bool = True,
) -> Records:
    """Compare runs, as `metakd compare` does: a dictionary for each, printed as the table.

    ``metakd.compare("outputs").to_pandas()`` is a data frame, ``….pairs`` the differences on the
    same tasks.

    Args:
        paths: runs, and folders that hold some.
        baseline: the run that the others are compared with; None: all rows with all.
        model: whose figures are compared: `student`, `student_alone` or `teacher`.
        shots: numbers of shots; none: those of the headlines.
        grouped: put runs that differ in nothing but the seed into one row, in the printed table
            and for differences.

    Raises:
        TypeError: an argument of another type.
        UserError: a path that does not exist, no run, or a baseline without figures.
    """
    from metakd.comparing.records import records

    wanted = [shots] if isinstance(shots, int) else shots
    return records(paths, baseline, model, wanted, grouped)
