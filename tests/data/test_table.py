"""A user's own table: CSV and .npz files, sound and odd, in every stage and afterwards."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd.cli import main
from metakd.cli.predict import run as predict
from metakd.data.features import FeatureData, FeaturePreprocessing, column_statistics
from metakd.data.load import load_dataset
from metakd.data.preprocessing import Preprocessing
from metakd.data.table import Table
from metakd.data.table_file import read_table_file
from metakd.errors import UserError
from metakd.models.input_adapter import adapt_input
from metakd.registry import build
from metakd.stages.training import Training

COLUMNS = ("a", "b", "c")


def rows_of(name: str, count: int) -> list[list[float]]:
    """Rows of a class: a place of its own, column b in other units."""
    random = np.random.default_rng(sum(name.encode()))
    place = random.normal(size=3) * 3
    rows = place + random.normal(size=(count, 3))
    return (rows * [1, 1e6, 1] + [0, 1e9, 0]).tolist()


def write(path: Path, names: str = "pqrstuvwxyz", count: int = 12, prefix: str = "") -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "label"])
        for name in names:
            for row in rows_of(name, count):
                writer.writerow([*map(repr, row), prefix + name])
    return path


def load(path: Path, tmp: Path, **settings: Any) -> FeatureData:
    dataset = build(Table, tmp, settings={"folder": str(path)}, options=settings)
    data = load_dataset(dataset, cache_root=tmp / "cache")
    assert isinstance(data, FeatureData)
    return data


def table(tmp_path: Path, text: str | bytes, **settings: Any) -> FeatureData:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, tmp_path, **settings)


# -- what becomes of a table --------------------------------------------------------------------


def test_standardised_by_meta_train_and_split_by_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv")
    data = load(path, tmp_path)
    assert [data.split(s).classes for s in ("train", "validate", "test")] == [7, 2, 2]
    train = data.train
    seen = data.examples("train", torch.arange(len(train)))[~train.held_out].double()
    assert seen.shape[1:] == data.example_shape == (3,)
    assert seen.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert seen.std(0, unbiased=False).tolist() == pytest.approx([1, 1, 1], rel=1e-6)
    first = rows_of(train.class_names[0], 12)
    assert train.examples[:12].tolist() == first  # to the last bit
    kept = np.array([r for n in train.class_names for r in rows_of(n, 12)])[~train.held_out]
    assert data.preprocessing.mean == pytest.approx(kept.mean(0).tolist(), rel=1e-12)
    assert data.preprocessing.std == pytest.approx(kept.std(0).tolist(), rel=1e-9)
    other = load(path, tmp_path, split_seed=1)
    assert other.test.class_names != data.test.class_names
    # From the cache it is the same.
    again = load(path, tmp_path)
    assert again.checksum == data.checksum
    assert again.preprocessing == data.preprocessing


def test_statistics_by_hand() -> None:
    nan = float("nan")
    rows = [[1.0, 5.0, nan, 1e300], [3.0, 5.0, nan, -1e300], [nan, 5.0, nan, 1e300]]
    mean, std = column_statistics(torch.tensor(rows, dtype=torch.float64))
    third = 1e300 / 3
    assert mean.tolist() == pytest.approx([2, 5, 0, third])
    assert std.tolist() == pytest.approx([1, 1, 1, 2 * 2**0.5 * third])


@pytest.mark.parametrize("how", ["lists", "column", "folder"])
def test_who_says_the_split(how: str, tmp_path: Path) -> None:
    own = {"train": "pqr", "val": "stu", "test": "vw"}
    if how == "lists":
        (tmp_path / "lists.json").write_text(json.dumps({s: list(n) for s, n in own.items()}))
        path = write(tmp_path / "table.csv")
        data = load(path, tmp_path, splits=str(tmp_path / "lists.json"))
        assert "3 classes left out ('x', 'y', 'z')" in data.notes[0]
    elif how == "column":
        lines = [f"{i},{i * i},{n},{s}" for s, of in own.items() for n in of for i in range(4)]
        text = "\n".join(["u,v,label,part", *lines])
        data = table(tmp_path, text, split_column="part")
        assert data.preprocessing.columns == ("u", "v")
    else:
        (tmp_path / "own").mkdir()
        for split, names in own.items():
            write(tmp_path / "own" / f"{split}.csv", names)
        data = load(tmp_path / "own", tmp_path)
    found = [data.split(s).class_names for s in ("train", "validate", "test")]
    assert found == [tuple("pqr"), tuple("stu"), tuple("vw")]


def test_an_npz_file_holds_the_same(tmp_path: Path) -> None:
    text = write(tmp_path / "table.csv")
    names = "pqrstuvwxyz"
    features = np.array([row for name in names for row in rows_of(name, 12)])
    labels = np.repeat(list(names), 12)
    np.savez(tmp_path / "t.npz", features=features, labels=labels, columns=np.array(COLUMNS))
    one, two = load(text, tmp_path), load(tmp_path / "t.npz", tmp_path)
    assert one.checksum == two.checksum
    assert one.preprocessing == two.preprocessing


def test_numbers_as_spreadsheets_write_them(tmp_path: Path) -> None:
    """A byte order mark, semicolons, quotes, blanks, an index without a name, a column of text."""
    text = "\ufeff;width ;note;label\n"
    for i, name in enumerate("abcdef"):
        for k in range(3):
            text += f'{i * 3 + k}; {i}.{k} ;big;"{name};""x"\n\n'
    text = text.replace('"""x"', '""x"')
    quoted = text.replace(';""x"', ' ;x"')
    data = table(tmp_path, quoted)
    assert data.preprocessing.columns == ("width",)
    names = {n for s in ("train", "validate", "test") for n in data.split(s).class_names}
    assert names == {f"{name} ;x" for name in "abcdef"}
    assert any("1 columns without a number are left out: 'note'" in line for line in data.notes)
    assert any("1 columns without a name are left out" in line for line in data.notes)


