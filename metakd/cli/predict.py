"""`metakd predict RUN_OR_BUNDLE --examples FOLDER …`: learn classes, classify images."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.cli.parser import Parser, look_here_for
from metakd.errors import UserError, nearest

if TYPE_CHECKING:
    from metakd.using.classifier import FewShotClassifier
    from metakd.using.naming import Naming

__all__ = ["predict_parser", "run"]

MODELS = ("student", "compressed", "student_alone", "teacher")
WIDEST = 12
"""Most classes for which a confusion matrix is printed."""

HELP = """\
usage: metakd predict RUN_OR_BUNDLE --examples FOLDER IMAGE_OR_FOLDER ... [OPTIONS]
       metakd predict RUN_OR_BUNDLE --examples TABLE TABLE ... [OPTIONS]

Adapts a run's student to the images in FOLDER, which holds a folder of examples for each class, and
classifies other images: one line each with the class, its probability and the runner-up. The data
that the run was trained on is not needed. If the classified folder has class folders, too, it
prints accuracy with Wilson's 95 % interval over the images, accuracy per class, and the confusion
matrix.

A run on a table (dataset=table) takes tables (CSV or .npz) instead: examples with the column of
classes, and rows to classify; columns are matched by name. A run on texts takes tables with a
column of texts (CSV, TSV, JSONL), or folders with a file for each class and a text in each line.

Instead of a run, name a folder that save(...) or metakd export wrote; one that was saved with its
classes needs no --examples, nor does a run on a whole dataset (task=classes), which knows the
classes it was trained for.

examples:
  metakd predict outputs/NAME/DATE_TIME --examples trees/few trees/new
  metakd predict RUN --examples trees/few a.jpg b.jpg --unknown 0.05 --json > answers.json
  metakd predict trees_student trees/new --csv answers.csv --figure confusion.png

options:
  --examples FOLDER    a folder for each class, with one or more images
  --unknown RATE       mark images that look like none of the classes, at this false-alarm rate
                       (the threshold was chosen on meta-validation)
  --json               print only JSON
  --csv FILE           also write a row for each image
  --figure FILE        draw the confusion matrix (PNG)
  --save FOLDER        save the adapted student; see docs/using.md
  --which MODEL        student (default), compressed, student_alone, teacher
  --device DEVICE      auto (default), cpu, cuda, cuda:1, mps
  --batch-size N       images per batch (256)
  --plugins M[,M ...]  modules of your own that the run used

Exit status: 0; 2 if an image cannot be read (the others are classified all the same), an example
cannot be read (nothing is), or an argument is invalid."""


def predict_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("predict", HELP)
    parser.add_argument("words", nargs="*")
    for name in ("examples", "unknown", "csv", "figure", "save"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--which", default="student")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", default="256")
    parser.add_argument("--plugins", default="")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Classify images."""
    asked = predict_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if not asked.words:
        raise UserError(
            "predict: which run? metakd predict RUN --examples FOLDER IMAGE_OR_FOLDER ..."
        )
    source, *paths = (Path(word).expanduser() for word in asked.words)
    if not source.is_dir():
        raise UserError(f"{source}: there is no such run or saved learner")
    if not paths and asked.save is None:
        raise UserError("predict: which images? name files or folders")
    if asked.which not in MODELS:
        hint = nearest(asked.which, MODELS)
        raise UserError(f"--which {asked.which}: expected {', '.join(MODELS)}.{hint}")
    unknown = rate_of(asked.unknown)
    size = asked.batch_size
    if not size.isdecimal() or int(size) < 1:
        raise UserError(f"--batch-size {size}: expected a whole number, at least 1")
    plugins = [word for word in asked.plugins.split(",") if word]
    look_here_for(plugins)
    import metakd
    from metakd.using.classifier import FewShotClassifier
    from metakd.using.given import asked_of, examples_of, unused_of
    from metakd.using.naming import learn_examples, name_pictures

    model = metakd.load(
        source,
        asked.which,
        device=asked.device,
        batch_size=int(size),
        plugins=plugins,
    )
    if not isinstance(model, FewShotClassifier):
        raise UserError(f"{source}: it was trained for regression and cannot classify")
    pictures = asked_of(model, paths)
    place = None if asked.examples is None else Path(asked.examples)
    examples = None if place is None else examples_of(model, place)
    for line in unused_of(model, place, paths):
        _note(line)
    if examples is not None:
        learn_examples(model, examples)
        shown = {p.resolve() for each in examples.values() for p in each if isinstance(p, Path)}
        again = sum(picture.path.resolve() in shown for picture in pictures)
        if again:
            _note(f"{again} of the images to classify are among the examples")
    elif not hasattr(model, "classes_"):
        raise UserError("predict: which classes? give --examples FOLDER, a folder for each class")
    if asked.save is not None:
        model.save(asked.save)
    if not pictures:
        return 0
    if unknown is not None:
        _note_other_tasks(model)
    naming = name_pictures(model, pictures, unknown)
    for one in naming.unreadable:
        print(f"metakd: {one.reason}", file=sys.stderr)
    if asked.csv is not None:
        _write(Path(asked.csv).expanduser(), _table(naming))
    if asked.figure is not None:
        _draw(naming, Path(asked.figure).expanduser())
    if asked.json:
        sys.stdout.write(naming.record().text())
    else:
        print("\n".join([*_lines(naming), *_summary(naming)]))
    return 2 if naming.unreadable else 0


