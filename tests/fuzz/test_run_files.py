"""run.json, results.json and metrics.jsonl with content that nobody meant.

Sound means: what a reader returns is what the file says, and docs/schemas agrees with it (but for
fields that may be missing); anything else is one line.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from metakd.errors import UserError
from metakd.runs.folder import RunFolder, open_run

ROOT = Path(__file__).resolve().parents[2]

RUN: dict[str, Any] = {
    "schema": 1,
    "status": "finished",
    "stage": "finetune",
    "pid": 7,
    "host": "nowhere",
    "process_start": "a:1",
    "start": 1795242300.05,
    "end": 1795242309.2,
    "command": "metakd train",
    "packages": {"torch": "2.15.0"},
    "python": "3.11.7",
    "cpus": 2,
    "git_commit": "e" * 40,
    "git_dirty": False,
    "seed": 0,
    "device": "cpu",
    "precision": "float32",
    "deterministic": False,
    "data_checksum": "b" * 64,
    "data_notes": ["dataset image_folder: 1 picture is of one single colour"],
    "external_pretraining": [],
    "teacher": "0" * 64,
}
ENTRY = {"accuracy": 0.95, "ci95": 0.02, "tasks": 600, "ways": 5, "shots": 1, "queries": 15}
MODEL: dict[str, Any] = {
    "fewshot": {**ENTRY, "batchnorm": "inductive", "steps": 10},
    "fewshot_all": [ENTRY, {**ENTRY, "shots": 5}],
    "calibration": {"ece": 0.05},
    "cost": {"parameters": 1864, "bytes": 7744, "macs": 202752, "latency_ms": 0.13},
    "validated": 0.38,
    "target": {"top1": 0.7, "loss": 0.9, "top5": 0.99},
}
RESULTS: dict[str, Any] = {
    "schema": 1,
    "student": MODEL,
    "teacher": MODEL,
    "fidelity": {"agreement": 0.9, "kl": 0.04},
    "gains": [{"model": "student", "baseline": "student_alone", "difference": -0.1, **ENTRY}],
    "timing": {"evaluate_s": 1.5},
}
LINES = [
    {"stage": s, "step": n, "time": 1.5 + n, "metrics": {"loss": 0.5 * n, "lr": None}}
    for s in ("pretrain", "meta_train")
    for n in range(3)
]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, -(10**30), 10**308, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["running", "../..", "${oc.env:HOME}", "\ud800", "\0"]),
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


def without_required(schema: Any) -> Any:
    """A schema for what readers take: they go on without what is only missing."""
    if isinstance(schema, dict):
        dropped = ("required", "oneOf", "allOf", "if", "then")
        return {k: without_required(v) for k, v in schema.items() if k not in dropped}
    return [without_required(v) for v in schema] if isinstance(schema, list) else schema


def validator(name: str) -> Draft202012Validator:
    text = (ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    schema = without_required(json.loads(text))
    if name == "run":
        # How a hash looks is the writer's affair; readers only compare it.
        for key in ("git_commit", "teacher"):
            del schema["properties"][key]["pattern"]
    else:
        # What a gain measures is printed; a word that is unknown does no harm.
        schema["$defs"]["Gain"]["properties"]["measure"] = {"type": "string"}
        del schema["$defs"]["ModelResults"]["properties"]["fewshot_all"]["minItems"]
    return Draft202012Validator(schema)


VALIDATORS = {name: validator(name) for name in ("run", "results")}


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where in nested containers something stands."""
    pairs = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [p for k, v in pairs for p in [(*path, k), *places(v, (*path, k))]]


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    copied = dict(content) if isinstance(content, dict) else list(content)
    copied[path[0]] = replaced(copied[path[0]], path[1:], value) if path[1:] else value
    return copied


