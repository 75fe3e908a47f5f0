"""Whether two runs found the same: every figure, every evaluation task, every weight to the bit."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metakd.errors import UserError
from metakd.plain_data import UnreadableError, read_text
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import EPISODE_COLUMNS, RunFolder

if TYPE_CHECKING:  # torch takes seconds to import; refusing a run must not
    from torch import Tensor

    from metakd.runs.records_run import RunInfo

__all__ = ["Compared", "Difference", "compare", "figures_of", "finished_info"]

NOT_FIGURES = ("schema", "timing")
"""Of results.json, what is no figure or depends on what else the machine does."""

NOT_MODELS = ("pictures.safetensors", "examples.safetensors")
"""Of the checkpoints, what depends on the data alone, whose checksums were compared before."""

MEASURED_HERE = ("latency", "task_latency", "peak_memory")
"""Names that begin so are measurements of the machine at that moment, not of the model."""

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """A figure that is not the same.

    Attributes:
        name: of the figure, the task or the tensor.
        before: in the first run; None where it has none.
        now: in the second one; None where it has none.
        difference: how far apart they are (of tensors the largest distance); None where that
            means nothing.
    """

    name: str
    before: Any
    now: Any
    difference: float | None


@dataclass(frozen=True)
class Compared:
    """What a file of two runs holds: `figures` in all, of which some differ."""

    file: str
    figures: int
    differences: tuple[Difference, ...]


def finished_info(run: RunFolder) -> RunInfo:
    """Return run.json of a run that can be compared with a repetition of it.

    Raises:
        UserError: it is an evaluation, did not finish, or was changed on its way.
    """
    info = run.read_run()
    if info.evaluates is not None:
        raise UserError(
            f"'{run.path}' is an evaluation, not a run; start it again: metakd evaluate"
        )
    if info.status != "finished":
        raise UserError(
            f"run '{run.path}' did not finish (status {info.status}), so there are no figures to "
            f"compare with; name a finished one, or go on with it: metakd train resume={run.path}"
        )
    for entry in info.resumed or ():
        if "resume_changed=true" in (entry.command or "").lower():
            raise UserError(
                f"run '{run.path}' was resumed with different settings (resume_changed=true), "
                "so no single configuration repeats it; train again"
            )
    run.read_results()
    return info


def figures_of(run: RunFolder) -> Figures:
    """Return by file and name all that two equal runs have in common.

    Raises:
        UserError: results.json is missing, or a file is damaged.
    """
    results = {k: v for k, v in run.read_results().content.items() if k not in NOT_FIGURES}
    found: Figures = {"results.json": _flat(results)}
    if (run.path / "episodes.csv").exists():
        found["episodes.csv"] = _episodes(run)
    for path in sorted(run.checkpoints.glob("*.safetensors")):
        if path.name in NOT_MODELS:
            continue
        found[path.name] = dict(sorted(load_weights(run.checkpoints, path.stem).items()))
    return found


def compare(before: Figures, now: Figures) -> list[Compared]:
    """Compare what two runs found, file by file.

    A file that the first run lacks (somebody removed its weights) is left out; one that only the
    second run lacks differs in all that the first one's holds.

    Args:
        before: `figures_of` the first run.
        now: that of the second one.
    """
    return [_compared(file, figures, now.get(file, {})) for file, figures in before.items()]


def _compared(file: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Compared:
    names = list(dict.fromkeys([*before, *now]))
    differences = [
        Difference(name, _word(old), _word(new), _distance(old, new))
        for name in names
        for old, new in [(before.get(name), now.get(name))]
        if not _same(old, new)
    ]
    return Compared(file, len(names), tuple(differences))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the figures of nested containers by dotted name."""
    if isinstance(value, Mapping):
        pairs = [(str(k), v) for k, v in value.items() if not str(k).startswith(MEASURED_HERE)]
    elif isinstance(value, list):
        pairs = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {name: value}
    return {
        k: v for key, child in pairs for k, v in _flat(child, f"{name}.{key}".strip(".")).items()
    }


def _episodes(run: RunFolder) -> dict[str, str]:
    path = run.path / "episodes.csv"
    found: dict[str, str] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True):
            name = ", ".join(f"{c} {row[c]}" for c in EPISODE_COLUMNS if row.get(c))
            measures = [f"{v}" for k, v in row.items() if k not in EPISODE_COLUMNS and v != ""]
            again = name
            while again in found:  # a row that is there twice is no row less
                again += "'"
            found[again] = ", ".join(measures)
    except (UnreadableError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read ({error}); choose another run") from error
    return found


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "data_ptr")


def _same(one: Any, other: Any) -> bool:
    if _is_tensor(one) and _is_tensor(other):
        return _same_bits(one, other)
    return type(one) is type(other) and bool(one == other)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Compare bytes: two NaNs of the same bits are the same, 0 and -0 are not."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return bool(torch.equal(a, b))


def _word(value: Any) -> Any:
    if not _is_tensor(value):
        return value
    kind = str(value.dtype).removeprefix("torch.")
    size = float(value.double().norm())
    return f"{kind} {list(value.shape)}, norm {size:.9g}"


def _distance(one: Any, other: Any) -> float | None:
    if _is_tensor(one) and _is_tensor(other):
        if one.shape != other.shape or not one.numel():
            return None
        apart = float((one.double() - other.double()).abs().max())
    else:
        try:
            apart = abs(float(other) - float(one))
        except (TypeError, ValueError):
            return None
    return apart if math.isfinite(apart) else None
