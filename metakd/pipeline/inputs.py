"""What each network of a run expects of its input, and the networks that checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from metakd.config.checks import teacher_learns
from metakd.config.needs import asks_base_head
from metakd.config.schema import ArchitectureConfig, Config
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.class_head import match_head
from metakd.models.input_adapter import adapt_input
from metakd.models.layout import lay_out_channels_last
from metakd.models.network import Network
from metakd.models.weights import fill
from metakd.models.weights_file import WeightsFile, read_weights
from metakd.pipeline.construction import build_backbone, own_folder, settings_of
from metakd.registry import build, resolve

__all__ = [
    "BuiltTeacher",
    "Known",
    "build_regressor",
    "build_teacher",
    "check_frozen",
    "check_reader",
    "checkpoint_of",
    "checkpoints_of_teacher",
    "expected_by",
    "own_input",
    "reading_of",
    "without_card",
]


@dataclass(frozen=True)
class Known:
    """What is known of a run that is taken up again.

    Attributes:
        student: what its students expect of their input; None: not recorded, or no images.
        teacher: likewise.
        split: its classes by split; None: the dataset's own split.
        sized: pictures are read at the size of its configuration, which was typed, and not at that
            which its student expects.
        trained: what its networks have learned from so far; None: nothing yet, or not recorded.
        evaluating: its models are only evaluated: nothing is trained, no training class is needed.
        held_out: it left out the target's test images, whether or not it is fine-tuned now.
    """

    student: Preprocessing | None = None
    teacher: Preprocessing | None = None
    split: Mapping[str, Sequence[str]] | None = None
    sized: bool = False
    trained: Card | None = None
    evaluating: bool = False
    held_out: bool = False


def checkpoint_of(config: ArchitectureConfig, what: str) -> WeightsFile | None:
    """Read the weights that `student.checkpoint` or `teacher.checkpoint` names; None: none.

    A network that reads its checkpoint itself (`supports.reads_checkpoint`) has none to be put in.

    Raises:
        UserError: as `read_weights`.
    """
    if config.checkpoint is None or config.supports.reads_checkpoint:
        return None
    return read_weights(Path(config.checkpoint), "teacher" if what == "teacher" else "student")


def checkpoints_of_teacher(config: ArchitectureConfig) -> list[WeightsFile]:
    """Read the weights of each of the teacher's networks; empty: they come from nowhere.

    Raises:
        UserError: as `read_weights`.
    """
    first = checkpoint_of(config, "teacher")
    further = [read_weights(Path(file), "teacher") for file in config.further_checkpoints]
    return [] if first is None else [first, *further]


def expected_by(
    backbone: nn.Module, card: Card | None, data: ClassData, cache_root: Path | None = None
) -> Preprocessing:
    """Return what a network expects of its input.

    Args:
        backbone: the network; one with weights from elsewhere may say the mean and deviation
            (attribute `expected_statistics`), one for texts says what it reads (`reads`).
        card: of its checkpoint, if it has one.
        data: what it is given here, as it is where neither of them says anything else.
        cache_root: folder of caches.
    """
    if card is not None and card.preprocessing is not None:
        return card.preprocessing
    if data.asks_readers:
        return data.reading_of(backbone.reads, cache_root)  # type: ignore[arg-type]
    statistics = getattr(backbone, "expected_statistics", None)
    if statistics is None:
        return data.preprocessing
    return data.preprocessing.with_statistics(*statistics)


def check_reader(
    who: str,
    config: ArchitectureConfig,
    backbone: nn.Module,
    data: ClassData | RegressionTasks,
    expects: Preprocessing | None,
) -> None:
    """Refuse a network that cannot read this data.

    Args:
        who: `student` or `teacher`.
        config: what it was built from.
        backbone: the network.
        data: what it would be given.
        expects: what its weights say that they expect, if they say it.

    Raises:
        UserError: texts for a network that reads none, other data for one that does, or weights
            that belong to another way of reading.
    """
    reads, asked = getattr(backbone, "reads", None), data.has_classes and data.asks_readers
    if asked and reads is None:
        raise UserError(
            f"{who}={config.name} reads no texts, and dataset {data.name} holds texts: choose "
            "text_bag, text_cnn or transformer (a network of your own says what it reads)"
        )
    if reads is None:
        return
    if not asked:
        raise UserError(
            f"{who}={config.name} reads texts, and dataset {data.name} holds none: choose another"
        )
    if expects is not None and not expects.learned_from(reads):
        raise UserError(
            f"{who}.checkpoint={config.checkpoint}: its network reads {expects.words()}, and "
            f"{who}={config.name} with these options {reads.words()}: give those of the checkpoint"
        )


def check_frozen(config: Config) -> None:
    """Refuse to train or adapt a teacher of which nothing can be trained.

    Raises:
        UserError: it is asked for.
    """
    for asked, typed in (
        (config.pretrain.enabled, "pretrain=none"),
        (
            teacher_learns(config),
            "distill.teacher_mode=prototype and an algorithm without a teacher",
        ),
    ):
        if asked:
            raise UserError(
                f"teacher={config.teacher.name}: {config.teacher.checkpoint} is run as it is, and "
                f"nothing of it can be trained: type {typed}"
            )


def own_input(config: Config, given: Preprocessing) -> Preprocessing | None:
    """Return what a teacher from elsewhere says that it expects of its input; None: nothing.

    Raises:
        UserError: it cannot be given such examples, or there is no such network.
    """
    teacher = config.teacher
    if not teacher.supports.outside:
        return None
    cls = resolve(teacher._target_, "metakd.models", config.plugins)
    says: Any = getattr(cls, "own_input", None)
    if says is None:
        return None
    found: Preprocessing = build(
        says, given, settings=settings_of(teacher), options=teacher.options
    )
    return found


def without_card(source: str, assumed: Preprocessing) -> str:
    """Return the warning for weights that do not say what their network expects."""
    return (
        f"{source} does not say what its network expects of its input, nor which classes it has "
        f"learned from; assumed: {assumed.words()} (of this dataset's meta-train images), and "
        "none of the meta-test classes"
    )


def reading_of(file: WeightsFile | None) -> Mapping[str, Any] | None:
    """Return the options under which a checkpoint's examples were read, if it says them."""
    known = None if file is None or file.card is None else file.card.preprocessing
    return None if known is None else known.options()