MANY = "\n".join(f"{i}.5,{i * i},{n}" for n in "pqrstu" for i in range(3))


@pytest.mark.parametrize(
    ("text", "settings", "line"),
    [
        ("", {}, "is empty"),
        ("a,b,label\n", {}, "holds no row below its header"),
        ("1,2,3\n4,5,6\n", {}, "has no header"),
        ("a,a,label\n1,2,x\n", {}, "two columns called 'a': rename one"),
        ("a,b,label\n1,2\n", {}, "line 2: 2 cells, and the first line names 3 columns"),
        ("a,b,lable\n1,2,x\n", {}, "no column 'label'.*Did you mean 'lable'"),
        (f"a,b,label\n{MANY}\n,3,p", {}, "line 20: in column 'a' stands nothing, as in 1 cell:"),
        (f"a,b,label\n{MANY}\n1;5,3,p", {}, "line 20: in column 'a' stands '1;5', which is no"),
        (f'a,b,label\n{MANY}\n"1,5",3,p', {}, "write decimals with a point"),
        (f"a,b,label\n{MANY}\n1e999,3,p", {}, "'1e999', which is not finite"),
        (f"a,b,label\n{MANY}\ninf,3,p", {}, "'inf', which is not finite"),
        (f"a,b,label\n{MANY}\n1,3,", {}, "line 20: no class in column 'label'"),
        ("a,label\n1,x\n2,x\n", {}, "holds 1 classes"),
        ("note,label\nu,x\nv,y\nw,z\n", {}, "no column of numbers beside its label"),
        (f"a,b,label\n{MANY}", {"columns": ["a", "z"]}, "no column 'z'"),
        (f"a,b,label\n{MANY}", {"split_column": "b"}, "expected train, val or test"),
        ('a,b,label\n1,"2,x\n', {}, "cannot be read"),
        (b"a,b,label\n1,2,caf\xe9\n", {}, "no UTF-8 text: save it as UTF-8"),
        (b"PK\x03\x04\x00\x00", {}, "is empty|no UTF-8|cannot be read|no row|no header"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    text: str | bytes, settings: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line) as error:
        table(tmp_path, text, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["t.xlsx", "t.PARQUET", "t.csv.gz", "t.json"])
def test_tables_of_other_kinds_are_named_as_such(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"of a kind that is not read \(\..*\): save it as CSV"):
        read_table_file(tmp_path / name)
    with pytest.raises(UserError, match="is a folder: name a table in it"):
        read_table_file(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"X": np.eye(3)}, "holds the arrays X: 'features'"),
        ({"features": np.zeros(3), "labels": np.zeros(3)}, "give numbers"),
        ({"features": np.eye(3), "labels": np.array(list("ab"))}, "'labels' is .*give 3 texts"),
        ({"features": np.eye(3), "labels": np.eye(3)}, "'labels' is"),
        ({"features": np.array([object()] * 3), "labels": np.zeros(3)}, "cannot be read"),
    ],
)
def test_an_npz_file_without_the_right_arrays(
    arrays: dict[str, Any], line: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UserError, match=line):
        load(tmp_path / "t.npz", tmp_path)
    (tmp_path / "t.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "t.npz", tmp_path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"missing": "means"}, "missing=means.*Did you mean 'mean'"),
        ({"delimiter": ";;"}, "give one character"),
        ({"columns": "a"}, "give a list of names"),
        ({"columns": ["a", "a"]}, "named twice"),
        ({"columns": ["label"]}, "'label' is the column of classes"),
        ({"all_test": 1}, "type true or false"),
        ({"all_test": True, "split_column": "s"}, "both say the class split"),
        ({}, "is not there: set dataset.folder"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        load(tmp_path / "none.csv", tmp_path, **settings)


def test_missing_values_become_the_mean_where_that_is_asked_for(tmp_path: Path) -> None:
    lines = [f"{i},{'' if i == 1 else i},7,{n}" for n in "pqrstu" for i in range(4)]
    data = table(tmp_path, "\n".join(["a,b,k,label", *lines]), missing="mean")
    seen = data.as_seen(data.train.examples)
    gone = data.train.examples[:, 1].isnan()
    assert gone.any()
    assert (seen[gone, 1] == 0).all()
    assert (seen[:, 2] == 0).all()
    assert "1 columns are constant in meta-train and say nothing: 'k'" in data.notes[0]
    assert seen.isfinite().all()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    before = load(write(tmp_path / "table.csv"), tmp_path)
    after = load(write(tmp_path / "table.csv", count=11), tmp_path)
    assert len(before.train) == 7 * 12
    assert len(after.train) == 7 * 11


def test_a_column_that_counts_the_rows_is_left_out(tmp_path: Path) -> None:
    lines = [f"{10 + 4 * c + i},{i * i},{n}" for c, n in enumerate("pqr") for i in range(4)]
    data = table(tmp_path, "\n".join(["Id,v,label", *lines]))
    assert data.preprocessing.columns == ("v",)
    assert "1 columns that only count the rows are left out: 'Id'" in data.notes[0]
    data = table(tmp_path, "\n".join(["Id,v,label", *lines]), columns=["Id", "v"])
    assert data.preprocessing.columns == ("Id", "v")
    lines[5] = lines[5].replace("15,", "16,", 1)
    assert table(tmp_path, "\n".join(["Id,v,label", *lines])).preprocessing.columns == ("Id", "v")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Elm", "elm ", "oak", "ash", "fir"), ["'Elm', 'elm' differ in capital letters"]),
        (("red oak", "red  oak", "RED OAK", "ash"), ["'RED OAK', 'red  oak', 'red oak' differ"]),
        (("NaN", "nan", "oak", "ash"), ["'NaN', 'nan' differ", "class 'NaN', 'nan' may mean that"]),
        (("none", "oak", "ash"), ["class 'none' may mean that there is no label"]),
        (("nano", "oak", "ash"), []),
        (("1", "1.0", "01", "2"), ["'01', '1', '1.0' are one number written in different ways"]),
        (("1", "10", "2", "1.1", "1.0.0"), []),
    ],
)
def test_doubtful_names_of_classes_are_said(
    names: tuple[str, ...], said: list[str], tmp_path: Path
) -> None:
    lines = [f"{i}.5,{i * i},{n}" for n in names for i in range(4)]
    notes = table(tmp_path, "\n".join(["u,v,label", *lines])).notes
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))