@st.composite
def changed(draw: st.DrawFn, content: Any) -> str:
    """A real file with one value of another kind, or of another size."""
    path = draw(st.sampled_from(places(content)))
    # Surrogates are written as JSON escapes; NaN and Infinity as Python's own parser takes them.
    return json.dumps(replaced(content, path, draw(JSON)))


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A real file, cut off, with flipped bits or with something put in."""
    content = bytearray(text.encode())
    at = draw(st.integers(0, len(content) - 1))
    match draw(st.sampled_from(["cut", "flip", "insert", "remove"])):
        case "cut":
            del content[at:]
        case "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        case "insert":
            content[at:at] = draw(st.binary(max_size=4) | st.just(b"[" * 100_000))
        case "remove":
            del content[at : at + draw(st.integers(1, 9))]
    return bytes(content)


def files(content: Any) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.binary(max_size=40),
        JSON.map(lambda v: json.dumps(v).encode()),
        changed(content).map(str.encode),
        damaged(json.dumps(content)),
        damaged(json.dumps(content, indent=2)),
    )


def only_line(error: UserError, names: str = "") -> None:
    assert "\n" not in str(error)
    assert names in str(error)
    assert len(str(error)) < 600


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, str):
        return value.encode("utf-8") is not None
    return value is None or not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=400)
@given(content=files(RUN))
@example(content=b'{"schema": 1, "status": "finished", "status": "running"}')
@example(content=b'{"schema": 1, "status": "finished", "start": NaN}')
@example(content=b'{"schema": 1, "status": "finished", "start": 1e999}')
@example(content=b'{"schema": 1, "status": "finished", "seed": ' + b"9" * 5000 + b"}")
@example(content=b'{"schema": 1, "status": "running", "pid": "1/../2", "host": "x"}')
@example(content=b'{"schema": true, "status": "running"}')
@example(content=b"\xef\xbb\xbf{}")
def test_run_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    try:
        found = open_run(tmp_path).read_run()
        info = {**found.content, "status": found.status}
    except UserError as error:
        only_line(error, "run.json")
        return
    written = json.loads(content)
    assert {**info, "status": written["status"]} == written
    assert info["status"] in (written["status"], "interrupted")
    assert is_plain(info)
    assert list(VALIDATORS["run"].iter_errors(info)) == []


@settings(max_examples=600)
@given(content=files(RESULTS))
def test_results_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "results.json").write_bytes(content)
    try:
        results = RunFolder(tmp_path).read_results().content
    except UserError as error:
        only_line(error, "results.json")
        return
    assert results == json.loads(content)
    assert is_plain(results)
    assert list(VALIDATORS["results"].iter_errors(results)) == []


ODD = (None, True, "0.5", "", [], {}, [0.5], -1, -0.5, 1.5, 2, 10**400, 0.0, math.nan, math.inf)


@pytest.mark.parametrize("name", ["run", "results"])
def test_every_value_replaced_by_every_odd_one(tmp_path: Path, name: str) -> None:
    content = {"run": RUN, "results": RESULTS}[name]
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    taken = 0
    for path in places(content):
        for odd in ODD:
            changed_one = replaced(content, path, odd)
            (tmp_path / f"{name}.json").write_text(json.dumps(changed_one))
            try:
                run = RunFolder(tmp_path)
                found = (run.read_run() if name == "run" else run.read_results()).content
            except UserError as error:
                only_line(error, f"{name}.json")
                continue
            taken += 1
            assert is_plain(found), path
            assert list(VALIDATORS[name].iter_errors(found)) == [], path
    assert 0 < taken < len(places(content)) * len(ODD) / 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"x": 1, "x": 2', "key 'x' stands there twice"),
        ('"x": NaN', "NaN is no number of JSON"),
        ('"x": [-Infinity]', "-Infinity is no number of JSON"),
        ('"x": 1e999', "1e999 is too large a number"),
        ('"x": ' + "9" * 400, "9999… is too large a number"),
        ('"x": "\\ud800"', "half a surrogate pair"),
        ('"x": ' + "[" * 30 + "]" * 30, "nested too deeply"),
        ('"x": ' + "[" * 10**5 + "]" * 10**5, "nested too deeply"),
        ('"x": 1,', "no JSON: "),
    ],
)
def test_what_has_no_one_meaning_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN)[:-1] + ", " + text + "}")
    with pytest.raises(UserError, match=r"run\.json' cannot be read: ") as refused:
        open_run(tmp_path)
    assert reason in str(refused.value)
    only_line(refused.value)


@pytest.mark.parametrize("name", ["run", "results"])
def test_a_newer_version_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    content = {"run": RUN, "results": RESULTS}[name]
    (tmp_path / f"{name}.json").write_text(json.dumps({**content, "schema": 2, "status": "new"}))
    with pytest.raises(UserError, match=r"a newer MetaKD wrote it \(schema 2, this version reads"):
        open_run(tmp_path).read_results()


METRICS = "".join(json.dumps(line) + "\n" for line in LINES)
LINE = st.one_of(
    st.binary(max_size=30),
    JSON.map(lambda v: json.dumps(v).encode()),
    changed(LINES[4]).map(str.encode),
    damaged(json.dumps(LINES[2])),
    st.sampled_from([json.dumps(line).encode() for line in LINES]),
)


def sound_line(raw: bytes) -> dict[str, Any] | None:
    """Return what a line says if it is one that the program can have written."""
    try:
        line = json.loads(raw.decode("utf-8"))
        assert isinstance(line, dict)
        assert isinstance(line["stage"], str)
        assert type(line["step"]) is int
        assert line["step"] >= 0
        numbers = [line["time"], *(v for v in line["metrics"].values() if v is not None)]
        assert all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    except RecursionError:
        return None
    return line


@settings(max_examples=300)
@given(lines=st.lists(LINE, max_size=8), end=st.sampled_from([b"\n", b"", b"\r\n"]))
@example(lines=[b'{"stage": "a", "step": true, "time": 1, "metrics": {}}'], end=b"\n")
@example(lines=[b'{"stage": "a", "step": 1, "time": 1, "metrics": {"x": "2"}}'], end=b"\n")
@example(lines=[b"[" * 100_000], end=b"\n")
def test_metrics_jsonl(tmp_path: Path, lines: list[bytes], end: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + end)
    found = RunFolder(tmp_path).read_metrics()
    keys = [(line["stage"], line["step"]) for line in found]
    assert len(set(keys)) == len(keys)
    whole = (b"\n".join(lines) + end).rpartition(b"\n")[0].split(b"\n")
    known = [line for raw in whole if (line := sound_line(raw)) is not None]
    for line in found:
        assert is_plain(line)
        assert line in known
        # Nothing that another line contradicts.
        same = [k for k in known if (k["stage"], k["step"]) == (line["stage"], line["step"])]
        assert all(k["metrics"] == line["metrics"] for k in same)


@settings(max_examples=100)
@given(content=damaged(METRICS))
def test_one_damage_costs_little(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    found = RunFolder(tmp_path).read_metrics()
    kept = content.count(b"\n")
    assert len(found) >= min(kept, len(LINES)) - 2  # a lost line's end costs its neighbour


def test_damage_in_the_middle_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps(line) for line in LINES]
    again = json.dumps({**LINES[3], "metrics": {"loss": 7.0}})
    text = "\n".join([lines[0], "{broken", lines[1], lines[1], "[]", lines[3], again, lines[4]])
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"stage": "meta_tr')
    with caplog.at_level(logging.WARNING):
        found = RunFolder(tmp_path).read_metrics()
    assert found == [LINES[0], LINES[1], LINES[4]]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "metrics.jsonl': line 2 and 2 more" in message


@settings(max_examples=300)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@example(content=b"a: !!python/object/apply:os.system [id]")
@example(content=b"a: &a [*a]")
@example(content=b"? [1]\n: 2\n")
@example(content=b"a: 2020-13-45\nb: 0b12\n")
@example(content=b"a: " + b"9" * 5000)
def test_config_yaml(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / ".hydra").mkdir(exist_ok=True)
    for name in ("config.yaml", "overrides.yaml"):
        (tmp_path / ".hydra" / name).write_bytes(content)
    assert all(isinstance(word, str) for word in run.read_overrides())
    try:
        config = run.read_config()
    except UserError as error:
        only_line(error)
        return
    assert type(config) is dict
