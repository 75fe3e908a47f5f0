"""Few-shot evaluation: accuracy over many tasks, each adapted to from its support set alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.data.episodes import EpisodeStream, TaskIndex
from metakd.data.reading_progress import OpenBar, reading_progress
from metakd.data.tasks import TaskBatch
from metakd.distributed.group import ALONE, Group, in_order
from metakd.models.normalization import batchnorm_mode, has_batchnorm, has_running_statistics
from metakd.stages.measurement import Measurement, task_values
from metakd.stages.precision import Precision
from metakd.stages.versions import (
    Changed,
    Versions,
    embed_changed,
    judging_of,
    mean_over_versions,
    with_versions,
)
from metakd.task_spec import TaskSpec

__all__ = [
    "TASKS_PER_STEP",
    "EvaluationSetting",
    "embed_split",
    "embed_supports",
    "embeds_alone",
    "evaluate",
    "evaluation_tasks",
    "images_of",
    "mean_embedding",
]

TASKS_PER_STEP = 20
"""Tasks drawn at once. A constant: task number n is the same whatever is measured or when."""


def evaluation_tasks(
    data: ClassData | RegressionTasks,
    split: str,
    spec: TaskSpec,
    *,
    tasks: int,
    seed: int,
    stage: str = "evaluate",
    group: Group = ALONE,
) -> Iterator[TaskBatch]:
    """Yield the first `tasks` tasks of a stream, a pure function of `seed`, `stage` and setting.

    Of several processes each gets its own; `in_order` puts together what became of them.
    """
    setting = EvaluationSetting(split, spec, tasks, seed, stage)
    yield from _mine(data, setting, group)


def _mine(
    data: ClassData | RegressionTasks,
    setting: EvaluationSetting,
    group: Group,
    *,
    by_index: bool = False,
) -> Iterator[TaskBatch]:
    """Yield those of a setting's tasks that fall to this process.

    `by_index`, of data of classes, leaves out the examples (`EpisodeStream.by_index`).
    """
    stream = data.tasks(
        setting.split,
        setting.spec,
        tasks=TASKS_PER_STEP,
        seed=setting.seed,
        stage=setting.stage,
    )
    batch_at = stream.batch
    if by_index:
        assert isinstance(stream, EpisodeStream)
        batch_at = stream.by_index
    for step in range(-(-setting.tasks // TASKS_PER_STEP)):
        if not group.mine(step):
            continue
        batch = batch_at(step)
        left = setting.tasks - step * TASKS_PER_STEP
        yield batch if left >= TASKS_PER_STEP else batch[:left]


def embeds_alone(backbone: nn.Module) -> bool:
    """Tell whether an image's embedding depends on that image alone, so that it is made once.

    Batch norm without running statistics normalises by other images.
    """
    return not has_batchnorm(backbone) or has_running_statistics(backbone)


@torch.no_grad()
def embed_split(
    algorithm: MetricAlgorithm,
    data: ClassData,
    split: str,
    precision: Precision,
    batch_size: int | None = None,
    group: Group = ALONE,
    used: Tensor | None = None,
) -> Tensor:
    """Return the embeddings [images, size] of the clean images of `split`, float32.

    Batch norm uses running statistics (inductive), which there must be (`embeds_alone`). Several
    processes embed a share each.

    Args:
        algorithm: whose backbone embeds.
        data: the dataset.
        split: of whose images.
        precision: number format of forward passes.
        batch_size: images of a pass; None: `ClassData.at_once`.
        group: processes that share the work; all return the same.
        used: [n] int64 positions of the images that are asked about; the rows of others are NaN,
            so that one that is missed shows. None: all.
    """
    count = len(data.split(split).labels)
    if used is None:
        used = torch.arange(count, device=data.device)
    algorithm.eval()
    pieces = []
    with batchnorm_mode(algorithm, "running"), precision.autocast():
        for i, index in enumerate(used.split(batch_size or data.at_once)):
            if group.mine(i):
                pieces.append(algorithm.backbone(data.examples(split, index, None)).float())
    return _table(pieces, used, count, group)


def _table(pieces: list[Tensor], used: Tensor, count: int, group: Group) -> Tensor:
    """Return a table of `count` rows, those of `used` put together from each process's pieces."""
    if group.size > 1:
        everyone = in_order(group.gather([piece.cpu() for piece in pieces]))
        pieces = [piece.to(used.device) for piece in everyone]
    if len(used) == count:
        return torch.cat(pieces)
    whole = torch.full((count, pieces[0].shape[1]), torch.nan, device=used.device)
    return whole.index_copy_(0, used, torch.cat(pieces))


