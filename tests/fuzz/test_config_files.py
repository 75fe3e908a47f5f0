"""Configuration files of strangers: recorded ones, and folders given with --config-dir."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metakd.cli import main
from metakd.config.compose import compose, recompose
from metakd.config.schema import Config
from metakd.errors import UserError

RECORDED = compose(["tracker=none"]).yaml
LAUGHS = "x0: &x0 [ha, ha]\n" + "".join(
    f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}, *x{i - 1}, *x{i - 1}]\n" for i in range(1, 40)
)
CHAIN = "x0: &x0 [ha]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}]\n" for i in range(1, 3000))


def changed(key: str, value: Any) -> str:
    content = yaml.safe_load(RECORDED)
    *groups, leaf = key.split("/")
    place = content
    for group in groups:
        place = place[group]
    place[leaf] = value
    return yaml.safe_dump(content)


HOSTILE = {
    "a variable": (changed("data_root", "${oc.env:HOME}"), "data_root: '${oc.env:HOME}' is not"),
    "a reference": (changed("seed", "${task.shots}"), "is not taken from a recorded"),
    "a reference as a key": (changed("distill/options", {"${seed}": 1}), "is not taken from"),
    "a long reference": (changed("tags", ["${oc.decode:'[1]'}"]), "tags.0: "),
    "a class": (changed("algorithm/_target_", "os.system"), "_target_ 'os.system' is not one of"),
    "another of ours": (
        changed("dataset/_target_", "metakd.data.images.ImageData"),
        "'metakd.data.images.ImageData' is not one of ours",
    ),
    "no class": (changed("student/_target_", "metakd.models.conv4.Conv5"), "Did you mean"),
    "a function": (changed("distill/_target_", "metakd.registry.importlib.sys.exit"), "not one of"),
    "a class of nothing": (changed("student/_target_", ""), "_target_ '' is not one of ours"),
    "a plugin": (changed("plugins", ["os"]).replace("metakd.data.glyphs.Glyphs", "os.X"), "os.X"),
    "python": ("a: !!python/object/apply:os.system [touch HERE]\n" + RECORDED, "python/object"),
    "python name": (RECORDED + "\nx: !!python/name:os.system ''\n", "is not permitted"),
    "own tag": (RECORDED + "\nx: !mine 3\n", "the tag '!mine' is not permitted"),
    "nesting": ("[" * 100_000, "nested too deeply"),
    "nested values": (changed("dataset/options", eval("[" * 40 + "]" * 40)), "nested too deeply"),
    "laughs": (LAUGHS + RECORDED, "more than 100000 values"),
    "a chain": (CHAIN + RECORDED, "nested too deeply"),
    "itself": ("x: &x [*x]\n" + RECORDED, "this holds itself"),
    "twice": (RECORDED + "\nseed: 3\n", "found duplicate key seed"),
    "a list": ("- 1\n- 2\n", "holds no settings"),
    "nothing": ("", "holds no settings"),
    "bytes": ("\x01\x02", "no YAML that can be used"),
    "type": (changed("seed", "many"), "seed"),
    "infinite": (changed("meta_train/lr", float("inf")), "expected a finite number"),
    "unknown": (changed("seeds", 3), "seeds: no such setting. Did you mean 'seed'?"),
    "hydra": (changed("hydra", {"callbacks": {"x": {"_target_": "os.system"}}}), "hydra"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    info = '{"schema": 1, "status": "finished", "stage": null, "pid": 1, "host": "elsewhere"}'
    (tmp_path / "run" / "run.json").write_text(info)
    return tmp_path / "run"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_recorded_configuration_is_one_line(
    run: Path, kind: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = HOSTILE[kind]
    (run / ".hydra" / "config.yaml").write_text(text)
    monkeypatch.chdir(run)
    began = time.monotonic()
    assert main(["evaluate", str(run)]) == 2
    assert time.monotonic() - began < 10
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 800
    assert expected in error
    assert os.environ["HOME"] not in error.replace(str(run), "")
    assert {p.name for p in run.iterdir()} == {"run.json", ".hydra"}


def test_what_is_recorded_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "ann")
    composed = compose(["name=of_${oc.env:WHO}", "task.train_ways=${task.ways}", "task.ways=7"])
    assert composed.config.name == "of_ann"
    file = tmp_path / "config.yaml"
    file.write_text(composed.yaml)
    assert "${" not in composed.yaml
    monkeypatch.setenv("WHO", "bob")
    again = recompose(file)
    assert again.config == composed.config
    assert "${oc.env:WHO}" in composed.source
    # Runs of before references were resolved had this one, which names two words of the same file.
    file.write_text(composed.yaml.replace("of_ann", "${dataset.name}_${algorithm.name}"))
    assert recompose(file).config.name == "glyphs_" + composed.config.algorithm.name


SETTINGS = yaml.safe_load(RECORDED)
KEYS = [(k, None) for k in SETTINGS] + [
    (k, inner) for k, v in SETTINGS.items() if isinstance(v, dict) for inner in v
]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=10),
        st.sampled_from(["???", "${", "${seed}", "${a.b}", "${oc.env:HOME}", "os.system"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


BY_HAND = ("defaults: 2.5", "defaults: [[1]]", "defaults: [{a: {b: 1}}]", "hydra: 3", "- 1", "a")


@pytest.mark.parametrize("text", BY_HAND)
def test_misshapen_files_of_a_folder(tmp_path: Path, text: str) -> None:
    file = tmp_path / "experiment" / "shared.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError) as refused:
        compose(["experiment=shared"], tmp_path)
    one_line(refused.value)


def one_line(error: UserError) -> None:
    assert "\n" not in str(error).strip()


def sound(read: Callable[[], Config]) -> None:
    """A typed configuration without references, or one line."""
    try:
        config = read()
    except UserError as error:
        one_line(error)
        return
    assert type(config) is Config
    assert "${oc." not in repr(config)
    assert config.plugins == []


@settings(max_examples=40)
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_a_recorded_setting_with_any_value(
    tmp_path: Path, key: tuple[str, str | None], value: Any
) -> None:
    content = {k: dict(v) if isinstance(v, dict) else v for k, v in SETTINGS.items()}
    if key[1] is None:
        content[key[0]] = value
    else:
        content[key[0]][key[1]] = value
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="replace")
    sound(lambda: recompose(file).config)


@settings(max_examples=20)
@given(at=st.integers(0, len(RECORDED) - 1), put=st.binary(max_size=3), cut=st.booleans())
def test_a_damaged_recorded_configuration(tmp_path: Path, at: int, put: bytes, cut: bool) -> None:
    text = RECORDED.encode()
    file = tmp_path / "config.yaml"
    file.write_bytes(text[:at] + put + (b"" if cut else text[at + 1 :]))
    sound(lambda: recompose(file).config)


IN_A_FOLDER = {
    "plugins": ("plugins: [os]", "plugins: a file cannot permit them"),
    "made up": ("name: '${oc.decode:abc}'", "what a file may hold is ${SETTING} and the resolvers"),
    "a made-up name": ("name: '${oc.${seed}:abc}'", "cannot be used"),
    "itself": ("name: ${name}", ""),
    "unknown resolver": ("name: ${sh:ls}", "cannot be used"),
    "a callback": (
        "hydra: {callbacks: {x: {_target_: os.system, command: touch HERE}}}",
        "hydra.callbacks.x._target_ 'os.system' is not one of ours",
    ),
    "a callback elsewhere": (
        "hydra: {callbacks: {x: '${algorithm}'}}\nalgorithm: {_target_: os.system}",
        "is not one of ours",
    ),
    "a method of ours": (
        "hydra: {callbacks: {x: {_target_: metakd.registry.importlib.import_module}}}",
        "is not one of ours",
    ),
    "a handler": (
        "hydra: {job_logging: {handlers: {x: {(): os.system, command: touch HERE}}}}",
        "hydra.job_logging.handlers.x.() 'os.system' is not one of ours",
    ),
    "a handler's class": (
        "hydra: {hydra_logging: {handlers: {x: {class: logging.os.system}}}}",
        "is not one of ours",
    ),
    "an object": (
        "hydra: {hydra_logging: {handlers: {file: {stream: 'ext://os.environ'}}}}",
        "is not one of ours",
    ),
    "laughs": (LAUGHS, "more than 100000 values"),
    "python": ("seed: !!python/object/apply:os.system [touch HERE]", "is not permitted"),
}


@pytest.mark.parametrize("words", [(), ("-m", "hydra/launcher=basic", "seed=1,2")])
@pytest.mark.parametrize("kind", IN_A_FOLDER)
def test_a_hostile_file_of_a_folder_is_one_line(
    tmp_path: Path,
    kind: str,
    words: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, expected = IN_A_FOLDER[kind]
    file = tmp_path / "conf" / "experiment" / "shared.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{text}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metakd.pipeline.train", lambda *_: pytest.fail("it began"), raising=False)
    folder = ["--config-dir", str(tmp_path / "conf")]
    assert main(["train", "experiment=shared", *words, *folder]) == 2
    *before, error = capfd.readouterr().err.splitlines()
    assert all("Error executing job" in line for line in before)  # Hydra's, of a job
    assert expected in error
    assert not (tmp_path / "HERE").exists()


def test_a_folder_names_what_is_typed_as_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "shared.yaml"
    file.parent.mkdir(parents=True)
    text = "hydra: {callbacks: {x: {_target_: mine.callbacks.Beep}}}"
    file.write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError, match=r"permit its module with plugins=\[mine\.callbacks\]"):
        compose(["experiment=shared"], tmp_path)
    assert compose(["experiment=shared", "plugins=[mine]"], tmp_path).config.plugins == ["mine"]
    file.write_text("# @package _global_\nname: ${task.name}_${oc.env:WHOEVER,nobody}\n")
    assert compose(["experiment=shared"], tmp_path).config.name.endswith("_nobody")


@settings(max_examples=20)
@given(
    text=st.one_of(
        st.binary(max_size=60),
        st.dictionaries(st.sampled_from([k for k, _ in KEYS] + ["hydra", "defaults"]), VALUES)
        .map(lambda content: yaml.safe_dump(content, allow_unicode=True))
        .map(lambda t: ("# @package _global_\n" + t).encode("utf-8", "replace")),
    )
)
def test_a_file_of_a_folder_with_any_content(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "experiment" / "shared.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    sound(lambda: compose(["experiment=shared"], tmp_path).config)
