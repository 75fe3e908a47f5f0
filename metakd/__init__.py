"""MetaKD: small networks that learn new tasks from a few examples, taught by a large one.

From Python, what the command line does is one line::

    import metakd

    results = metakd.train(algorithm="maml", **{"task.shots": 5})
    results["student"]["fewshot"]["accuracy"]

Settings are typed as on the command line (``"algorithm=maml"``) or given by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metakd.comparing.records import Records
    from metakd.config.compose import Composed
    from metakd.from_python.results import Results
    from metakd.from_python.sweeps import Ablation, Jobs
    from metakd.using.classifier import FewShotClassifier
    from metakd.using.regressor import FewShotRegressor

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "ablate",
    "compare",
    "compose",
    "evaluate",
    "load",
    "reproduce",
    "resume",
    "sweep",
    "train",
]


def compose(*overrides: str, config_dir: str | Path | None = None, **settings: Any) -> Composed:
    """Compose a run's config as `metakd train OVERRIDES` does and check it.

    Args:
        overrides: what would be typed, e.g. ``"algorithm=maml"``.
        config_dir: folder of the user's own config files (`--config-dir`).
        settings: the same by name, e.g. ``algorithm="maml", **{"task.shots": 5}``.

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed.
        UserError: something that cannot be used, with the nearest valid name.
    """
    return _composed("compose", overrides, config_dir, settings)


def _composed(
    function: str, overrides: Sequence[str], config_dir: str | Path | None, settings: Any
) -> Composed:
    from metakd.config.checks import check
    from metakd.config.compose import compose as compose_config
    from metakd.from_python.settings import words_of

    words = words_of(function, overrides, settings)
    composed = compose_config(words, None if config_dir is None else Path(config_dir))
    check(composed.config)
    return composed


def train(
    *overrides: str, config_dir: str | Path | None = None, quiet: bool = True, **settings: Any
) -> Results:
    """Run the whole pipeline and return the content of results.json, and the run's `folder`.

    Args:
        overrides: what would be typed after `metakd train`.
        config_dir: folder of the user's own config files (`--config-dir`).
        quiet: neither progress nor the final table.
        settings: the same by name, e.g. ``algorithm="maml", **{"task.shots": 5}``.

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed.
        UserError: something that was given cannot be used; no run folder was made.
    """
    composed = _composed("train", overrides, config_dir, settings)
    from metakd import pipeline
    from metakd.from_python.results import Results
    from metakd.models.randomness import random_state_kept

    with random_state_kept():
        return Results(pipeline.train(composed, quiet=quiet))


def sweep(
    *overrides: str,
    jobs: int | None = None,
    config_dir: str | Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Jobs:
    """Run every combination, or search, as `metakd train -m OVERRIDES` does.

    ``metakd.sweep("seed=0,1,2", distill=["none", "kd"], jobs=2)``; a job that fails takes no other
    along and raises nothing: see the `status` of each.

    Args:
        overrides: what would be typed; ``"resume=FOLDER"`` goes on with a multirun.
        jobs: at a time; None: as typed (`sweep.jobs`), else 1.
        config_dir: folder of the user's own config files.
        quiet: neither table nor lines.
        settings: the same by name; a list holds the values of several runs (for a setting that
            takes a list itself: a list of lists).

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed.
        UserError: a combination that is impossible, a folder that cannot be used; nothing ran.
    """
    from metakd.from_python.settings import words_of
    from metakd.from_python.sweeps import swept

    words = words_of("sweep", overrides, settings, several=True)
    words += [] if jobs is None else [f"sweep.jobs={jobs}"]
    return swept(words, None if config_dir is None else str(config_dir), quiet)


def ablate(
    *overrides: str,
    jobs: int | None = None,
    shots: int | Sequence[int] = (),
    config_dir: str | Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Ablation:
    """Tell what meta-learning and distillation each contribute, as `metakd ablate` does.

    Args:
        overrides: what would be typed; ``"resume=FOLDER"`` goes on with ablations.
        jobs: at a time; None: as typed (`sweep.jobs`), else 1.
        shots: numbers of shots to compare on; none: those of the headlines.
        config_dir: folder of the user's own config files.
        quiet: neither table nor lines.
        settings: the same by name; ``seed=[0, 1, 2]`` are several seeds.

    Returns:
        the jobs, with `verdicts`, the sentences on what helped.

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed, shots that are no
            numbers of them.
        UserError: something that cannot be used; nothing ran.
    """
    from metakd.from_python.settings import words_of
    from metakd.from_python.sweeps import ablated

    words = words_of("ablate", overrides, settings, several=True)
    words += [] if jobs is None else [f"sweep.jobs={jobs}"]
    wanted = [shots] if isinstance(shots, int) else shots
    return ablated(words, None if config_dir is None else str(config_dir), wanted, quiet)


def resume(
    run: str | Path,
    *overrides: str,
    config_dir: str | Path | None = None,
    changed: bool = False,
    quiet: bool = True,
    **settings: Any,
) -> Results:
    """Go on with a run that was stopped, to the same end; return the content of results.json.

    Args:
        run: the run's folder.
        overrides: what is to differ from the run's own config.
        config_dir: folder of the user's own config files.
        changed: allow overrides that make it another run.
        quiet: neither progress nor the final table.
        settings: overrides by name.

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed.
        UserError: not a run, one in progress, or one with another config or other data.
    """
    from metakd import pipeline
    from metakd.from_python.results import Results
    from metakd.from_python.settings import words_of
    from metakd.models.randomness import random_state_kept

    words = words_of("resume", overrides, settings)
    with random_state_kept():
        return Results(pipeline.resume(Path(run), words, config_dir, changed=changed, quiet=quiet))


def evaluate(
    run: str | Path,
    *overrides: str,
    images: str | Path | None = None,
    ensemble: str | Path | Sequence[str | Path] = (),
    config_dir: str | Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Results:
    """Evaluate a finished run's models again, as `metakd evaluate RUN OVERRIDES` does.

    Args:
        run: the run's folder.
        overrides: what is to be different, e.g. ``"task.shots=5"``, ``"dataset=omniglot"``.
        images: a folder that holds a folder of pictures for each new class (`--images`).
        ensemble: folders of further runs, whose students' answers are averaged with this one's
            (`--ensemble`).
        config_dir: folder of the user's own config files (`--config-dir`).
        quiet: neither progress nor the final table.
        settings: the same by name.

    Raises:
        TypeError: an override that is no text, a setting that cannot be typed.
        UserError: not a run, or it cannot be evaluated so.
    """
    from metakd import pipeline
    from metakd.from_python.results import Results
    from metakd.from_python.settings import words_of
    from metakd.models.randomness import random_state_kept

    words = words_of("evaluate", overrides, settings)
    if images is not None:
        from metakd.config.recorded import images_overrides

        words = [*images_overrides(str(images)), *words]
    further = [ensemble] if isinstance(ensemble, str | os.PathLike) else ensemble
    with random_state_kept():
        if further:
            runs = [Path(one) for one in (run, *further)]
            return Results(pipeline.evaluate_ensemble(runs, words, config_dir, quiet=quiet))
        return Results(pipeline.evaluate_run(Path(run), words, config_dir, quiet=quiet))


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
        path: a run's folder, or one that the object's `save` or `metakd export` wrote.
        which: `student`, `compressed`, `student_alone` or `teacher`, of a run.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        batch_size: pictures that are read and asked about at once.
        batchnorm: `inductive` (an answer depends on the examples and the one picture alone) or
            `transductive` (on all pictures of a call); None: as saved, else inductive.
        steps: of adaptation; None: as saved, else as the run was evaluated.
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
    from metakd.models.randomness import random_state_kept

    with random_state_kept():
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

    return records(paths, baseline, model, shots, grouped)
