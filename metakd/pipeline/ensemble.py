"""Several finished runs' students as one: their averaged answers to the same tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metakd.config.compose import Composed
from metakd.config.schema import Config
from metakd.data.reading_progress import reading_shown_by
from metakd.errors import UserError
from metakd.pipeline.again import evaluation_composed, prepare_evaluation
from metakd.pipeline.deployed import cost_of
from metakd.pipeline.draw import class_rows
from metakd.pipeline.judging import judged
from metakd.pipeline.measure import Evaluated, evaluate_learner, paired_gain, precision_of
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.restored import learner_of, means_for
from metakd.pipeline.scale import scale_fitted_to
from metakd.pipeline.suspicion import keep
from metakd.pipeline.use import calibration_of
from metakd.reports.summary import summary
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.place import check_writable
from metakd.runs.provenance import machine
from metakd.runs.split import split_text, write_split
from metakd.stages.ensemble import averaged
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress
from metakd.tracking.terminal import Terminal

__all__ = ["evaluate_ensemble"]

SHARED = (
    "task.ways",
    "task.shots",
    "task.queries",
    "evaluate.tasks",
    "evaluate.seed",
    "evaluate.shots",
    "evaluate.part",
    "evaluate.centre",
    "evaluate.augmented_shots",
    "evaluate.augment",
)
"""Settings in which members may not differ; typed, they hold for all."""

OWN = ("evaluate.steps=[]", "evaluate.transductive=false")
"""Of an ensemble: the steps of each member's headline, inductive."""

NOT_SUMMED = ("peak_memory_bytes",)
"""Costs of members that need not be paid at the same time."""


@dataclass
class Member:
    """A run's student, measured.

    Attributes:
        run: its folder.
        evaluated: its figures.
        scale: by which its logits are multiplied before they are averaged.
        cost: what it costs.
    """

    run: RunFolder
    evaluated: Evaluated
    scale: float
    cost: dict[str, float]


