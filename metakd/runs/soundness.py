"""What run.json, results.json and a line of metrics.jsonl may hold, checked when they are read.

docs/schemas describes the same files for other programs; tests hold the two against each other.
Fields that are not named here are left alone: a later version may add some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["SCHEMA", "check_line", "check_results", "check_run", "check_schema"]

SCHEMA = 1
"""Version of run.json and results.json; adding a field does not change it."""

STATUSES = ("running", "interrupted", "failed", "finished")

Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _or_null(rule: Rule) -> Rule:
    return (lambda v: v is None or rule[0](v)), f"{rule[1]} or null"


def _all(kind: type) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list) and all(isinstance(one, kind) for one in v)


TEXT: Rule = (lambda v: isinstance(v, str)), "text"
WHOLE: Rule = _is_whole, "a whole number, at least 0"
POSITIVE: Rule = (lambda v: _is_whole(v, 1)), "a whole number, at least 1"
NUMBER: Rule = _is_number, "a number"
SHARE: Rule = (lambda v: _is_number(v) and 0 <= v <= 1), "a number from 0 to 1"
AMOUNT: Rule = (lambda v: _is_number(v) and v >= 0), "a number, at least 0"
ROUNDED_SHARE: Rule = (lambda v: _is_number(v) and 0 <= v <= 1 + 1e-6), SHARE[1]
ROUNDED_AMOUNT: Rule = (lambda v: _is_number(v) and v >= -1e-3), AMOUNT[1]
"""Sums in single precision, which end a little beyond the bound that holds for the exact ones."""
FLAG: Rule = (lambda v: isinstance(v, bool)), "true or false"
TEXTS: Rule = _all(str), "a list of texts"
OBJECTS: Rule = _all(dict), "a list of objects"
WORDS: Rule = (
    lambda v: isinstance(v, dict) and all(isinstance(one, str) for one in v.values()),
    "an object of texts",
)

RUN: Mapping[str, Rule] = {
    "status": (lambda v: v in STATUSES if isinstance(v, str) else False, " or ".join(STATUSES)),
    "stage": _or_null(TEXT),
    "stage_steps": _or_null(WHOLE),
    "pid": POSITIVE,
    "host": TEXT,
    "process_start": _or_null(TEXT),
    "start": _or_null(NUMBER),
    "end": _or_null(NUMBER),
    "command": TEXT,
    "directory": TEXT,
    "packages": WORDS,
    "environment": WORDS,
    "python": TEXT,
    "platform": TEXT,
    "cpus": _or_null(POSITIVE),
    "processor": TEXT,
    "gpus": TEXTS,
    "threads": POSITIVE,
    "git_commit": TEXT,
    "git_dirty": FLAG,
    "git_diff": TEXT,
    "git_diff_sha256": TEXT,
    "git_diff_bytes": POSITIVE,
    "seed": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "device": TEXT,
    "precision": TEXT,
    "deterministic": FLAG,
    "data_checksum": TEXT,
    "data_notes": TEXTS,
    "external_pretraining": TEXTS,
    "teacher": TEXT,
    "teacher_scale": AMOUNT,
    "error": TEXT,
    "warnings": TEXTS,
    "evaluates": TEXT,
    "reproduces": TEXT,
    "resumed": OBJECTS,
    "wandb_run_id": TEXT,
}
"""Fields of run.json; `schema` and `status` must be there."""

FIGURES: Mapping[str, Rule] = {
    "accuracy": SHARE,
    "top1": SHARE,
    "top5": SHARE,
    "ece": ROUNDED_SHARE,
    "agreement": SHARE,
    "ci95": AMOUNT,
    "mse": AMOUNT,
    "mse_median": AMOUNT,
    "diverged": SHARE,
    "diverged_from_step": WHOLE,
    "loss": AMOUNT,
    "kl": ROUNDED_AMOUNT,
    "latency_ms": AMOUNT,
    "latency_ms_spread": AMOUNT,
    "latency_batch_ms": AMOUNT,
    "tasks": POSITIVE,
    "ways": POSITIVE,
    "shots": POSITIVE,
    "queries": POSITIVE,
    "steps": WHOLE,
    "parameters": WHOLE,
    "bytes": AMOUNT,
    "macs": AMOUNT,
    "difference": NUMBER,
    "validated": NUMBER,
    "batchnorm": (
        lambda v: v in ("inductive", "transductive") if isinstance(v, str) else False,
        "inductive or transductive",
    ),
}
"""What a figure of results.json may be, wherever its name stands."""

MODELS = ("student", "teacher", "student_alone")
OF_A_MODEL = ("fewshot", "target", "cost", "calibration")


def check_schema(content: Mapping[str, Any]) -> None:
    """Refuse another version of a file than this program's.

    Raises:
        ValueError: the reason.
    """
    version = content.get("schema")
    if not _is_whole(version, 1):
        raise ValueError(f"'schema' is {_shown(version)}, expected {SCHEMA}")
    if isinstance(version, int) and version > SCHEMA:
        raise ValueError(
            f"a newer MetaKD wrote it (schema {_shown(version)}, this version reads {SCHEMA}); "
            "install that one"
        )


def check_run(content: Mapping[str, Any]) -> None:
    """Check run.json.

    Raises:
        ValueError: the reason.
    """
    check_schema(content)
    if "status" not in content:
        raise ValueError("'status' is missing")
    _check(content, RUN, "")


def check_results(content: Mapping[str, Any]) -> None:
    """Check results.json: every figure of a known name is one that can have been measured.

    Raises:
        ValueError: the reason.
    """
    check_schema(content)
    _object(content, "student", "", required=True)
    for name in MODELS:
        if name not in content:
            continue
        model = _object(content, name, "")
        for part in OF_A_MODEL:
            if part in model:
                _check(_object(model, part, f"{name}."), FIGURES, f"{name}.{part}.")
        if "fewshot" in model:
            _check_measure(model["fewshot"], f"{name}.fewshot")
        for i, entry in enumerate(_objects(model, "fewshot_all", f"{name}.")):
            _check(entry, FIGURES, f"{name}.fewshot_all.{i}.")
            _check_measure(entry, f"{name}.fewshot_all.{i}")
        _check({k: model[k] for k in ("validated",) if k in model}, FIGURES, f"{name}.")
    if "fidelity" in content:
        _check(_object(content, "fidelity", ""), FIGURES, "fidelity.")
    for i, entry in enumerate(_objects(content, "gains", "")):
        _check(entry, FIGURES, f"gains.{i}.")
        for key in ("model", "baseline", "measure"):
            if key in entry and not isinstance(entry[key], str):
                raise ValueError(f"'gains.{i}.{key}' is {_shown(entry[key])}, expected text")
    if "timing" in content:
        for key, seconds in _object(content, "timing", "").items():
            if not AMOUNT[0](seconds):
                raise ValueError(f"'timing.{key}' is {_shown(seconds)}, expected {AMOUNT[1]}")
    if "not_finite" in content and not TEXTS[0](content["not_finite"]):
        raise ValueError(f"'not_finite' is {_shown(content['not_finite'])}, expected {TEXTS[1]}")


def check_line(content: Any) -> None:
    """Check a line of metrics.jsonl.

    Raises:
        ValueError: the reason.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    for key, (valid, words) in _LINE.items():
        if not valid(content.get(key)):
            raise ValueError(f"'{key}' is {_shown(content.get(key))}, expected {words}")


