"""A run that was killed goes on to the same weights, figures and metrics, to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metakd
from metakd import pipeline
from metakd.errors import RunError, UserError
from metakd.pipeline import run as run_module
from metakd.runs.checkpoints import load_weights, save_state
from metakd.runs.folder import open_run
from metakd.stages import training

SHORT = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "meta_train.iterations=4",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "pretrain.epochs=1",
    "pretrain.cache=false",
    "student_alone_cache=false",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "algorithm.inner_steps=1",
    "algorithm.inner_steps_test=1",
    "evaluate.transductive=false",
    "tracker=none",
    "checkpoint_minutes=null",
    "checkpoint_steps=3",
    "deterministic=true",
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved on its account."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out what takes most of a short run's time and is not looked at."""
    monkeypatch.setattr(run_module, "cost_of", lambda *_: {})
    yield
    torch.set_deterministic_debug_mode("default")


@contextmanager
def killed_after(updates: int) -> Iterator[None]:
    """End the run when it is about to make one more update of any stage."""
    made = 0
    update = training.Training.update

    def counted(self: Any, *given: Any) -> Any:
        nonlocal made
        if made == updates:
            raise Killed
        made += 1
        return update(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "update", counted)
        yield


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(*SHORT, *overrides, f"hydra.run.dir={folder}")


def updates_of(folder: Path) -> int:
    """Return how many updates a finished run made, in all stages."""
    config = open_run(folder).read_config()
    assert config["checkpoint_steps"] == 3
    last = {line["stage"]: line["step"] + 1 for line in open_run(folder).read_metrics()}
    return sum(last.values())


def same(one: Path, other: Path) -> None:
    """Assert that two runs ended alike: weights, figures, tasks, metrics; timing left out."""
    for path in sorted((one / "checkpoints").glob("*.safetensors")):
        a, b = (load_weights(f / "checkpoints", path.stem) for f in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), path.name
    results = [json.loads((f / "results.json").read_text()) for f in (one, other)]
    for r in results:
        r.pop("timing")
    assert results[0] == results[1]
    assert (one / "episodes.csv").read_text() == (other / "episodes.csv").read_text()
    lines = [
        [(m["stage"], m["step"], m["metrics"]) for m in open_run(f).read_metrics()]
        for f in (one, other)
    ]
    assert lines[0] == lines[1]
    assert open_run(other).read_run().status == "finished"


def go_on(folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.resume(folder, *overrides)


RUNS: dict[str, tuple[str, ...]] = {
    "protonet": ("algorithm=protonet", "warmstart.epochs=1", "meta_train.ema=0.9"),
    "supervised": (
        "algorithm=supervised",
        "distill=kd",
        "meta_train.batch_size=8",
        "meta_train.rotation_weight=1",
        "meta_train.mixup=1",
    ),
    "relation": ("algorithm=relation", "distill=none"),
    "ridge": ("algorithm=ridge", "distill=kd"),
    "metabaseline": (
        "algorithm=metabaseline",
        "warmstart.epochs=1",
        "distill=none",
    ),
    "maml": ("algorithm=maml", "distill=kd"),
    "imaml": ("algorithm=imaml", "distill=none"),
    "anil": ("algorithm=anil", "distill=kd_convex"),
    "boil": ("algorithm=boil", "distill=none"),
    "reptile": ("algorithm=reptile", "distill=none"),
    "meta_sgd": ("algorithm=meta_sgd", "distill=none"),
    "meta_curvature": ("algorithm=meta_curvature", "distill=none"),
    "lstm": ("algorithm=lstm", "distill=none"),
    "co_meta": ("algorithm=fomaml", "distill=kd", "distill.teacher_mode=co_meta"),
    "feedback": ("algorithm=protonet", "distill=kd", "distill.teacher_mode=feedback"),
    "per_task": ("algorithm=maml", "distill=kd", "distill.teacher_mode=per_task"),
    "adversarial": ("algorithm=adversarial", "distill=kd", "algorithm.options.start=best"),
    "wasserstein": (
        "algorithm=adversarial",
        "distill=kd",
        "algorithm.options.game_loss=wasserstein",
        "algorithm.base=protonet",
    ),
    "dropout": ("student=resnet12", "student.width=4", "student.dropout=0.5", "distill=embedding"),
    "finetuned": (
        "finetune=default",
        "finetune.epochs=2",
        "finetune.batch_size=16",
        "finetune.l2sp=0.1",
        "finetune.unfreeze_every=1",
        "finetune.depth_decay=0.5",
        "algorithm=anil",
    ),
    "regression": (
        "dataset=sinusoid",
        "student=mlp",
        "distill=none",
        "algorithm=maml",
    ),
    "regression_taught": (
        "dataset=sinusoid",
        "student=mlp",
        "teacher=mlp",
        "distill=kd",
        "algorithm=maml",
    ),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_killed_in_mid_stage_it_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    words = RUNS[name]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, *words)
    total = updates_of(whole)
    # In the middle of the student's meta-training, of what came before it, and of the last stage.
    moments = sorted({2, total // 2, total - 1})
    for moment in moments[:1]:
        with killed_after(moment), pytest.raises(Killed):
            run(broken, *words)
    done = 0
    for moment in moments[1:]:
        with killed_after(moment - done), pytest.raises(Killed):
            go_on(broken)
        done = moment // 3 * 3  # at least: checkpoints are made every three updates
    go_on(broken)
    same(whole, broken)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in meta-training, with a checkpoint of it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "cost_of", lambda *_: {})
        with killed_after(3), pytest.raises(Killed):
            run(folder, "distill=none")
    torch.set_deterministic_debug_mode("default")
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "copy"))