def _read_otherwise(config: Config, data: ClassData, expects: Preprocessing) -> list[str]:
    """Return lines if the teacher has learned from examples that were read in another way."""
    own, options, what = data.preprocessing.options(), config.dataset.options, expects.of
    lines, size, given = list[str](), expects.image_size(), data.preprocessing.image_size()
    if size is not None and given is not None and size < given:
        lines.append(
            f"teacher: it takes {what} of {size} pixels, and those of {given} are reduced for it; "
            f"where smaller ones were enlarged to {given} before, it sees them blurred and answers "
            f"worse: dataset.image_size={size} shows them to both networks as they are"
        )
    wanted = expects.options().items()
    other = [(n, value) for n, value in wanted if n in options and value != own.get(n)]
    if not other:
        return lines
    here = ", ".join(f"dataset.options.{n}={_typed(own.get(n))}" for n, _ in other)
    there = " ".join(f"dataset.options.{n}={_typed(value)}" for n, value in other)
    lines.append(
        f"{what} are read with {here}; the teacher has learned from {what} read with {there}: "
        "type that to read them so for both networks"
    )
    return lines


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower()


def _fill_teacher(
    network: Network,
    file: WeightsFile,
    data: ClassData,
    config: Config,
    needs: frozenset[str],
    folder: str,
) -> tuple[tuple[str, ...], list[str]]:
    """Put a checkpoint's weights into the teacher; its head by the names of its classes.

    Returns:
        the classes of the head's outputs, empty if the head was left out; lines for the user.

    Raises:
        UserError: another architecture; a head is needed and does not know the classes.
    """
    classes = data.split("train").class_names
    same = config.teacher.same_classes
    head = match_head(file, classes, data.name, folder=folder, same=same)
    if head.rows is None:
        if asks_base_head(config, needs):
            raise UserError(
                f"{file.source}: {head.reason}, and distill={config.distill.name} with "
                f"teacher_mode={config.distill.teacher_mode} asks it for them on whole batches or "
                "in episodes; type distill=embedding, distill.teacher_mode=prototype with "
                "warmstart=none, or train the teacher here (teacher.checkpoint=null)"
            )
        fill(network, file, skip_head=True)
        return (), [f"{file.source}: {head.reason}; the head is left out"]
    fill(network, file, head_rows=head.rows)
    lines = [f"{file.source}: assumed: {head.assumed}"] if head.assumed else []
    return classes, lines


