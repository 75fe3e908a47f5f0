"""Whether a run can start its student without labels, and from which examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metakd.data.texts import TextData
from metakd.data.unlabelled_texts import unlabelled_like
from metakd.errors import UserError

if TYPE_CHECKING:
    from metakd.pipeline.prepare import Prepared

__all__ = ["check_contrast", "read_unlabelled"]


def check_contrast(prepared: Prepared) -> None:
    """Refuse to compare views of an example that are all the same."""
    stage, data = prepared.config.warmstart, prepared.data
    if stage.enabled and stage.contrast_updates and data.has_classes and not data.augment:
        kinds = data.augmentations
        raise UserError(
            f"warmstart.contrast_updates={stage.contrast_updates}: without dataset.augment two "
            "views of an example are the same; type "
            + (f"dataset.augment=[{','.join(kinds[:2])}] or " if kinds else "")
            + "warmstart.contrast_updates=0"
        )


def read_unlabelled(prepared: Prepared) -> None:
    """Read the examples without labels, where the student learns from them.

    Raises:
        UserError: there are none of this kind of data, or this teacher or loss cannot use them.
    """
    config = prepared.config
    stage, place = config.warmstart, config.warmstart.unlabelled
    if place is None or not stage.enabled or not config.distill.supports.uses_teacher:
        return
    data = prepared.data
    if not isinstance(data, TextData):
        raise UserError(f"warmstart.unlabelled: dataset {data.name} holds no texts; leave it out")
    if prepared.needs != {"embeddings"}:
        raise UserError(
            f"warmstart.unlabelled: distill={config.distill.name} reads "
            f"{' and '.join(sorted(prepared.needs))}, which need labels; type distill=embedding"
        )
    prepared.unlabelled, lines = unlabelled_like(data, Path(place).expanduser())
    prepared.warnings += lines
