"""What is meta-trained with a teacher beside it, and algorithms that take part in that."""

from __future__ import annotations

from abc import ABC, abstractmethod

from metakd.adaptation.algorithm import Algorithm
from metakd.models.network import Network
from metakd.teaching.co_learning import Exchange

__all__ = ["Joined", "TeachingAlgorithm"]


class Joined(Algorithm, ABC):
    """A student's learner together with a teacher that adapts or learns, as one learner.

    Attributes:
        student: the student's learner.
    """

    student: Algorithm

    @abstractmethod
    def part(self) -> Network | Algorithm:
        """End the common training and return the teacher.

        Returns:
            a network to embed with, or a learner that adapts.
        """


class TeachingAlgorithm(Joined):
    """An algorithm that trains a teacher of its own beside the student (`supports: teaches: true`).

    It is built around the student's backbone, and its `student` is the learner that a run without
    a teacher trains. A teacher's learner is the `student` of a second instance, built around the
    teacher's backbone. What it requires of the rest of the configuration stands in its YAML:
    `supports: teacher_modes`, `distill_on`, `compares_tasks`, and `brings`.
    """

    @abstractmethod
    def join(self, teacher: Algorithm, exchange: Exchange, *, teacher_lr: float, seed: int) -> None:
        """Bring in the teacher's learner; from now on both are trained.

        Args:
            teacher: a learner like the student's, around the teacher's backbone.
            exchange: what flows between the two.
            teacher_lr: rate of the teacher's parameters, in an optimiser of its own
                (`Algorithm.own_optimizers`).
            seed: of what it draws.
        """