_LINE: Mapping[str, Rule] = {
    "stage": TEXT,
    "step": WHOLE,
    "time": NUMBER,
    "metrics": (
        lambda v: isinstance(v, dict) and all(x is None or _is_number(x) for x in v.values()),
        "an object of numbers and nulls",
    ),
}


def _check_measure(entry: Mapping[str, Any], where: str) -> None:
    """Refuse an interval or a number of tasks of nothing."""
    if not {"accuracy", "mse"} & entry.keys() and "ci95" in entry:
        raise ValueError(f"'{where}' has an interval and neither 'accuracy' nor 'mse'")


def _check(content: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> None:
    for key, value in content.items():
        if key in rules and not rules[key][0](value):
            raise ValueError(f"'{where}{key}' is {_shown(value)}, expected {rules[key][1]}")


def _object(
    content: Mapping[str, Any], key: str, where: str, required: bool = False
) -> Mapping[str, Any]:
    value = content.get(key)
    if required and key not in content:
        raise ValueError(f"'{where}{key}' is missing")
    if not isinstance(value, dict):
        raise ValueError(f"'{where}{key}' is {_shown(value)}, expected an object")
    return value


def _objects(content: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    value = content.get(key, [])
    if not OBJECTS[0](value):
        raise ValueError(f"'{where}{key}' is {_shown(value)}, expected {OBJECTS[1]}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
