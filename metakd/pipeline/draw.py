"""The figures of a run, drawn from what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metakd.data.images import ImageData
from metakd.pipeline.measure import Judged, evaluation_stage
from metakd.pipeline.prepare import Prepared
from metakd.reports.divergence import answers
from metakd.reports.figures import (
    accuracy_against_steps,
    adversarial_game,
    learning_curves,
    models_compared,
    sample_functions,
    sample_tasks,
)
from metakd.runs.folder import RunFolder
from metakd.stages.evaluate import evaluation_tasks
from metakd.stages.recorder import Recorder

__all__ = ["draw_figures"]

SAMPLES = 3
"""Tasks drawn."""
QUERIES = 8
"""Query examples drawn of each."""


def draw_figures(
    prepared: Prepared,
    folder: RunFolder,
    recorder: Recorder,
    results: Mapping[str, Any],
    judged: Mapping[str, Judged],
) -> None:
    """Draw learning curves, models side by side, accuracy against steps, game and sample tasks."""
    drawn = {
        "learning_curves": learning_curves(
            folder.path / "metrics.jsonl", folder.figures / "learning_curves.png"
        ),
        "models_compared": models_compared(results, folder.figures / "models_compared.png"),
        "accuracy_against_steps": accuracy_against_steps(
            results, folder.figures / "accuracy_against_steps.png"
        ),
        "adversarial_game": adversarial_game(
            folder.path / "metrics.jsonl", folder.figures / "adversarial_game.png"
        ),
        "sample_tasks": _samples(prepared, folder, judged),
    }
    for name, path in drawn.items():
        if path is not None:
            recorder.figure(name, path)


def _samples(prepared: Prepared, folder: RunFolder, judged: Mapping[str, Judged]) -> Any:
    """Draw the first evaluation tasks with each model's answers, as they were counted."""
    config, data = prepared.config, prepared.data
    task, count = config.task, min(SAMPLES, config.evaluate.tasks)
    batch = next(
        evaluation_tasks(
            data,
            config.evaluate.part,
            ways=task.ways,
            shots=task.shots,
            queries=task.queries,
            tasks=count,
            seed=config.evaluate.seed,
            stage=evaluation_stage(config.evaluate.part),
        )
    )
    out = folder.figures / "sample_tasks.png"
    shown = {m: j.headline.logits[:count] for m, j in judged.items() if m != "student_alone"}
    if not isinstance(data, ImageData):
        return sample_functions(
            (batch.support[..., 0].cpu().numpy(), batch.support_targets[..., 0].cpu().numpy()),
            (batch.query[..., 0].cpu().numpy(), batch.query_targets[..., 0].cpu().numpy()),
            {m: outputs[..., 0].numpy() for m, outputs in shown.items()},
            out,
        )
    assert batch.classes is not None
    part = data.part(config.evaluate.part)
    # Spread over the classes: queries stand in class order.
    chosen = torch.linspace(0, task.ways * task.queries - 1, QUERIES).round().long().unique()
    support = batch.support.unflatten(1, (task.ways, task.shots))
    return sample_tasks(
        support.cpu().numpy(),
        batch.query[:, chosen].cpu().numpy(),
        batch.query_targets[:, chosen].cpu().numpy(),
        {m: answers(logits[:, chosen]).numpy() for m, logits in shown.items()},
        out,
        [[_short(part.class_names[c]) for c in classes] for classes in batch.classes.tolist()],
    )


def _short(name: str) -> str:
    """Return as much of a class's name as fits over a small image."""
    return name.rpartition("/")[2][:9]
