"""The smaller student that a run has saved, or that `metakd compress` made of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metakd.adaptation.algorithm import Algorithm
from metakd.compression.structure import KEY, Structure
from metakd.errors import UserError
from metakd.pipeline.compression_plan import backbone_like
from metakd.pipeline.prepared import Prepared
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.records import ModelResults

__all__ = [
    "FOLDER",
    "NAME",
    "compressed_learner",
    "cost_as_recorded",
    "read_structure",
    "run_with_compressed",
]

NAME = "compressed"
"""Of the model, in results.json and in a run's folder of checkpoints."""
FOLDER = "compressions"
"""In a run's folder: what `metakd compress` made of it, a folder for each time."""


def run_with_compressed(run: RunFolder) -> RunFolder | None:
    """Return the folder that holds a run's smaller student; None: there is none.

    That is the run itself if it has one, else its newest finished `metakd compress`.
    """
    if (run.checkpoints / f"{NAME}.safetensors").is_file():
        return run
    for path in sorted(run.path.glob(f"{FOLDER}/*"), key=lambda p: p.name, reverse=True):
        whole = (path / "results.json").is_file()
        if whole and (path / "checkpoints" / f"{NAME}.safetensors").is_file():
            return open_run(path)
    return None


def compressed_learner(prepared: Prepared, run: RunFolder) -> Algorithm:
    """Return the smaller student that a run has saved.

    Raises:
        UserError: it is missing, damaged, or of another network than the config's student.
    """
    weights = load_weights(run.checkpoints, NAME)
    structure = read_structure(run)
    backbone = backbone_like(prepared, structure)
    outputs = weights.get("network.head.weight")
    algorithm = prepared.algorithm(backbone, outputs=None if outputs is None else len(outputs))
    try:
        algorithm.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"'{run.checkpoints / NAME}.safetensors' does not fit this student ({reason})"
        ) from error
    return algorithm.eval()


def read_structure(run: RunFolder) -> Structure:
    """Return what a run's smaller student is like.

    Raises:
        UserError: its file does not say it.
    """
    from safetensors import SafetensorError, safe_open

    file = run.checkpoints / f"{NAME}.safetensors"
    try:
        with safe_open(file, framework="pt") as opened:
            return Structure.from_text((opened.metadata() or {})[KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"'{file}' does not say which sizes its layers have ({error}); compress again"
        ) from error


def cost_as_recorded(cost: Mapping[str, float], recorded: ModelResults) -> dict[str, Any]:
    """Return cost and record of a smaller student that is evaluated again.

    Integers are timed in another library once, when they are made; in PyTorch they are simulated.

    Args:
        cost: measured now, in PyTorch.
        recorded: what was measured when it was made.
    """
    if recorded.compression is None:
        return {}
    integers = any(layer.bits not in (None, 32) for layer in recorded.compression.strategy.values())
    own = dict(cost)
    if integers:  # tasks can have another size than they had then
        own = recorded.cost.plain() | {n: v for n, v in cost.items() if n == "task_macs"}
    return {"cost": own, "compression": recorded.compression.plain()}
