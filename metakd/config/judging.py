"""The configuration of a run that is only evaluated again."""

from __future__ import annotations

from metakd.config.schema import Config

__all__ = ["images_overrides", "only_judged"]


def only_judged(config: Config) -> None:
    """Take out of a run's configuration what only its training needed."""
    # The models come from the run's own files, not from where its training began.
    config.student.checkpoint = None
    if not str(config.teacher.checkpoint).endswith(".onnx"):  # of which a run keeps no copy
        config.teacher.checkpoint = None
    config.student.pretrained = config.teacher.pretrained = False
    config.pretrain.enabled = True  # the run has its teacher
    config.meta_train.iterations = 0
    config.finetune.enabled = False


def images_overrides(folder: str) -> list[str]:
    """Return the overrides that evaluate on a folder of nothing but new classes."""
    return [
        "dataset=image_folder",
        f"dataset.folder={folder}",
        "dataset.options.all_test=true",
    ]
