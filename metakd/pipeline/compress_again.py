"""Making a finished run's student smaller: `metakd compress RUN`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import Composed
from metakd.config.recorded import for_compression, recorded_composed
from metakd.data.reading_progress import reading_shown_by
from metakd.distillation.objective import Objective
from metakd.errors import UserError, nearest
from metakd.models.network import Network
from metakd.models.weights_file import header
from metakd.pipeline.cards import inputs_of, known_of, other_data, student_card
from metakd.pipeline.compressed_file import FOLDER
from metakd.pipeline.compressing import compress_student, figures_of_compressed
from metakd.pipeline.compression_plan import who_teaches
from metakd.pipeline.deployed import cost_of
from metakd.pipeline.judging import judged, keep_means
from metakd.pipeline.kept_embeddings import kept_embeddings
from metakd.pipeline.learners import Student, Taught, frozen_teacher
from metakd.pipeline.measure import evaluate_learner, paired_gains, precision_of
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.restored import has, learner_of, means_for, teacher_of
from metakd.pipeline.suspicion import doubts_of, keep
from metakd.pipeline.teacher_view import view_of_teacher
from metakd.pipeline.use import calibrate_run
from metakd.reports.summary import summary
from metakd.runs.checkpoints import load_weights, save_weights
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.interrupts import Stop, interrupts
from metakd.runs.log import log_to
from metakd.runs.place import check_writable
from metakd.runs.provenance import machine
from metakd.runs.records_run import RunInfo
from metakd.runs.split import split_text, write_split
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress
from metakd.tracking.terminal import Terminal

__all__ = ["compress_run", "compression_composed"]

CHANGES = ("compress", "distill", "evaluate", "device", "precision", "data_root", "cache_root")
ALSO = ("plugins",)


def compress_run(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make the student of the run in `path` smaller; write `compressions/<date_time>` in it.

    Args:
        path: the run's folder, which is left as it is but for that.
        overrides: how (`compress=prune compress.macs=0.3`), by which losses it recovers, what it
            is evaluated on.
        config_dir: folder of the user's own config files.
        quiet: neither progress nor the table.

    Returns:
        the content of that results.json, and its `folder`.

    Raises:
        UserError: not a finished run, nothing to do, or a budget that cannot be met.
        KeyboardInterrupt: interrupted; what was begun does not count.
    """
    run = open_run(path)
    info = run.read_run()
    if info.status == "finished" and not has(run, "student"):
        raise UserError(
            f"'{path}' holds no student that can be made smaller; name the folder of the run that "
            "trained one"
        )
    if info.status != "finished":
        raise UserError(
            f"'{path}' is not finished (it is {info.status}), and a student in training cannot be "
            f"made smaller; type metakd train resume={path} first"
        )
    composed = compression_composed(run, overrides, config_dir)
    with reading_shown_by(Progress(quiet=quiet).bar):
        prepared = prepare(composed, known_of(run, info, composed))
    other = other_data(info, prepared)
    if other is not None:
        then, now = other
        raise UserError(
            f"run '{path}' was trained on other data (checksum {then}, now {now}); give it the old "
            "ones with data_root=…"
        )
    who = prepared.config.compress.teacher
    if who in ("teacher", "both") and not has(run, "teacher"):
        raise UserError(
            f"compress.teacher={who}: run '{path}' has no teacher; type compress.teacher=student"
        )
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    check_writable(run.path / FOLDER)
    with interrupts() as stop:
        folder = RunFolder.create(run.path / FOLDER / moment)
        status, error = "failed", None
        try:
            with log_to(folder.path / "metakd.log"):
                written = _carry_out(prepared, run, info, folder, quiet, stop)
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except Exception as problem:  # recorded in the compression's folder, then raised again
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            folder.finish(status, error)
            folder.unlock()
    return {**written, "folder": str(folder.path)}


