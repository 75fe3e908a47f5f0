"""What a run records of its networks' input and classes, and takes up again from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metakd.config.compose import Composed
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.network import Network
from metakd.models.weights_file import read_weights
from metakd.pipeline.construction import own_folder
from metakd.pipeline.inputs import Known
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.seen import overlap
from metakd.runs.checkpoints import load_state, load_weights, save_weights
from metakd.runs.folder import RunFolder
from metakd.runs.records_run import RunInfo
from metakd.runs.split import read_split, split_text, write_split

__all__ = [
    "card_of_run",
    "card_so_far",
    "inputs_of",
    "known_of",
    "other_data",
    "record_data",
    "seen_examples",
    "student_card",
    "teacher_card",
    "tuned_card",
]

MARKS = ("pictures", "examples")
"""Files of marks: of pictures, and of examples of any other kind."""
OTHER_DATA = ("dataset", "dataset.folder", "dataset.splits", "dataset.split_seed")
"""Settings with which a run's own split of the classes is not asked for."""


def student_card(prepared: Prepared, *, alone: bool = False) -> Card:
    """Return the card of a run's student, or of its twin that learns `alone`."""
    data, config = prepared.data, prepared.config
    if not data.has_classes:
        return Card(None, data.name)
    earlier = [prepared.own_card, prepared.student_card]
    if not alone and (config.distill.supports.uses_teacher or config.algorithm.supports.teaches):
        earlier += prepared.teacher_cards  # what the teacher knows is passed on
    classes = (
        data.split("train").class_names if config.algorithm.supports.trains_on == "batches" else ()
    )
    return _card(prepared, data.preprocessing, classes, earlier)


def teacher_card(prepared: Prepared, teacher: nn.Module) -> Card:
    """Return the card of a run's teacher: a network, or a learner that adapts."""
    if not prepared.data.has_classes:
        return Card(None, prepared.data.name)
    classes = prepared.teacher_classes if isinstance(teacher, Network) else ()
    earlier = [prepared.own_card, *prepared.teacher_cards]
    return _card(prepared, prepared.teacher_input, classes, earlier)


def tuned_card(prepared: Prepared, classes: tuple[str, ...]) -> Card:
    """Return the card of a student that was fine-tuned on `classes`."""
    data = prepared.class_data
    earlier = [prepared.own_card, prepared.student_card, *prepared.teacher_cards]
    return _card(prepared, data.preprocessing, classes, earlier, classes)


def _card(
    prepared: Prepared,
    preprocessing: Preprocessing | None,
    classes: tuple[str, ...],
    earlier: Sequence[Card | None],
    tuned: Sequence[str] = (),
) -> Card:
    """Return a card.

    Args:
        prepared: what the network was trained on.
        preprocessing: what it expects of its input.
        classes: of its head's outputs.
        earlier: cards of the networks that it learned from.
        tuned: classes that it was trained on beside meta-train's.
    """
    cards, data = [card for card in earlier if card is not None], prepared.class_data
    test = data.split("test")
    # Of these it has seen more than other pictures of a dataset that is split by images.
    learned = {*tuned, *(name for card in cards for name in overlap(data, "test", card).names)}
    trained = {*data.split("train").class_names, *tuned, *(n for c in cards for n in c.trained_on)}
    return Card(
        preprocessing,
        data.name,
        own_folder(prepared.config),
        classes=classes,
        trained_on=tuple(sorted(trained)),
        chosen_on=data.split("validate").class_names,
        tested_on=tuple(name for name in test.class_names if name not in learned),
    )


def inputs_of(prepared: Prepared) -> dict[str, Any]:
    """Return {"preprocessing": …} of run.json; empty for data that is no images."""
    data = prepared.data
    if not data.has_classes:
        return {}
    found = {"student": data.preprocessing.plain()}
    if prepared.teacher_input is not None:
        found["teacher"] = prepared.teacher_input.plain()
    return {"preprocessing": found}


def record_data(prepared: Prepared, folder: RunFolder) -> None:
    """Write a run's split.json, and marks of the examples that it learns from."""
    data, everything = prepared.data, prepared.everything
    if not data.has_classes or not everything.has_classes:
        return
    write_split(folder.path, split_text(data.name, prepared.dealt))
    marks = {split: data.marks(data.split(split).examples) for split in ("train", "validate")}
    save_weights(folder.checkpoints, MARKS[not data.has_pictures], marks)


def seen_examples(run: RunFolder) -> Mapping[str, Tensor]:
    """Return by split the marks of the examples that a run used; empty: not recorded."""
    for name in MARKS:
        if (run.checkpoints / f"{name}.safetensors").exists():
            return load_weights(run.checkpoints, name)
    return {}


def other_data(info: RunInfo, prepared: Prepared) -> tuple[str, str] | None:
    """Return the checksums, then and now, of data that is not what a run began with."""
    for then, now in (
        (info.data_checksum, prepared.data.checksum),
        (info.unlabelled_checksum, prepared.unlabelled_checksum),
    ):
        if then is not None and then != now:
            return then[:12], str(now)[:12]
    return None


def card_of_run(run: RunFolder, name: str) -> Card | None:
    """Return the card of one of a run's models; None: it has none, or there is no such model."""
    file = run.checkpoints / f"{name}.safetensors"
    return read_weights(file).card if file.exists() else None


def card_so_far(run: RunFolder) -> Card | None:
    """Return what the states of an unfinished run say that it has learned from; None: nothing."""
    for path in sorted(run.checkpoints.glob("*.pt"), key=lambda file: file.stem != "last"):
        state = load_state(run.checkpoints, path.stem)
        try:
            card = None if state is None else Card.from_header(state)
        except ValueError:
            card = None
        if card is not None:
            return card
    return None


def known_of(run: RunFolder, info: RunInfo, composed: Composed, *, moved: bool = True) -> Known:
    """Return what a run that is taken up again recorded of its input and its split.

    Args:
        run: its folder.
        info: its run.json.
        composed: its configuration, with what was typed now.
        moved: a folder that is typed now is the run's own one in another place.

    Raises:
        UserError: it is damaged.
    """
    recorded = info.content.get("preprocessing", {})
    found: dict[str, Preprocessing | None] = {}
    for name in ("student", "teacher"):
        plain = recorded.get(name)
        try:
            found[name] = None if plain is None else Preprocessing.from_plain(plain)
        except ValueError as error:
            file = Path(run.path, "run.json")
            raise UserError(f"'{file}' cannot be read: preprocessing: {error}") from error
    other = composed.typed & {*OTHER_DATA, "dataset.options.all_test"}
    own = not other or (moved and other == {"dataset.folder"})
    split = read_split(run.path) if own else None
    typed = {word.lstrip("+ ").partition("=")[0] for word in run.read_overrides()}
    sized = "dataset.image_size" in typed and "dataset" not in composed.typed
    return Known(student=found["student"], teacher=found["teacher"], split=split, sized=sized)