def test_it_goes_on_from_the_checkpoint_and_not_from_the_start(copy: Path) -> None:
    with killed_after(1):  # step 3 is saved, one update is left
        go_on(copy)


def test_another_configuration_is_refused_with_the_difference(copy: Path) -> None:
    before = (copy / "run.json").read_text()
    with pytest.raises(UserError, match=r"meta_train.lr: 0.002 -> 0.5.*resume_changed=true"):
        go_on(copy, "meta_train.lr=0.5")
    assert (copy / "run.json").read_text() == before
    metakd.resume(copy, "meta_train.lr=0.5", changed=True)
    assert yaml.safe_load((copy / ".hydra/config.yaml").read_text())["meta_train"]["lr"] == 0.5
    assert "meta_train.lr=0.5" in (copy / ".hydra/overrides.yaml").read_text()


def test_what_makes_no_other_run_may_be_typed(copy: Path, tmp_path: Path) -> None:
    go_on(copy, "checkpoint_steps=1", f"cache_root={tmp_path / 'cache'}", "tags=[again]")


def test_a_finished_run_is_left_as_it_is(copy: Path) -> None:
    results = go_on(copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    again = go_on(copy)
    assert again["student"] == json.loads((copy / "results.json").read_text())["student"]
    assert again["folder"] == results["folder"]
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_what_would_change_a_finished_run_is_refused_or_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(copy)
    with pytest.raises(UserError, match=r"is finished, and meta_train.lr: 0.002 -> 0.5 comes too"):
        go_on(copy, "meta_train.lr=0.5")
    go_on(copy, "tags=[late]")  # bookkeeping
    metakd.resume(copy, "meta_train.lr=0.5", changed=True, quiet=False)
    assert "nothing was done, and meta_train.lr: 0.002 -> 0.5 comes too late" in (
        " ".join(capsys.readouterr().out.split())
    )


def test_without_a_sound_checkpoint_it_starts_anew_in_its_folder(
    copy: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (copy / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    metakd.resume(copy, quiet=False)
    assert "starting anew" in capsys.readouterr().err
    whole = copy.parent / "whole"
    run(whole, "distill=none")
    same(whole, copy)


def test_a_run_that_has_not_said_what_it_is_starts_anew(copy: Path) -> None:
    """Killed between the making of its folder and its first words."""
    info = json.loads((copy / "run.json").read_text())
    early = {k: info[k] for k in ("schema", "status", "stage", "pid", "host", "process_start")}
    (copy / "run.json").write_text(json.dumps(early))
    go_on(copy)
    assert open_run(copy).read_run().status == "finished"
    assert (open_run(copy).read_run().start or 0) > 0


def test_run_json_tells_of_every_resumption(copy: Path) -> None:
    start = open_run(copy).read_run().start
    with killed_after(0), pytest.raises(Killed):
        go_on(copy)
    go_on(copy)
    info = open_run(copy).read_run()
    assert [entry["from"] for entry in info.content["resumed"]] == [{"meta_train": 3}] * 2
    assert info.start == start


def test_a_run_in_progress_is_refused(copy: Path) -> None:
    other = open_run(copy)
    other.lock()
    with pytest.raises(UserError, match="in progress"):
        go_on(copy)
    other.unlock()
    go_on(copy)


def test_other_data_are_refused(copy: Path) -> None:
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "data_checksum": "0" * 64}))
    with pytest.raises(UserError, match="began with other data"):
        go_on(copy)


def test_other_versions_are_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((copy / "run.json").read_text())
    info["packages"]["torch"] = "1.0"
    (copy / "run.json").write_text(json.dumps(info))
    go_on(copy)
    assert "torch 1.0 ->" in capsys.readouterr().err


def test_what_is_no_run_is_said(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(UserError, match="not a run's folder"):
        go_on(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        go_on(tmp_path / "nowhere")
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "evaluates": "../.."}))
    with pytest.raises(UserError, match="is an evaluation"):
        go_on(copy)


def test_relative_paths_are_those_of_the_first_command(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = yaml.safe_load((copy / ".hydra/config.yaml").read_text())
    config["cache_root"] = "own_cache"
    (copy / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "directory": str(tmp_path)}))
    go_on(copy)
    assert (tmp_path / "own_cache").is_dir()
    assert not (tmp_path / "elsewhere" / "own_cache").exists()


