"""Weights and temperature of a loss, learned from how the student does on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.lean_optimizers import lean
from metakd.data.tasks import Batch
from metakd.distillation.distillation import Distillation
from metakd.distillation.objective import Answers, Objective
from metakd.errors import UserError, nearest
from metakd.models.randomness import random_state, restore_random_state
from metakd.stages.ingredients import Enriched

__all__ = ["LearnedValues", "LearnsWeights"]

_RELATIVE_MOVE = 0.01  # Liu et al., 2019 (DARTS): the perturbation's length over the direction's


@dataclass(frozen=True)
class LearnedValues:
    """Which values of a loss are learned, and how.

    Attributes:
        names: of `Distillation.scheduled_values`.
        every: updates between steps of the values.
        rate: Adam's, of the logarithms' places between their bounds (before the sigmoid).
        span: a value stays between itself / span and itself · span.
        trial_lr: rate of the trial step.
        most: largest values by name, where smaller than in general.
    """

    names: tuple[str, ...]
    every: int = 10
    rate: float = 0.01
    span: float = 10.0
    trial_lr: float = 0.02
    most: Mapping[str, float] | None = None


class LearnsWeights(EmbeddingLearner):
    """Trains a learner while values of its loss follow the labels of held-out examples.

    A value w = low · (high / low)^sigmoid(r) stays within its bounds. Each `every` updates, with
    the first half A of the batch's tasks (examples) and the other half B:

    1. the learner θ takes a trial step on A, θ' = θ - a ∇_θ L(A, θ; w);
    2. v = ∇_θ' L_labels(B, θ');
    3. r descends L_labels(B, θ'), whose gradient -a ∇_r ⟨v, ∇_θ L(A, θ; w)⟩ is taken by finite
       differences: -a (∇_r L(A, θ + e v; w) - ∇_r L(A, θ - e v; w)) / 2e (Liu et al. 2019).

    Every pass draws the same random numbers (dropout), or the difference would be that of two
    masks. The labels' loss on B is of examples as they are, whatever else the stage learns from
    (quarter turns, mixtures). Then the update is made on the whole batch, as without it: learner,
    batch norm and random generators are as they were before the trial.

    Args:
        learner: what is trained; one whose loss is descended by backward passes.
        objective: its loss; the values are set in it.
        learned: which values, and how.

    Raises:
        UserError: the loss has no such value, it is 0, or it has a schedule.
    """

    shares_tasks = False

    def __init__(
        self, learner: EmbeddingLearner, objective: Distillation, learned: LearnedValues
    ) -> None:
        super().__init__()
        self.learner, self._learned = learner, learned
        values = objective.scheduled_values()
        low, high, place = [], [], []
        for name in learned.names:
            _check(name, values, objective)
            value, most = values[name], (learned.most or {}).get(name, math.inf)
            low.append(value / learned.span)
            high.append(min(value * learned.span, most))
            share = math.log(value / low[-1]) / math.log(high[-1] / low[-1])
            share = min(max(share, 0.01), 0.99)  # at a bound its gradient would be 0
            place.append(math.log(share / (1 - share)))
        self.place = nn.Parameter(torch.tensor(place))
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)
        self._optimizer: Optimizer = lean(torch.optim.Adam)([self.place], lr=learned.rate)
        self._step, self._due = 0, False

    low: Tensor
    high: Tensor

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.learner.backbone

    def settle(self, objective: Distillation) -> None:
        """Let the loss have the values as they are now."""
        for name, value in self.found().items():
            objective.set_value(name, value)

    def values(self) -> Tensor:
        """Return the values, in the order of their names."""
        return self.low * (self.high / self.low) ** torch.sigmoid(self.place)

    def found(self) -> dict[str, float]:
        """Return the values by name."""
        return dict(zip(self._learned.names, self.values().tolist(), strict=True))

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`."""
        self._step = step
        self.learner.begin(step, steps)

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`."""
        return {**self.learner.own_optimizers(), "learned_values": self._optimizer}

    def rate_factors(self) -> Mapping[int, float]:
        """See `Algorithm.rate_factors`."""
        return self.learner.rate_factors()

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Algorithm.label_loss`."""
        return self.learner.label_loss(outputs, targets, label_smoothing)

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`."""
        return self.learner.classify(support, targets, query, ways)

    def advance(self) -> dict[str, Tensor]:
        """See `Algorithm.advance`; metrics are the values."""
        metrics = self.learner.advance()
        if self._due:
            self._optimizer.step()
        named = {f"distill/{name}": torch.tensor(value) for name, value in self.found().items()}
        return {**metrics, **named}

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`."""
        assert isinstance(objective, Distillation)
        self._due = self._step % self._learned.every == 0 and len(batch) > 1
        gradient = self._hypergradient(batch, objective, answers) if self._due else None
        self.settle(objective)
        terms = self.learner.accumulate(batch, objective, answers)
        self.place.grad = gradient
        return terms

    def _hypergradient(self, batch: Batch, objective: Distillation, answers: Answers) -> Tensor:
        """Return the gradient of the held-out loss to the places of the values."""
        half = len(batch) // 2
        ours, held = batch[:half], batch[half:]
        answer = None if answers is None else answers[:half]
        everything = [p for m in (self.learner, objective) for p in m.parameters()]
        # What has an optimiser of its own (weights of groups) is given no gradient of the loss.
        steps = self.learner.own_optimizers().values()
        apart = {id(p) for o in steps for g in o.param_groups for p in g["params"]}
        parameters = [
            p for p in self.learner.parameters() if p.requires_grad and id(p) not in apart
        ]
        kept = [p.detach().clone() for p in parameters]
        buffers = {name: b.clone() for name, b in self.learner.named_buffers()}
        random, rate = random_state(), self._learned.trial_lr

        def gradients(
            learner: EmbeddingLearner, part: Batch, loss: Objective, given: Answers
        ) -> list[Tensor]:
            for p in everything:
                p.grad = None
            restore_random_state(random)
            learner.accumulate(part, loss, given)
            return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

        @torch.no_grad()
        def go(direction: list[Tensor], length: float) -> None:
            for p, start, d in zip(parameters, kept, direction, strict=True):
                p.copy_(start + length * d)

        self.settle(objective)
        trial = gradients(self.learner, ours, objective, answer)
        go(trial, -rate)
        labels = Objective()
        labels.label_smoothing = objective.label_smoothing
        plain = self.learner.learner if isinstance(self.learner, Enriched) else self.learner
        wanted = gradients(plain, held, labels, None)
        length = torch.stack([w.norm() for w in wanted]).norm().item()
        total = torch.zeros_like(self.place)
        if length > 0:
            move = _RELATIVE_MOVE / length
            for sign in (1.0, -1.0):
                go(wanted, sign * move)
                self.place.grad = torch.zeros_like(self.place)
                for name, one in zip(self._learned.names, self.values().unbind(), strict=True):
                    objective.set_value(name, one)  # type: ignore[arg-type]
                gradients(self.learner, ours, objective, answer)
                total = total - rate * sign * self.place.grad / (2 * move)
        go(trial, 0.0)
        with torch.no_grad():
            for name, b in self.learner.named_buffers():
                b.copy_(buffers[name])
        for p in everything:
            p.grad = None
        restore_random_state(random)
        return total


def _check(name: str, values: Mapping[str, float], objective: Distillation) -> None:
    where = f"distill.learned: {name}"
    if name not in values:
        raise UserError(
            f"{where} is no value of this loss; it has {', '.join(values)}.{nearest(name, values)}"
        )
    if not values[name]:
        raise UserError(f"{where} is 0, which switches it off; set it above 0")
    if name in objective.schedules:
        raise UserError(f"{where} has a schedule; leave one of the two out")