def compression_composed(
    run: RunFolder, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Composed:
    """Return a run's configuration, changed by `overrides`, to make its student smaller with.

    Raises:
        UserError: an override that is about something else, or none that says how.
    """
    composed = recorded_composed(run.path, run.read_run(), overrides, config_dir)
    for key in composed.typed:
        if key.partition(".")[0] not in CHANGES and key not in ALSO:
            raise UserError(
                f"{key}: the run's student is trained; what can differ is "
                f"{', '.join((*CHANGES, *ALSO))}." + nearest(key, (*CHANGES, *ALSO))
            )
    if not composed.config.compress.enabled:
        raise UserError(
            "compress: how? type compress=prune, compress=quantize or compress=prune_quantize"
        )
    for_compression(composed.config)
    return composed


def _carry_out(
    prepared: Prepared, run: RunFolder, info: RunInfo, folder: RunFolder, quiet: bool, stop: Stop
) -> dict[str, Any]:
    """Do it and return the content of results.json."""
    config, data = prepared.config, prepared.data
    recorder = Recorder(folder=folder, progress=Progress(quiet=quiet), stop=stop)
    folder.start(
        {
            "evaluates": os.path.relpath(run.path, folder.path),
            "seed": config.seed,
            "device": str(prepared.device),
            **machine(),
            "precision": prepared.precision.name,
            "data_checksum": data.checksum,
            **inputs_of(prepared),
            "data_notes": list(prepared.everything.notes),
            "external_pretraining": info.external_pretraining or [],
        }
    )
    folder.write_config(prepared.composed.yaml, prepared.composed.overrides)
    if data.has_classes:
        write_split(folder.path, split_text(data.name, prepared.dealt))
    for line in prepared.warnings:
        recorder.warn(line)
    student = Student(learner_of(prepared, run, "student"), Objective())
    weights = load_weights(run.checkpoints, "student")  # the folder can be used by itself
    save_weights(folder.checkpoints, "student", weights, header(weights, student_card(prepared)))
    taught = _taught(prepared, run, recorder)
    for line in _idle_losses(prepared, student.algorithm, taught):
        recorder.warn(line)
    smaller = compress_student(prepared, recorder, folder, student, taught)
    learners = {"student": student.algorithm, "compressed": smaller.student.algorithm}
    means = means_for(dict(learners), prepared, run, recorder, None, own=True)
    means.pop("compressed", None)  # that of the run's own smaller student
    if config.evaluate.centre and "compressed" not in means:
        means |= means_for(
            {"compressed": learners["compressed"]}, prepared, folder, recorder, None, own=True
        )
    keep_means(folder, means)
    precision = precision_of(config, prepared.precision)
    evaluated, results = {}, dict[str, Any]()
    for name, learner in learners.items():
        judge = judged(learner, config, means.get(name))
        evaluated[name] = evaluate_learner(judge, data, config, precision, recorder, name)
        results[name] = {**evaluated[name].figures(), "cost": cost_of(judge, data, config)}
    results["compressed"] |= figures_of_compressed(
        prepared, recorder, smaller, results["compressed"]["cost"]
    )
    if smaller.student.validated is not None:
        results["compressed"]["validated"] = smaller.student.validated
    results["gains"] = paired_gains(
        evaluated["compressed"], evaluated["student"], "compressed", "student"
    )
    results["timing"] = {f"{stage}_s": s for stage, s in smaller.student.seconds.items()}
    calibrate_run(prepared, folder, dict(learners), recorder, None, means)
    folder.write_episodes(
        row for name, j in evaluated.items() for m in j.measurements for row in m.rows(name)
    )
    keep(folder, [*prepared.warnings, *doubts_of(evaluated, config)])
    written = folder.write_results(results)
    if not quiet:
        summary(written, Terminal(), folder.read_run().warnings or ())
        recorder.say(f"results: {folder.path}")
    return written.content


def _idle_losses(prepared: Prepared, student: Algorithm, taught: Taught | None) -> list[str]:
    """Return a line for each typed setting of `distill` where nothing distils in the recovery."""
    config, how = prepared.config, prepared.config.compress
    if not config.distill.supports.uses_teacher:
        return []
    trains = how.iterations > 0 and (how.supports.prunes or how.qat)
    if trains and who_teaches(prepared, student, taught is not None) != "none":
        return []
    why = f"nobody teaches in the recovery (compress.teacher={how.teacher})"
    if not trains:
        why = "nothing is trained on"
    typed = sorted(w for w in prepared.composed.typed if w.partition(".")[0] == "distill")
    return [f"{word} changes nothing: {why}" for word in typed]


def _taught(prepared: Prepared, run: RunFolder, recorder: Recorder) -> Taught | None:
    """Return the run's teacher where its answers stay as they are; None: it cannot help."""
    helps = prepared.config.distill.supports.uses_teacher and prepared.data.has_classes
    if prepared.teacher is None or not helps or not has(run, "teacher"):
        return None
    teacher = teacher_of(prepared, run)
    if not isinstance(teacher, Network):
        return None
    own = replace(prepared, teacher=teacher)
    view = view_of_teacher(own, teacher, recorder)
    kept = [] if view else kept_embeddings(own, teacher, recorder)
    return Taught(teacher, frozen_teacher(own, teacher, recorder, view, kept), None)