def test_rows_that_stand_again_in_their_class_are_said(tmp_path: Path) -> None:
    lines = [f"{i}.0,{i * i},{n}" for n in "pqr" for i in range(4)]
    assert table(tmp_path, "\n".join(["u,v,label", *lines])).notes == ()
    data = table(tmp_path, "\n".join(["u,v,label", *lines, "2,4,q", "3,9.0,q"]))
    (note,) = data.notes
    assert "2 rows equal another of the class" in note
    assert "line 8 and" in note
    assert "line 14)" in note


def test_augmentation_there_is_none(tmp_path: Path) -> None:
    dataset = Table(tmp_path, folder=str(write(tmp_path / "table.csv")))
    with pytest.raises(UserError, match=r"columns of numbers, which know none: type \[\]"):
        load_dataset(dataset, cache_root=tmp_path / "cache", augment=["flip"])


# -- what networks expect -----------------------------------------------------------------------


def test_columns_are_matched_by_their_names() -> None:
    wanted = FeaturePreprocessing(("c", "a"), (1.0, 2.0), (2.0, 4.0))
    given = FeaturePreprocessing(("a", "b", "c"), (0.5, 0.0, 3.0), (1.0, 1.0, 0.5))
    raw = torch.tensor([[6.0, 0.0, 5.0], [2.0, 9.0, 1.0]], dtype=torch.float64)
    network = torch.nn.Identity()
    adapt_input(network, given, wanted)
    assert network(given.normalize(raw)).tolist() == [[2.0, 1.0], [0.0, 0.0]]
    with pytest.raises(UserError, match="no column 'b' among the student's"):
        adapt_input(network, wanted, given)
    plain = json.loads(json.dumps(wanted.plain()))
    assert Preprocessing.from_plain(plain) == wanted
    for change in ({"std": [0.0, 1.0]}, {"mean": [1.0]}, {"missing": "x"}, {"kind": "sounds"}):
        with pytest.raises(ValueError, match="not a preprocessing"):
            Preprocessing.from_plain(plain | change)


