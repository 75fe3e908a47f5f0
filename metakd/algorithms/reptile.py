"""`algorithm=reptile`: move the initialisation towards what the tasks adapt to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import Contribution, displacement
from metakd.adaptation.update_rules import AdamWithoutMomentum, GradientDescent, UpdateRule
from metakd.data.counter_random import bits_at, derive, smallest, stream_key
from metakd.data.tasks import TaskBatch
from metakd.errors import UserError, nearest

__all__ = ["Reptile", "mini_batches"]

_OPTIMIZERS = ("sgd", "adam")
_STATES = ("fresh", "carried")


class Reptile(GradientLearner):
    """Reptile (Nichol et al., 2018; method.md section 5): φ_0 ← φ_0 + η mean_i(φ_i - φ_0).

    The outer gradient is set to mean_i(φ_0 - φ_i), so plain gradient descent with rate η is that
    update: `meta_train.optimizer=plain_sgd meta_train.lr=1 meta_train.schedule=linear`. No second
    derivatives and no query set in training. A teacher acts in the inner loop, on the support
    set; parameters of the distillation adapt there like the network's.

    The published code keeps one Adam state over all tasks of a run, and starts from it at
    evaluation, too. By default here each task starts with a fresh state, so that tasks do not
    depend on their order and an evaluation on nothing but the parameters.
    `inner_state=carried` is the published way as far as parallel tasks allow: every task of a
    meta-batch starts from the mean of the states that the last meta-batch ended with.

    Inner mini-batches walk through a random order of the support set, then through another one …
    In training the orders are a function of the task alone (of its images' numbers, or of its
    values); at evaluation and in use of the number of its examples.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        inner_lr: rate of the inner optimiser.
        inner_steps: see `GradientLearner`.
        inner_steps_test: steps at evaluation.
        inner_optimizer: `sgd`, or `adam` with β₁ = 0.
        inner_batch: support examples of an inner step; None, or as many as there are: all.
        batchnorm: accepted like everywhere; training has no query pass to apply it to.
        inner_state: of Adam: `fresh` or `carried`.
        execution: how tasks are computed.
        inner_precision: number format of the inner loop.

    Raises:
        UserError: a setting has no such value.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        inner_lr: float = 1e-3,
        inner_steps: int = 5,
        inner_steps_test: int | None = 50,
        inner_optimizer: str = "adam",
        inner_batch: int | None = 10,
        batchnorm: str = "transductive",
        inner_state: str = "fresh",
        execution: str = "auto",
        inner_precision: str = "float32",
    ) -> None:
        if inner_optimizer not in _OPTIMIZERS:
            raise UserError(
                f"algorithm.inner_optimizer={inner_optimizer}: choose sgd or adam."
                + nearest(inner_optimizer, _OPTIMIZERS)
            )
        if inner_state not in _STATES:
            raise UserError(
                f"algorithm.options.inner_state={inner_state}: choose fresh or carried."
                + nearest(inner_state, _STATES)
            )
        if inner_batch is not None and inner_batch < 1:
            raise UserError(
                f"algorithm.inner_batch={inner_batch}: an inner step needs at least 1 example; "
                "null takes the whole support set"
            )
        rule: UpdateRule = (
            GradientDescent(inner_lr) if inner_optimizer == "sgd" else AdamWithoutMomentum(inner_lr)
        )
        super().__init__(
            backbone,
            outputs,
            rule,
            displacement,
            inner_steps=inner_steps,
            inner_steps_test=inner_steps_test,
            adapted="all",
            first_order=True,
            batchnorm=batchnorm,
            execution=execution,
            inner_precision=inner_precision,
        )
        self.inner_batch = inner_batch
        if isinstance(rule, AdamWithoutMomentum) and inner_state == "carried":
            rule.carry({f"network.{n}": p for n, p in self.network.named_parameters()})

    def _adapting(self) -> tuple[str, ...]:
        # A projection that the distillation learns has no other gradient than this.
        return ("network.", "objective.")

    def _order(self, batch: TaskBatch, steps: int) -> Tensor | None:
        size = batch.support.shape[1]
        if self.inner_batch is None or self.inner_batch >= size:
            return None
        content = batch.support if batch.support_index is None else batch.support_index
        return mini_batches(content, size, self.inner_batch, steps)

    def order_at_use(self, examples: int, steps: int, device: torch.device) -> Tensor | None:
        """See `GradientLearner.order_at_use`."""
        if self.inner_batch is None or self.inner_batch >= examples:
            return None
        nothing = torch.zeros(1, 1, dtype=torch.int64, device=device)
        return mini_batches(nothing, examples, self.inner_batch, steps)[0]

    def means_over_tasks(self) -> Sequence[Tensor]:
        """See `Algorithm.means_over_tasks`: the carried state."""
        if isinstance(self.rule, AdamWithoutMomentum) and self.rule.squares is not None:
            return (self.rule.taken, self.rule.squares)
        return ()

    def _after(self, mean: Contribution) -> None:
        if isinstance(self.rule, AdamWithoutMomentum) and self.rule.carries:
            self.rule.remember(mean.state)


def mini_batches(content: Tensor, size: int, batch: int, steps: int) -> Tensor:
    """Return which examples each inner step sees, int64 [tasks, steps, batch].

    A task's examples are gone through in a random order, then in another one, and so on.

    Args:
        content: [tasks, …], int64 or float; what the orders are a function of.
        size: support examples of a task.
        batch: examples of a step.
        steps: number of steps.
    """
    rounds = max(1, -(-steps * batch // size))
    numbers = content.flatten(1)
    if numbers.is_floating_point():
        numbers = numbers.to(torch.float64).view(torch.int64)
    place = torch.arange(numbers.shape[1], device=content.device)
    # A sum of hashes of (place, number): in int64 it is exact in any order of summation.
    key = bits_at(derive(stream_key(0, "reptile"), place), numbers).sum(1)
    counters = torch.arange(rounds * size, device=content.device).view(rounds, size)
    orders = smallest(bits_at(key[:, None, None], counters), size)
    return orders.flatten(1)[:, : steps * batch].reshape(len(numbers), steps, batch)
