"""The figures of a run, drawn from what it measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from metakd.distillation.objective import Objective
from metakd.pipeline.measure import Evaluated, evaluation_stage
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.use import CALIBRATION
from metakd.reports.by_class import count_by_class
from metakd.reports.comparison import accuracy_against_steps, models_compared
from metakd.reports.confusion import confusion_figure
from metakd.reports.curves import StageScale, learning_curves
from metakd.reports.divergence import answers
from metakd.reports.functions import sample_functions
from metakd.reports.game import adversarial_game
from metakd.reports.reliability import Answers, reliability_diagram
from metakd.reports.samples import sample_tasks
from metakd.reports.summary import MODELS
from metakd.runs.folder import RunFolder
from metakd.runs.records import Results
from metakd.stages.evaluate import evaluation_tasks
from metakd.stages.measurement import Measurement
from metakd.stages.recorder import Recorder
from metakd.stages.whole import WholeMeasurement

__all__ = ["class_rows", "draw_figures"]

SAMPLES = 3
"""Tasks drawn."""
QUERIES = 8
"""Query examples drawn of each."""
ORDER = ("student_alone", "student", "teacher")

logger = logging.getLogger(__name__)


def class_rows(prepared: Prepared, evaluated: Mapping[str, Evaluated]) -> Iterator[dict[str, Any]]:
    """Yield the rows of per_class.csv: each model's accuracy on each class, of the headline."""
    for model, j in evaluated.items():
        if prepared.data.has_classes:
            names = prepared.data.split(prepared.config.evaluate.part).class_names
            yield from _by_class(j.headline).rows(model, names)


def draw_figures(
    prepared: Prepared,
    folder: RunFolder,
    recorder: Recorder,
    results: Results,
    evaluated: Mapping[str, Evaluated],
    objective: Objective,
) -> None:
    """Draw every figure that there is something to show in, into the run's folder.

    One that cannot be drawn is said, and the others are drawn all the same.

    Args:
        prepared: the run.
        folder: where to.
        recorder: shows the figures to the tracker.
        results: the run's.
        evaluated: the models' measurements.
        objective: what the student minimised; it knows the weights of the terms.
    """
    metrics, scales = folder.path / "metrics.jsonl", _scales(prepared)
    game = scales["meta_train"].chance
    figures: dict[str, Callable[[Path], Path | None]] = {
        "learning_curves": lambda out: learning_curves(
            metrics, out, _weights(prepared, objective), scales
        ),
        "models_compared": lambda out: models_compared(results, out),
        "accuracy_against_steps": lambda out: accuracy_against_steps(results, out),
        "adversarial_game": lambda out: adversarial_game(metrics, out, game),
        "sample_tasks": lambda out: _samples(prepared, evaluated, out),
        "reliability": lambda out: _reliability(prepared, folder, evaluated, out),
        "confusion": lambda out: _confusion(prepared, evaluated, out),
    }
    for name, draw in figures.items():
        try:
            path = draw(folder.figures / f"{name}.png")
        except Exception as problem:  # whatever it is, the results are complete
            logger.exception("%s could not be drawn", name)
            recorder.warn(f"{name}.png could not be drawn ({problem}); results.json is complete")
            continue
        if path is not None:
            recorder.figure(name, path)


def _weights(prepared: Prepared, objective: Objective) -> dict[str, float]:
    """Return the weights of the terms of the loss that are known, by their names in the metrics."""
    return {**objective.weights(), "loss/l2sp": prepared.config.finetune.l2sp}


def _scales(prepared: Prepared) -> dict[str, StageScale]:
    """Return for each stage what a guess reaches, and on how many tasks was validated."""
    config, data = prepared.config, prepared.data
    tasks = config.meta_train.validate_tasks
    if not data.has_classes:
        return {"meta_train": StageScale(tasks=tasks, keeps_best=True)}
    task, bases = config.task, data.split("train").classes
    splits = ("test",) if config.finetune.target == "novel" else ("train", "validate", "test")
    targets = len({name for split in splits for name in data.split(split).class_names})
    if config.task.whole:
        learned = StageScale(_guess(bases), _guess(bases))
        return dict.fromkeys(("pretrain", "warmstart", "meta_train"), learned)
    ways = bases if config.algorithm.supports.trains_on == "batches" else task.training().ways
    return {
        "pretrain": StageScale(_guess(bases), _guess(bases)),
        "warmstart": StageScale(_guess(bases)),
        "meta_train": StageScale(_guess(ways), _guess(task.ways), tasks, keeps_best=True),
        "finetune": StageScale(_guess(targets)),
    }


