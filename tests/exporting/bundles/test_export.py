"""`metakd export`: what it writes, that it is checked, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import metakd
from metakd.cli import main
from metakd.errors import UserError
from metakd.exporting import parity
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.runtimes.onnx import OnnxRuntime
from metakd.exporting.runtimes.torch import TorchProgram
from metakd.exporting.shipped.session_onnx import Graph
from metakd.pipeline.export import _check_steps, _command, export_run
from metakd.using.learner import Trained

ROOT = Path(__file__).resolve().parents[3]
Call = Callable[..., str]


def test_what_the_bundle_says(run: Path, bundle: Path) -> None:
    said = json.loads((bundle / "bundle.json").read_text())
    schema = json.loads((ROOT / "docs" / "schemas" / "bundle.schema.json").read_text())
    Draft202012Validator(schema).validate(said)
    assert (said["format"], said["which"], said["algorithm"]) == ("onnx", "student", "ProtoNet")
    assert (said["fixed_ways"], said["ways"], said["shots"]) == (None, 5, 1)
    assert said["inputs"]["model"]["query"] == ["queries", 1, 16, 16]
    weights = (run / "checkpoints" / "student.safetensors").read_bytes()
    assert said["run"]["sha256"] == hashlib.sha256(weights).hexdigest()
    files = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert said["files"].keys() == files - {"bundle.json"}
    for name, digest in said["files"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    measured = said["parity"]
    assert 0 < measured["difference"]["largest"] < 1e-4
    assert (measured["difference"]["tasks"], measured["difference"]["part"]) == (12, "validate")
    results = json.loads((run / "results.json").read_text())
    accuracy = results["student"]["fewshot"]["accuracy"]
    assert measured["accuracy"]["run"] == accuracy
    assert measured["accuracy"]["pytorch"] == pytest.approx(accuracy, abs=1e-9)
    assert measured["accuracy"]["runtime"] == pytest.approx(accuracy, abs=0.003)
    assert measured["bytes"]["embedding"] == (bundle / "embedding.onnx").stat().st_size
    # Nothing of the machine that wrote it.
    for file in bundle.rglob("*.onnx"):
        assert str(ROOT).encode() not in file.read_bytes()


def test_the_command_without_what_it_says_of_the_machine() -> None:
    words = "algorithm=maml experiment=glyphs/default seed=3 task.ways=5"
    places = "dataset.folder=mine data_root=/data teacher.checkpoint=a.pt hydra.run.dir=~/x"
    assert _command(f"/home/me/metakd train {words} {places} -m") == f"metakd train {words}"
    assert _command("metakd train 'broken") is None


def test_the_script_answers_as_metakd_without_torch(
    run: Path, bundle: Path, pictures: Path, without_torch: Call
) -> None:
    said = without_torch(bundle, ["--examples", pictures / "few", pictures / "new", "--json"])
    found = json.loads(said)
    files = [Path(one["file"]) for one in found["predictions"]]
    few = sorted((pictures / "few").glob("*/*.png"))
    model = metakd.load(run).fit(few, [file.parent.name for file in few])
    assert found["classes"] == model.classes_.tolist()
    assert [one["class"] for one in found["predictions"]] == model.predict(files).tolist()
    wanted = model.predict_proba(files).max(1)
    assert np.allclose([p["probability"] for p in found["predictions"]], wanted, atol=1e-5)
    assert found["accuracy"] == model.score(files, [file.parent.name for file in files])


def test_a_picture_that_cannot_be_read_is_left_out(
    bundle: Path, pictures: Path, without_torch: Call, tmp_path: Path
) -> None:
    words = ["--examples", pictures / "few"]
    whole = json.loads(without_torch(bundle, [*words, pictures / "new", "--json"]))
    new = tmp_path / "new"
    shutil.copytree(pictures / "new", new)
    broken = sorted(new.glob("*/*.png"))[0]
    broken.write_bytes(b"no picture")
    said = without_torch(bundle, [*words, new, "--json"], status=2, answers=True)
    found = json.loads(said)
    assert [one["file"] for one in found["unreadable"]] == [str(broken)]
    assert "cannot be read" in found["unreadable"][0]["reason"]
    assert len(found["predictions"]) == len(whole["predictions"]) - 1
    assert str(broken) not in [p["file"] for p in found["predictions"]]
    for one in whole["predictions"]:
        place = new / Path(one["file"]).relative_to(pictures / "new")
        if place != broken:
            mine = next(p for p in found["predictions"] if p["file"] == str(place))
            assert mine["class"] == one["class"]
    assert "cannot be read" in without_torch(bundle, [*words, broken], status=2)  # alone


def test_a_class_is_added_on_the_device(bundle: Path, pictures: Path, without_torch: Call) -> None:
    few, new = pictures / "few", pictures / "new"
    assert "give --examples" in without_torch(bundle, [new], status=2)
    for number in (2, 0, 1):
        where = few / f"class {number}"
        said = without_torch(bundle, ["--add-class", f"class {number}", where])
    assert said == "classes.npz: 3 classes, 9 examples\n"
    kept = json.loads(without_torch(bundle, [new, "--json"]))
    again = json.loads(without_torch(bundle, ["--examples", few, new, "--json"]))
    assert kept["classes"] == ["class 0", "class 1", "class 2"]  # as MetaKD orders them
    shown = [one for one in again["predictions"] if one["class"] != "class 3"]
    by_file = {one["file"]: one["class"] for one in kept["predictions"]}
    assert all(by_file[one["file"]] == one["class"] for one in shown)
    text = without_torch(bundle, ["--add-class", "class 3", few / "class 3" / "0.png"])
    assert text == "classes.npz: 4 classes, 10 examples\n"


def test_without_parity_nothing_is_written(
    run: Path,
    bundle_of_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def copied(_: Any, graph: Any, file: Path) -> None:
        shutil.copy(bundle_of_run / file.name, file)  # what writing it again would give

    monkeypatch.setattr(OnnxRuntime, "write", copied)
    call = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda self, *given: call(self, *given) + np.float32(1))
    words = ["export", str(run), "--format", "onnx", "--output", str(tmp_path / "wrong")]
    assert main(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("metakd: onnx gives other answers than PyTorch: a logit differs by 1")
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_no_numbers_are_one_line(
    run: Path,
    bundle_of_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        OnnxRuntime, "write", lambda _, graph, file: shutil.copy(bundle_of_run / file.name, file)
    )
    call = Graph.__call__
    monkeypatch.setattr(
        Graph, "__call__", lambda self, *given: call(self, *given) * np.float32("nan")
    )
    words = ["export", str(run), "--format", "onnx", "--output", str(tmp_path / "wrong")]
    assert main(words) == 1
    assert "not finite" in capsys.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_tasks_larger_than_a_runtime_takes_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntime, "most", {"queries": 9})
    with pytest.raises(UserError, match="takes at most 9 queries at once"):
        export_run(run, runtime="onnx", output=tmp_path / "no", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_hundreds_of_steps_are_refused_where_none_is_repeated(
    made_up_trained: Callable[..., Trained],
) -> None:
    graph = adapting_graph(made_up_trained("supervised.Supervised", head="linear"))
    with pytest.raises(UserError, match=r"--format torch: .* in 300 steps, .* type --format onnx"):
        _check_steps(graph, TorchProgram())
    _check_steps(graph, OnnxRuntime())
    _check_steps(adapting_graph(made_up_trained("supervised.Supervised")), TorchProgram())


def test_a_graph_that_does_not_take_a_task_is_one_line() -> None:
    from metakd.errors import RunError
    from metakd.pipeline.compared import Compared

    class Refusing(Compared):
        def _classified(self, images: int | None, recorded: float | None) -> dict[str, Any]:
            raise ValueError("too many queries")

    nothing: Any = None
    compared = Refusing(nothing, nothing, nothing, nothing, "executorch")
    with pytest.raises(RunError, match=r"executorch does not run .* \(too many queries\)"):
        compared.parity(None, None)


def test_accuracy_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from metakd.errors import RunError
    from metakd.runs.records_export import Accuracies, Difference

    same: dict[str, Any] = {"tasks": 100, "ways": 5, "shots": 1, "queries": 15}
    off = {"split": "validate", "tasks": 2, "queries": 9, "other_class": 0, "ties": 0}
    near = Difference(largest=1e-6, pytorch=1e-6, permitted=1e-4, **off)
    parity.check(near, Accuracies(runtime=0.9, pytorch=0.901, **same), "onnx")
    with pytest.raises(RunError, match=r"not as accurate .*: 90\.00 % and 90\.40 % on 100 tasks"):
        parity.check(near, Accuracies(runtime=0.9, pytorch=0.904, **same), "onnx")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "export: name one run"),
        (["RUN"], "export: --format: expected one of onnx, executorch, openvino, torch."),
        (["RUN", "--format", "onx"], "Did you mean 'onnx'?"),
        (["RUN", "--format", "torch", "--which", "pupil"], "has no pupil; it has student"),
        (["RUN", "--format", "torch", "--which", "compressed"], "has no compressed"),
        (["RUN", "--format", "torch", "--tasks", "0"], "--tasks 0: expected a whole number"),
        (["RUN", "--format", "torch", "--output", "RUN"], "is there already"),
        (["nowhere", "--format", "torch"], "nowhere"),
    ],
)
def test_what_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["export", *(str(run) if word == "RUN" else word for word in words)]) == 2
    said = capsys.readouterr()
    assert line in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


def test_the_script_that_checks_pngs_of_the_tasks(
    run: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import exported_as_evaluated

    words = ["exported_as_evaluated.py", str(run), str(bundle), "--tasks", "2"]
    monkeypatch.setattr("sys.argv", words)
    assert exported_as_evaluated.main() == 0
    assert "0 tasks differ" in capsys.readouterr().out
