"""The story of `metakd train`: teacher -> students -> evaluation -> fine-tuning -> results."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.config.brings import described
from metakd.config.checks import outside_lines
from metakd.config.compose import Composed
from metakd.config.schema import Config
from metakd.data.cache import content_checksum
from metakd.data.reading_progress import reading_shown_by
from metakd.distillation.teacher import FrozenTeacher
from metakd.distributed.group import ALONE, Group
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.network import Network
from metakd.models.weights_file import header
from metakd.pipeline.alone import STAGES, keep_as_student_alone, student_alone
from metakd.pipeline.cards import record_data, student_card, teacher_card, tuned_card
from metakd.pipeline.compressing import compress_student, figures_of_compressed
from metakd.pipeline.construction import settings_of
from metakd.pipeline.deployed import cost_of, networks
from metakd.pipeline.draw import class_rows, draw_figures
from metakd.pipeline.failures import explained, resume_command
from metakd.pipeline.generations import figures_of, named, train_generations
from metakd.pipeline.judging import judged, keep_means, means_of
from metakd.pipeline.learners import Student, get_teacher
from metakd.pipeline.measure import (
    evaluate_learner,
    fidelity,
    paired_gains,
    precision_of,
    start_of,
)
from metakd.pipeline.measure_teacher import evaluate_teacher
from metakd.pipeline.mirror import mirror_classes, mirror_student
from metakd.pipeline.origin import provenance_of
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.shared import prepare_together
from metakd.pipeline.suspicion import counts, doubt_teacher, doubts_of, keep
from metakd.pipeline.target import fine_tune_student
from metakd.pipeline.use import calibrate_run
from metakd.registry import build, resolve
from metakd.reports.summary import summary
from metakd.runs.checkpoints import save_weights
from metakd.runs.folder import RunFolder
from metakd.runs.interrupts import Stop, interrupts
from metakd.runs.journal import Journal
from metakd.runs.log import log_to
from metakd.runs.place import check_writable
from metakd.runs.records import Results
from metakd.stages.recorder import Recorder
from metakd.stages.shared_recorder import SharedRecorder
from metakd.tracking.none import NoTracker
from metakd.tracking.progress import Progress
from metakd.tracking.terminal import Terminal
from metakd.tracking.tracker import Tracker

__all__ = ["carry_out", "tracker_of", "train"]

logger = logging.getLogger(__name__)


def train(composed: Composed, *, quiet: bool = False, group: Group = ALONE) -> dict[str, Any]:
    """Run the pipeline that `composed` describes and return the content of results.json.

    The returned dictionary has one key more, `folder`: where the run lies.

    Args:
        composed: a config, composed and with what was typed.
        quiet: neither progress nor the final table (for notebooks and tests).
        group: processes that share the run; all but process 0 return nothing.

    Raises:
        UserError: something that was given cannot be used; no folder was made.
        RunError: the run could not go on; what was trained so far is kept.
        KeyboardInterrupt: interrupted; a checkpoint was written.
    """
    silent = quiet or group.rank > 0
    # A run that is refused says so in one line on standard error, and nothing else there.
    Progress(silent, sys.stdout).say(f"preparing dataset {composed.config.dataset.name} …")
    with reading_shown_by(Progress(silent).bar):
        prepared = prepare_together(composed, group)
    place, unique = _place(composed)

    def made() -> tuple[RunFolder, Tracker]:
        tracker = tracker_of(prepared)
        check_writable(place)
        return RunFolder.create(place, unique=unique), tracker

    with interrupts() as stop:
        group.obey(stop)
        own = group.first_only(made)
        if own is None:
            return follow(prepared, group)
        folder, tracker = own

        def begin(recorder: Recorder) -> None:
            folder.write_config(prepared.composed.yaml, composed.overrides)
            folder.start(provenance_of(prepared) | group.describe())
            found = tracker.start(
                prepared.composed.plain(), folder.path, prepared.config.name, composed.config.tags
            )
            if found:
                folder.update(**found)

        return carry_out(prepared, folder, tracker, stop, begin, quiet=quiet, group=group)


def follow(prepared: Prepared, group: Group) -> dict[str, Any]:
    """Do this process's part of a run that process 0 records; return nothing."""
    logging.getLogger("metakd").setLevel(logging.ERROR)  # what there is to warn of is said there
    _stages(prepared, None, SharedRecorder(group))
    return {}


