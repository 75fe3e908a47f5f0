"""What `compress` can do with which algorithm and task, before torch is imported."""

from __future__ import annotations

from metakd.config.schema import Config
from metakd.errors import UserError

__all__ = ["check_compress", "idle_in_compress", "takes_integers"]

BUDGETS = ("macs", "parameters", "bytes", "latency")


def check_compress(config: Config) -> None:
    """Refuse a student that cannot be made smaller in the way that is asked for.

    Raises:
        UserError: with what to type.
    """
    compress, algorithm = config.compress, config.algorithm
    if not compress.enabled:
        return
    typed = f"compress={compress.name}"
    if config.task.whole:
        raise UserError(
            f"{typed}: with task={config.task.name} there are no few-shot tasks by which a "
            "smaller student is judged; type compress=none"
        )
    if algorithm.supports.teaches:
        raise UserError(
            f"{typed}: algorithm={algorithm.name} trains two networks and what generates their "
            "starts, which cannot be made smaller; type compress=none, or algorithm=protonet"
        )
    _check_strategy(config)
    if not compress.supports.quantizes:
        return
    if not takes_integers(config):
        raise UserError(
            f"{typed}: algorithm={algorithm.name} adapts the weights of the network by gradient "
            "steps, and integers cannot take them; type compress=prune, or algorithm=anil or "
            "protonet, which adapt on its embeddings"
        )
    if compress.supports.prunes:
        return
    for name in BUDGETS:
        if name != "bytes" and getattr(compress, name) is not None:
            raise UserError(
                f"compress.{name}={getattr(compress, name)}: integers do not change this; type "
                "compress=prune_quantize, which takes channels away, too"
            )


def _check_strategy(config: Config) -> None:
    compress = config.compress
    chosen, count = compress.strategy, compress.evaluations
    if chosen == "uniform":
        return
    typed = f"compress.strategy={chosen}"
    if config.dataset.supports.kind != "classification":
        raise UserError(
            f"{typed}: strategies are judged by few-shot accuracy, and dataset="
            f"{config.dataset.name} has none; type compress.strategy=uniform"
        )
    if compress.latency is not None:
        raise UserError(
            f"{typed}: what a strategy takes is not known before it is measured, so that "
            f"compress.latency={compress.latency:g} cannot be searched; type compress.macs=0.5 in "
            "its place, or compress.strategy=uniform"
        )
    if not compress.supports.prunes and compress.bytes is None:
        raise UserError(
            f"{typed}: without a budget for bytes all layers have compress.bits; type "
            "compress.bytes=0.2, or compress.strategy=uniform"
        )
    if chosen == "search" and count < 1:
        raise UserError(f"{typed} evaluates nothing: type compress.evaluations=30")
    if chosen == "meta" and count == 1:
        raise UserError(
            f"{typed}: with one evaluated strategy there is nothing to compare; type "
            "compress.evaluations=0 for the proposal alone, or 2 or more"
        )
    if chosen == "meta" and compress.proposer is None:
        raise UserError(
            f"{typed}: which proposer? type compress.proposer=FILE; metakd compress --learn "
            "FOLDER_OF_RUNS makes one"
        )


def idle_in_compress(config: Config) -> dict[str, str | bool]:
    """Return the settings that change nothing, and why, by name; False where they do."""
    compress = config.compress
    if not compress.enabled:
        return {}
    prunes, quantizes = compress.supports.prunes, compress.supports.quantizes
    trains = compress.iterations > 0 and (prunes or compress.qat)
    found: dict[str, str | bool] = {
        f"compress.{name}": not prunes and f"compress={compress.name} takes no channels away"
        for name in ("importance", "embedding")
    }
    chosen = f"compress.strategy={compress.strategy}"
    found["compress.evaluations"] = compress.strategy == "uniform" and f"{chosen} tries none"
    found["compress.proposer"] = compress.strategy != "meta" and f"{chosen} asks none"
    for name in ("bits", "qat"):
        found[f"compress.{name}"] = not quantizes and f"compress={compress.name} has no integers"
    for name in (
        *("teacher", "lr", "optimizer", "weight_decay", "schedule", "halve_every", "milestones"),
        *("milestone_factor", "clip", "skip_nonfinite", "ema"),
        *("validate_every", "validate_tasks"),
    ):
        found[f"compress.{name}"] = not trains and "nothing is trained on"
    if not prunes:
        found["compress.iterations"] = not compress.qat and "compress.qat=false: nothing is trained"
    return found


def takes_integers(config: Config) -> bool:
    """Tell whether the student's backbone may be integers: no gradient step adapts it."""
    supports = config.algorithm.supports
    return not supports.adapts or supports.adapts_head