# -- whole runs ---------------------------------------------------------------------------------

TINY = (
    "pretrain.cache=false",  # another worker's teacher would leave this one untrained
    "dataset=table",
    "student.width=8",
    "teacher.width=16",
    "pretrain.epochs=2",
    "warmstart.epochs=1",
    "meta_train.iterations=6",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "task.ways=2",
    "task.train_ways=3",
    "task.queries=4",
    "task.meta_batch=2",
    "evaluate.tasks=12",
    "evaluate.shots=[]",
    "finetune=default",
    "finetune.epochs=2",
    "tracker=none",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("table")
    path = write(folder / "own.csv")
    metakd.train(*TINY, f"dataset.folder={path}", f"hydra.run.dir={folder / 'run'}")
    return folder / "run", path


@pytest.mark.slow
def test_every_stage(trained: tuple[Path, Path]) -> None:
    run = json.loads((trained[0] / "run.json").read_text())
    results = json.loads((trained[0] / "results.json").read_text())
    assert results["timing"].keys() == {
        *("pretrain_s", "warmstart_s", "meta_train_s", "evaluate_s", "finetune_s")
    }
    assert {*results} > {"student", "student_alone", "teacher", "fidelity", "gains"}
    assert 0.6 < results["student"]["fewshot"]["accuracy"] <= 1.0  # places lie far apart
    assert 0.0 <= results["student"]["target"]["top1"] <= 1.0
    said = run["preprocessing"]["student"]
    assert (said["kind"], said["columns"]) == ("features", [*COLUMNS])
    assert json.loads((trained[0] / "split.json").read_text())["train"]["images"] == [12] * 7


@pytest.mark.slow
def test_evaluated_on_another_table_by_the_runs_own_statistics(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """Columns in another order, more of them, other training rows: the same figure."""
    run, path = trained
    own = metakd.evaluate(str(run))["student"]["fewshot"]["accuracy"]
    test = set(json.loads((run / "split.json").read_text())["test"]["classes"])
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in test]
    header = ["c", "more", "label", "b", "a"]
    for name, columns in (("other.csv", header), ("lacking.csv", header[:4])):
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", delimiter="\t")
            writer.writeheader()
            writer.writerows({"more": "text", **row} for row in rows)
    judge: Callable[..., Any] = metakd.evaluate
    words = ("dataset.options.all_test=true", f"dataset.folder={tmp_path / 'other.csv'}")
    assert judge(str(run), *words)["student"]["fewshot"]["accuracy"] == own
    with pytest.raises(UserError, match="has no column 'a'"):
        judge(str(run), words[0], f"dataset.folder={tmp_path / 'lacking.csv'}")


@pytest.mark.slow
def test_classes_that_were_trained_on_are_refused(trained: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"was trained on .* of the 2 meta-test classes"):
        metakd.evaluate(str(trained[0]), "dataset.split_seed=1")


@pytest.mark.slow
def test_resumed_to_the_same_figures(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = trained
    words = [*TINY, f"dataset.folder={path}", f"hydra.run.dir={tmp_path / 'run'}"]
    made, update = 0, Training.update

    def killed(self: Any, *given: Any) -> Any:
        nonlocal made
        made += 1
        if made == 15:
            raise KeyboardInterrupt
        return update(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            metakd.train(*words, "checkpoint_steps=2", "student_alone_cache=false")
    found = metakd.resume(tmp_path / "run")
    expected = json.loads((whole / "results.json").read_text())
    for model in ("student", "student_alone"):
        assert found[model]["fewshot"] == expected[model]["fewshot"]
        assert found[model]["target"] == expected[model]["target"]


@pytest.mark.slow
def test_used_from_python_and_from_the_command_line(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "klm"
    shown = [row for name in names for row in rows_of(name, 12)[:4]]
    asked = [row for name in names for row in rows_of(name, 12)[4:]]
    model: Any = metakd.load(trained[0]).fit(np.array(shown), np.repeat(list(names), 4))
    found = list(model.predict(np.array(asked)))
    model.save(tmp_path / "saved")
    again: Any = metakd.load(tmp_path / "saved")
    assert list(again.predict(asked)) == found
    assert list(again.predict(asked[0])) == found[:1]
    with pytest.raises(UserError, match=r"shape \[1, 2\]; expected \[n, 3\], the columns a, b, c"):
        model.predict([asked[0][:2]])
    with pytest.raises(UserError, match="not all of them are finite"):
        model.predict([[1.0, float("nan"), 2.0]])
    for file, rows in (("shown.csv", shown), ("asked.csv", asked)):
        with open(tmp_path / file, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["label", "c", "b", "a"])
            each = len(rows) // 3
            writer.writerows([names[i // each], c, b, a] for i, (a, b, c) in enumerate(rows))
    words = [str(trained[0]), "--examples", str(tmp_path / "shown.csv")]
    assert predict([*words, str(tmp_path / "asked.csv"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["class"] for one in said["predictions"]] == found
    truth = [name for name in names for _ in range(8)]
    right = np.mean(np.array(found) == np.array(truth))
    assert said["accuracy"] == pytest.approx(right)
    assert said["predictions"][0]["file"].endswith("asked.csv:2")
    with pytest.raises(UserError, match="is not there"):
        predict([*words, str(tmp_path / "none.csv")])


@pytest.mark.slow
@pytest.mark.parametrize("word", ["student=conv4", "teacher=resnet12", "student=torchvision"])
def test_networks_for_pictures_are_refused(word: str, tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv")
    with pytest.raises(UserError, match="not examples of shape") as error:
        metakd.train(*TINY, f"dataset.folder={path}", word, f"hydra.run.dir={tmp_path / 'run'}")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["maml", "reptile", "supervised", "ridge"])
def test_other_algorithms(algorithm: str, trained: tuple[Path, Path], tmp_path: Path) -> None:
    results = metakd.train(
        *TINY,
        f"dataset.folder={trained[1]}",
        f"algorithm={algorithm}",
        "task.train_ways=2",
        "distill=none",
        "warmstart=none",
        "finetune=none",
        "meta_train.iterations=2",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert 0.0 <= results["student"]["fewshot"]["accuracy"] <= 1.0


@pytest.mark.slow
def test_the_page_says_what_to_type(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/adding.md, with tiny settings beside."""
    page = Path(__file__).resolve().parents[2] / "docs" / "adding.md"
    section = page.read_text(encoding="utf-8").partition("### A table of your own")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["train", "evaluate", "predict"]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "leaves.csv")
    write(tmp_path / "more_leaves.csv", "klm")
    write(tmp_path / "shown.csv", "kl", 3)
    write(tmp_path / "asked.csv", "kl", 5)
    own = [word for word in TINY if word.partition("=")[0] not in ("dataset", "task.ways")]
    own.remove("task.train_ways=3")
    for words in commands:
        typed = [str(trained[0]) if word == "RUN" else word for word in words]
        if words[0] == "train":
            typed += [*own, f"hydra.run.dir={tmp_path / 'run'}"]
        assert main(typed) == 0