def carry_out(
    prepared: Prepared,
    folder: RunFolder,
    tracker: Tracker,
    stop: Stop,
    begin: Callable[[Recorder], None],
    *,
    quiet: bool,
    goes_on: bool = False,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Do what is left of a run, in its folder, which this process has locked.

    Args:
        prepared: what the run works on.
        folder: where it lies; unlocked at the end.
        tracker: its mirror.
        stop: whether it was asked to end.
        begin: called first, when progress and log are there; writes what the run is.
        quiet: as in `train`.
        goes_on: take up what an earlier process has left; otherwise nothing in the folder counts.
        group: processes that share the run.
    """
    config = prepared.config
    journal = Journal(
        folder.checkpoints,
        config.checkpoint_minutes,
        config.checkpoint_steps,
        student_card(prepared).header(),
    )
    progress = Progress(quiet=quiet)
    recorder = Recorder(folder, tracker, progress, journal, stop)
    if group.size > 1:
        recorder = SharedRecorder(group, folder, tracker, progress, journal, stop)
    status, error = "failed", None
    with log_to(folder.path / "metakd.log"):
        try:
            journal.open() if goes_on else journal.begin()
            begin(recorder)
            record_data(prepared, folder)
            for line in (*prepared.composed.said, *described(prepared.composed.brought)):
                recorder.say(line)
            recorder.say(f"{networks(prepared)}\nrun: {folder.path}")
            for line in prepared.warnings:
                recorder.warn(line)
            keep(folder, outside_lines(config))
            results = _stages(prepared, folder, recorder)
            journal.close()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            recorder.say(f"interrupted; to go on: {resume_command(folder.path)}")
            raise
        except Exception as problem:  # recorded in the run's folder, then raised again
            error = f"{type(problem).__name__}: {problem}"
            logger.exception("the run failed")
            problem.add_note(f"metakd.log: {folder.path / 'metakd.log'}")
            known = explained(problem, folder.path, recorder.estimate)
            if known is not None:
                error = str(known)
                raise known from problem
            raise
        finally:
            try:
                folder.finish(status, error)
            except (OSError, UserError) as problem:  # a full disk, most likely: it was said already
                recorder.warn(
                    f"'{folder.path}': its final status could not be recorded ({problem})"
                )
            tracker.finish(status)
            folder.unlock()
    if not quiet:
        summary(results, Terminal(), folder.read_run().warnings or ())
        recorder.say(f"results: {folder.path}")
    return {**results.content, "folder": str(folder.path)}


def _place(composed: Composed) -> tuple[Path, bool]:
    """Return the run's folder, and whether a number may be appended to make it unique."""
    if composed.run_dir is not None:
        return composed.run_dir, False
    config = composed.config
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config.output_root) / config.name / moment, True


def tracker_of(prepared: Prepared) -> Tracker:
    """Return the mirror that the config asks for."""
    config = prepared.config
    if not config.tracker.enabled or config.tracker.mode == "disabled":
        return NoTracker()
    typed = {
        k.removeprefix("tracker.") for k in prepared.composed.typed if k.startswith("tracker.")
    }
    cls = resolve(config.tracker._target_, "metakd.tracking", config.plugins)
    tracker: Tracker = build(cls, typed, settings=settings_of(config.tracker), options={})
    return tracker


