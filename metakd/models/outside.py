"""Encoders that others have trained: their own view of pictures, their library, their weights."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from metakd.data.picture_preprocessing import INTERPOLATIONS, PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError, check_word, first_line

__all__ = ["ImageEncoder", "OwnView", "dry_run", "in_colour", "library", "weights_of"]

Found = TypeVar("Found")

REACHED_S = 5.0
"""Longest wait for a first answer of the model hub, before what lies on this machine must do."""


@dataclass(frozen=True)
class OwnView:
    """How a network from elsewhere is shown pictures, where it is not as the network itself says.

    Attributes:
        image_size: height and width in pixels.
        crop: share of the height and width that is looked at, the middle.
        interpolation: `bilinear` or `bicubic`.
        mean: of each colour, of pixels in [0, 1].
        std: likewise, the standard deviation.
    """

    image_size: int | None = None
    crop: float | None = None
    interpolation: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def of(self, given: Preprocessing, said: Mapping[str, Any], who: str) -> PicturePreprocessing:
        """Return what the network expects of pictures.

        Args:
            given: how the data's examples are made.
            said: what the network itself says, by the names of the attributes; without one the
                data's own size, the whole picture, bilinear scaling.
            who: the network, for messages.

        Raises:
            UserError: it is given something else than pictures; a value that cannot be.
        """
        if not isinstance(given, PicturePreprocessing) or given.channels not in (1, 3):
            raise UserError(f"{who} takes grey or colour pictures, and the data is {given.words()}")
        own = {n: v for n, v in vars(self).items() if v is not None}
        chosen = {"crop": 1.0, "interpolation": "bilinear", **said, **own}
        size = chosen.get("image_size")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise UserError(
                f"{who}: options.image_size={size}: give a number of pixels, such as 96"
            )
        check_word("options.interpolation", chosen["interpolation"], INTERPOLATIONS)
        try:
            mean, std = (tuple(float(x) for x in chosen[n]) for n in ("mean", "std"))
            return PicturePreprocessing(
                channels=3,
                height=given.height if size is None else size,
                width=given.width if size is None else size,
                mean=mean,
                std=std,
                reading=given.reading,
                interpolation=chosen["interpolation"],
                central=float(chosen["crop"]),
            )
        except KeyError as error:
            raise UserError(
                f"{who} does not say with which mean and deviation of the pixels it was trained: "
                "type options.mean=[0.485,0.456,0.406] options.std=[0.229,0.224,0.225], or what "
                "its authors say"
            ) from error
        except (TypeError, ValueError) as error:
            wrong = str(error).replace("central", "crop")
            raise UserError(f"{who}: options: {wrong}; three numbers for mean and std") from error

    def statistics(self, said: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of the pixels, typed or as the network itself says."""
        mean = said["mean"] if self.mean is None else self.mean
        return tuple(mean), tuple(said["std"] if self.std is None else self.std)


def library(module: str, extra: str) -> Any:
    """Return an optional library.

    Raises:
        UserError: it is not installed, with what to type.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"{extra} needs {module}, which is not installed: type pip install "
            f"'metakd[{extra}]' ({first_line(error)})"
        ) from error


def weights_of(load: Callable[[], Found], who: str, instead: str) -> Found:
    """Return what `load` finds in a library's cache, or downloads; without a network at once.

    Args:
        load: asks the library.
        who: the network, for messages.
        instead: what to type without its weights.

    Raises:
        UserError: they cannot be had.
    """
    try:
        with _hub_as_it_is():
            return load()
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(
            f"the weights of {who} cannot be had ({first_line(error)}); {instead}"
        ) from error


@contextmanager
def _hub_as_it_is() -> Iterator[None]:
    """Keep Hugging Face's client from trying again and again where its hub cannot be reached."""
    try:
        from huggingface_hub import constants
    except ImportError:  # a library without it
        yield
        return
    offline = constants.HF_HUB_OFFLINE
    if not offline and not _answers(str(constants.ENDPOINT)):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _answers(address: str) -> bool:
    """Tell whether a server says anything, through the proxy that the environment names."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACHED_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


class ImageEncoder(nn.Module):
    """What the networks of libraries share that turn images into embeddings.

    Attributes:
        model: the library's network, without a classifier.
        embedding_size: of its output.
        expected_statistics: (mean, standard deviation) of the pixels, by channel, with which the
            weights were trained; None for weights that are trained here.
    """

    model: nn.Module
    embedding_size: int
    expected_statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, 1 or 3, height, width]."""
        embeddings: Tensor = self.model(in_colour(images))
        return embeddings


def in_colour(images: Tensor) -> Tensor:
    """Return grey images [n, 1, height, width] as colour, and colour as it is."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def dry_run(network: nn.Module, example_shape: tuple[int, ...], who: str) -> int:
    """Return the width of the embeddings that `network` makes of examples.

    Raises:
        UserError: it cannot take them.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            embeddings = network(torch.zeros(1, *example_shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = example_shape[1:]
        raise UserError(
            f"{who} cannot take images of {height}x{width} pixels ({first_line(error)}); change "
            "dataset.image_size or the model"
        ) from error
    finally:
        network.train(was_training)
    assert embeddings.ndim == 2, f"{who} yields embeddings of shape {embeddings.shape}"
    return int(embeddings.shape[1])