@torch.no_grad()
def embed_supports(
    data: ClassData,
    settings: Sequence[EvaluationSetting],
    clean: Tensor,
    changed: Changed,
    group: Group = ALONE,
    open_bar: OpenBar | None = None,
) -> Tensor:
    """Return the embeddings [images, size] of the tasks' support images, float32.

    Each is the mean over its versions, as the settings say; the rows of other images are NaN. Where
    there is only the clean version, that is `clean`. Several processes embed a share each.

    Args:
        data: the dataset.
        settings: of tasks of one split, with one seed and the same versions.
        clean: embeddings [images, size] of the split's clean images (`embed_split`).
        changed: embeds changed versions of them.
        group: processes that share the work; all return the same.
        open_bar: shows how far it is.
    """
    split, versions, seed = settings[0].split, settings[0].versions, settings[0].seed
    if versions is None:
        return clean
    used = torch.cat([drawn.support.flatten() for drawn in _drawn(data, settings)]).unique()
    shown = reading_progress(len(used), "embedding versions of support images", open_bar)
    pieces = []
    with shown as bar:
        for i, index in enumerate(used.split(data.at_once)):
            if group.mine(i):
                own = clean[index]
                pieces.append(mean_over_versions(own, index, split, versions, seed, changed))
            bar.advance(len(index))
    return _table(pieces, used, len(clean), group)


def mean_embedding(
    algorithm: MetricAlgorithm, data: ClassData, precision: Precision, group: Group = ALONE
) -> Tensor:
    """Return the mean embedding [size] of the clean meta-train images, held-out ones left out.

    Arguments as in `embed_split`.
    """
    kept = (~data.filled("train").held_out).nonzero().flatten()
    return embed_split(algorithm, data, "train", precision, group=group, used=kept)[kept].mean(0)


def images_of(data: ClassData, settings: Sequence[EvaluationSetting]) -> Tensor | None:
    """Return the positions of the images that the tasks hold; None: half of the split or more.

    Args:
        data: the dataset.
        settings: of tasks of one split.
    """
    used = torch.empty(0, dtype=torch.int64, device=data.device)
    for drawn in _drawn(data, settings):
        used = torch.cat([used, drawn.support.flatten(), drawn.query.flatten()]).unique()
        if 2 * len(used) >= len(data.split(settings[0].split)):
            return None
    return used


