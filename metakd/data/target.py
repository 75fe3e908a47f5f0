"""The target task of fine-tuning: all of some classes' examples, split into training and test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metakd.data.class_examples import ClassExamples
from metakd.data.counter_random import bits_at, smallest, stream_key
from metakd.data.on_disk import is_mapped, joined
from metakd.errors import UserError, check_word

__all__ = ["TARGETS", "TargetTask", "pooled", "target_task"]

TARGETS = ("novel", "all")
_ROWS = 512  # examples that are copied together


@dataclass(frozen=True)
class TargetTask:
    """Training and test examples of the same classes, numbered alike (method.md section 7).

    Attributes:
        train: examples to fine-tune on.
        test: examples to evaluate on; no image is in both.
    """

    train: ClassExamples
    test: ClassExamples


def target_task(
    train: ClassExamples,
    validate: ClassExamples,
    test: ClassExamples,
    which: str,
    shots: int | None,
    seed: int,
) -> TargetTask:
    """Return the target task; see `ClassData.target`.

    Classes are told apart by name: where the splits share their classes and differ in examples
    (MNIST's split by examples), the training examples of a class come from all splits.

    Raises:
        UserError: an unknown target, or one without classes; a class without test examples or with
            fewer than `shots`.
    """
    check_word("finetune.target", which, TARGETS)
    if shots is not None and shots < 1:
        raise UserError(f"finetune.shots={shots}: give a positive number, or null for all examples")
    wanted = [test] if which == "novel" else [train, validate, test]
    names = tuple(dict.fromkeys(name for split in wanted for name in split.class_names))
    if not names:
        raise UserError(
            f"finetune.target={which}: the split 'test' (meta-test) holds no classes: give it "
            "some, or type finetune.target=all"
        )
    found = pooled([train, validate, test], names)
    evaluated = found.select(found.held_out)
    learned = found.select(~found.held_out)
    for examples, what in ((evaluated, "test"), (learned, "training")):
        fewest = int(examples.members[1].min())
        needed = shots if shots is not None and what == "training" else 1
        if fewest < needed:
            name = names[int(examples.members[1].argmin())]
            raise UserError(
                f"target task '{which}': class '{name}' has {fewest} {what} examples, "
                f"{needed} are needed: set finetune.shots lower, or leave that class out"
            )
    if shots is not None:
        learned = _few(learned, shots, stream_key(seed, "target", which))
    return TargetTask(learned, evaluated)


def pooled(splits: list[ClassExamples], names: tuple[str, ...]) -> ClassExamples:
    """Return all examples of the classes `names`, numbered in the order of `names`."""
    number = {name: i for i, name in enumerate(names)}
    taken = []
    # Each split may number groups of its own (glyphs); those with names are told apart by these.
    given = {split.group_names for split in splits if split.group_names}
    known = [*given.pop()] if len(given) == 1 else sorted({name for own in given for name in own})
    group_of: dict[str, int] = {}
    for split in splits:
        new = torch.tensor(
            [number.get(name, -1) for name in split.class_names],
            dtype=torch.int64,
            device=split.labels.device,
        )
        labels = new[split.labels]
        taken.append(replace(split, labels=labels).select(labels >= 0))
        groups = split.groups.tolist()
        if split.group_names:
            groups = [known.index(split.group_names[group]) for group in groups]
        group_of.update(zip(split.class_names, groups, strict=True))
    return replace(
        splits[0],
        examples=_joined([t.examples for t in taken]),
        labels=torch.cat([t.labels for t in taken]),
        held_out=torch.cat([t.held_out for t in taken]),
        class_names=names,
        groups=torch.tensor([group_of[name] for name in names], device=splits[0].groups.device),
        group_names=tuple(known),
    )


def _joined(parts: list[Tensor]) -> Tensor:
    """Return all examples; mapped where they are."""
    mapped = next((part for part in parts if is_mapped(part)), None)
    if mapped is None:
        return torch.cat(parts)
    rows = (row for part in parts for row in part.split(_ROWS))
    shape = (sum(map(len, parts)), *mapped.shape[1:])
    return joined(rows, shape, mapped.dtype, mapped)


def _few(examples: ClassExamples, shots: int, key: int) -> ClassExamples:
    """Return `shots` random examples of each class."""
    members, counts = examples.members
    slots = torch.arange(members.numel(), device=members.device)
    bits = bits_at(key, slots).view(members.shape)
    allowed = slots[: members.shape[1]] < counts[:, None]
    chosen = smallest(torch.where(allowed, bits, (1 << 63) - 1), shots)
    return examples.select(members.gather(1, chosen).flatten())
