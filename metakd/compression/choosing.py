"""How a strategy within a budget is chosen: searched for, or proposed by what was learned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from metakd.compression.description import NetworkDescription
from metakd.compression.proposer import Proposer
from metakd.compression.space import Candidates, Space
from metakd.compression.strategy import Strategy
from metakd.errors import UserError

__all__ = ["Choice", "Value", "propose", "search"]

Value = Callable[[Strategy], float]
"""Few-shot accuracy of the student after a strategy and adaptation."""

DRAWN, NEIGHBOURS, BEST, ROUNDS = 512, 128, 16, 2
LARGEST = 2.0
"""Of an offset in a search."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        strategy: the best of those that were evaluated, or the proposal where none was.
        values: of what was evaluated, in order.
        strategies: likewise.
    """

    strategy: Strategy
    values: tuple[float, ...] = ()
    strategies: tuple[Strategy, ...] = ()

    @classmethod
    def best_of(cls, strategies: list[Strategy], values: list[float]) -> Choice:
        """Return the best one; the first of equals."""
        best = max(range(len(values)), key=lambda i: values[i])
        return cls(strategies[best], tuple(values), tuple(strategies))

    def after(self, evaluations: int) -> Strategy:
        """Return what would have been chosen after the first so many evaluations."""
        return self.best_of([*self.strategies[:evaluations]], [*self.values[:evaluations]]).strategy


def search(space: Space, value: Value, evaluations: int, seed: int = 0) -> Choice:
    """Search by a tree-structured Parzen estimator (Bergstra et al., 2011), uniform first.

    Args:
        space: within the budget.
        value: of a strategy, to be as large as possible.
        evaluations: strategies that are evaluated.
        seed: of the search.

    Raises:
        UserError: the library is missing, or nothing is evaluated.
    """
    if evaluations < 1:
        raise UserError(
            "compress.strategy=search: compress.evaluations=0 evaluates nothing; type "
            "compress.evaluations=30"
        )
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "compress.strategy=search needs optuna, which is not installed: type pip install "
            "'metakd[search]'"
        ) from error
    optuna.logging.get_logger("optuna").setLevel(logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({f"x{i}": 0.0 for i in range(space.size)})
    strategies: list[Strategy] = []
    values: list[float] = []
    for _ in range(evaluations):
        trial = study.ask()
        offsets = [trial.suggest_float(f"x{i}", -LARGEST, LARGEST) for i in range(space.size)]
        strategies.append(space.strategy(space.project(torch.tensor([offsets]))))
        values.append(value(strategies[-1]))
        study.tell(trial, values[-1])
    return Choice.best_of(strategies, values)


def propose(
    space: Space,
    network: NetworkDescription,
    proposer: Proposer,
    value: Value | None = None,
    evaluations: int = 0,
    seed: int = 0,
) -> Choice:
    """Propose a strategy; with evaluations: propose, evaluate, adapt, and so on.

    The first evaluation is the uniform strategy's, to which values are relative. Each later one is
    that which one of the proposer's members, in turn, predicts to be the best.

    Args:
        space: within the budget.
        network: what is made smaller.
        proposer: trained on other tasks.
        value: of a strategy; not needed for the proposal alone.
        evaluations: 0, or at least 2.
        seed: of the candidates that are drawn.

    Raises:
        UserError: one evaluation, with which nothing can be compared.
    """
    if evaluations == 1:
        raise UserError(
            "compress.evaluations=1: with one evaluated strategy there is nothing to compare; type "
            "compress.evaluations=0 for the proposal alone, or 2 or more"
        )
    generator = torch.Generator().manual_seed(seed)
    if evaluations == 0 or value is None:
        found = _best(space, network, proposer, [], [], None, generator)
        return Choice(space.strategy(found))
    evaluated = [space.uniform()]
    values = [value(space.strategy(evaluated[0]))]
    members = len(proposer.prior)
    for i in range(evaluations - 1):
        member = None if i == 0 else i % members
        found = _best(space, network, proposer, evaluated, values, member, generator)
        evaluated.append(found)
        values.append(value(space.strategy(found)))
    return Choice.best_of([space.strategy(c) for c in evaluated], values)


@torch.no_grad()
def _best(
    space: Space,
    network: NetworkDescription,
    proposer: Proposer,
    evaluated: list[Candidates],
    values: list[float],
    member: int | None,
    generator: torch.Generator,
) -> Candidates:
    """Return the candidate that is predicted to be the best, of random ones and their neighbours.

    Args:
        space: of candidates.
        network: what is made smaller.
        proposer: which predicts.
        evaluated: the uniform strategy first; those in it are not returned again.
        values: their accuracies.
        member: whose prediction counts; None: the mean over all, less their standard deviation.
        generator: of what is drawn.
    """
    weights: torch.Tensor = proposer.prior
    if len(values) > 1:
        shown = _joined(evaluated[1:])
        relative = torch.tensor([v - values[0] for v in values[1:]])
        weights = proposer.adapted(proposer.points(space, network, shown), relative)

    def scores(found: Candidates) -> torch.Tensor:
        predicted = proposer(proposer.points(space, network, found), weights)
        if member is not None:
            predicted = predicted[member]
        else:
            predicted = predicted.mean(0) - predicted.std(0, unbiased=False)
        for one in evaluated:
            same = (found.kept == one.kept).all(1) & (found.bits == one.bits).all(1)
            predicted = predicted.masked_fill(same, -torch.inf)
        return predicted

    offsets, found = space.draw(DRAWN, generator)
    offsets[0] = 0.0  # uniform, too
    found = space.project(offsets)
    score = scores(found)
    for _ in range(ROUNDS):
        top = score.topk(min(BEST, len(score))).indices
        step = 0.2 * torch.randn(NEIGHBOURS, space.size, generator=generator)
        near = offsets[top][torch.arange(NEIGHBOURS) % len(top)] + step
        offsets = torch.cat([offsets[top], near])
        found = space.project(offsets)
        score = scores(found)
    return found[score.argmax()[None]]


def _joined(found: list[Candidates]) -> Candidates:
    return Candidates(
        torch.cat([one.kept for one in found]), torch.cat([one.bits for one in found])
    )
