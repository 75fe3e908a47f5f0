"""The own view of a teacher from elsewhere: of which data, its embeddings cached where."""

from __future__ import annotations

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.class_source import source_fingerprint
from metakd.config.schema import LEARNED_MODES
from metakd.data.cache import content_checksum
from metakd.data.class_data import ClassData
from metakd.data.preprocessing import Preprocessing
from metakd.data.splits import SPLITS
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline.prepared import Prepared
from metakd.registry import resolve
from metakd.stages.recorder import Recorder
from metakd.stages.teacher_view import CachedTeacherView

__all__ = ["embedded_by", "reads_larger", "shown_to_teacher", "small_pictures", "view_of_teacher"]


def view_of_teacher(
    prepared: Prepared, network: Network, recorder: Recorder
) -> CachedTeacherView | None:
    """Return the own view of a teacher from elsewhere; None for any other teacher.

    Args:
        prepared: the run.
        network: the teacher, which no longer changes.
        recorder: where lines and progress go.
    """
    config, expects = prepared.config, prepared.teacher_input
    if not config.teacher.supports.outside or expects is None:
        return None
    data = prepared.class_data
    cls = resolve(config.teacher._target_, "metakd.models", config.plugins)
    content = {
        "class": config.teacher._target_,
        "model": config.teacher.model,
        "source": source_fingerprint(cls),
        "weights": content_checksum(network.backbone.state_dict(), {}),
        "expects": expects.plain(),
        "given": data.preprocessing.plain(),
        "reads_again": _read_again(prepared) is not None,
        "data": data.checksum,
        "left_out": data is not prepared.everything,  # which the checksum does not tell
        "augment": list(data.augment),
        "precision": prepared.precision.name,
    }
    folder = prepared.cache_root / "embeddings"
    return CachedTeacherView(
        lambda: shown_to_teacher(prepared), content, folder, recorder, prepared.device
    )


def embedded_by(
    prepared: Prepared, teacher: Network | Algorithm, recorder: Recorder
) -> FrozenTeacher | None:
    """Return what embeds for a finished run's teacher that has its own view of the examples.

    None for one that is given what the student is given.
    """
    if not isinstance(teacher, Network):
        return None
    teacher_view = view_of_teacher(prepared, teacher, recorder)
    if teacher_view is None:
        return None
    return FrozenTeacher(
        teacher, prepared.class_data, autocast=prepared.precision.dtype, teacher_view=teacher_view
    )


def reads_larger(prepared: Prepared) -> bool:
    """Tell whether picture files are read again, larger, for a teacher from elsewhere."""
    outside = prepared.config.teacher.supports.outside and prepared.teacher_input is not None
    return outside and _read_again(prepared) is not None


def small_pictures(prepared: Prepared) -> str | None:
    """Return a line where such a teacher is given the student's smaller pictures all the same."""
    if not reads_larger(prepared):
        return None
    data, mode = prepared.class_data, prepared.config.distill.teacher_mode
    if mode in LEARNED_MODES:
        where, instead = "beside the student", "distill.teacher_mode=auto"
    elif data.augment and data.views == 0:
        where, instead = "where training pictures are changed afresh", "dataset.views=4"
    elif prepared.config.warmstart.mixup:
        where, instead = "where pictures are mixed", "warmstart.mixup=0"
    elif prepared.config.meta_train.mixup:
        where, instead = "where pictures are mixed", "meta_train.mixup=0"
    else:
        return None
    return (
        f"teacher: {where} it is given the student's pictures of "
        f"{data.preprocessing.image_size()} pixels, scaled; for files read at its own size type "
        f"{instead}"
    )


def shown_to_teacher(prepared: Prepared) -> ClassData:
    """Return the data whose examples are as the teacher expects them, in the student's views.

    Pictures whose files may be larger than the student is given them are read again, at the
    teacher's size; others are scaled.

    Raises:
        UserError: there is too little memory, or the files have changed.
    """
    expects, data = prepared.teacher_input, prepared.class_data
    assert expects is not None
    wanted = _read_again(prepared)
    if wanted is None or prepared.read_again is None:
        return data.shown_to(expects)
    size = wanted.image_size()
    try:
        whole = prepared.read_again(wanted)
    except UserError as error:
        raise UserError(
            f"pictures at {size} pixels for the teacher: {error}; type "
            "teacher.options.image_size=NUMBER for smaller ones"
        ) from error
    if data is not prepared.everything:
        whole = whole.without_held_out()
    for split in SPLITS:
        gone = {*whole.split(split).class_names} - {*data.split(split).class_names}
        if gone:
            whole = whole.without_classes(split, gone)
        if not torch.equal(whole.split(split).labels, data.split(split).labels):
            raise UserError(
                f"dataset {data.name}: the files read for the teacher at {size} pixels are not "
                "those that the student is given: start the run again"
            )
    return whole.shown_to(expects)


def _read_again(prepared: Prepared) -> Preprocessing | None:
    """Return how the teacher's pictures are read, where that is larger than the student's."""
    data, expects = prepared.class_data, prepared.teacher_input
    assert expects is not None
    wanted, size = expects.uncut(), data.preprocessing.image_size()
    own = wanted.image_size()
    larger = own is not None and size is not None and own > size
    return wanted if larger and prepared.read_again is not None else None
