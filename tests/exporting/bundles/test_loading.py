"""Bundles in `metakd.load` and `metakd predict`, and those that somebody changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import metakd
from metakd.cli import main
from metakd.errors import UserError

TEXT: dict[str, Any] = {"kind": "text", "reads": "bytes", "length": 10**13, "lower": True}
TEXT |= {"text": "text", "label": "label"}
Call = Callable[..., str]


@pytest.fixture
def made(handmade_bundle: Callable[[Path], Path], tmp_path: Path) -> Path:
    return handmade_bundle(tmp_path / "made")


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Two classes of grey pictures, bright on the left and on the right, two of each."""
    for name, side in (("left", 0), ("right", 2)):
        (tmp_path / "shown" / name).mkdir(parents=True)
        for i in (0, 1):
            pixels = np.full((4, 4), 40 + i, np.uint8)
            pixels[:, side : side + 2] = 200
            Image.fromarray(pixels).save(tmp_path / "shown" / name / f"{i}.png")
    return tmp_path / "shown"


def change(folder: Path, *keys: str, to: Any) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    (folder / "bundle.json").write_text(json.dumps(content))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle whose bundle.json says that it belongs there."""
    (folder / name).write_bytes(content)
    change(folder, "files", name, to=hashlib.sha256(content).hexdigest())


def test_a_bundle_is_fitted_and_asked_as_the_run_is(
    run: Path, bundle: Path, pictures: Path
) -> None:
    few, new = (sorted((pictures / part).glob("*/*.png")) for part in ("few", "new"))
    names = [file.parent.name for file in few]
    wanted, model = metakd.load(run).fit(few, names), metakd.load(bundle).fit(few, names)
    assert np.allclose(model.predict_proba(new), wanted.predict_proba(new), atol=1e-5)
    assert model.predict(new).tolist() == wanted.predict(new).tolist()
    right = [file.parent.name for file in new]
    assert model.score(new, right) == wanted.score(new, right)
    assert model.is_unknown(new, 0.3).tolist() == wanted.is_unknown(new, 0.3).tolist()
    for each in (wanted, model):
        each.partial_fit(new[:2], ["another", "another"])
    assert "another" in model.classes_
    assert np.allclose(model.decision_function(new), wanted.decision_function(new), atol=1e-4)


def test_predict_saves_what_run_py_goes_on_with(
    made: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    words = ["predict", str(made), "--examples", str(shown), "--save", str(saved)]
    assert main([*words, str(shown), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1.0
    assert main(["predict", str(saved), str(shown), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["left", "right"]
    again = metakd.load(saved)
    assert again.examples_of_a_class == [2, 2]
    assert not list(made.glob("classes.npz"))
    assert main([*words, str(shown)]) == 2  # nothing is replaced
    assert "is there already" in capsys.readouterr().err


def test_settings_that_a_graph_does_not_have(made: Path) -> None:
    for setting in ({"batchnorm": "transductive"}, {"steps": 3}, {"device": "cuda"}):
        (name,) = setting
        with pytest.raises(UserError, match=f"^{name}="):
            metakd.load(made, **setting)
    assert metakd.load(made, batchnorm="inductive", device="cpu").batchnorm == "inductive"


def test_one_class(made: Path, shown: Path) -> None:
    model = metakd.load(made).fit([shown / "left" / "0.png"], ["left"])
    assert model.predict_proba([shown / "right" / "0.png"]).tolist() == [[1.0]]


def refused(folder: Path, shown: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line with which `metakd predict` refuses a bundle."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert main(["predict", str(folder), "--examples", str(shown), str(shown)]) == 2
    said = capsys.readouterr()
    lines = [n for n in said.err.splitlines() if "are among the examples" not in n]
    assert (said.out, len(lines)) == ("", 1)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    return lines[0]


@pytest.mark.parametrize(
    ("keys", "to", "line"),
    [
        (("schema",), 2, "a newer MetaKD wrote it"),
        (("format",), "pickle", "'format' is 'pickle'"),
        (("format",), "torch", "not among its files"),
        (("graphs",), {}, "its graphs are neither"),
        (("graphs", "model"), "../model.onnx", "not among its files"),
        (("graphs", "model"), "/etc/passwd", "not among its files"),
        (("files", "../outside"), "0" * 64, "no file of the bundle"),
        (("files", "/etc/passwd"), "0" * 64, "no file of the bundle"),
        (("files", "model.onnx"), "0" * 64, "its checksum differs"),
        (("fixed_ways",), 0, "'fixed_ways' is 0"),
        (("fixed_ways",), 10**9, "'fixed_ways' is 1000000000"),
        (("most_ways",), 10**9, "'most_ways' is 1000000000"),
        (("fixed_ways",), 1, "2 classes, but the head of this student tells 1 apart"),
        (("recipe",), {}, "the recipe's 'model'"),
        (("recipe", "example_shape"), [1, 5, 5], "another shape"),
        (("recipe", "kind"), "regression", "its recipe of regression"),
        (("preprocessing",), None, "no preprocessing"),
        (("preprocessing", "std"), [0.0], "std must be positive"),
        (("preprocessing", "height"), 10**9, "at most 16384 pixels on a side"),
        (("preprocessing",), TEXT, "texts have at most 1048576 ids"),
        (("preprocessing", "reading", "background"), -1, "background is between 0 and 255"),
        (("preprocessing", "reading", "white"), 0.0, "white is above 0"),
        (("calibration",), {"scale": 1}, "'calibration"),
        (("scale",), -1.0, "'scale' is -1.0"),
    ],
)
def test_a_bundle_that_lies(
    made: Path,
    shown: Path,
    capsys: pytest.CaptureFixture[str],
    keys: tuple[str, ...],
    to: Any,
    line: str,
) -> None:
    change(made, *keys, to=to)
    assert line in refused(made, shown, capsys)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_files_that_are_not_what_they_should_be(
    made: Path,
    shown: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = (made / "model.onnx").read_bytes()
    for content in (whole[: len(whole) // 2], b"", pickle.dumps(Evil()), b"\x80" * 99):
        replace(made, "model.onnx", content)
        assert "cannot be used" in refused(made, shown, capsys)
    replace(made, "model.onnx", (made / "head.onnx").read_bytes())
    replace(made, "head.onnx", whole)  # graphs in each other's place
    assert "cannot be used" in refused(made, shown, capsys)
    assert not Path("executed").exists()


def test_classes_that_are_not_what_they_should_be(
    made: Path,
    shown: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    kept, labels, names = np.zeros((2, 16), np.float32), np.arange(2), np.array(["a", "b"])
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("kept.npy", bytes(1 << 24))
    claimed = bytearray(bomb.getvalue())
    at = claimed.index(b"PK\x01\x02") + 24
    claimed[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")  # says that it unpacks to 4 GiB
    for content in (
        b"",
        bytes(claimed),
        pickle.dumps(Evil()),
        npz(kept=np.array([Evil(), 1]), labels=labels, names=names),
        npz(kept=kept, labels=labels + 1, names=names),
        npz(kept=kept, labels=labels[:1], names=names),
        npz(kept=kept.astype(np.uint8), labels=labels, names=names),
        npz(kept=np.zeros((2, 7), np.float32), labels=labels, names=names),
        npz(kept=np.full((2, 16), np.nan, np.float32), labels=labels, names=names),
        npz(kept=kept, labels=labels, names=np.array(["a", "a"])),
    ):
        (made / "classes.npz").write_bytes(content)
        words = ["predict", str(made), str(shown)]
        assert main(words) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
    assert not Path("executed").exists()


def test_links_that_lead_out(
    made: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((made / "model.onnx").read_bytes())
    (made / "model.onnx").unlink()
    (made / "model.onnx").symlink_to(outside)
    assert "'model.onnx' is no file of the bundle" in refused(made, shown, capsys)
    (made / "bundle.json").rename(tmp_path / "elsewhere.json")
    (made / "bundle.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"'bundle\.json' is no file of the bundle"):
        metakd.load(made)


def test_an_empty_folder_and_a_picture_that_is_a_bomb(
    made: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither a run's folder" in refused(tmp_path / "empty", shown, capsys)
    assert "no image in this folder" in refused(made, tmp_path / "empty", capsys)
    bomb = shown / "left" / "bomb.png"
    pixels = bytearray((shown / "left" / "0.png").read_bytes())
    pixels[16:24] = struct.pack(">II", 60000, 60000)  # width and height of the header
    pixels[29:33] = struct.pack(">I", zlib.crc32(pixels[12:29]))
    bomb.write_bytes(pixels)
    assert "bomb.png cannot be read" in refused(made, shown, capsys)


def test_a_program_of_torch_that_holds_more_than_tensors(tmp_path: Path) -> None:
    import torch

    from metakd.exporting.shipped.session_torch import Graph

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    file, other = tmp_path / "twice.pt2", tmp_path / "other.pt2"
    torch.export.save(torch.export.export(Twice(), (torch.ones(3),)), file)
    assert Graph(file)(np.arange(3, dtype=np.float32)).tolist() == [0, 2, 4]

    def written(name: str, change: Callable[[bytes], bytes]) -> None:
        with zipfile.ZipFile(file) as given, zipfile.ZipFile(other, "w") as packed:
            for each in given.namelist():
                content = given.read(each)
                packed.writestr(each, change(content) if each.endswith(name) else content)

    evil = pickle.dumps(Evil())
    model = "models/model.json"
    changes: list[tuple[str, Callable[[bytes], bytes], str]] = [
        (model, lambda c: c.replace(b"torch.ops.aten.mul.Tensor", b"torch.load"), "it calls"),
        (model, lambda c: c.replace(b"torch.ops.aten.mul.Tensor", b"_operator.call"), "it calls"),
        (
            model,
            lambda c: c.replace(b"aten.mul.Tensor", b"aten.from_file.default"),
            "it calls",
        ),
        (model, lambda c: c.replace(b'"as_int": 2', b'"as_string": "/etc/hosts"'), "given a text"),
        (model, lambda c: c.replace(b'"guards_code": [', b'"guards_code": ["print(1)"'), "condit"),
        ("constants_config.json", lambda _: b'{"config": {"a": {"use_pickle": true}}}', "pickle"),
        ("sample_inputs/model.pt", lambda _: evil, "no program"),
        (model, lambda c: c[:-9], "no program"),
    ]
    for name, changed, line in changes:
        written(name, changed)
        with pytest.raises(ValueError, match=line):
            Graph(other)
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(other, "w") as packed:
        for each in given.namelist():
            packed.writestr(each, given.read(each))
        packed.writestr(f"{given.namelist()[0].split('/')[0]}/data/extra.pkl", evil)
    with pytest.raises(ValueError, match=r"it holds 'data/extra\.pkl'"):
        Graph(other)


def test_the_script_refuses_as_well(
    made: Path, shown: Path, without_torch: Call, tmp_path: Path
) -> None:
    from metakd.exporting.copied import copied

    (made / "kit").mkdir()
    for name, text in copied("onnx").items():
        (made / name).write_text(text)
    words = ["--examples", shown, shown]
    assert json.loads(without_torch(made, [*words, "--json"]))["accuracy"] == 1.0
    (tmp_path / "empty").mkdir()
    said = without_torch(made, ["--examples", tmp_path / "empty"], status=2)
    assert "put pictures of each class" in said
    change(made, "graphs", "head", to="../head.onnx")
    assert "no file of the bundle" in without_torch(made, words, status=2)
    change(made, "format", to="os")
    assert "cannot be used" in without_torch(made, words, status=2)
    (made / "bundle.json").write_text("[" * 99999)
    assert "cannot be read" in without_torch(made, words, status=2)
