"""What a learner minimises on examples: named terms from labels and, maybe, a teacher's answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = [
    "Answer",
    "Answers",
    "FeatureShapes",
    "LabelLoss",
    "Needs",
    "Objective",
    "TaskAnswers",
    "loss_on_first",
    "named_total",
    "stages_among",
    "target_loss",
]

LabelLoss = Callable[[Tensor, Tensor, float], Tensor]
"""Maps outputs, targets and label smoothing to the mean loss on the labels; see `target_loss`."""

Needs = Collection[str] | Mapping[str, Sequence[str]]
"""Parts of a teacher's answer by name; or by name the weights that ask for it; see `Objective`."""


@dataclass(frozen=True)
class Answer:
    """What a teacher says of examples; no gradient flows into it.

    Attributes:
        logits: [..., n, classes], of the same classes in the same order as the student's.
        embeddings: [..., n, teacher's embedding_size], raw (neither centred nor normalised).
        features: [..., n, *shape] of the stages that were asked for, by name; `prototypes`
            [..., classes, size]: of a task the mean support embedding of each class, of a whole
            batch the weights of the teacher's head.
    """

    logits: Tensor | None = None
    embeddings: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> Answer:
        """Return the answer with these parts: `logits`, `embeddings`, features by name."""
        features = {k: v for k, v in parts.items() if k not in ("logits", "embeddings")}
        return cls(parts.get("logits"), parts.get("embeddings"), features)

    def parts(self) -> dict[str, Tensor]:
        """Return what there is of it by name; `of` takes it."""
        named = {"logits": self.logits, "embeddings": self.embeddings}
        return {k: v for k, v in named.items() if v is not None} | dict(self.features)

    def __getitem__(self, which: Any) -> Answer:
        """Return the answer to some of the examples or tasks.

        What is said of all classes of a whole batch (`prototypes` [classes, size]) stays whole.
        """

        def some(name: str, part: Tensor) -> Tensor:
            return part if name == "prototypes" and part.ndim == 2 else part[which]

        return Answer.of({name: some(name, part) for name, part in self.parts().items()})


@dataclass(frozen=True)
class TaskAnswers:
    """A teacher's answers to a batch of tasks; None where distillation does not act there.

    Attributes:
        support: logits [tasks, ways * shots, ways], embeddings [tasks, ways * shots, size].
        query: logits [tasks, ways * queries, ways], embeddings [tasks, ways * queries, size].
    """

    support: Answer | None = None
    query: Answer | None = None

    def __getitem__(self, which: slice) -> TaskAnswers:
        """Return the answers to some of the tasks."""
        support, query = self.support, self.query
        return TaskAnswers(
            None if support is None else support[which], None if query is None else query[which]
        )


Answers = TaskAnswers | Answer | None
"""A teacher's answers to a batch: of tasks, of examples; None without a teacher."""


