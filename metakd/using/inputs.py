"""Examples as a user has them, as a network wants them: files, Pillow's, arrays, tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metakd.data.features import FeaturePreprocessing
from metakd.data.picture_files import read_picture
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError
from metakd.using.texts import texts_of

__all__ = ["chunks", "each_of", "examples_of", "numbers_of", "pictures_of", "pixels_of", "rows_of"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FEW = 2
"""Number of files from which several threads read them."""


def examples_of(inputs: Any, wanted: Preprocessing) -> Tensor:
    """Return examples as they are kept before a network sees them, on the CPU.

    Args:
        inputs: images (`pictures_of`); or rows of numbers [n, columns] in the order of the
            network's columns, or texts, where its input are such.
        wanted: what the network expects.

    Raises:
        UserError: they are something else.
    """
    if isinstance(wanted, PicturePreprocessing):
        return pixels_of(pictures_of(inputs), wanted)
    if isinstance(wanted, TextPreprocessing):
        return texts_of(inputs, wanted)
    assert isinstance(wanted, FeaturePreprocessing)
    return rows_of(inputs, wanted)


def rows_of(inputs: Any, wanted: FeaturePreprocessing) -> Tensor:
    """Return rows of a table, float64 [n, columns]; NaN is a missing value.

    Args:
        inputs: an array, a tensor, nested lists; one row alone is a list of one. What names its
            columns (`.columns`, as a data frame) is matched by their names.
        wanted: what the network expects.

    Raises:
        UserError: a missing column, another number of columns, a number that is not finite.
    """
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        try:
            places = wanted.places([str(name) for name in inputs.columns])
        except ValueError as error:
            raise UserError(f"inputs: {error}, which the network expects") from error
        inputs = inputs.to_numpy()[:, places]
    if isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], Tensor):
        inputs = torch.stack(list(inputs))
    try:
        array = np.asarray(inputs.detach().cpu() if isinstance(inputs, Tensor) else inputs, float)
    except (TypeError, ValueError) as error:
        raise UserError(f"inputs: expected numbers [n, {len(wanted.columns)}] ({error})") from error
    if not array.size:
        return torch.empty(0, *wanted.shape, dtype=torch.float64)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1:] != wanted.shape:
        raise UserError(
            f"inputs: shape {list(array.shape)}; expected [n, {len(wanted.columns)}], the columns "
            f"{', '.join(wanted.columns[:5])}{' …' * (len(wanted.columns) > 5)}"
        )
    if np.isinf(array).any() or (wanted.missing == "refuse" and np.isnan(array).any()):
        raise UserError("inputs: not all of them are finite numbers")
    return torch.tensor(array, dtype=torch.float64)


def pictures_of(inputs: Any) -> Sequence[Any]:
    """Return a list of single images; one image becomes a list of one.

    Args:
        inputs: a path, an image of Pillow's, an array [height, width], [height, width, channels],
            [n, height, width, channels] or [n, height, width], a tensor [channels, height, width]
            or [n, channels, height, width], or a list of any of these that are one image.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(inputs, (str, os.PathLike, Image.Image)):
        return [inputs]
    if isinstance(inputs, Tensor):
        if inputs.ndim == 4:
            return list(inputs)
        if inputs.ndim == 3 and inputs.shape[0] in _MODES:
            return [inputs]
        raise UserError(
            f"inputs: a tensor {list(inputs.shape)}; give [channels, height, width] or "
            "[n, channels, height, width]"
        )
    if isinstance(inputs, np.ndarray) and inputs.dtype != object:
        if inputs.dtype.kind == "U":
            return [str(path) for path in np.atleast_1d(inputs)]
        if inputs.ndim == 2 or (inputs.ndim == 3 and inputs.shape[-1] in _MODES):
            return [inputs]
        if inputs.ndim in (3, 4):
            return list(inputs)
        raise UserError(
            f"inputs: an array {list(inputs.shape)}; give [height, width], "
            "[height, width, channels] or [n, height, width, channels]"
        )
    try:
        return list(inputs)
    except TypeError:
        raise UserError(f"inputs: {type(inputs).__name__} is no image and no list of them") from (
            None
        )


def pixels_of(pictures: Sequence[Any], wanted: PicturePreprocessing) -> Tensor:
    """Return images of any size and colour in the network's size and colour, not normalised.

    Args:
        pictures: one or more, see `pictures_of`.
        wanted: what the network expects.

    Returns:
        [n, channels, height, width] uint8 on the CPU.

    Raises:
        UserError: a file cannot be read (the message names it), an array holds something else
            than bytes or numbers in [0, 1].
    """
    if not pictures:
        return torch.empty(0, *wanted.shape, dtype=torch.uint8)
    found = []
    for pixels in each_of(pictures, wanted):
        if isinstance(pixels, UserError):
            raise pixels
        found.append(pixels)
    return torch.stack(found)


