"""A figure that was not measured is absent: never 0, never a placeholder, never NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["drop_unmeasured", "finite_or_null", "plain"]


def plain(value: Any) -> Any:
    """Return a zero-dimensional tensor or NumPy number as a Python number, others as they are."""
    if isinstance(value, (str, bytes, bool, int, float)) or not hasattr(value, "item"):
        return value
    return value.item()


def finite_or_null(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as floats; None for one that is not a finite number (a diverged loss).

    JSON has no NaN; null keeps it visible that the metric was computed.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: x if math.isfinite(x) else None for name, x in numbers.items()}


def drop_unmeasured(results: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return results without what was not measured.

    Args:
        results: nested mappings and sequences of figures.

    Returns:
        the same without entries that are None or not finite (and without mappings that this left
        empty), and the dotted names of those that were measured but are not finite.
    """
    not_finite: list[str] = []
    kept = _kept(results, "", not_finite)
    return kept, not_finite


def _kept(value: Any, name: str, not_finite: list[str]) -> Any:
    value = plain(value)
    if isinstance(value, Mapping):
        pairs = {str(k): _kept(v, f"{name}.{k}".lstrip("."), not_finite) for k, v in value.items()}
        return {k: v for k, v in pairs.items() if v is not None and v != {}}
    if isinstance(value, (list, tuple)):
        items = [_kept(v, f"{name}.{i}", not_finite) for i, v in enumerate(value)]
        return [v for v in items if v is not None]
    if isinstance(value, float) and not math.isfinite(value):
        not_finite.append(name)
        return None
    return value
