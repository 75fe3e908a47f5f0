"""The head of a checkpoint's teacher: its outputs belong to classes, and classes have names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from metakd.models.weights import split_network
from metakd.models.weights_file import WeightsFile

__all__ = ["MatchedHead", "match_head"]


class MatchedHead(NamedTuple):
    """Which output of a file's head stands for each class of a dataset.

    Attributes:
        rows: by class; None: the head cannot be used.
        reason: why it cannot be used.
        assumed: what was taken for granted because the file does not say it; empty: nothing.
    """

    rows: tuple[int, ...] | None
    reason: str = ""
    assumed: str = ""


def match_head(
    file: WeightsFile,
    classes: Sequence[str],
    dataset: str,
    *,
    folder: str = "",
    same: bool = False,
) -> MatchedHead:
    """Match the outputs of a file's head with classes of the same dataset, by their names.

    Args:
        file: the weights.
        classes: names of the classes that the head is to tell apart, in order.
        dataset: name of the dataset that they are of.
        folder: mark of the user's own folder that it is (`Card.folder`); empty: not compared.
        same: classes of another dataset are the same where their names are.
    """
    weight = split_network(file.tensors)[1].get("weight")
    if weight is None:
        return MatchedHead(None, "the file holds no head")
    names = file.card.classes if file.card is not None else None
    if names is None:
        if len(weight) != len(classes):
            return MatchedHead(
                None,
                f"its head has {len(weight)} outputs without names of classes, and this dataset "
                f"has {len(classes)} meta-train classes",
            )
        return MatchedHead(
            tuple(range(len(classes))),
            assumed="the outputs of its head belong to this dataset's classes, in their order",
        )
    if len(names) != len(weight):
        return MatchedHead(None, "its head is not one over classes with names")
    assert file.card is not None
    origin, assumed = file.card.dataset, ""
    elsewhere = "" not in (folder, file.card.folder) and folder != file.card.folder
    if origin == dataset and elsewhere:
        origin = f"{dataset} in another folder"
    if not origin:
        assumed = "it does not say its dataset; classes that are called the same are the same"
    elif origin != dataset and same:
        assumed = f"classes of {origin} and {dataset} that are called the same are the same"
    elif origin != dataset:
        return MatchedHead(
            None,
            f"its head is over classes of dataset {origin}, and these are of {dataset}, whatever "
            "they are called (if equal names mean equal classes, type teacher.same_classes=true)",
        )
    number = {name: row for row, name in enumerate(names)}
    unknown = [name for name in classes if name not in number]
    if unknown:
        shown = ", ".join(f"'{name}'" for name in unknown[:3]) + " …" * (len(unknown) > 3)
        return MatchedHead(
            None,
            f"its head does not know {len(unknown)} of the {len(classes)} meta-train classes "
            f"({shown})",
        )
    return MatchedHead(tuple(number[name] for name in classes), assumed=assumed)