def _stages(prepared: Prepared, folder: RunFolder | None, recorder: Recorder) -> Results:
    """Train, evaluate and write the results; without a folder (another process has it) none."""
    config, data = prepared.config, prepared.data
    said = counts(data)
    if said is not None:
        recorder.say(said)
    taught = get_teacher(prepared, recorder)
    doubt_teacher(prepared, recorder, taught)
    if taught is not None:
        _save_teacher(prepared, folder, taught.learned or taught.network)
    # Part of what an earlier process began may have been done with other settings or sources.
    whole = not any(recorder.begun(stage) for stage in STAGES)
    students, last = train_generations(prepared, recorder, taught)
    student, earlier = students[-1], named(students)
    if taught is not None and taught.learned is not None:
        _save_teacher(prepared, folder, taught.learned)
    _save(folder, "student", student.algorithm.state_dict(), student_card(prepared))
    for name, model in earlier.items():
        _save(folder, f"student_{name}", model.algorithm.state_dict(), student_card(prepared))
    models: dict[str, Student] = {"student": student}
    if config.student_alone and not _distils(config):
        if whole:
            keep_as_student_alone(prepared, recorder, student)
    elif config.student_alone and taught is not None:
        models["student_alone"] = student_alone(prepared, recorder)
        _save(
            folder,
            "student_alone",
            models["student_alone"].algorithm.state_dict(),
            student_card(prepared, alone=True),
        )
    for name, model in models.items():
        if model.best is not None:
            card = student_card(prepared, alone=name == "student_alone")
            _save(folder, f"{name}_best", model.best, card)
    smaller = None
    if config.compress.enabled and folder is not None:
        smaller = compress_student(prepared, recorder, folder, student, taught)
        models["compressed"] = smaller.student
    began = time.perf_counter()
    precision = precision_of(config, prepared.precision)
    final = None if taught is None else taught.learned or taught.network
    known: dict[str, Algorithm | Network]
    measured = models | earlier
    known = {name: model.algorithm for name, model in measured.items()}
    known |= {} if final is None else {"teacher": final}
    frozen = None if taught is None or taught.learned is not None else taught.frozen
    means = means_of(known, prepared, recorder, frozen)
    judges = {n: judged(m.algorithm, config, means.get(n)) for n, m in measured.items()}
    evaluated = {
        name: evaluate_learner(judge, data, config, precision, recorder, name, measured[name].best)
        for name, judge in judges.items()
    }
    own = None if taught is None else taught.own
    if final is not None:
        evaluated["teacher"] = evaluate_teacher(
            final,
            data,
            config,
            prepared.precision,
            recorder,
            own=own,
            mean=means.get("teacher"),
        )
    recorder.group.leave()
    if folder is None:
        return Results()
    recorder = recorder.alone()
    if final is not None and evaluated["teacher"].scale is not None:
        folder.update(teacher_scale=evaluated["teacher"].scale)
    keep_means(folder, means)
    shown = {name: found for name, found in evaluated.items() if name not in earlier}
    known = {name: model for name, model in known.items() if name not in earlier}
    calibrate_run(prepared, folder, known, recorder, own, means)
    keep(folder, doubts_of(shown, config))
    results: dict[str, Any] = {
        name: {**evaluated[name].figures(), "cost": cost_of(judges[name], data, config)}
        for name in models
    }
    if smaller is not None:
        results["compressed"] |= figures_of_compressed(
            prepared, recorder, smaller, results["compressed"]["cost"]
        )
    for name, model in models.items():
        if model.validated is not None:
            results[name]["validated"] = model.validated
    results["student"] |= start_of(config)
    if earlier:
        results["generations"] = figures_of(earlier, evaluated, results["student"])
    if final is not None:
        cost = cost_of(final, data, config)
        results["teacher"] = {**evaluated["teacher"].figures(), "cost": cost}
        results["fidelity"] = fidelity(evaluated["student"], evaluated["teacher"])
    if "student_alone" in evaluated:
        results["gains"] = paired_gains(evaluated["student"], evaluated["student_alone"])
    if smaller is not None:
        lost = paired_gains(evaluated["compressed"], evaluated["student"], "compressed", "student")
        results["gains"] = [*results.get("gains", ()), *lost]
    timing = {"evaluate_s": time.perf_counter() - began}
    if taught is not None and taught.seconds is not None:
        timing["pretrain_s"] = taught.seconds
    for stage in student.seconds:
        timing[f"{stage}_s"] = sum(one.seconds[stage] for one in students)
    for stage, seconds in ({} if smaller is None else smaller.student.seconds).items():
        timing[f"{stage}_s"] = seconds
    models.pop("compressed", None)  # only the whole student is fine-tuned
    if config.finetune.enabled and data.has_classes:
        helps = last is not None and config.distill.supports.uses_teacher
        teacher = last.frozen if last is not None and helps else None
        if config.finetune.distill and teacher is not None and last and last.learned is not None:
            recorder.say("finetune: the teacher is the one before meta-training, which moved it")
        timing["finetune_s"] = _fine_tune_all(prepared, recorder, models, teacher, results)
    results["timing"] = timing
    folder.write_episodes(
        row for name, j in evaluated.items() for m in j.measurements for row in m.rows(name)
    )
    by_class = list(class_rows(prepared, shown))
    folder.write_per_class(by_class)
    written = folder.write_results(results)
    if recorder.tracker is not None:
        recorder.tracker.summary(written)
    mirror_classes(by_class, recorder)
    mirror_student(prepared, folder.path, recorder)
    try:
        draw_figures(prepared, folder, recorder, written, shown, student.objective)
    except Exception as problem:  # whatever it is, the results are complete
        logger.exception("the figures could not be drawn")
        recorder.warn(f"the figures could not be drawn ({problem}); results.json is complete")
    return written


def _save_teacher(prepared: Prepared, folder: RunFolder | None, teacher: nn.Module) -> None:
    _save(folder, "teacher", teacher.state_dict(), teacher_card(prepared, teacher))
    if folder is not None:
        folder.update(teacher=content_checksum(teacher.state_dict(), {}))


def _save(folder: RunFolder | None, name: str, weights: dict[str, Tensor], card: Card) -> None:
    """Write a model's weights, with a checksum and a card that go along with a copy of the file."""
    if folder is not None:
        save_weights(folder.checkpoints, name, weights, header(weights, card))


def _distils(config: Config) -> bool:
    """Tell whether a teacher takes part in the student's training, so that it has a twin."""
    return config.distill.supports.uses_teacher or config.algorithm.supports.teaches


def _fine_tune_all(
    prepared: Prepared,
    recorder: Recorder,
    models: Mapping[str, Student],
    teacher: FrozenTeacher | None,
    results: dict[str, Any],
) -> float:
    """Fine-tune a copy of each student; return the seconds that the first one took."""
    seconds = 0.0
    for name, model in models.items():
        helped = teacher if name == "student" else None
        suffix = "" if name == "student" else "_alone"
        tuned = fine_tune_student(prepared, recorder, model, helped, suffix)
        results[name]["target"] = tuned.figures()
        if name == "student":
            seconds = tuned.seconds
            if recorder.folder is not None:
                card = tuned_card(prepared, tuned.class_names)
                _save(recorder.folder, "student_target", tuned.network.state_dict(), card)
    return seconds
