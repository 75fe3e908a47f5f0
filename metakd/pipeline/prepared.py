"""What a run works on, once its config is checked and its data and networks are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import Composed
from metakd.config.schema import AlgorithmConfig, Config
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.data.preprocessing import Preprocessing
from metakd.distillation.objective import Objective
from metakd.models.card import Card
from metakd.models.ensemble import Ensemble
from metakd.models.input_adapter import adapt_input
from metakd.models.layout import lay_out_channels_last
from metakd.models.network import Network
from metakd.pipeline.construction import build_backbone, settings_of
from metakd.pipeline.loss import build_objective
from metakd.registry import build, resolve
from metakd.stages.precision import Precision

__all__ = ["Prepared"]


@dataclass
class Prepared:
    """Everything a run works on.

    Attributes:
        composed: the config and how it was typed; with the numbers of queries that hold, where
            `task.fit` lowers them.
        config: the config itself.
        device: where it runs.
        precision: number format of the stages that may use bfloat16.
        data: the dataset on the device, without the images that the target task is tested on.
        everything: the dataset with them.
        cache_root: folder of caches.
        student: the student's backbone at its start.
        teacher: the teacher (not trained yet unless a checkpoint was given), None without one.
        needs: what the loss reads of the teacher's answer.
        teacher_is_trained: its weights come from a checkpoint, or from elsewhere and stay so.
        student_card: what the student's checkpoint says of itself, if it says anything.
        teacher_cards: likewise, of each of its networks.
        own_card: of networks that an earlier process of this run has begun to train.
        teacher_members: of an ensemble of checkpoints, its networks with their heads.
        teacher_input: what the teacher expects of its input; None without one.
        teacher_classes: of the outputs of the teacher's head; empty where they are not known.
        unlabelled: further examples, without labels, as a split `train` of one class.
        unlabelled_held: how many of them are of meta-validation or meta-test classes.
        read_again: reads the files of `data` as a network expects them that looks at larger
            pictures; None: they are not larger.
        unlabelled_again: likewise, of `unlabelled`.
        dealt: by split the names of its classes, and how many images each has, before any class is
            left out that a checkpoint knows; empty for data that is no images.
        warnings: lines that the user should see.
    """

    composed: Composed
    config: Config
    device: torch.device
    precision: Precision
    data: ClassData | RegressionTasks
    everything: ClassData | RegressionTasks
    cache_root: Path
    student: nn.Module
    teacher: Network | None
    needs: frozenset[str] = frozenset()
    teacher_is_trained: bool = False
    student_card: Card | None = None
    teacher_cards: tuple[Card | None, ...] = ()
    own_card: Card | None = None
    teacher_members: tuple[Network, ...] = ()
    teacher_input: Preprocessing | None = None
    teacher_classes: tuple[str, ...] = ()
    unlabelled: ClassData | None = None
    unlabelled_held: int = 0
    read_again: Callable[[Preprocessing], ClassData] | None = None
    unlabelled_again: Callable[[Preprocessing], ClassData] | None = None
    dealt: dict[str, tuple[tuple[str, ...], list[int]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def class_data(self) -> ClassData:
        """The data, for a stage that only data of classes has.

        Raises:
            TypeError: it has none.
        """
        if not self.data.has_classes:
            raise TypeError(f"dataset {self.data.name} has no classes")
        return self.data

    @property
    def unlabelled_checksum(self) -> str | None:
        """Of the further examples without labels; None without any."""
        return None if self.unlabelled is None else self.unlabelled.checksum

    def backbone_of_teacher(self) -> nn.Module:
        """Return the teacher's backbone at its start, on the device, laid out as in training."""
        teacher = self.config.teacher
        if not teacher.seeds:
            return self._member(teacher.seed or 0)
        return Ensemble([self._member(seed) for seed in teacher.seeds]).to(self.device)

    def new_teacher(self, seed: int) -> Network:
        """Return an untrained network like the teacher, or one of its members, on the device."""
        backbone = self._member(seed)
        return Network(backbone, self.class_data.split("train").classes).to(self.device)

    def _member(self, seed: int) -> nn.Module:
        c, data, expects = self.config, self.data, self.teacher_input
        shape = data.example_shape if expects is None else expects.shape
        backbone = build_backbone(c.teacher, shape, c.plugins, seed)
        if expects is not None and data.has_classes:
            adapt_input(backbone, data.preprocessing, expects)
        return lay_out_channels_last(backbone).to(self.device)

    def algorithm(
        self,
        backbone: nn.Module,
        changed: AlgorithmConfig | None = None,
        outputs: int | None = None,
    ) -> Algorithm:
        """Return the config's algorithm, or a changed form of it, around `backbone`.

        Args:
            backbone: the student's.
            changed: other settings of the algorithm.
            outputs: of its head; None: as many as the data or the training's ways ask for.
        """
        c = self.config
        chosen = c.algorithm if changed is None else changed
        cls = resolve(chosen._target_, "metakd.algorithms", c.plugins)
        algorithm: Algorithm = build(
            cls,
            backbone,
            self._outputs() if outputs is None else outputs,
            settings=settings_of(chosen),
            options=chosen.options,
        )
        return algorithm.to(self.device)

    def _outputs(self) -> int:
        """Return how many outputs the data or the training's ways ask for."""
        if not self.data.has_classes:
            return self.data.outputs
        if self.config.algorithm.supports.trains_on == "batches":
            return self.data.split("train").classes
        return self.config.task.training().ways

    def objective(self, teacher: Network, teacher_mean: Tensor) -> Objective:
        """Return the config's loss with this teacher; see `build_objective`."""
        shape = tuple(self.data.example_shape)
        built = build_objective(self.config, self.student, teacher, teacher_mean, shape)
        return built.to(self.device)
