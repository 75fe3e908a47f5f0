"""How layers share a budget: alike, as a search finds, or as a proposer that has learned says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from metakd.adaptation.algorithm import Algorithm
from metakd.compression.budget import Budget
from metakd.compression.choosing import propose, search
from metakd.compression.costs import Costs
from metakd.compression.proposer import read_proposer
from metakd.compression.space import Space
from metakd.compression.strategy import FLOAT, Strategy
from metakd.config.schema import Config
from metakd.pipeline.compression_plan import DEFAULT_MACS, examples_of, strategy_of
from metakd.pipeline.compression_value import Judge, check_judged
from metakd.pipeline.prepared import Prepared
from metakd.stages.recorder import Recorder

__all__ = ["check_choice", "chosen_strategy"]


def check_choice(prepared: Prepared) -> None:
    """Refuse, before anything is trained, a choice of strategies that cannot be made.

    Args:
        prepared: the run; its student is not trained yet.

    Raises:
        UserError: with what to type.
    """
    how = prepared.config.compress
    if not how.enabled or how.strategy == "uniform":
        return
    check_judged(prepared, "validate")
    examples = examples_of(prepared, 2)[0]
    backbone = copy.deepcopy(prepared.student).eval()
    _space(prepared.config, Costs(backbone, examples, how.embedding)).uniform()
    if how.strategy == "meta":
        read_proposer(Path(str(how.proposer)).expanduser())


def chosen_strategy(
    prepared: Prepared,
    recorder: Recorder,
    learner: Algorithm,
    gradients: Mapping[str, Tensor] | None = None,
) -> Strategy:
    """Return what is done to each layer of a trained student, within the budget.

    Args:
        prepared: the run.
        recorder: is told what was found.
        learner: the trained student; left as it is.
        gradients: see `metakd.compression.pruning.prune`.

    Raises:
        UserError: nothing is within the budget; see `check_choice`, too.
    """
    config, how = prepared.config, prepared.config.compress
    if how.strategy == "uniform":
        return strategy_of(prepared, learner.backbone)
    judge = Judge(prepared, learner, embedding=how.embedding, gradients=gradients)
    costs = judge.costs()
    space = _space(config, costs)
    if how.strategy == "search":
        found = search(space, judge.accuracy, how.evaluations, config.seed)
    else:
        proposer = read_proposer(Path(str(how.proposer)).expanduser())
        network = judge.describe(costs)
        found = propose(space, network, proposer, judge.accuracy, how.evaluations, config.seed)
    if found.values:
        recorder.say(
            f"compress: of {len(found.values)} strategies the best reaches "
            f"{100 * max(found.values):.1f} % on meta-validation tasks without recovery, the "
            f"uniform one {100 * found.values[0]:.1f} %"
        )
    return found.strategy


def _space(config: Config, costs: Costs) -> Space:
    how = config.compress
    budget = Budget(how.macs, how.parameters, how.bytes, how.latency)
    if how.supports.prunes and not budget.shares:
        budget = Budget(macs=DEFAULT_MACS)
    bits = how.bits if how.supports.quantizes else FLOAT
    return Space(costs, budget, how.supports.prunes, bits)
