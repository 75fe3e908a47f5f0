"""From a config to the things a run works on; whatever can be refused is refused here.

Nothing is written: the run's folder is made only after this has succeeded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import methodcaller

import torch
from torch import nn

from metakd.adaptation.host_memory import keep_freed_memory
from metakd.config.checks import (
    check,
    outside_lines,
    uses_teacher,
)
from metakd.config.compose import Composed
from metakd.config.schema import Config
from metakd.config.unused import idle_without_logits, unused_settings
from metakd.config.whole import check_kept
from metakd.data.counter_random import stream_key
from metakd.data.load import cache_root_from
from metakd.data.preprocessing import Preprocessing
from metakd.data.splits import SPLITS
from metakd.errors import UserError
from metakd.models.ensemble import Ensemble
from metakd.models.input_adapter import adapt_input
from metakd.models.layout import lay_out_channels_last
from metakd.models.network import Network
from metakd.models.weights import fill
from metakd.models.weights_file import WeightsFile
from metakd.pipeline.compression_choice import check_choice
from metakd.pipeline.compression_plan import check_compression
from metakd.pipeline.construction import (
    build_backbone,
    check_options,
    choices_use,
    dealt_out,
    load_data,
    reader_again,
)
from metakd.pipeline.device import choose_device
from metakd.pipeline.groups import check_groups
from metakd.pipeline.ingredients import check_ingredients
from metakd.pipeline.inputs import (
    Known,
    build_regressor,
    build_teacher,
    check_reader,
    checkpoint_of,
    checkpoints_of_teacher,
    expected_by,
    reading_of,
    without_card,
)
from metakd.pipeline.judging import check_judging
from metakd.pipeline.learned import check_learned
from metakd.pipeline.loss import idle_options, needs_of_loss
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.seen import change_both, without_learned
from metakd.pipeline.task_sizes import check_sampling, check_tasks, fit_queries
from metakd.pipeline.try_out import try_out
from metakd.pipeline.unlabelled import check_contrast, read_unlabelled
from metakd.pipeline.whole import with_epochs
from metakd.stages.precision import choose_precision

__all__ = ["NOTHING_KNOWN", "prepare"]

NOTHING_KNOWN = Known()


def prepare(composed: Composed, known: Known = NOTHING_KNOWN) -> Prepared:
    """Check the config, load the data, build the networks, read the checkpoints.

    Args:
        composed: the config and how it was typed.
        known: of a run that is taken up again, what it recorded.

    Raises:
        UserError: anything that the user gave and that cannot be used.
    """
    config = composed.config
    check(config)
    if not known.evaluating:
        check_kept(config)
    check_options(config)
    needs = needs_of_loss(config)
    device = choose_device(config.device)
    if config.deterministic:
        # Without it cuBLAS refuses to be deterministic; read at its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # As `torch.use_deterministic_algorithms` does, which imports the compiler, too: 2 s.
    torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
    # What is called float32 is computed in float32; bfloat16 is there for speed.
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    precision = choose_precision(config.precision, device)
    used = choices_use(config)
    warnings = [
        *composed.warnings,
        *unused_settings(composed.typed, used),
        *idle_without_logits(config, composed.typed, needs, used["distill"]),
        *idle_options(config, composed.typed),
    ]
    if not known.evaluating:
        warnings += outside_lines(config)
    cache_root = cache_root_from(config.cache_root)

    student_file = checkpoint_of(config.student, "student")
    student_card = None if student_file is None else student_file.card
    expected = known.student
    if expected is None and student_card is not None:
        expected = student_card.preprocessing
    wants_teacher = uses_teacher(config) and not known.evaluating
    teacher_files = checkpoints_of_teacher(config.teacher) if wants_teacher else []
    teacher_file = teacher_files[0] if teacher_files else None
    everything = data = load_data(
        composed,
        cache_root,
        device,
        expected,
        known.split,
        reading_of(teacher_file),
        sized=known.sized,
        # Without a card, mean and deviation come from the meta-train classes.
        may_lack={*SPLITS} - {config.evaluate.part} if known.evaluating and expected else (),
    )
    warnings += everything.notes
    tuned = config.finetune.enabled and config.finetune.target == "all"
    if data.has_classes and (tuned or known.held_out):
        # The target's test images must not be seen by any earlier stage.
        data = data.without_held_out()

    seed = _student_seed(config)
    student = build_backbone(config.student, data.example_shape, config.plugins, seed)
    check_reader("student", config.student, student, data, expected)
    if not getattr(student, "trainable", True):
        raise UserError(
            f"student={config.student.name}: nothing of it can be trained; type student=conv4"
        )
    if student_file is not None:
        fill(student, student_file)
    if data.has_classes and everything.has_classes and expected is None:
        # Weights from elsewhere that are no checkpoint of ours may say what they expect.
        expects = expected_by(student, None, data, cache_root)
        everything, data = change_both(everything, data, methodcaller("seen_as", expects))
    silent = student_card is None and getattr(student, "expected_statistics", None) is None
    if student_file is not None and silent and data.has_classes:
        warnings.append(without_card(student_file.source, data.preprocessing))
    if data.has_classes:
        composed = with_epochs(composed, data)
        if not config.task.whole:
            composed, fitted = fit_queries(composed, data, needs, evaluating=known.evaluating)
            warnings += fitted
            if known is NOTHING_KNOWN:  # an older run keeps it, with the same tasks as `uniform`
                check_sampling(composed.config, data)
            check_tasks(composed.config, data, needs, evaluating=known.evaluating)
        config = composed.config
    lay_out_channels_last(student)
    dealt = dealt_out(everything)
    prepared = Prepared(
        composed=composed,
        config=config,
        device=device,
        precision=precision,
        data=data,
        everything=everything,
        cache_root=cache_root,
        student=student.to(device),
        teacher=None,
        needs=needs,
        teacher_is_trained=_is_trained(config, teacher_file),
        student_card=student_card,
        own_card=known.trained,
        teacher_input=known.teacher,
        read_again=reader_again(composed, dealt, cache_root, device),
        dealt=dealt,
        warnings=warnings,
    )
    if wants_teacher and not data.has_classes:
        prepared.teacher = build_regressor(config, data, teacher_file).to(device)
        both = (prepared.teacher.backbone, student)
        large, small = (sum(p.numel() for p in network.parameters()) for network in both)
        if config.distill.supports.uses_teacher and large <= small:
            warnings.append(
                f"the teacher ({large} parameters) is no larger than the student ({small}); type "
                "teacher=mlp_wide, or student.widths=[16]"
            )
    elif wants_teacher and data.has_classes:
        _add_teacher(prepared, teacher_files, known.teacher)
    _carry(prepared)
    check_judging(prepared)
    if not known.evaluating:
        _leave_out_learned(prepared)
        try_out(prepared)
        check_contrast(prepared)
        check_ingredients(prepared)
        check_groups(prepared)
        check_learned(prepared)
        read_unlabelled(prepared)
        check_compression(prepared)
        check_choice(prepared)
    return prepared


def _add_teacher(
    prepared: Prepared, files: Sequence[WeightsFile], known: Preprocessing | None
) -> None:
    """Build the teacher: one network, or several as one."""
    config, data, device = prepared.config, prepared.class_data, prepared.device
    built = [
        build_teacher(config, data, known, prepared.needs, file, prepared.cache_root)
        for file in files or (None,)
    ]
    first = built[0]
    for other, file in zip(built, files, strict=False):
        if other.expects != first.expects or other.classes != first.classes:
            raise UserError(
                f"{file.source}: it was trained on other classes than {files[0].source}, or reads "
                "other pictures; an ensemble's networks share them: leave it out"
            )
    prepared.teacher = first.network.to(device)
    prepared.teacher_cards = tuple(b.card for b in built)
    prepared.teacher_input, prepared.teacher_classes = first.expects, first.classes
    prepared.warnings += list(dict.fromkeys(line for b in built for line in b.lines))
    if config.teacher.seeds:
        backbone: nn.Module = prepared.backbone_of_teacher()
    elif len(built) > 1:
        prepared.teacher_members = tuple(b.network.to(device) for b in built)
        backbone = Ensemble([member.backbone for member in prepared.teacher_members])
    else:
        return
    prepared.teacher = Network(backbone, prepared.teacher.head.out_features).to(device)


def _carry(prepared: Prepared) -> None:
    """Let examples hold what the teacher reads, too, where that is not what the student reads."""
    data, everything, wanted = prepared.data, prepared.everything, prepared.teacher_input
    if wanted is None or not (data.has_classes and everything.has_classes):
        return
    own = data.preprocessing
    carrying = methodcaller("carrying", wanted)
    prepared.everything, prepared.data = change_both(everything, data, carrying)
    adapt_input(prepared.student, prepared.data.preprocessing, own)


def _leave_out_learned(prepared: Prepared) -> None:
    """Make sure that the evaluation classes are new to the checkpoints (`metakd.pipeline.seen`)."""
    config = prepared.config
    cards = {
        f"student.checkpoint={config.student.checkpoint}": prepared.student_card,
        **dict(zip(_teacher_checkpoints(config), prepared.teacher_cards, strict=False)),
        "this run, before it was resumed,": prepared.own_card,
    }
    for whose, card in cards.items():
        everything, data = prepared.everything, prepared.data
        if card is None or not data.has_classes:
            continue
        assert everything.has_classes
        prepared.everything, prepared.data, lines = without_learned(
            everything, data, card, config, whose
        )
        prepared.warnings += lines


def _teacher_checkpoints(config: Config) -> list[str]:
    """Return what names each of the teacher's checkpoints in messages."""
    teacher = config.teacher
    further = [f"teacher.further_checkpoints={file}" for file in teacher.further_checkpoints]
    return [f"teacher.checkpoint={teacher.checkpoint}", *further]


def _is_trained(config: Config, file: WeightsFile | None) -> bool:
    """Tell whether the teacher is taken as it is: from a checkpoint, or from elsewhere."""
    teacher, tuned = config.teacher, config.pretrain.enabled
    if teacher.supports.outside and (file is None or file.card is None):
        return not tuned and (teacher.pretrained or teacher.checkpoint is not None)
    return teacher.checkpoint is not None or (teacher.pretrained and not tuned)


def _student_seed(config: Config) -> int:
    """Return the seed of the student's initial weights.

    With the seed of the teacher, or of one of several, the two networks would begin with the same
    random numbers, and with equal architectures as the same network: the student then draws from
    another stream.
    """
    seed = config.seed if config.student.seed is None else config.student.seed
    taken = {config.teacher.seed or 0, *config.teacher.seeds}
    return stream_key(seed, "student") if seed in taken else seed
