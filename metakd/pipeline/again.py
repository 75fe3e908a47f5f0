"""Evaluating a finished run's models again: other tasks, another dataset, other shots or steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metakd.config.checks import outside_lines
from metakd.config.compose import Composed
from metakd.config.judging import idle_in_evaluation
from metakd.config.recorded import for_evaluation, recorded_composed
from metakd.data.reading_progress import reading_shown_by
from metakd.errors import UserError, nearest
from metakd.pipeline.cards import card_of_run, inputs_of, known_of, seen_examples
from metakd.pipeline.compressed_file import (
    compressed_learner,
    cost_as_recorded,
    run_with_compressed,
)
from metakd.pipeline.deployed import cost_of
from metakd.pipeline.draw import class_rows
from metakd.pipeline.inputs import Known, without_card
from metakd.pipeline.judging import judged, kept_means, means_of
from metakd.pipeline.measure import (
    Evaluated,
    evaluate_learner,
    fidelity,
    paired_gains,
    precision_of,
    start_of,
)
from metakd.pipeline.measure_teacher import evaluate_teacher
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.restored import check_classes, has, learner_of, means_for, teacher_of
from metakd.pipeline.seen import left_out
from metakd.pipeline.seen_examples import without_learned_examples
from metakd.pipeline.suspicion import doubts_of, keep
from metakd.pipeline.teacher_view import embedded_by
from metakd.plain_data import flat
from metakd.reports.summary import summary
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.place import check_writable
from metakd.runs.provenance import machine
from metakd.runs.records_run import RunInfo
from metakd.runs.split import split_text, write_split
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress
from metakd.tracking.terminal import Terminal

__all__ = ["evaluate_run", "evaluation_composed", "prepare_evaluation"]

EVALUATED_AGAIN = ("dataset", "task", "evaluate", "device", "precision", "data_root", "cache_root")
ALSO = ("algorithm.inner_steps_test", "algorithm.inner_lr", "algorithm.head", "plugins")


def evaluate_run(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate the models of the run in `path` and write `evaluations/<date_time>/results.json`.

    Args:
        path: the run's folder.
        overrides: what is to differ from the run's own config: `dataset`, `task`, `evaluate`,
            the number of adaptation steps.
        config_dir: folder of the user's own config files.
        quiet: neither progress nor the table.

    Returns:
        the content of that results.json, and its `folder`.

    Raises:
        UserError: not a run, or one whose models cannot be evaluated so.
    """
    run = open_run(path)
    info = run.read_run()
    composed = evaluation_composed(run, overrides, config_dir)
    progress = Progress(quiet=quiet)
    with reading_shown_by(progress.bar):
        prepared = prepare_evaluation(run, composed)
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    check_writable(run.path / "evaluations")
    recorder = Recorder(progress=progress)
    for line in prepared.warnings:
        recorder.warn(line)
    data, ways = prepared.data, composed.config.task.ways
    own = data.checksum == info.data_checksum
    whole = composed.config.task.whole  # its teacher answers with its own head
    fitted = own and data.has_classes and data.split("validate").classes >= ways
    # On other data, or where meta-validation has too few classes, the recorded scale holds.
    scale = None if fitted else info.teacher_scale
    if scale is None and not fitted and not whole:
        _check_scale(prepared, run)
    evaluated, results = _evaluate_all(prepared, run, recorder, scale, own)
    folder = RunFolder.create(run.path / "evaluations" / moment)
    folder.start(
        {
            "evaluates": os.path.relpath(run.path, folder.path),
            "device": str(prepared.device),
            **machine(),
            "data_checksum": prepared.data.checksum,
            **inputs_of(prepared),
            "data_notes": list(prepared.everything.notes),
            "external_pretraining": info.external_pretraining or [],
        }
    )
    folder.write_config(prepared.composed.yaml, composed.overrides)
    if data.has_classes:
        write_split(folder.path, split_text(data.name, prepared.dealt))
    folder.write_episodes(
        row for name, j in evaluated.items() for m in j.measurements for row in m.rows(name)
    )
    folder.write_per_class(class_rows(prepared, evaluated))
    written = folder.write_results(results)
    doubts = doubts_of(evaluated, prepared.config)
    said = [line for line in prepared.warnings if line not in prepared.everything.notes]
    keep(folder, [*said, *doubts])
    folder.finish("finished")
    if not quiet:
        summary(written, Terminal(), folder.read_run().warnings or ())
        recorder.say(f"results: {folder.path}")
    return {**written.content, "folder": str(folder.path)}


