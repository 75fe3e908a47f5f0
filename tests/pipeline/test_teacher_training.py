"""Teachers of several networks, and of several generations, in runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.errors import UserError
from metakd.runs.checkpoints import load_weights
from metakd.stages import training

SHORT = (
    "algorithm=protonet",
    "distill=kd",
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=2",
    "task.train_ways=5",
    "task.train_shots=2",
    "task.train_queries=2",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "pretrain.epochs=1",
    "pretrain.batch_size=512",
    "pretrain.validate_fraction=0",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "student_alone=false",
    "evaluate.tasks=20",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "finetune=none",
    "tracker=none",
)
TWICE = ("teacher.seeds=[0,1]", "pretrain.generations=2")
ENSEMBLE = (*TWICE, "distill.ensemble=support_accuracy")


def train(folder: Path, cache: Path, *typed: str) -> dict[str, Any]:
    words = (*SHORT, *typed, f"hydra.run.dir={folder}", f"cache_root={cache}")
    return metakd.train(*words, quiet=True)


@contextmanager
def killed_after(updates: int) -> Iterator[None]:
    """End the run when it is about to make one more update of any stage."""
    made, update = 0, training.Training.update

    def counted(self: Any, *given: Any) -> Any:
        nonlocal made
        if made == updates:
            raise KeyboardInterrupt
        made += 1
        return update(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "update", counted)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    train(folder, cache, *ENSEMBLE)
    return folder


def weights(folder: Path, name: str = "teacher") -> dict[str, torch.Tensor]:
    return load_weights(folder / "checkpoints", name)


def stages(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        content = json.loads(line)
        found.setdefault(content["stage"], set()).update(content["metrics"])
    return found


def test_each_generation_of_each_member_is_trained(run: Path) -> None:
    logged = stages(run)
    assert [*logged][:4] == [
        "pretrain",
        "pretrain_generation2",
        "pretrain_member2",
        "pretrain_member2_generation2",
    ]
    assert "loss/kd" not in logged["pretrain"]
    assert "loss/kd" in logged["pretrain_generation2"]
    results = json.loads((run / "results.json").read_text())
    assert results["teacher"]["cost"]["parameters"] == 2 * 500


def test_members_are_shared_with_runs_of_their_seed(run: Path, cache: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", cache, "teacher.seed=1", "pretrain.generations=2")
    assert "pretrain" not in stages(tmp_path / "run")  # both generations came from the cache
    one, both = weights(tmp_path / "run"), weights(run)
    for name, tensor in one.items():
        if name.startswith("backbone."):
            own = name.removeprefix("backbone.")
            assert torch.equal(both[f"backbone.members.1.{own}"], tensor)


def test_the_second_generation_learns_from_the_first(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    train(tmp_path / "run", cache, "teacher.seed=1")
    first, second = weights(tmp_path / "run"), weights(run)
    name = "blocks.0.conv.weight"
    assert not torch.equal(first[f"backbone.{name}"], second[f"backbone.members.1.{name}"])


def test_evaluated_again_and_used(run: Path) -> None:
    before = json.loads((run / "results.json").read_text())["teacher"]["fewshot"]
    assert metakd.evaluate(run)["teacher"]["fewshot"] == before
    teacher = metakd.load(run, "teacher", device="cpu")
    assert teacher.trained.recipe.members == 2
    pictures = list(torch.randint(0, 255, (4, 1, 16, 16), dtype=torch.uint8))
    teacher.fit(pictures[:2], ["a", "b"])
    assert teacher.predict_proba(pictures).shape == (4, 2)


def test_support_accuracy_acts(run: Path, cache: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", cache, *TWICE)
    both = [weights(folder, "student") for folder in (run, tmp_path / "run")]
    assert any(not torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_resumed_in_the_middle(run: Path, cache: Path, tmp_path: Path) -> None:
    # 8 updates of a generation; this ends it in the second generation of the second member.
    folder = tmp_path / "run"
    with killed_after(27), pytest.raises(KeyboardInterrupt):
        train(folder, cache, *ENSEMBLE, "pretrain.cache=false", "checkpoint_steps=1")
    assert "pretrain_member2_generation2" in stages(folder)
    assert "meta_train" not in stages(folder)
    metakd.resume(folder)
    for name in ("teacher", "student"):
        found, expected = weights(folder, name), weights(run, name)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run whose teacher is the second of the ensemble's networks."""
    folder = tmp_path_factory.mktemp("other") / "run"
    train(folder, cache, "teacher.seed=1")
    return folder


def test_checkpoints_of_several_runs_teach_as_their_seeds_do(
    other: Path, cache: Path, tmp_path: Path
) -> None:
    train(tmp_path / "first", cache)
    train(tmp_path / "seeds", cache, "teacher.seeds=[0,1]")
    given = (f"teacher.checkpoint={tmp_path / 'first'}", f"teacher.further_checkpoints=[{other}]")
    train(tmp_path / "given", cache, *given)
    by_seeds, by_files = (weights(tmp_path / name) for name in ("seeds", "given"))
    assert by_seeds.keys() == by_files.keys()
    assert all(torch.equal(by_seeds[name], tensor) for name, tensor in by_files.items())
    assert "pretrain" not in stages(tmp_path / "given")
    info = json.loads((tmp_path / "given" / "run.json").read_text())
    assert [line.split(": ")[1] for line in info["external_pretraining"]] == [
        str(tmp_path / "first"),
        str(other),
    ]
    before = json.loads((tmp_path / "given" / "results.json").read_text())["teacher"]["fewshot"]
    assert metakd.evaluate(tmp_path / "given")["teacher"]["fewshot"] == before
    assert metakd.load(tmp_path / "given", "teacher", device="cpu").trained.recipe.members == 2


def test_checkpoints_that_read_other_pictures_are_no_ensemble(
    other: Path, cache: Path, tmp_path: Path
) -> None:
    train(tmp_path / "first", cache, "dataset.image_size=20")
    with pytest.raises(UserError, match="an ensemble's networks share them"):
        train(
            tmp_path / "given",
            cache,
            "evaluate.seen=keep",
            "distill=embedding",
            f"teacher.checkpoint={other}",
            f"teacher.further_checkpoints=[{tmp_path / 'first'}]",
        )
    assert not (tmp_path / "given").exists()
