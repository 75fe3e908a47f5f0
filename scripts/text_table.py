"""Students of texts with and without a sentence encoder as teacher, and floors: a table.

    python scripts/text_table.py ENCODER --unlabelled unlabelled.txt --output outputs/texts
    python scripts/text_table.py ENCODER --seeds 0 --rows tfidf text_bag
    python scripts/text_table.py ENCODER --words dataset=banking77 dataset.splits=02

ENCODER is the folder of a sentence encoder for `teacher=huggingface`; `unlabelled.txt` is made by
`scripts/unlabelled_texts.py`. All rows are of the same test tasks. Runs that are finished are not
made again, so the table can be made in parts. Figures of the encoder and of its students are with
outside pre-training.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import metakd
from metakd.algorithms.supervised import Supervised
from metakd.data.class_data import ClassData
from metakd.data.texts import unpacked
from metakd.pipeline.prepare import prepare
from metakd.runs.folder import open_run
from metakd.stages.evaluate import EvaluationSetting, evaluate
from metakd.stages.precision import Precision

COMMON = ("tracker=none", "evaluate.shots=[1,5]", "evaluate.tasks=600")
LABELS = ("distill=none", "student=transformer", "student_alone=false")
BAG = (
    "student=text_bag",
    "student.options.buckets=8192",
    "student.options.vector=112",
    "student.width=384",
)
DISTILLED = (
    "algorithm=protonet",
    "distill=embedding",
    "dataset.views=1",
    "warmstart.unlabelled_updates=3000",
    "warmstart.batch_size=192",
    "warmstart.schedule=one_cycle",
    "meta_train.iterations=200",
    "meta_train.validate_every=50",
    "meta_train.lr=1e-3",
)
"""The same for the twin, which has no teacher and so no unlabelled texts."""
ROWS: dict[str, tuple[str, ...]] = {
    "protonet": (*LABELS, "algorithm=protonet", "warmstart=none", "meta_train.iterations=1000"),
    "supervised": (*LABELS, "algorithm=supervised", "warmstart=none", "meta_train.iterations=1000"),
    "maml": (*LABELS, "algorithm=maml", "warmstart=none", "meta_train.iterations=500"),
    "text_bag": (*DISTILLED, *BAG, "warmstart.lr=2e-2"),
    "transformer": (*DISTILLED, "student=transformer", "warmstart.lr=2e-3"),
}
SHORTENED = (
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "warmstart.epochs=0",
    "warmstart.unlabelled_updates=1",
    "task.meta_batch=1",
    "evaluate.tasks=3",
)


def tfidf(texts: Sequence[Sequence[str]], known: Sequence[Sequence[str]]) -> Tensor:
    """Return tf-idf vectors [texts, words] of texts given as words.

    A word's weight is how often it stands in the text times ln((1 + n) / (1 + n_w)) + 1, where n_w
    of the n `known` texts hold it.
    """
    holding = Counter(word for words in known for word in {*words})
    number = {word: i for i, word in enumerate(sorted({w for words in texts for w in words}))}
    rare = {w: math.log((1 + len(known)) / (1 + holding[w])) + 1 for w in number}
    found = torch.zeros(len(texts), len(number))
    for row, words in zip(found, texts, strict=True):
        for word, count in Counter(words).items():
            row[number[word]] = count * rare[word]
    return found


def floor(words: Sequence[str]) -> dict[int, float]:
    """Return by shots the accuracy of the nearest centroid of tf-idf vectors on the test tasks."""
    prepared = prepare(metakd.compose(*words, *LABELS))
    data, config = prepared.class_data, prepared.config
    embeddings = tfidf(words_of(data, "test"), words_of(data, "train"))
    found = {}
    for shots in (1, 5):
        spec, asked = config.task.evaluation(shots), config.evaluate
        setting = EvaluationSetting("test", spec, asked.tasks, asked.seed)
        exact, judge = Precision(None, "cpu"), Supervised(Nothing(), 1)
        measured = evaluate(judge, data, setting, precision=exact, embeddings=embeddings)
        found[shots] = statistics.fmean(measured[0].values)
    return found


class Nothing(nn.Module):
    """A backbone whose embeddings are given from elsewhere."""

    embedding_size = 1


def words_of(data: ClassData, split: str) -> list[list[str]]:
    return [of_text[0].lower().split() for of_text in unpacked(data.split(split).examples)]


def settings(row: str, encoder: Path, unlabelled: Path | None) -> tuple[str, ...]:
    """Return the words of a row's runs."""
    teacher: tuple[str, ...] = ()
    if row in ("text_bag", "transformer"):
        teacher = ("teacher=huggingface", f"teacher.model={encoder}", "teacher.options.length=32")
        teacher += (f"warmstart.unlabelled={unlabelled}",) if unlabelled else ()
    return (*COMMON, *teacher, *ROWS[row])


def finished(folder: Path) -> bool:
    return (folder / "run.json").is_file() and open_run(folder).read_run().status == "finished"


def accuracy(evaluated: Mapping[str, Any], shots: int) -> float:
    """Return a model's accuracy at the headline's steps, by its entry in results.json."""
    steps = evaluated["fewshot"].get("steps")
    for one in evaluated["fewshot_all"]:
        if (one["shots"], one.get("steps")) == (shots, steps):
            return float(one["accuracy"])
    raise ValueError(f"it was not evaluated with {shots} shots")


def line(name: str, model: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Return a line of the table: mean and, of several seeds, deviation over them.

    The time is that of one text of full length at a time.
    """
    cells = [name]
    for shots in (1, 5):
        values = [100 * accuracy(results[model], shots) for results in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.1f}{spread}")
    cost = found[0][model]["cost"]
    cells += [f"{cost['parameters'] / 1e6:.2f}M", f"{cost['bytes'] / 1e6:.1f} MB"]
    cells.append(f"{1000 * cost['latency_ms']:.0f}")
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("encoder", type=Path, help="folder of a sentence encoder")
    parser.add_argument("--unlabelled", type=Path, default=None, help="texts without labels")
    parser.add_argument("--output", type=Path, default=Path("outputs/texts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=["tfidf", *ROWS], choices=["tfidf", *ROWS])
    parser.add_argument("--words", nargs="*", default=["dataset=clinc150"], help="further settings")
    parser.add_argument("--shortened", action="store_true", help="one step of each")
    asked = parser.parse_args(given)
    words = (*asked.words, *(SHORTENED if asked.shortened else ()))
    lines = ["| | 1-shot | 5-shot | parameters | bytes | µs a text |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in asked.rows:
        if row == "tfidf":
            one, five = floor((*COMMON, *words)).values()
            lines.append(f"| tf-idf, nearest centroid | {100 * one:.1f} | {100 * five:.1f} | | | |")
            continue
        found = []
        for seed in asked.seeds:
            folder = asked.output / f"{row}_{seed}"
            if not finished(folder):
                own = settings(row, asked.encoder, asked.unlabelled)
                metakd.train(*own, *words, f"seed={seed}", f"hydra.run.dir={folder}")
            found.append(open_run(folder).read_results().content)
        if "teacher" in found[0]:
            lines.append(line(f"the teacher of {row}", "teacher", found[:1]))
            lines.append(line(f"{row}, distilled", "student", found))
            lines.append(line(f"{row}, its undistilled twin", "student_alone", found))
        else:
            lines.append(line(f"transformer, {row}", "student", found))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
