"""A bundle at work: classes from a few examples of each, and answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from metakd.exporting.shipped.classes import CLASSES, read_classes, write_classes
from metakd.exporting.shipped.files import checked_file
from metakd.exporting.shipped.labels import MOST_WAYS, one_hot
from metakd.exporting.shipped.pixels import Pictures
from metakd.exporting.shipped.sessions import Session, open_session
from metakd.exporting.shipped.texts import Texts

__all__ = ["CLASSIFIER", "FILE", "FewShot", "WrongBundleError"]

FILE = "bundle.json"
KINDS: dict[str, Any] = {"pictures": Pictures, "text": Texts}
CLASSIFIER = "classifier"
"""The graph of a student that was trained to tell its own classes apart, and learns no others."""
AT_ONCE = 64
"""Pictures that a graph answers at once."""
MOST_BYTES = 64 << 20
"""Of bundle.json."""


class WrongBundleError(ValueError):
    """A bundle, an example or a question that cannot be used: one line for people."""


class FewShot:
    """A student in another runtime.

    Args:
        folder: of the bundle.
        threads: of an operation; 0: the runtime's own choice.

    Raises:
        WrongBundleError: it is damaged, or its runtime is not installed.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder, self.threads = folder, threads
        self.said = _content(folder)
        try:
            said = self.said["preprocessing"] or {"kind": "numbers"}
            kind = said.get("kind", "pictures")
            if kind not in KINDS:
                raise ValueError(f"run.py shows it no {kind}; MetaKD does: metakd predict")
            self.examples = KINDS[kind](said)
            self.scale = float(self.said.get("scale", 1.0))
            if not 0 < self.scale < math.inf:
                raise ValueError("scale is above 0 and finite")
            ways = self.said["fixed_ways"]
            self.fixed_ways = None if ways is None else int(ways)
            most = int(self.said.get("most_ways", MOST_WAYS))
            limits = [most] if self.fixed_ways is None else [most, self.fixed_ways]
            if not 1 <= min(limits) <= max(limits) <= MOST_WAYS:
                raise ValueError(f"a student tells between 1 and {MOST_WAYS} classes apart")
            self.most_ways = most if self.fixed_ways is None else min(most, self.fixed_ways)
            self.parts = {name: str(file) for name, file in self.said["graphs"].items()}
            own = self.said.get("classes", []) if CLASSIFIER in self.parts else []
            self.own = [str(name) for name in own]
        except ImportError as error:
            raise WrongBundleError(f"tokens of texts: pip install tokenizers ({error})") from None
        except Exception as error:  # a tokenizer's exceptions have no base class of their own
            raise WrongBundleError(f"{folder / FILE}: {error}") from None
        self._open: dict[str, Session] = {}
        self.names: list[str] = [*self.own]
        self.labels = np.zeros(0, np.int64)
        self.kept: np.ndarray | None = None

    @property
    def embeds(self) -> bool:
        """Whether features of the examples are kept, not the examples."""
        return "embedding" in self.parts

    def read(self, sources: Sequence[Any]) -> np.ndarray:
        """Return pictures, or texts, as they are kept before the network sees them.

        Raises:
            WrongBundleError: one cannot be read.
        """
        try:
            return np.stack([self.examples.read(one) for one in sources])
        except (ValueError, OverflowError) as error:  # ids of a tokenizer that int32 does not hold
            raise WrongBundleError(str(error)) from None

    def add(self, name: str, sources: Sequence[Any]) -> None:
        """Learn examples of a class, one that is known or a new one.

        Raises:
            WrongBundleError: one cannot be read, or it is a class too many.
        """
        if self.own:
            raise WrongBundleError(
                f"this student tells the {len(self.own)} classes of its dataset apart and learns "
                "no others: name what is to be classified alone"
            )
        if name not in self.names and len(self.names) >= self.most_ways:
            raise WrongBundleError(
                f"this student tells {self.most_ways} classes apart, and '{name}' is one more"
            )
        shown = self.read(sources)
        if self.embeds:
            shown = self._features(shown)
        if self.kept is not None and shown.shape[1:] != self.kept.shape[1:]:
            raise WrongBundleError(
                f"{self.folder / CLASSES} keeps examples of shape {list(self.kept.shape[1:])}, and "
                f"this student's are {list(shown.shape[1:])}"
            )
        self.kept = shown if self.kept is None else np.concatenate([self.kept, shown])
        before = [self.names[i] for i in self.labels]
        self._label([*before, *[name] * len(sources)])

    def probabilities(
        self, sources: Sequence[Any], unreadable: dict[int, str] | None = None
    ) -> np.ndarray:
        """Return the probabilities [n, classes] of pictures, or texts.

        Args:
            sources: n of them.
            unreadable: takes the position of each that cannot be read, and why; those are left
                out of the answer. None: one that cannot be read is an error.

        Raises:
            WrongBundleError: one cannot be read, no class is known, or answers that are not finite.
        """
        parts = self._parts(sources, unreadable)
        if self.own:
            found = [self._run(CLASSIFIER, self.examples.seen(some)) for some in parts]
            return self._probabilities(found, len(sources) - len(unreadable or ()), len(self.own))
        if self.kept is None:
            raise WrongBundleError("which classes? give --examples FOLDER, a folder for each class")
        order = np.argsort(self.labels, kind="stable")  # by class, as in training
        kept, width = self.kept[order], self.fixed_ways or len(self.names)
        shown = one_hot(self.labels[order], width)
        if not self.embeds:
            kept = self.examples.seen(kept)

        def logits(asked: np.ndarray) -> np.ndarray:
            if self.embeds:
                return self._run("head", kept, shown, self._features(asked))
            return self._run("model", kept, shown, self.examples.seen(asked))

        found = [logits(some) for some in parts]
        return self._probabilities(found, len(sources) - len(unreadable or ()), width)

    def _parts(
        self, sources: Sequence[Any], unreadable: dict[int, str] | None
    ) -> Iterator[np.ndarray]:
        """Yield what is read, in parts that a graph takes at once; see `probabilities`."""
        for first in range(0, len(sources), AT_ONCE):
            some = sources[first : first + AT_ONCE]
            if unreadable is None:
                yield self.read(some)
                continue
            sound = []
            for position, one in enumerate(some, first):
                try:
                    sound.append(self.read([one]))
                except WrongBundleError as error:
                    unreadable[position] = str(error)
            if sound:
                yield np.concatenate(sound)

    def _probabilities(self, logits: list[np.ndarray], asked: int, width: int) -> np.ndarray:
        """Return the softmax [asked, classes] of logits that come in parts."""
        try:
            found = np.concatenate(logits) if logits else np.zeros((0, width), np.float32)
        except ValueError as error:
            raise WrongBundleError(f"the answers do not fit each other ({error})") from None
        if found.shape != (asked, width) or not np.isfinite(found).all():
            raise WrongBundleError("the answers are not finite numbers of each class")
        answers = found[:, : len(self.names)].astype(np.float64)
        with np.errstate(over="ignore"):  # -inf, whose power is 0
            powers = np.exp(self.scale * (answers - answers.max(1, keepdims=True)))
        result: np.ndarray = powers / powers.sum(1, keepdims=True)
        return result

    def load(self) -> None:
        """Take up the classes that lie beside the graphs, if there are any.

        Raises:
            WrongBundleError: the file is damaged.
        """
        if self.own or not (self.folder / CLASSES).exists():
            return
        try:
            kept, labels, names = read_classes(self.folder, self.embeds)
            if len(names) > self.most_ways:
                raise ValueError(
                    f"{len(names)} classes, and this student tells {self.most_ways} apart"
                )
            if not self.embeds and (kept.shape[1:], kept.dtype) != self.examples.kept:
                raise ValueError(f"its examples are {kept.dtype} of shape {list(kept.shape[1:])}")
        except (OSError, ValueError) as error:
            raise WrongBundleError(f"{self.folder / CLASSES} cannot be used ({error})") from None
        self.kept = kept
        self._label([names[i] for i in labels])

    def save(self) -> None:
        """Write the classes beside the graphs: the old file or the new one, never half of it.

        Raises:
            WrongBundleError: it cannot be written.
        """
        assert self.kept is not None
        try:
            write_classes(self.folder, self.kept, self.labels, self.names)
        except OSError as error:
            raise WrongBundleError(f"{self.folder / CLASSES} cannot be written ({error})") from None

    def _label(self, of_each: Sequence[str]) -> None:
        """Number the classes in the order of their names, as MetaKD does.

        Which column of a trained head a class gets depends on that order.
        """
        self.names = sorted(set(of_each))
        self.labels = np.array([self.names.index(name) for name in of_each], np.int64)

    def _features(self, shown: np.ndarray) -> np.ndarray:
        parts = [self._run("embedding", self.examples.seen(some)) for some in _few(shown)]
        return np.concatenate(parts)

    def _run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        try:
            if part not in self._open:
                file = self._checked(self.parts[part])
                self._open[part] = open_session(self.said["format"], file, self.threads)
            return self._open[part](*inputs)
        except ImportError as error:
            raise WrongBundleError(f"needs a runtime: {self.said.get('install')} ({error})") from (
                None
            )
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise WrongBundleError(f"the graph '{part}' cannot be used ({error})") from None

    def _checked(self, name: str) -> Path:
        """Return a graph's file once its checksum and those of its weights beside it are right."""
        sums, stem = self.said["files"], PurePosixPath(name).with_suffix("")
        beside = {other for other in sums if PurePosixPath(other).with_suffix("") == stem}
        if self.said["format"] == "openvino":  # it reads these, whether they are listed or not
            beside.add(str(stem.with_suffix(".bin")))
        for other in sorted(beside):
            checked_file(self.folder, other, sums)
        return checked_file(self.folder, name, sums)


def _few(these: Any) -> Iterator[Any]:
    """Return parts of a sequence, or of an array, that a graph takes at once."""
    return (these[first : first + AT_ONCE] for first in range(0, len(these), AT_ONCE))


def _content(folder: Path) -> dict[str, Any]:
    try:
        file = checked_file(folder, FILE)
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WrongBundleError(f"{folder / FILE} cannot be read ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != 1 or "format" not in content:
        raise WrongBundleError(f"{folder / FILE} is no exported bundle of schema 1")
    return content
