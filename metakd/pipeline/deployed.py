"""What it costs to deploy a model: its parameters, an example, a task."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from metakd.adaptation.algorithm import Algorithm
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.models.cost import cost, task_cost
from metakd.models.network import Network
from metakd.pipeline.measure import batchnorm_modes, evaluation_stage, steps_at_test, versions_of
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.whole import cost_of_network
from metakd.reports.summary import short_count
from metakd.stages.evaluate import evaluation_tasks
from metakd.stages.versions import with_versions

__all__ = ["cost_of", "networks"]


def cost_of(
    model: Algorithm | Network, data: ClassData | RegressionTasks, config: Config
) -> dict[str, float]:
    """Return what a model costs on this device; see `cost` and `task_cost`.

    Args:
        model: a learner, of which the modules count that it says are deployed; of a network, such
            as a frozen teacher, the backbone alone. Of a whole dataset the head counts, too.
        data: the first evaluation task of it is solved, with the headline's shots and steps.
        config: of the run.
    """
    if config.task.whole:
        assert data.has_classes
        return cost_of_network(model, data, config)
    if not isinstance(model, Algorithm):
        return cost(model.backbone, data.example_shape, data.device)
    part, spec = config.evaluate.part, config.task.evaluation()
    (task,) = evaluation_tasks(
        data, part, spec, tasks=1, seed=config.evaluate.seed, stage=evaluation_stage(part)
    )
    versions = versions_of(config)
    if versions is not None:
        assert data.has_classes
        task = with_versions(task, data, part, versions, config.evaluate.seed)
    steps, mode = steps_at_test(config), batchnorm_modes(model.backbone, False)[0]
    return {
        **cost(model.backbone, data.example_shape, data.device, model.deployed()),
        **task_cost(lambda: model.predict(task, [steps or 0], mode or "inductive"), data.device),
    }


def networks(prepared: Prepared) -> str:
    """Return e.g. ``networks: student conv4_small, 7.18k parameters; teacher conv4, 112k``."""
    config = prepared.config
    student = config.student.model or config.student.name
    line = f"networks: student {student}, {_size(prepared.student)} parameters"
    if prepared.teacher is not None:
        teacher = config.teacher.model or config.teacher.name
        if config.teacher.supports.reads_checkpoint and config.teacher.checkpoint:
            teacher = Path(config.teacher.checkpoint).name
        if config.teacher.networks() > 1:
            teacher = f"{config.teacher.networks()} {teacher}"
        line += f"; teacher {teacher}, {_size(prepared.teacher.backbone)}"
    return f"{line}; on {prepared.device}"


def _size(network: nn.Module) -> str:
    """Return how many parameters it has; one that another library runs says it itself."""
    costs = getattr(network, "costs", None) or {}
    return short_count(costs.get("parameters") or sum(p.numel() for p in network.parameters()))