def evaluation_composed(
    run: RunFolder, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Composed:
    """Return a run's configuration, changed by `overrides`, to evaluate its models with.

    Raises:
        UserError: an override that is about training.
    """
    composed = recorded_composed(run.path, run.read_run(), overrides, config_dir)
    for key in composed.typed:
        if key.partition(".")[0] not in EVALUATED_AGAIN and key not in ALSO:
            raise UserError(
                f"{key}: a trained run is only evaluated again; what can differ is "
                f"{', '.join((*EVALUATED_AGAIN, *ALSO))}." + nearest(key, (*EVALUATED_AGAIN, *ALSO))
            )
    outside = outside_lines(composed.config)
    for_evaluation(composed.config)
    idle = idle_in_evaluation(composed.config, composed.typed)
    named = {line.split()[0] for line in idle}
    kept = [line for line in composed.warnings if line.split()[0] not in named]
    return replace(composed, warnings=(*kept, *idle, *outside))


def prepare_evaluation(run: RunFolder, composed: Composed) -> Prepared:
    """Return what a run's models are evaluated on, made as they expect it and new to them.

    Raises:
        UserError: data that is missing, or of classes that they have learned from.
    """
    info = run.read_run()
    prepared = prepare(composed, _known(run, info, composed))
    _check_new(prepared, run, info)
    return prepared


def _known(run: RunFolder, info: RunInfo, composed: Composed) -> Known:
    """Return what the run's networks expect of their input, as their own files say it."""
    known = known_of(run, info, composed, moved=False)
    cards = {name: card_of_run(run, name) for name in ("student", "teacher")}
    student, teacher = (
        getattr(known, name) if card is None else card.preprocessing for name, card in cards.items()
    )
    # Tasks of meta-validation classes are those of the run, in which these images were left out.
    recorded = flat(run.read_config())
    held_out = recorded.get("finetune.enabled") is True and recorded.get("finetune.target") == "all"
    return replace(known, student=student, teacher=teacher, evaluating=True, held_out=held_out)


def _check_new(prepared: Prepared, run: RunFolder, info: RunInfo) -> None:
    """Refuse what the run's networks have learned from, in data that is not the run's."""
    data, config = prepared.data, prepared.config
    if not data.has_classes or data.checksum == info.data_checksum:
        return
    known = seen_examples(run)
    if config.task.whole:
        change, line = without_learned_examples(data, config, known)
        prepared.warnings += [] if line is None else [line]
        if change is not None:
            prepared.data, again = change(data), prepared.read_again
            # A teacher that looks at larger pictures is shown the same ones.
            prepared.read_again = again and (lambda wanted: change(again(wanted)))
        return
    for name in ("student", "teacher"):
        card = card_of_run(run, name)
        if card is None:
            if name == "student":
                prepared.warnings.append(without_card(f"the run '{run.path}'", data.preprocessing))
            continue
        names, line = left_out(data, card, config, f"the run's {name}", known.get("train"))
        if names:
            data = data.without_classes(config.evaluate.part, names)
        if line is not None:
            prepared.warnings.append(line)
    prepared.data = data


def _check_scale(prepared: Prepared, run: RunFolder) -> None:
    """Refuse data on which the scale of a teacher that recorded none cannot be fitted."""
    data, ways = prepared.data, prepared.config.task.ways
    if not data.has_classes or data.split("validate").classes >= ways:
        return
    if has(run, "teacher") and "head.weight" in load_weights(run.checkpoints, "teacher"):
        raise UserError(
            f"the run '{run.path}' does not record the scale of its teacher's answers (an older "
            f"version wrote it), and it cannot be fitted here: {ways}-way tasks need as many "
            f"meta-validation classes, and this data has {data.split('validate').classes}. Name a "
            "folder that holds the classes to evaluate on in 'test' and others in 'val' (type "
            "dataset=image_folder dataset.folder=FOLDER, without --images), or make the run again "
            f"with 'metakd reproduce {run.path}' and evaluate that one"
        )


def _evaluate_all(
    prepared: Prepared, run: RunFolder, recorder: Recorder, scale: float | None, own: bool
) -> tuple[dict[str, Evaluated], dict[str, Any]]:
    """Evaluate a run's models; `own`: on the data that they were trained on."""
    config, data = prepared.config, prepared.data
    evaluated: dict[str, Evaluated] = {}
    results: dict[str, Any] = {}
    students = {
        name: learner_of(prepared, run, name)
        for name in ("student", "student_alone")
        if name == "student" or has(run, name)
    }
    smaller = run_with_compressed(run)
    if smaller is not None and not config.task.whole:
        try:
            students["compressed"] = compressed_learner(prepared, smaller)
        except UserError as error:
            if smaller is run:
                raise
            recorder.warn(f"a later compression is left out: {error}")
    teacher = teacher_of(prepared, run) if has(run, "teacher") else None
    view = None if teacher is None else embedded_by(prepared, teacher, recorder)
    models = {**students, **({} if teacher is None else {"teacher": teacher})}
    means = means_for(models, prepared, run, recorder, view, own)
    if "compressed" in students and means and "compressed" not in means and smaller is not None:
        kept = {k: v for k, v in kept_means(smaller).items() if k == "compressed"}
        if not kept and own:
            kept = means_of({"compressed": students["compressed"]}, prepared, recorder, None)
        if not kept:
            raise UserError(
                f"evaluate.centre=true: '{smaller.path}' keeps no mean embedding, and this is "
                "other data; compress it again with evaluate.centre=true"
            )
        means |= {name: mean.to(prepared.device) for name, mean in kept.items()}
    precision = precision_of(config, prepared.precision)
    for name, learner in students.items():
        judge = judged(learner, config, means.get(name))
        check_classes(prepared, run, "student" if name == "compressed" else name)
        best = None
        if config.task.whole and has(run, f"{name}_best"):
            best = load_weights(run.checkpoints, f"{name}_best")
        evaluated[name] = evaluate_learner(judge, data, config, precision, recorder, name, best)
        results[name] = {**evaluated[name].figures(), "cost": cost_of(judge, data, config)}
    if teacher is not None:
        check_classes(prepared, run, "teacher")
        evaluated["teacher"] = evaluate_teacher(
            teacher,
            data,
            config,
            prepared.precision,
            recorder,
            scale,
            own=view,
            mean=means.get("teacher"),
        )
        cost = cost_of(teacher, data, config)
        results["teacher"] = {**evaluated["teacher"].figures(), "cost": cost}
        results["fidelity"] = fidelity(evaluated["student"], evaluated["teacher"])
    results["student"] |= start_of(config)
    if "student_alone" in evaluated:
        results["gains"] = paired_gains(evaluated["student"], evaluated["student_alone"])
    if smaller is not None and "compressed" in evaluated:
        lost = paired_gains(evaluated["compressed"], evaluated["student"], "compressed", "student")
        results["gains"] = [*results.get("gains", ()), *lost]
        recorded = smaller.read_results().compressed
        if recorded is not None:
            results["compressed"] |= cost_as_recorded(results["compressed"]["cost"], recorded)
    return evaluated, results
