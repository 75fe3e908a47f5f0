"""A learner in training: one update, and the state that lets another process make the next one."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.algorithm import Algorithm
from metakd.data.tasks import Batch, ExampleBatch
from metakd.distillation.objective import Answers, Objective
from metakd.distributed.group import ALONE, Group
from metakd.errors import RunError
from metakd.models.randomness import random_state, restore_random_state
from metakd.stages.exchange import Exchange, Shared
from metakd.stages.optimization import Optimization, make_optimizer
from metakd.stages.precision import Precision
from metakd.stages.weight_average import WeightAverage

__all__ = ["NotFiniteError", "Training"]

_SETTINGS_OF = {"contrast": "warmstart", "unlabelled": "warmstart"}
"""Parts of a stage that have its settings."""


class NotFiniteError(RunError):
    """A loss or a gradient of an update is not finite; the update was not made."""

    def __init__(self, stage: str, step: int, what: str) -> None:
        name = re.sub(r"(_alone|_member\d+|_generation\d+)+$", "", stage)
        setting = _SETTINGS_OF.get(name, name)
        super().__init__(
            f"{stage}, step {step}: {what}; lower {setting}.lr or algorithm.inner_lr, or let "
            f"some such updates be skipped with {setting}.skip_nonfinite=10; "
            "metakd train replay=RUN shows which task it was"
        )


def complaint(loss: Tensor, modules: Mapping[str, nn.Module]) -> str | None:
    """Say what of an update is not finite, or None.

    Args:
        loss: the outer loss, a scalar. A loss of the inner loop that is not finite makes the
            parameters after it, and so this one, not finite.
        modules: what has been given gradients, by name.
    """
    if not torch.isfinite(loss):
        return f"the loss is {float(loss)}"
    named = [
        (f"{name}.{part}", p.grad)
        for name, module in modules.items()
        for part, p in module.named_parameters()
        if p.grad is not None
    ]
    if not named:
        return None
    # One reduction a tensor and one read for all of them: reading each would wait for a GPU.
    # Squares are summed an order of magnitude faster than maxima are found, and may overflow.
    for order in (2.0, math.inf):
        norms = torch.stack(list(torch._foreach_norm([g for _, g in named], order)))
        if bool(torch.isfinite(norms).all()):
            return None
    bad = [n for (n, _), x in zip(named, norms.tolist(), strict=True) if not math.isfinite(x)]
    return f"the gradient of {bad[0]}{f' and {len(bad) - 1} more' if bad[1:] else ''} is not finite"


class Snapshot:
    """The state of a learner before an update, to go back to if the update must not be made.

    A forward pass moves running statistics, and a teacher that learns steps inside its update.
    """

    def __init__(self, modules: Mapping[str, nn.Module], others: Mapping[str, Optimizer]) -> None:
        self._modules = dict(modules)
        self._others = dict(others)
        self._states: dict[str, Any] = {
            name: copy.deepcopy(m.state_dict()) for name, m in self._modules.items()
        }
        self._optimizers = {n: copy.deepcopy(o.state_dict()) for n, o in self._others.items()}

    def restore(self) -> None:
        """Go back."""
        for name, module in self._modules.items():
            module.load_state_dict(self._states[name])
        for name, optimizer in self._others.items():
            optimizer.load_state_dict(self._optimizers[name])


class Training:
    """Learner, objective and optimisers of a stage, with how far they have come.

    Attributes:
        learner: what is trained.
        stage: its name.
        step: updates made (or skipped) so far.
        seconds: time spent so far, as far as it was noted.
        best: the best validation value, None before the first one.
        best_step: the number of updates after which it was reached.
        skipped: updates that were not made because they were not finite.
        pending: metrics of the last update while it has not been validated and logged yet.
    """

    def __init__(
        self,
        learner: Algorithm,
        objective: Objective,
        how: Optimization,
        stage: str,
        group: Group = ALONE,
    ) -> None:
        self.step = self.skipped = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.best_step: int | None = None
        self.pending: dict[str, float] | None = None
        self.stage = stage
        self._how = how
        self._modules = {"learner": learner, "objective": objective}
        self.learner, self._objective = learner, objective
        self._best_state: dict[str, Any] | None = None
        self._best_is_new = False
        self._exchange = Exchange(group, self._modules) if group.size > 1 else None
        self._others = learner.own_optimizers()
        apart = {id(p) for o in self._others.values() for g in o.param_groups for p in g["params"]}
        self._optimizer = make_optimizer([learner, objective], how, apart, learner.rate_factors())
        self._peaks = {n: [g["lr"] for g in o.param_groups] for n, o in self._others.items()}
        self._average = WeightAverage(learner, how.ema) if how.ema else None

    # --- one update

    def share(self, batch: Shared) -> Shared:
        """Return the part of a batch that falls to this process; alone, all of it."""
        return batch if self._exchange is None else self._exchange.share(batch)

    def mean(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of metrics of the part over the whole batch."""
        return dict(metrics) if self._exchange is None else self._exchange.mean(metrics)

    def gradients(
        self, batch: Batch, answers: Answers, steps: int, precision: Precision
    ) -> tuple[dict[str, Tensor], str | None]:
        """Take the gradients of update `self.step` of `steps`, which is not made yet.

        Where several processes share a batch, each gives its part of it (`share`), and gradients
        and terms are those of the whole in all of them.

        Returns:
            the terms of the loss, and what of it is not finite (None: the update can be made).
        """
        learner = self.learner
        learner.train()
        rate = self._how.rate(self.step, steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)  # a run saved before has none
        share = rate / self._how.lr if self._how.lr else 1.0
        for name, own in self._others.items():
            for group, peak in zip(own.param_groups, self._peaks[name], strict=True):
                group["lr"] = peak * share
            own.zero_grad(set_to_none=True)
        self._optimizer.zero_grad(set_to_none=True)
        learner.begin(self.step, steps)
        self._objective.begin(self.step, steps, whole=isinstance(batch, ExampleBatch))
        exchange = self._exchange
        with precision.autocast(), nullcontext() if exchange is None else exchange.statistics():
            terms = learner.accumulate(batch, self._objective, answers)
        if exchange is not None:
            terms = exchange.average(terms)
        return terms, complaint(terms["loss"], self._modules)

    def update(
        self, batch: Batch, answers: Answers, steps: int, precision: Precision
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Make update `self.step` of `steps`; return the terms and further metrics.

        Raises:
            FloatingPointError: the loss or a gradient is not finite; nothing was moved by it.
        """
        terms, problem = self.gradients(batch, answers, steps, precision)
        if problem is not None:
            raise FloatingPointError(problem)
        if self._how.clip is not None:
            everything = (self._optimizer, *self._others.values())
            torch.nn.utils.clip_grad_value_(
                [p for o in everything for g in o.param_groups for p in g["params"]],
                self._how.clip,
            )
        self._optimizer.step()
        values = {name: torch.tensor(v) for name, v in self._objective.advance().items()}
        further = {**self.learner.advance(), **values}
        if self._average is not None:
            self._average.update()
        return terms, further

    def kept(self) -> Snapshot:
        """Return the state as it is, to go back to it."""
        return Snapshot(self._modules, {"": self._optimizer, **self._others})

    # --- the best on validation

    def judged(self) -> AbstractContextManager[None]:
        """Let the learner be in the block what it is judged and kept as.

        That is the average of its weights, where one is taken, else itself.
        """
        return nullcontext() if self._average is None else self._average.shown()

    def validated(self, value: float, higher_is_better: bool, keep: bool) -> None:
        """Take note of a validation value; with `keep` the best one's state is remembered."""
        better = math.isfinite(value) and (
            self.best is None or (value > self.best if higher_is_better else value < self.best)
        )
        if better:
            self.best, self.best_step = value, self.step
            if keep:
                self._best_state = copy.deepcopy(self._judged_state())
                self._best_is_new = True

    def new_best(self) -> dict[str, Any] | None:
        """Return the best state if it was not asked for before."""
        if not self._best_is_new or self._best_state is None:
            return None
        self._best_is_new = False
        found = {"best": self.best, "step": self.best_step}
        return {"stage": self.stage, **self._best_state, **found}

    def best_learner(self) -> dict[str, Any] | None:
        """Return the learner's best state; None: none is remembered."""
        return None if self._best_state is None else self._best_state["learner"]

    def take_best(self, *, goes_back: bool = True) -> None:
        """Go back to the best state, if that is wanted and remembered; else be as one is judged."""
        state = self._best_state if goes_back else None
        if state is None and self._average is not None:
            state = self._judged_state()
        if state is not None:
            for name, module in self._modules.items():
                module.load_state_dict(state[name])

    def _judged_state(self) -> dict[str, Any]:
        found = {name: module.state_dict() for name, module in self._modules.items()}
        return found if self._average is None else {**found, "learner": self._average.average()}

    # --- going on in another process

    def state(self) -> dict[str, Any]:
        """Return all that the next update depends on."""
        return {
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            **{name: module.state_dict() for name, module in self._modules.items()},
            **self._averaged(),
            "optimizer": self._optimizer.state_dict(),
            "own_optimizers": {name: o.state_dict() for name, o in self._others.items()},
            "best": self.best,
            "best_step": self.best_step,
            "best_state": self._best_state,
            "skipped": self.skipped,
            "pending": self.pending,
            "random": random_state(),
        }

    def _averaged(self) -> dict[str, Any]:
        if self._average is None:
            return {}
        return {"learner": self._average.weights(), "average": self._average.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, module in self._modules.items():
            module.load_state_dict(state[name])
        if self._average is not None:
            self._average.load(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        # Their peak rates were read before: a saved rate is a scheduled one.
        for name, own in self._others.items():
            own.load_state_dict(state["own_optimizers"][name])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.best, self.best_step = state["best"], state["best_step"]
        self._best_state = state["best_state"]
        self._best_is_new = self._best_state is not None
        self.skipped, self.pending = int(state["skipped"]), state["pending"]
        restore_random_state(state["random"])
