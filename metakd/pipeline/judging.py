"""How a trained network's embeddings are judged at evaluation: centred, over several versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.judged import Judged
from metakd.algorithms.supervised import Supervised
from metakd.config.schema import Config
from metakd.data.changed import changed_by
from metakd.data.class_data import ClassData
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline.measure import precision_of, versions_of
from metakd.pipeline.prepared import Prepared
from metakd.runs.checkpoints import load_weights, save_weights
from metakd.runs.folder import RunFolder
from metakd.stages.evaluate import embeds_alone, mean_embedding
from metakd.stages.recorder import Recorder

__all__ = [
    "centroid_learner",
    "check_judging",
    "judged",
    "keep_means",
    "kept_means",
    "mean_of",
    "means_of",
]

MEANS = "centre"
"""In a run's folder of checkpoints: the mean embedding [size] of each model, by its name."""

Learner = TypeVar("Learner", bound=Algorithm)


def check_judging(prepared: Prepared) -> None:
    """Refuse settings of `evaluate` that cannot act on this data or student.

    Raises:
        UserError: a kind of change that the data does not have, or a student whose embedding of an
            image depends on other images.
    """
    config, data = prepared.config, prepared.data
    versions = versions_of(config)
    if versions is not None and data.has_classes:
        changed_by(data, versions.kinds)
    if config.evaluate.centre and not embeds_alone(prepared.student):
        raise UserError(
            "evaluate.centre=true: the student has batch norm without running statistics, so that "
            "an image has no embedding of its own; type evaluate.centre=false"
        )


def centroid_learner(network: Network, data: ClassData) -> Supervised:
    """Return the nearest cosine centroid on a network's embeddings, which judges teachers."""
    outputs = max(1, data.split("train").classes)  # of a head that is not asked
    return Supervised(network.backbone, outputs, head="centroid").to(data.device)


def judged(learner: Learner, config: Config, mean: Tensor | None) -> Learner:
    """Return a trained learner as `evaluate` asks for it: itself where it asks for nothing.

    Args:
        learner: the trained one; left as it is.
        config: of the run.
        mean: of its network; None: nothing is centred.
    """
    versions = versions_of(config)
    if mean is None and versions is None:
        return learner
    assert isinstance(learner, MetricAlgorithm)  # others are refused
    return cast(Learner, Judged(learner, mean, 1 if versions is None else versions.count))


def means_of(
    models: Mapping[str, Algorithm | Network],
    prepared: Prepared,
    recorder: Recorder,
    frozen: FrozenTeacher | None,
) -> dict[str, Tensor]:
    """Return by model the mean embedding of the meta-train images; empty: nothing is centred.

    Args:
        models: trained on them.
        prepared: the run.
        recorder: of processes that share the work.
        frozen: has tables of the teacher's embeddings; None: they are made.
    """
    config = prepared.config
    if not config.evaluate.centre:
        return {}
    found = {}
    for name, model in models.items():
        if name == "teacher" and frozen is not None:
            found[name] = frozen.mean
            continue
        data, precision = prepared.class_data, precision_of(config, prepared.precision)
        learner = centroid_learner(model, data) if isinstance(model, Network) else model
        assert isinstance(learner, MetricAlgorithm)  # others are refused
        found[name] = mean_embedding(learner, data, precision, recorder.group)
    return found


def keep_means(folder: RunFolder, means: Mapping[str, Tensor]) -> None:
    """Write the means beside the weights that they belong to."""
    if means:
        save_weights(folder.checkpoints, MEANS, dict(means))


def mean_of(run: RunFolder, model: str) -> Tensor:
    """Return the mean that a run has kept of one of its models, by which it was centred.

    Raises:
        UserError: it is missing or damaged.
    """
    return load_weights(run.checkpoints, MEANS)[model]


def kept_means(run: RunFolder) -> dict[str, Tensor]:
    """Return the means that a run has kept; empty: it has none."""
    if not (run.checkpoints / f"{MEANS}.safetensors").is_file():
        return {}
    return load_weights(run.checkpoints, MEANS)