def rate_of(text: str | None) -> float | None:
    """Return the rate in `--unknown`.

    Raises:
        UserError: it is not a number between 0 and 1.
    """
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 < rate < 1.0:
        raise UserError(
            f"--unknown {text}: expected a false-alarm rate between 0 and 1, such as 0.05"
        )
    return rate


def _note(text: str) -> None:
    print(f"metakd: {text}", file=sys.stderr)


def _note_other_tasks(model: FewShotClassifier) -> None:
    """Print a note if the threshold was chosen on tasks of another size."""
    calibration, shown = model.trained.calibration, model.examples_of_a_class
    if calibration is None:
        return
    if not shown:  # the classes of its own head
        return
    fewest, most = min(shown), max(shown)
    if (calibration.ways, calibration.shots, calibration.shots) != (len(shown), fewest, most):
        number = str(fewest) if fewest == most else f"{fewest} to {most}"
        _note(
            f"the threshold of --unknown was chosen on tasks of {calibration.ways} classes and "
            f"{calibration.shots} shots; here are {len(shown)} classes and {number} shots, so the "
            "false-alarm rate may differ"
        )


def _lines(naming: Naming) -> list[str]:
    from metakd.data.class_names import class_name

    files = [class_name(p.file) for p in naming.predictions]  # a line each, whatever is in a name
    width = max(map(len, files), default=0)
    name = max((len(p.name) for p in naming.predictions), default=0)
    lines = []
    for p, file in zip(naming.predictions, files, strict=True):
        line = f"{file:<{width}}  {p.name:<{name}}  {100 * p.probability:5.1f} %"
        if p.second is not None and p.second_probability is not None:
            line += f"   then {p.second} {100 * p.second_probability:.1f} %"
        lines.append(line + ("   unknown" if p.unknown else ""))
    return lines


def _summary(naming: Naming) -> list[str]:
    found = naming.record()
    lines: list[str] = []
    if found.accuracy is not None:
        low, high = (100 * end for end in found.interval or ())
        lines = [
            "",
            f"accuracy {100 * found.accuracy:.1f} % of {found.files} {naming.what} "
            f"(95 % interval {low:.1f} to {high:.1f}, Wilson)",
        ]
        width = max(len(name) for name in naming.classes)
        lines += [
            f"  {name:<{width}}  {100 * each.accuracy:5.1f} % of {each.files}"
            for name, each in (found.per_class or {}).items()
        ]
        lines += _confusion(naming)
        if (alarms := found.false_alarms) is not None:
            lines.append(f"marked unknown: {100 * alarms:.1f} % of these {naming.what}")
    if (of := found.strangers) is not None:
        lines.append(
            f"{of.files} {naming.what} of other classes"
            + ("" if of.unknown is None else f": {100 * of.unknown:.1f} % of them marked unknown")
        )
    return lines


def _confusion(naming: Naming) -> list[str]:
    if len(naming.classes) > WIDEST:
        return [f"  (confusion matrix of {len(naming.classes)} classes: see --json or --figure)"]
    table = [[str(n) for n in row] for row in naming.confusion()]
    head = [str(i + 1) for i in range(len(naming.classes))]
    column = max(len(cell) for row in [*table, head] for cell in row) + 2
    width = max(len(name) for name in naming.classes) + len(head[-1]) + 1
    lines = ["", f"{'true, predicted:':<{width}}" + "".join(f"{h:>{column}}" for h in head)]
    for number, name, row in zip(head, naming.classes, table, strict=True):
        lines.append(f"{number + ' ' + name:<{width}}" + "".join(f"{n:>{column}}" for n in row))
    return lines


def _table(naming: Naming) -> str:
    from metakd.using.naming import COLUMNS

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(naming.rows())
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror or error})") from error


def _draw(naming: Naming, path: Path) -> None:
    if naming.record().confusion is None:
        raise UserError("--figure: nothing to draw: no image is in a folder of its class")
    from metakd.reports.confusion import confusion_figure

    try:
        confusion_figure(naming.confusion(), naming.classes, path, "metakd predict")
    except (OSError, ValueError) as error:  # an ending that matplotlib does not know
        raise UserError(f"'{path}' cannot be written ({error})") from error