@dataclass(frozen=True)
class BuiltTeacher:
    """A teacher at its start.

    Attributes:
        network: backbone and head over the meta-train classes; takes the data's own images.
        expects: what the backbone expects of its input.
        card: what its checkpoint says of itself, if it says anything.
        classes: of the outputs of its head; empty where they are not known.
        lines: for the user.
    """

    network: Network
    expects: Preprocessing
    card: Card | None
    classes: tuple[str, ...]
    lines: list[str]


def build_teacher(
    config: Config,
    data: ClassData,
    known: Preprocessing | None,
    needs: frozenset[str],
    file: WeightsFile | None,
    cache_root: Path,
) -> BuiltTeacher:
    """Build the teacher, with the weights of its checkpoint, if it has one.

    Args:
        config: the run's.
        data: whose images it is given.
        known: what it expects of its input, where a run recorded that.
        needs: what the student's loss reads of its answers.
        file: its checkpoint.
        cache_root: folder of caches.

    Raises:
        UserError: the checkpoint cannot be used, or the network not with this data.
    """
    card = None if file is None else file.card
    expects = card.preprocessing if known is None and card is not None else known
    if expects is None:
        expects = own_input(config, data.preprocessing)
    shape = data.example_shape if expects is None else expects.shape
    seed = config.teacher.seed or 0
    backbone = build_backbone(config.teacher, shape, config.plugins, seed)
    check_reader("teacher", config.teacher, backbone, data, expects)
    classes, lines = data.split("train").class_names, list[str]()
    network = Network(backbone, len(classes))
    outside = config.teacher.supports.outside
    theirs = config.teacher.pretrained and (file is None or (outside and card is None))
    if not getattr(backbone, "trainable", True):
        check_frozen(config)
    if theirs and not config.pretrain.enabled:
        classes = ()  # its own head was over ImageNet's classes; this one is not trained
        if outside and asks_base_head(config, needs):
            raise UserError(
                f"teacher={config.teacher.name}: one that was trained elsewhere has no outputs for "
                f"the meta-train classes, and distill={config.distill.name} asks it for them; type "
                "distill=embedding, warmstart=none distill.teacher_mode=prototype, or "
                "pretrain.epochs=3"
            )
    if file is not None:
        if theirs:  # whatever head the file holds, it is not over these classes
            fill(network, file, skip_head=True)
        else:
            # A run that is taken up again may have had its folder moved.
            folder = own_folder(config) if known is None else ""
            classes, lines = _fill_teacher(network, file, data, config, needs, folder)
        if card is None and getattr(backbone, "expected_statistics", None) is None:
            lines.append(without_card(file.source, data.preprocessing))
    if expects is None:
        expects = expected_by(backbone, card, data, cache_root)
    adapt_input(backbone, data.preprocessing.carrying(expects), expects)
    lines += _read_otherwise(config, data, expects)
    lay_out_channels_last(backbone)
    return BuiltTeacher(network, expects, card, classes, lines)


def build_regressor(config: Config, data: RegressionTasks, file: WeightsFile | None) -> Network:
    """Build the teacher of a regression family, with the weights of its checkpoint, if it has one.

    Raises:
        UserError: the checkpoint is of another architecture, or of other outputs.
    """
    seed = config.teacher.seed or 0
    backbone = build_backbone(config.teacher, data.example_shape, config.plugins, seed)
    network = Network(backbone, data.outputs)
    if file is not None:
        fill(network, file)
    return network