def _drawn(data: ClassData, settings: Sequence[EvaluationSetting]) -> Iterator[TaskIndex]:
    """Yield, setting by setting, which examples all of its tasks hold."""
    for one in settings:
        stream = data.tasks(
            one.split, one.spec, tasks=TASKS_PER_STEP, seed=one.seed, stage=one.stage
        )
        steps = [stream.draw(step) for step in range(-(-one.tasks // TASKS_PER_STEP))]
        yield TaskIndex(*(torch.cat(side)[: one.tasks] for side in zip(*steps, strict=True)))


@dataclass(frozen=True)
class EvaluationSetting:
    """What is measured of a learner, and on which tasks.

    Attributes:
        split: `test` or `validate`.
        spec: of the tasks.
        tasks: their number.
        seed: decides the tasks, together with
        stage: the name of their stream.
        steps: ascending numbers of adaptation steps, each measured; None for an algorithm that
            takes none.
        batchnorm: `inductive` or `transductive`; None if the network has no batch norm; several:
            each is measured (`Algorithm.predict_modes`).
        versions: of each support image, over which its embedding is averaged (`Judged`); None:
            the image alone.
    """

    split: str
    spec: TaskSpec
    tasks: int
    seed: int
    stage: str = "evaluate"
    steps: Sequence[int] | None = None
    batchnorm: str | Sequence[str | None] | None = None
    versions: Versions | None = None

    @property
    def modes(self) -> tuple[str | None, ...]:
        """All that `batchnorm` says."""
        given = self.batchnorm
        return (given,) if given is None or isinstance(given, str) else tuple(given)


def evaluate(
    algorithm: Algorithm,
    data: ClassData | RegressionTasks,
    setting: EvaluationSetting,
    *,
    precision: Precision,
    embeddings: Tensor | None = None,
    supports: Tensor | None = None,
    bar: Any = None,
    group: Group = ALONE,
) -> list[Measurement]:
    """Evaluate `algorithm` on tasks; return a measurement for each mode and number of steps.

    They come mode by mode, as the setting names them.

    Args:
        algorithm: the learner; its state is as before afterwards.
        data: the dataset.
        setting: what is measured, on which tasks.
        precision: number format of forward passes.
        embeddings: `embed_split` of a MetricAlgorithm, where known already (inductive only).
        supports: `embed_supports`, likewise.
        bar: progress bar that is moved on by each task.
        group: processes that share the tasks; all return the same.
    """
    split, steps = setting.split, setting.steps
    modes = [mode or "inductive" for mode in setting.modes]
    algorithm.eval()
    gather = (
        isinstance(algorithm, MetricAlgorithm)
        and modes == ["inductive"]
        and embeds_alone(algorithm.backbone)
    )
    if gather and embeddings is None:
        assert isinstance(algorithm, MetricAlgorithm) and data.has_classes
        used = images_of(data, [setting])
        embeddings = embed_split(algorithm, data, split, precision, group=group, used=used)
    if gather and supports is None:
        assert isinstance(algorithm, MetricAlgorithm) and data.has_classes
        assert embeddings is not None
        changed = embed_changed(algorithm, data, precision)
        supports = embed_supports(data, [setting], embeddings, changed, group)
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    classes: list[Tensor] = []
    done, versions = 0, setting.versions
    for batch in _mine(data, setting, group, by_index=gather):
        if gather:
            assert isinstance(algorithm, MetricAlgorithm)
            assert supports is not None and embeddings is not None
            with torch.no_grad():
                predicted = algorithm.classify(
                    supports[batch.support_index],
                    batch.support_targets,
                    embeddings[batch.query_index],
                    batch.ways,
                ).unsqueeze(0)
        else:
            if versions is not None:
                assert data.has_classes
                batch = with_versions(batch, data, split, versions, setting.seed)
            with precision.autocast():
                predicted = algorithm.predict_modes(batch, steps or (0,), modes).flatten(0, 1)
        logits.append(predicted.detach().float().cpu())
        targets.append(batch.query_targets.cpu())
        classes.append(torch.empty(0) if batch.classes is None else batch.classes.cpu())
        done += len(batch)
        if bar is not None:
            bar.advance(len(batch))
    if group.size > 1:
        found = in_order(group.gather(list(zip(logits, targets, classes, strict=True))))
        logits, targets, classes = (list(each) for each in zip(*found, strict=True))
        if bar is not None:
            bar.advance(setting.tasks - done)
    all_logits = torch.cat(logits, dim=1)
    all_targets, all_classes = torch.cat(targets), torch.cat(classes)
    measured = [(mode, taken) for mode in setting.modes for taken in steps or (None,)]
    return [
        Measurement(
            values=task_values(all_logits[i], all_targets),
            kind=data.kind,
            ways=setting.spec.ways,
            shots=setting.spec.shots,
            queries=setting.spec.queries,
            steps=taken,
            batchnorm=mode,
            logits=all_logits[i],
            targets=all_targets,
            classes=all_classes,
            judging=judging_of(algorithm, versions),
        )
        for i, (mode, taken) in enumerate(measured)
    ]