def each_of(pictures: Sequence[Any], wanted: PicturePreprocessing) -> Iterator[Tensor | UserError]:
    """Yield each image [channels, height, width] uint8 as `pixels_of` does, or why it cannot."""

    def one(picture: Any) -> Tensor | UserError:
        try:
            return _pixels(picture, wanted)
        except UserError as problem:
            return problem

    if sum(isinstance(p, (str, os.PathLike)) for p in pictures) < _FEW:
        yield from map(one, pictures)
        return
    # Pillow releases the GIL while it decodes.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        yield from threads.map(one, pictures)


def _pixels(picture: Any, wanted: PicturePreprocessing) -> Tensor:
    if isinstance(picture, (str, os.PathLike)):
        return _read(Path(picture), wanted)
    if isinstance(picture, Image.Image):
        return _read(picture, wanted)
    if isinstance(picture, Tensor):
        if picture.ndim == 2:
            picture = picture.unsqueeze(0)
        given = _bytes(picture.detach().cpu(), "a tensor")
    elif isinstance(picture, np.ndarray):
        layers = picture[..., None] if picture.ndim == 2 else picture
        if layers.ndim != 3:
            raise UserError(f"inputs: an array {list(picture.shape)} is no single image")
        if layers.dtype.kind not in "uif":
            raise UserError(
                f"inputs: an array of {layers.dtype}; give uint8 or numbers from 0 to 1"
            )
        # A copy: torch accepts no read-only array and no negative strides.
        given = _bytes(torch.from_numpy(layers.copy()), "an array").permute(2, 0, 1)
    else:
        raise UserError(
            f"inputs: {type(picture).__name__} is no image; give a path, an image of Pillow's, "
            "an array or a tensor"
        )
    if given.shape == wanted.shape and (wanted.central == 1 or isinstance(picture, Tensor)):
        return given.contiguous()  # a tensor may be what `read` returned: its middle is cut out
    mode = _MODES.get(given.shape[0]) if given.ndim == 3 else None
    if mode is None or 0 in given.shape:
        raise UserError(
            f"inputs: an image of shape {list(given.shape)} (channels, height, width); this "
            f"network takes {list(wanted.shape)}, or images of 1 to 4 channels of any size"
        )
    # The same path as a file's pixels: the same image gives the same answer.
    layers = given.permute(1, 2, 0).contiguous().numpy()
    return _read(Image.fromarray(layers[..., 0] if mode == "L" else layers, mode), wanted)


def _read(source: Path | Image.Image, wanted: PicturePreprocessing) -> Tensor:
    pixels = read_picture(source, (wanted.height, wanted.width), wanted.reading)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).unsqueeze(0)
    return wanted.fit(image)[0].contiguous()


def _bytes(values: Tensor, what: str) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise UserError(
            f"inputs: {what} of {str(values.dtype).removeprefix('torch.')}; give uint8 (0 to 255) "
            "or numbers from 0 to 1"
        )
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # nan, too
        raise UserError(
            f"inputs: {what} of numbers from {low:g} to {high:g}; give numbers from 0 to 1, or "
            "uint8 (0 to 255); normalising is done here"
        )
    return values.double().mul(255.0).round().to(torch.uint8)


def numbers_of(inputs: Any, shape: tuple[int, ...], what: str = "inputs") -> Tensor:
    """Return examples that are no images, float32 [n, *shape] on the CPU.

    Args:
        inputs: an array, a tensor or nested lists [n, *shape]; [n] where an example is a number.
        shape: of an example.
        what: names them in messages.

    Raises:
        UserError: another shape, or a number that is not finite.
    """
    try:
        array = np.asarray(inputs.detach().cpu() if isinstance(inputs, Tensor) else inputs, float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: expected numbers, [n, {_words(shape)}] ({error})") from error
    if array.ndim == 1 and shape == (1,):
        array = array[:, None]
    if array.shape[1:] != shape or array.ndim == 0:
        raise UserError(f"{what}: shape {list(array.shape)}; expected [n, {_words(shape)}]")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: not all of them are finite numbers")
    return torch.from_numpy(array).float()


def _words(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def chunks(pictures: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield `pictures` in pieces of `size`, in order."""
    for first in range(0, len(pictures), size):
        yield pictures[first : first + size]
