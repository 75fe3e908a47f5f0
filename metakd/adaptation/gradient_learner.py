"""What all learners share that adapt by gradient steps: the MAML family and Reptile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.differentiation import detached
from metakd.adaptation.inner_loop import InnerLoop, StartOf, Task, tasks_of, without_updates
from metakd.adaptation.outer_gradients import Contribution, OuterGradient, unrolled
from metakd.adaptation.settings import ADAPTED, BATCHNORM, Adaptation
from metakd.adaptation.task_execution import (
    choose_execution,
    mean_over_tasks,
    stack_over_tasks,
)
from metakd.adaptation.update_rules import UpdateRule
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.objective import Answer, Answers, Objective
from metakd.errors import UserError, check_word
from metakd.models.network import Network
from metakd.models.normalization import has_batchnorm, replace_batchnorm
from metakd.models.randomness import random_state, restore_random_state

__all__ = ["GradientLearner"]

_PREFIX = {"all": "network.", "head": "network.head.", "body": "network.backbone."}
_DTYPE = {"float32": None, "bfloat16": torch.bfloat16}


class GradientLearner(Algorithm):
    """Adapts by gradient steps on the support set; a concrete one is a choice of parts.

    Batch norm: an adapting pass uses the statistics of the support batch. The query pass uses
    the query batch's own (transductive), or the support set's at the adapted parameters, with
    gradients through them (inductive). Running statistics are neither used nor changed. A network
    without batch norm is the same in both.

    Tasks are computed in float32 whatever the stage's autocast says, unless `inner_precision`
    asks for bfloat16: parameters are then cast once per inner step, which is faster on a CPU
    that multiplies bfloat16 in hardware; losses, updates and the outer gradient stay float32.

    Args:
        backbone: the student's, with attribute `embedding_size`.
        outputs: classes of a task, or regression outputs.
        rule: how a step moves the parameters.
        outer: how the outer gradient is taken.
        adaptation: steps, orders, statistics, execution.
        adapted: which parameters adapt: `all`, `head`, `body`.
        start_of: where a task starts, if that depends on the task (`InnerLoop`); its head may then
            have as many outputs as the task has ways.
        proximal: λ; adapting descends the loss plus λ/2 ‖φ - φ_0‖².

    Raises:
        UserError: a setting has no such value, or two do not go together.
    """

    shares_tasks = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        rule: UpdateRule,
        outer: OuterGradient,
        adaptation: Adaptation,
        *,
        adapted: str = "all",
        start_of: StartOf | None = None,
        proximal: float = 0.0,
    ) -> None:
        super().__init__()
        check_word("algorithm.adapted", adapted, ADAPTED)
        self.network = Network(replace_batchnorm(backbone), outputs)
        self.rule = rule
        self.outer = outer
        self.adapted = adapted
        self.adapts: tuple[str, ...] = (_PREFIX[adapted],)  # beginnings of names
        self.rule.attach({n: p for n, p in self.named_parameters() if n.startswith(self.adapts)})
        self.adaptation = adaptation
        self.inner_steps = adaptation.inner_steps
        self.test_steps = adaptation.test_steps
        self.first_order = adaptation.first_order
        self.batchnorm = adaptation.batchnorm
        self.execution = adaptation.execution
        self.dtype = _DTYPE[adaptation.inner_precision]
        self.start_of = start_of
        self.proximal = proximal
        self.checkpoint_steps = int(adaptation.checkpoint_steps)
        self.annealing = adaptation.annealing
        if self.annealing.multi_step and outer is not unrolled:
            raise UserError(
                f"algorithm.options.multi_step={self.annealing.multi_step}: this algorithm has no "
                "query loss after every inner step; type algorithm.options.multi_step=0"
            )
        self._batches = False  # that it runs under vmap has been seen
        self._not_batched = ""  # why it does not
        self._without_annealing = (outer, self.first_order)
        self.begin(0, 1)
        self.execution_for(1, torch.device("cpu"))  # refuse it now

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.network.backbone

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`; sets what `annealing` says of this update."""
        if not (self.annealing.multi_step or self.annealing.first_order_share):
            return
        outer, first_order = self._without_annealing
        weights = self.annealing.weights(step, steps, self.inner_steps)
        self.outer = outer if weights is None else partial(unrolled, weights=weights)
        self.first_order = first_order or self.annealing.is_first_order(step, steps)

    def probe(self, steps: int, execution: str) -> Self:
        """Return a copy that adapts in another number of steps, to see what they cost.

        Args:
            steps: of adaptation in training.
            execution: how tasks are computed, see `choose_execution`.
        """
        other = copy.deepcopy(self)
        other.inner_steps, other.execution = steps, execution
        return other

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; the outer gradient is the mean over the tasks."""
        assert isinstance(batch, TaskBatch) and not isinstance(answers, Answer)
        self._check_ways(batch)
        loop = self.inner_loop(objective, self.batchnorm, self.first_order)
        parameters = loop.values()
        values, steps = detached(parameters), self.inner_steps
        tasks = tasks_of(batch, answers, self._order(batch, steps))

        def contribution(mine: InnerLoop, task: Task) -> Contribution:
            return self.outer(mine, values, task, steps)

        autocast = torch.autocast(batch.support.device.type, enabled=False)
        with autocast, without_updates(self.network):
            mean = self._over_tasks(mean_over_tasks, contribution, loop, tasks)
        self._after(mean)
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                gradient = mean.gradients[name].to(parameter.dtype)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return mean.terms

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`; adapts on labels alone, with the training's update rule.

        Evaluation calls `predict_modes`, which is the one for a subclass to change.
        """
        return self.predict_modes(tasks, steps, (batchnorm,))[0]

    def predict_modes(self, tasks: TaskBatch, steps: Sequence[int], modes: Sequence[str]) -> Tensor:
        """See `Algorithm.predict_modes`; adapts once for all of them."""
        for mode in modes:
            check_word("algorithm.batchnorm", mode, BATCHNORM)
        self._check_ways(tasks)
        loop = self.inner_loop(Objective(), modes[0], first_order=True)
        values = detached(loop.values())
        device = tasks.support.device
        order = self.order_at_use(tasks.support.shape[1], max(steps), device)
        each = tasks_of(tasks, None, None if order is None else order.expand(len(tasks), -1, -1))
        with torch.autocast(device.type, enabled=False), without_updates(self.network):
            found: Tensor = self._over_tasks(
                stack_over_tasks,
                lambda mine, task: mine.predictions(values, task, steps, modes),
                loop,
                each,
            )
        return found.movedim(0, 2)

    def inner_loop(self, objective: Objective, batchnorm: str, first_order: bool) -> InnerLoop:
        """Return the inner loop over this learner's modules as a pure function."""
        return InnerLoop(
            network=self.network,
            rule=self.rule,
            objective=objective,
            adapts=self.adapts,
            embeds_once=self.adapted == "head",
            first_order=first_order,
            batchnorm=batchnorm if has_batchnorm(self.network) else None,
            dtype=self.dtype,
            proximal=self.proximal,
            checkpoint=self.checkpoint_steps,
            start_of=self.start_of,
        )

    def execution_for(self, tasks: int, device: torch.device) -> str:
        """Return how so many tasks are computed."""
        how = choose_execution(self.execution, self.network, tasks, device)
        if how == "batched" and (self.checkpoint_steps or self._not_batched):
            return "loop"
        return how

    def concerns(self) -> list[str]:
        """See `Algorithm.concerns`: whether tasks are computed one by one for want of vmap."""
        if not self._not_batched:
            return []
        return [
            "algorithm.options.execution=auto: tasks are computed one by one, because "
            f"torch.func.vmap cannot run this network or its loss ({self._not_batched})"
        ]

    def _over_tasks(
        self,
        over: Callable[..., Any],
        job: Callable[..., Any],
        loop: InnerLoop,
        tasks: Task,
    ) -> Any:
        """Return `over(job, loop, tasks, how)`; `auto` falls back from `batched` to `loop`."""
        inputs = tasks.support.inputs
        how = self.execution_for(len(inputs), inputs.device)
        if how != "batched" or self.execution != "auto" or self._batches:
            return over(job, loop, tasks, how)
        before = random_state()
        try:
            found = over(job, loop, tasks, how)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            restore_random_state(before)
            found = over(job, loop, tasks, "loop")  # raises again what is no matter of vmap
            self._not_batched = str(error).strip().splitlines()[0]
        else:
            self._batches = True
        return found

    def order_at_use(self, examples: int, steps: int, device: torch.device) -> Tensor | None:
        """Return which support examples each step sees once training is over, int64 [steps, n].

        A function of the number of support examples alone, so that a task is solved alike
        wherever its examples come from. None: every step sees all of them.
        """
        return None

    def _order(self, batch: TaskBatch, steps: int) -> Tensor | None:
        """Return the same for training, [tasks, steps, n]; None: all of them."""
        return None

    def _after(self, mean: Contribution) -> None:
        """Look at the mean contribution of a meta-batch (a rule may carry a state on)."""

    def _check_ways(self, batch: TaskBatch) -> None:
        if self.start_of is not None:
            return
        outputs = self.network.head.out_features
        if not batch.support_targets.is_floating_point() and batch.ways > outputs:
            raise UserError(
                f"a task has {batch.ways} ways but the head of this student has {outputs} "
                f"outputs; set task.ways={outputs}, or train with task.train_ways={batch.ways}"
            )