def evaluate_ensemble(
    paths: Sequence[Path],
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate the students of several runs together, in `evaluations/<date_time>` of the first.

    The ensemble's probabilities are the mean of its members'; it is the `student` of that
    results.json, beside the figures of each member and the gain over it on the same tasks.

    Args:
        paths: the runs' folders.
        overrides: what is to differ from all of the runs' own configs.
        config_dir: folder of the user's own config files.
        quiet: neither progress nor the table.

    Returns:
        the content of that results.json, and its `folder`.

    Raises:
        UserError: fewer than two runs, or runs that do not answer the same tasks.
    """
    began = time.perf_counter()
    runs = [open_run(path) for path in paths]
    _check_runs(runs)
    composed = [_composed(run, overrides, config_dir) for run in runs]
    _check_same(runs, composed)
    check_writable(runs[0].path / "evaluations")
    recorder = Recorder(progress=Progress(quiet=quiet))
    members: list[Member] = []
    first: Prepared | None = None
    for number, (run, own) in enumerate(zip(runs, composed, strict=True), 1):
        with reading_shown_by(recorder.progress.bar):
            prepared = prepare_evaluation(run, own)
        for line in prepared.warnings:
            recorder.warn(line)
        if first is not None and prepared.data.checksum != first.data.checksum:
            raise UserError(
                f"'{run.path}' is evaluated on other classes or examples than '{runs[0].path}'; "
                "type evaluate.seen=keep, or leave one of them out"
            )
        first = first or prepared
        members.append(_measured(run, prepared, recorder, f"member {number}"))
    assert first is not None
    together = Evaluated(
        [
            averaged(each, [m.scale for m in members])
            for each in zip(*[m.evaluated.measurements for m in members], strict=True)
        ]
    )
    results = _results(together, members)
    results["timing"] = {"evaluate_s": time.perf_counter() - began}
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = RunFolder.create(runs[0].path / "evaluations" / moment)
    relative = [os.path.relpath(run.path, folder.path) for run in runs]
    for member, place in zip(results["members"], relative, strict=True):
        member["run"] = place
    infos = [run.read_run() for run in runs]
    outside = [line for info in infos for line in info.external_pretraining or []]
    folder.start(
        {
            "evaluates": relative[0],
            "members": relative,
            "device": str(first.device),
            **machine(),
            "data_checksum": first.data.checksum,
            "data_notes": list(first.everything.notes),
            "external_pretraining": list(dict.fromkeys(outside)),
        }
    )
    folder.write_config(first.composed.yaml, [*overrides, *OWN])
    if first.data.has_classes:
        write_split(folder.path, split_text(first.data.name, first.dealt))
    named = {"student": together}
    named |= {f"member_{i}": m.evaluated for i, m in enumerate(members, 1)}
    folder.write_episodes(
        row for name, j in named.items() for m in j.measurements for row in m.rows(name)
    )
    folder.write_per_class(class_rows(first, named))
    written = folder.write_results(results)
    keep(folder, [line for line in first.warnings if line not in first.everything.notes])
    folder.finish("finished")
    if not quiet:
        summary(written, Terminal(), folder.read_run().warnings or ())
        recorder.say(f"results: {folder.path}")
    return {**written.content, "folder": str(folder.path)}


def _composed(run: RunFolder, overrides: Sequence[str], config_dir: str | Path | None) -> Composed:
    """Return a member's configuration; nobody typed `OWN`, so nothing is said of it."""
    own = {word.partition("=")[0] for word in OWN}
    for override in overrides:
        key = override.partition("=")[0]
        if key in own:
            raise UserError(
                f"{key}: an ensemble is measured at the steps of each member's headline, "
                "inductive; leave it out"
            )
    composed = evaluation_composed(run, [*overrides, *OWN], config_dir)
    warnings = tuple(line for line in composed.warnings if line.split()[0] not in own)
    return replace(composed, typed=composed.typed - own, warnings=warnings)


def _measured(run: RunFolder, prepared: Prepared, recorder: Recorder, title: str) -> Member:
    """Measure a run's student."""
    config, data, info = prepared.config, prepared.data, run.read_run()
    learner = learner_of(prepared, run, "student")
    own = data.checksum == info.data_checksum
    means = means_for({"student": learner}, prepared, run, recorder, None, own)
    judge = judged(learner, config, means.get("student"))
    precision = precision_of(config, prepared.precision)
    scale = 1.0
    if data.has_classes:
        if own and data.split("validate").classes >= config.task.ways:
            scale = scale_fitted_to(judge, data, config, precision, recorder)
        else:
            known = calibration_of(run, "student")
            scale = 1.0 if known is None else known.scale
    evaluated = evaluate_learner(judge, data, config, precision, recorder, title)
    return Member(run, evaluated, scale, cost_of(judge, data, config))


def _results(together: Evaluated, members: Sequence[Member]) -> dict[str, Any]:
    """Return results.json of an ensemble."""
    costs = [m.cost for m in members]
    summed = {
        name: sum(cost[name] for cost in costs)
        for name in costs[0]
        if name not in NOT_SUMMED and all(name in cost for cost in costs)
    }
    # An ensemble has no steps of its own, and its batch norm is that of a member that has it.
    gains = [
        paired_gain(mine, own, "student", f"member_{i}")
        for i, m in enumerate(members, 1)
        for mine, own in zip(together.measurements, m.evaluated.measurements, strict=True)
    ]
    return {
        "student": {**together.figures(), "cost": summed},
        "members": [{**m.evaluated.figures(), "cost": m.cost, "scale": m.scale} for m in members],
        "gains": gains,
    }


def _check_runs(runs: Sequence[RunFolder]) -> None:
    """Refuse what is no ensemble: one run, one run twice, other data."""
    if len(runs) < 2:
        raise UserError("an ensemble has several members: name two runs or more")
    places = [run.path.resolve() for run in runs]
    for place, run in zip(places, runs, strict=True):
        if places.count(place) > 1:
            raise UserError(f"'{run.path}' is named twice: name each member once")
    first = runs[0].read_run()
    for run in runs[1:]:
        if run.read_run().data_checksum != first.data_checksum:
            raise UserError(
                f"'{run.path}' was trained on other data or another class split than "
                f"'{runs[0].path}': members of an ensemble share them; leave it out"
            )


def _check_same(runs: Sequence[RunFolder], composed: Sequence[Composed]) -> None:
    """Refuse members that would be evaluated on other tasks, or otherwise."""
    for run, own in zip(runs, composed, strict=True):
        if own.config.task.whole:
            raise UserError(
                f"'{run.path}' is a run on a whole dataset (task=classes); an ensemble answers "
                "few-shot tasks: name runs of those, or type task=5way_1shot"
            )
    first = composed[0].config
    for run, own in zip(runs[1:], composed[1:], strict=True):
        for key in SHARED:
            mine, other = _value(first, key), _value(own.config, key)
            if mine != other:
                word = str(mine).replace(" ", "").replace("'", "")
                word = word.lower() if isinstance(mine, bool) else word
                raise UserError(
                    f"'{run.path}' has {key}={other} and '{runs[0].path}' {mine}: members of an "
                    f"ensemble answer the same tasks; type {key}={word}, which then holds for all"
                )


def _value(config: Config, key: str) -> Any:
    if key == "evaluate.augment" and config.evaluate.augmented_shots > 1:
        return list(config.evaluate.augment or config.dataset.augment)
    group, _, name = key.partition(".")
    return getattr(getattr(config, group), name)
