"""`algorithm=reptile`: move the initialisation towards what the tasks adapt to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import Contribution, displacement
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import AdamWithoutMomentum, GradientDescent, UpdateRule
from metakd.data.counter_random import bits_at, derive, smallest, stream_key
from metakd.data.tasks import TaskBatch
from metakd.errors import UserError, check_word

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
        adaptation: its settings; `inner_lr` is the rate of the inner optimiser; `batchnorm`
            is accepted like everywhere, training has no query pass to apply it to.
        inner_optimizer: `sgd`, or `adam` with β₁ = 0.
        inner_batch: support examples of an inner step; None, or as many as there are: all.
        inner_state: of Adam: `fresh` or `carried`.

    Raises:
        UserError: a setting has no such value.
    """

    unused = frozenset(
        {"learn_rates", "first_order_share", "multi_step", "first_order", "checkpoint_steps"}
    )

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_lr=1e-3, inner_steps_test=50),
        inner_optimizer: str = "adam",
        inner_batch: int | None = 10,
        inner_state: str = "fresh",
    ) -> None:
        check_word("algorithm.inner_optimizer", inner_optimizer, _OPTIMIZERS)
        check_word("algorithm.options.inner_state", inner_state, _STATES)
        if inner_batch is not None and inner_batch < 1:
            raise UserError(
                f"algorithm.inner_batch={inner_batch}: an inner step needs at least 1 example; "
                "null takes the whole support set"
            )
        lr = adaptation.inner_lr
        adam = inner_optimizer == "adam"
        rule: UpdateRule = AdamWithoutMomentum(lr) if adam else GradientDescent(lr)
        super().__init__(
            backbone, outputs, rule, displacement, replace(adaptation, first_order=True)
        )
        # A projection that the distillation learns has no other gradient than this.
        self.adapts = ("network.", "objective.")
        self.inner_batch = inner_batch
        if isinstance(rule, AdamWithoutMomentum) and inner_state == "carried":
            rule.carry({f"network.{n}": p for n, p in self.network.named_parameters()})

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