def target_loss(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean loss on the true targets.

    Cross-entropy for integer targets [..., n] with logits [..., n, classes], squared error for
    float targets of the outputs' shape.
    """
    if targets.is_floating_point():
        return F.mse_loss(outputs, targets)
    return F.cross_entropy(
        outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1), label_smoothing=label_smoothing
    )


def loss_on_first(
    count: int, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Return `target_loss` on the first `count` examples of each class of a task alone.

    Args:
        count: of each class.
        outputs: logits [..., n, classes].
        targets: [..., n] int64.
        label_smoothing: see `target_loss`.
    """
    same = targets.unsqueeze(-1) == targets.unsqueeze(-2)
    known = same.tril(-1).sum(-1) < count  # how many of its class stand before it
    return target_loss(outputs[known], targets[known], label_smoothing)


def named_total(weighted: Mapping[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
    """Return `loss`, the weighted sum, and each term under its name before its weight.

    Args:
        weighted: by name of the term its weight and its value, a scalar; at least one.
    """
    total = torch.stack([weight * term for weight, term in weighted.values()]).sum()
    return {"loss": total, **{name: term for name, (_, term) in weighted.items()}}


def stages_among(needs: Collection[str]) -> list[str]:
    """Return the stages among what is read of a teacher's answer, in order."""
    return sorted(set(needs) - {"logits", "embeddings", "prototypes"})


@dataclass(frozen=True)
class FeatureShapes:
    """Shapes of the features that a loss reads, of one example, by stage.

    Attributes:
        student: of the student's stages that `Objective.stages` names.
        teacher: of the teacher's stages among `Objective.needed`.
    """

    student: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Objective(nn.Module):
    """The loss on labels alone (`distill=none`), and the interface of every distillation.

    A distillation is a subclass in a file of its own in `metakd/distillation/` that overrides
    `forward` and adds its terms. Its constructor takes positionally
    (student_size, teacher_size, teacher_mean): the embedding sizes and the teacher's mean
    embedding over meta-train images [teacher_size], and its settings keyword-only. Parameters it
    registers (a learned projection) are trained along with the student and dropped afterwards.

    One that names a keyword `shapes` is told the shapes of the features that it reads; see
    `FeatureShapes`.
    """

    label_smoothing: float = 0.0
    needs: ClassVar[Needs] = ()
    """What it reads of the teacher's answer: names (`logits`, `embeddings`, `prototypes`), or by
    name the weights (settings and attributes) of which one other than 0 asks for it."""
    compares_classes: bool = False
    """Whether what it teaches depends on the labels."""
    compares_supports: bool = False
    """Whether it reads the student's `features["prototypes"]`, [..., ways, size], the mean support
    embedding of each class, which only learners that compare embeddings have."""

    @classmethod
    def needed(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        """Return what one with these settings reads of the teacher's answer.

        By `needs`, unless a subclass overrides it: one that reads intermediate features names the
        teacher's stages beside `logits` and `embeddings`.

        Args:
            settings: by name; those that are missing are as the constructor's defaults.
        """
        if not isinstance(cls.needs, Mapping):
            return frozenset(cls.needs)
        values = {**defaults_of(cls), **settings}
        return frozenset(
            name for name, weights in cls.needs.items() if any(values[w] for w in weights)
        )

    @classmethod
    def idle(cls, settings: Mapping[str, Any], *, whole: bool) -> Mapping[str, str]:
        """Return options that change nothing beside the other settings, by name why.

        Args:
            settings: by name; those that are missing are as the constructor's defaults.
            whole: some stage learns from whole batches of examples, not from tasks alone.
        """
        return {}

    @property
    def reads(self) -> frozenset[str]:
        """What this one reads of the teacher's answer; its settings are its attributes."""
        return self.needed(vars(self))

    @classmethod
    def stages_needed(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the stages whose features one with these settings reads of the student."""
        return ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose features this one reads of the student's prediction."""
        return self.stages_needed(vars(self))

    @property
    def mean_over_examples(self) -> bool:
        """Whether every term is a mean over examples, so that a whole batch may be shared out.

        A subclass says so itself. Of tasks every objective is a mean.
        """
        return type(self) is Objective

    @property
    def twice_differentiable(self) -> bool:
        """Whether it has second derivatives, which an inner loop of second order asks for."""
        return True

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._judge: LabelLoss = target_loss

    def __call__(self, *given: Any) -> dict[str, Tensor]:
        """Return what `forward` does.

        Raises:
            UserError: that is something else than named scalars, `loss` among them.
        """
        terms = super().__call__(*given)
        named = isinstance(terms, Mapping) and "loss" in terms
        if not named or any(not isinstance(t, Tensor) or t.ndim for t in terms.values()):
            raise UserError(
                f"{type(self).__name__}.forward has to return named scalars, 'loss' among them, "
                "such as {'loss': total, 'loss/ce': ce}"
            )
        return terms

    def begin(self, step: int, steps: int, *, whole: bool) -> None:
        """Take note that update `step` of `steps` of a stage comes next.

        Args:
            step: from 0.
            steps: of the stage.
            whole: it is made on a whole batch of examples, not on tasks.
        """

    @torch.no_grad()
    def advance(self) -> dict[str, float]:
        """Take note that the update was made; return what is to be logged of it, by name."""
        return {}

    def weight(self, term: str) -> float | None:
        """Return with what weight a term, named as in `forward`, enters the total.

        That is the attribute `<term>_weight`, as the distillations have it; None without one.
        """
        found = getattr(self, f"{term.removeprefix('loss/')}_weight", None)
        return None if found is None else float(found)

    def weights(self) -> dict[str, float]:
        """Return the weights of the terms that have one, by name; see `weight`."""
        names = [name for name in vars(self) if name.endswith("_weight")]
        return {f"loss/{n.removesuffix('_weight')}": float(getattr(self, n)) for n in names}

    def label_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the term on the labels: `target_loss`, unless `judged_by` exchanged it."""
        return self._judge(outputs, targets, self.label_smoothing)

    @contextmanager
    def judged_by(self, loss: LabelLoss) -> Iterator[None]:
        """Take `loss` for the term on the labels; every other term stays as it is."""
        before, self._judge = self._judge, loss
        try:
            yield
        finally:
            self._judge = before

    def forward(
        self, student: Prediction, targets: Tensor, answer: Answer | None
    ) -> dict[str, Tensor]:
        """Return the named terms of the loss, each a scalar.

        The key `loss` is the total that is minimised; every other one, `loss/ce`, `loss/kd` …, is
        a term before its weight. With `answer` None the total is the loss on the labels alone.

        Args:
            student: logits [..., n, classes] and embeddings [..., n, student_size]. Leading
                dimensions are tasks; terms are means over them.
            targets: [..., n] int64, or float of the logits' shape for regression.
            answer: the teacher's answer to the same examples.
        """
        loss = self.label_loss(student.logits, targets)
        return {"loss": loss, "loss/ce": loss}


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the defaults of the settings that a class's constructor takes."""
    return {k: p.default for k, p in inspect.signature(cls).parameters.items()}
