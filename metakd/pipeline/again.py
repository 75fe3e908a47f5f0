"""Judging a finished run's models again: other tasks, another dataset, other shots or steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from metakd.algorithms.algorithm import Algorithm
from metakd.config.checks import teacher_learns
from metakd.config.recorded import recorded_composed
from metakd.data.images import ImageData
from metakd.errors import UserError, nearest
from metakd.models.network import Network
from metakd.pipeline.measure import (
    Judged,
    cost_of,
    fidelity,
    judge,
    judge_any_teacher,
    paired_gains,
    precision_of,
    start_of,
)
from metakd.pipeline.prepare import Prepared, prepare
from metakd.pipeline.teaching import adapting_teacher
from metakd.reports.summary import summary
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import RunFolder, check_writable, open_run
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress

__all__ = ["evaluate_run"]

JUDGED_AGAIN = ("dataset", "task", "evaluate", "device", "precision", "data_root", "cache_root")
ALSO = ("algorithm.inner_steps_test", "algorithm.inner_lr", "algorithm.head", "plugins")


def evaluate_run(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judge the models of the run in `path` and write `evaluations/<date_time>/results.json`.

    Args:
        path: the run's folder.
        overrides: what is to differ from the run's own config: `dataset`, `task`, `evaluate`,
            the number of adaptation steps.
        config_dir: folder of the user's own config files.
        quiet: neither progress nor the table.

    Returns:
        the content of that results.json, and its `folder`.

    Raises:
        UserError: not a run, or one whose models cannot be judged so.
    """
    run = open_run(path)
    composed = recorded_composed(run.path, run.read_run(), overrides, config_dir)
    for key in composed.typed:
        if key.partition(".")[0] not in JUDGED_AGAIN and key not in ALSO:
            raise UserError(
                f"{key}: a trained run is only judged again; what can differ is "
                f"{', '.join((*JUDGED_AGAIN, *ALSO))}." + nearest(key, (*JUDGED_AGAIN, *ALSO))
            )
    # The models come from the run's own files, not from where its training began.
    composed.config.student.checkpoint = composed.config.teacher.checkpoint = None
    composed.config.student.pretrained = composed.config.teacher.pretrained = False
    composed.config.pretrain.enabled = True  # the run has its teacher; nothing is trained here
    prepared = prepare(composed)
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    check_writable(run.path / "evaluations")
    recorder = Recorder(progress=Progress(quiet=quiet))
    for line in prepared.warnings:
        recorder.warn(line)
    judged, results = _judge_all(prepared, run, recorder)
    folder = RunFolder.create(run.path / "evaluations" / moment)
    folder.start(
        {
            "evaluates": os.path.relpath(run.path, folder.path),
            "device": str(prepared.device),
            "data_checksum": prepared.data.checksum,
        }
    )
    folder.write_config(composed.yaml, composed.overrides)
    folder.write_episodes(
        row for name, j in judged.items() for m in j.measurements for row in m.rows(name)
    )
    results = folder.write_results(results)
    folder.finish("finished")
    if not quiet:
        summary(results, Console())
        recorder.say(f"results: {folder.path}")
    return {**results, "folder": str(folder.path)}


def _judge_all(
    prepared: Prepared, run: RunFolder, recorder: Recorder
) -> tuple[dict[str, Judged], dict[str, Any]]:
    config, data = prepared.config, prepared.data
    judged: dict[str, Judged] = {}
    results: dict[str, Any] = {}
    for name in ("student", "student_alone"):
        if name == "student_alone" and not _has(run, name):
            continue
        algorithm = prepared.algorithm(prepared.student)
        _restore(algorithm, load_weights(run.checkpoints, name), name, config.algorithm.trains_on)
        judged[name] = judge(
            algorithm, data, config, precision_of(config, prepared.precision), recorder, name
        )
        results[name] = {**judged[name].figures(), "cost": cost_of(algorithm.backbone, data)}
    if _has(run, "teacher") and isinstance(data, ImageData):
        backbone = prepared.backbone_of_teacher()
        weights = load_weights(run.checkpoints, "teacher")
        teacher: Network | Algorithm
        if teacher_learns(config) and "head.weight" not in weights:  # it adapts to tasks
            teacher = adapting_teacher(prepared, backbone)
            _restore(teacher, weights, "teacher", "episodes")
        else:
            head = weights["head.weight"]
            teacher = Network(backbone, len(head)).to(head.device)
            _restore(teacher, weights, "teacher", "episodes")
            teacher.to(prepared.device)
        judged["teacher"] = judge_any_teacher(teacher, data, config, prepared.precision, recorder)
        results["teacher"] = {**judged["teacher"].figures(), "cost": cost_of(backbone, data)}
        results["fidelity"] = fidelity(judged["student"], judged["teacher"])
    results["student"] |= start_of(config)
    if "student_alone" in judged:
        results["gains"] = paired_gains(judged["student"], judged["student_alone"])
    return judged, results


def _has(run: RunFolder, name: str) -> bool:
    return (run.checkpoints / f"{name}.safetensors").exists()


def _restore(module: nn.Module, weights: dict[str, Tensor], name: str, trains_on: str) -> None:
    """Load weights; a head over the meta-train classes of another dataset is left out."""
    own = module.state_dict()
    if trains_on == "batches":
        head = {k: v for k, v in own.items() if k.startswith("network.head.")}
        weights = {**weights, **head}
    for key, tensor in weights.items():
        if key not in own or own[key].shape != tensor.shape:
            mine = "missing" if key not in own else str(list(own[key].shape))
            raise UserError(
                f"the run's {name} does not fit this dataset or task: '{key}' is "
                f"{list(tensor.shape)} in the run and {mine} here; choose images of the same "
                "size and, for a learner with a head of fixed size, the same ways"
            )
    module.load_state_dict(weights)