def test_a_change_that_fits_no_checkpoint_is_one_line(copy: Path) -> None:
    with pytest.raises(UserError, match=r"stage meta_train does not fit .* start a new run"):
        metakd.resume(copy, "student.width=6", changed=True)


def test_what_lies_in_a_folder_is_no_state_of_a_new_run(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "used"
    shutil.copytree(copy / "checkpoints", folder / "checkpoints")
    with killed_after(0), pytest.raises(Killed):
        run(folder, "distill=none", "seed=1")
    go_on(folder)
    run(tmp_path / "whole", "distill=none", "seed=1")
    same(tmp_path / "whole", folder)


# --- losses that are not finite


def broken_at(step: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Let the loss of meta-training be NaN at a step, `times` times."""
    from metakd.algorithms.protonet import ProtoNet

    real = ProtoNet.accumulate
    count = {"calls": 0, "left": times}

    def accumulate(self: Any, *given: Any) -> Any:
        count["calls"] += 1
        terms = real(self, *given)
        if count["calls"] > step and count["left"]:
            count["left"] -= 1
            next(self.parameters()).grad.fill_(float("nan"))
        return terms

    monkeypatch.setattr(ProtoNet, "accumulate", accumulate)


def test_a_gradient_that_is_not_finite_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_at(2, monkeypatch)
    with pytest.raises(RunError, match=r"meta_train, step 2: the gradient of .* is not finite"):
        run(tmp_path / "run", "distill=none")
    info = open_run(tmp_path / "run").read_run()
    assert info.status == "failed"
    assert "step 2" in (info.error or "")
    go_on(tmp_path / "run")  # the NaN came once only
    monkeypatch.undo()
    monkeypatch.setattr(run_module, "cost_of", lambda *_: {})
    run(tmp_path / "whole", "distill=none")
    same(tmp_path / "whole", tmp_path / "run")


def test_some_may_be_skipped_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_at(1, monkeypatch, times=2)
    run(tmp_path / "run", "distill=none", "meta_train.skip_nonfinite=2")
    assert "meta_train: step 1 was skipped" in capsys.readouterr().err
    line = open_run(tmp_path / "run").read_metrics()[-1]
    assert line["metrics"]["skipped"] == 2
    broken_at(1, monkeypatch, times=2)
    with pytest.raises(RunError, match="step 2"):
        run(tmp_path / "more", "distill=none", "meta_train.skip_nonfinite=1")


def test_replay_names_the_task_and_the_inner_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RunError, match="replay=RUN"):
        run(folder, "algorithm=maml", "distill=kd", "algorithm.inner_lr=1e20")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report = pipeline.replay(folder)
    assert (report.stage, report.step) == ("meta_train", 0)
    assert report.problem is not None
    assert report.same_tasks
    assert report.parameters == []
    assert [task.number for task in report.tasks] == [0, 1]
    for task in report.tasks:
        assert len(task.classes) == 5
        assert task.problem is not None
        assert 0 < task.query_losses[0] < 10  # fine before the inner step
        assert not 0 <= task.query_losses[1] < 1e6
    assert "meta_train, step 0: in the run, " in capsys.readouterr().out
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    mended = pipeline.replay(folder, ["algorithm.inner_lr=0.01"], quiet=True)
    assert mended.problem is None
    assert all(task.problem is None for task in mended.tasks)


def test_replay_tells_other_tasks_and_what_was_broken_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    broken_at(1, monkeypatch)
    with pytest.raises(RunError):
        run(folder, "distill=none")
    report = pipeline.replay(folder, ["seed=1"], quiet=True)
    assert not report.same_tasks
    assert report.problem is None
    state = torch.load(folder / "checkpoints/nonfinite.pt", weights_only=True)
    name = next(k for k in state["learner"] if k.endswith("weight"))
    state["learner"][name].view(-1)[0] = float("inf")
    save_state(folder / "checkpoints", "nonfinite", state)
    assert pipeline.replay(folder, quiet=True).parameters == [name]


def test_there_is_nothing_to_replay_in_a_sound_run(copy: Path) -> None:
    with pytest.raises(UserError, match="nothing to replay"):
        pipeline.replay(copy)


def test_killed_between_two_updates_of_the_recovery(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning", reason="needs pip install 'metakd[compress]'")
    words = (
        *("algorithm=protonet", "distill=none", "pretrain=none", "warmstart=none"),
        *("compress=prune", "compress.macs=0.6", "compress.iterations=5", "compress.examples=16"),
        *("compress.validate_every=2", "compress.validate_tasks=2"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, *words)
    stages = [line["stage"] for line in open_run(whole).read_metrics()]
    assert stages[-1] == "compress"
    # Four updates of five are made; what was kept is the state after three.
    with killed_after(updates_of(whole) - 1), pytest.raises(Killed):
        run(killed, *words)
    assert not (killed / "checkpoints" / "compressed.safetensors").exists()
    metakd.resume(killed)
    same(whole, killed)
