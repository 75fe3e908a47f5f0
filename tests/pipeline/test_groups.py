"""Several datasets in whole runs: drawn in turn, losses of their own, figures of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.groups import whole_batches
from metakd.pipeline.inputs import Known
from metakd.pipeline.prepare import prepare

TINY = (
    "dataset=several",
    "dataset.options.parts=[mnist,fashion_mnist]",
    "dataset.image_size=16",
    "student=cnn",
    "student.width=4",
    "algorithm=supervised",
    "distill=none",
    "warmstart=none",
    "task.ways=3",
    "task.train_ways=3",
    "task.queries=2",
    "meta_train.iterations=4",
    "meta_train.batch_size=8",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=6",
    "evaluate.shots=[]",
    "tracker=none",
)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """Digits and clothes: 10 classes each, with few random pictures."""
    generator = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        for part, n in (("train", 300), ("t10k", 40)):
            pixels = generator.integers(0, 256, (n, 28, 28))
            for kind, values in (("images-idx3", pixels), ("labels-idx1", np.arange(n) % 10)):
                header = bytes([0, 0, 8, values.ndim])
                header += np.array(values.shape, ">i4").tobytes()
                content = values.astype(np.uint8).tobytes()
                (raw / f"{part}-{kind}-ubyte").write_bytes(header + content)
    return (*TINY, f"data_root={tmp_path}")


def test_figures_of_each_dataset(words: tuple[str, ...], tmp_path: Path) -> None:
    found = {}
    for name, own in {
        "together": (),
        "fixed": ("meta_train.group_losses=fixed", "meta_train.draw=turn"),
        "weighted": ("meta_train.group_losses=fixed", "meta_train.group_weights.mnist=0.1"),
        "uncertainty": ("meta_train.group_losses=uncertainty",),
        "gradient_norm": ("meta_train.group_losses=gradient_norm",),
    }.items():
        run = tmp_path / name
        results = metakd.train(*words, *own, f"hydra.run.dir={run}")
        found[name] = (run / "checkpoints/student.safetensors").read_bytes()
        by_group = {entry["group"]: entry for entry in results["student"]["by_group"]}
        assert by_group.keys() == {"mnist", "fashion_mnist"}
        assert by_group["mnist"]["shots"] == 1
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        weights = {key for line in lines for key in line["metrics"] if key.startswith("weight/")}
        assert len(weights) == (0 if name == "together" else 2)
    assert len({*found.values()}) == 5


def test_one_dataset_a_task_and_a_batch(words: tuple[str, ...]) -> None:
    prepared = prepare(compose([*words, "task.sampling=superclass", "meta_train.draw=turn"]))
    data = prepared.class_data
    groups = data.train.groups
    tasks = data.tasks("train", prepared.config.task.training(), tasks=9, seed=0, stage="x")
    of = groups[tasks.batch(0).classes]
    assert (of == of[:, :1]).all()
    assert of.unique().tolist() == [0, 1]
    stream = whole_batches(prepared)
    seen = [groups[stream.batch(step).labels].unique().tolist() for step in range(4)]
    assert seen == [[0], [1], [0], [1]]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("meta_train.group_losses=gradient_norm", "meta_train.draw=turn"), "one at a time"),
        (
            ("meta_train.group_losses=fixed", "meta_train.group_weights.mnits=1"),
            "^meta_train.group_weights.mnits: there is no such group.*'mnist'",
        ),
        (("dataset.options.parts=[mnist,omnigot]",), "no dataset 'omnigot'.*'omniglot'"),
        (("dataset.options.parts=mnist",), r"give a list, such as \[omniglot,mnist\]"),
        (("dataset.options.parts=[mnist]",), "name two datasets or more"),
        (("dataset=mnist", "meta_train.group_losses=fixed"), "are of one group"),
        (
            ("dataset=mnist", "algorithm=protonet", "task.sampling=superclass"),
            "^task.sampling=superclass: the meta-train classes are of one group; type task.samp",
        ),
    ],
)
def test_refused(own: tuple[str, ...], said: str, words: tuple[str, ...]) -> None:
    kept = words
    if "dataset=mnist" in own:
        kept = tuple(w for w in words if not w.startswith("dataset"))
    if "algorithm=protonet" in own:
        kept = tuple(w for w in kept if not w.startswith("algorithm"))
    with pytest.raises(UserError, match=said):
        prepare(compose([*kept, *own]))


def test_a_run_of_before_keeps_tasks_of_its_only_group(words: tuple[str, ...]) -> None:
    kept = [w for w in words if not w.startswith(("dataset", "algorithm"))]
    own = ("dataset=mnist", "algorithm=protonet", "task.sampling=superclass")
    assert prepare(compose([*kept, *own]), Known()).data.has_classes


def test_what_changes_nothing_is_said() -> None:
    typed = ("draw=turn", "group_losses=fixed")
    lines = compose([f"meta_train.{word}" for word in typed]).warnings
    for word in typed:
        assert any(x.startswith(f"meta_train.{word.split('=')[0]} changes nothing") for x in lines)
    lines = compose(["algorithm=supervised", "meta_train.group_weights.a=2"]).warnings
    assert any(x.startswith("meta_train.group_weights.a changes nothing: ") for x in lines)