def _guess(classes: int) -> float | None:
    return 1 / classes if classes else None


def _by_class(measured: Measurement) -> Any:
    return count_by_class(measured.logits, measured.targets, measured.classes)


def _setting(measured: Measurement, tasks: str) -> str:
    """Return e.g. ``5-way 1-shot, 600 test tasks``; of a whole dataset ``2000 test examples``."""
    if isinstance(measured, WholeMeasurement):
        part = "validation" if tasks == "validate" else "test"
        return f"{len(measured.values)} {part} examples"
    which = {"test": "test ", "validate": "meta-validation "}.get(tasks, "")
    return f"{measured.ways}-way {measured.shots}-shot, {len(measured.values)} {which}tasks"


def _reliability(
    prepared: Prepared, folder: RunFolder, evaluated: Mapping[str, Evaluated], out: Path
) -> Path | None:
    shown = {m: evaluated[m].headline for m in ORDER if m in evaluated}
    if not prepared.data.has_classes:
        return None
    found = _temperatures(folder)
    # A teacher's logits may have been scaled on meta-validation before they were counted.
    known = {m: t for m, t in found.items() if m in evaluated and evaluated[m].scale is None}
    return reliability_diagram(
        {m: Answers(h.logits, h.targets, known.get(m)) for m, h in shown.items()},
        out,
        _setting(shown["student"], prepared.config.evaluate.part),
    )


def _temperatures(folder: RunFolder) -> dict[str, float]:
    """Return the temperatures that the run has found for its models."""
    try:
        content = json.loads((folder.checkpoints / CALIBRATION).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return {model: float(found["temperature"]) for model, found in content["models"].items()}


def _confusion(prepared: Prepared, evaluated: Mapping[str, Evaluated], out: Path) -> Path | None:
    if not prepared.data.has_classes:
        return None
    headline, split = evaluated["student"].headline, prepared.config.evaluate.part
    counted = _by_class(headline)
    names = [prepared.data.split(split).class_names[c] for c in counted.classes.tolist()]
    title = f"student, {_setting(headline, split)}, {len(names)} classes"
    return confusion_figure(counted.answered, names, out, title, counted.asked)


def _samples(prepared: Prepared, evaluated: Mapping[str, Evaluated], out: Path) -> Path | None:
    """Draw the first evaluation tasks with each model's answers, as they were counted."""
    config, data = prepared.config, prepared.data
    if config.task.whole or (data.has_classes and not data.has_pictures):
        return None
    task, count = config.task, min(SAMPLES, config.evaluate.tasks)
    batch = next(
        evaluation_tasks(
            data,
            config.evaluate.part,
            config.task.evaluation(),
            tasks=count,
            seed=config.evaluate.seed,
            stage=evaluation_stage(config.evaluate.part),
        )
    )
    shown = {m: evaluated[m].headline.logits[:count] for m in MODELS if m in evaluated}
    if not data.has_classes:
        return sample_functions(
            (batch.support.cpu().numpy(), batch.support_targets.cpu().numpy()),
            (batch.query.cpu().numpy(), batch.query_targets.cpu().numpy()),
            {m: outputs.numpy() for m, outputs in shown.items()},
            out,
        )
    assert batch.classes is not None
    names = data.split(config.evaluate.part).class_names
    # Spread over the classes: queries stand in class order.
    chosen = torch.linspace(0, task.ways * task.queries - 1, QUERIES).round().long().unique()
    support = batch.support.unflatten(1, (task.ways, task.shots))
    return sample_tasks(
        support.cpu().numpy(),
        batch.query[:, chosen].cpu().numpy(),
        batch.query_targets[:, chosen].cpu().numpy(),
        {m: answers(logits[:, chosen]).numpy() for m, logits in shown.items()},
        out,
        [[_last(names[c]) for c in classes] for classes in batch.classes.tolist()],
    )


def _last(name: str) -> str:
    """Return a class's name without its group."""
    return name.rpartition("/")[2]
