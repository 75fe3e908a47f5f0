"""From the settings `width` and `widths` to the channels of every block."""

from __future__ import annotations

from collections.abc import Sequence

from metakd.errors import UserError

__all__ = ["channels_of", "image_shape"]


def channels_of(
    architecture: str,
    width: int | None,
    widths: Sequence[int] | None,
    ratios: Sequence[float],
    default: int,
) -> list[int]:
    """Return the channels of every block.

    Args:
        architecture: its name, for messages.
        width: channels of the first block; the other ones follow by `ratios`.
        widths: channels of every block, one for each of `ratios`.
        ratios: channels of every block in units of the first one's.
        default: channels of the first block where neither is given.

    Raises:
        UserError: both are given, a wrong number of them, or one below 1.
    """
    if width is not None and widths is not None:
        raise UserError(
            f"{architecture}: width={width} and widths={list(widths)} are both given; "
            "set one of them to null"
        )
    if widths is not None:
        channels = [int(w) for w in widths]
        if len(channels) != len(ratios):
            raise UserError(
                f"{architecture}: widths={channels} has {len(channels)} entries; "
                f"this network takes {len(ratios)}"
            )
    else:
        first = default if width is None else width
        channels = [round(first * ratio) for ratio in ratios]
    if min(channels) < 1:
        raise UserError(f"{architecture}: widths must be at least 1, not {channels}")
    return channels


def image_shape(
    architecture: str, input_shape: Sequence[int], smallest: int
) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images that a convolutional network will see.

    Raises:
        UserError: the examples are no images, or are smaller than `smallest` pixels a side.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"{architecture} takes images [channels, height, width], not examples of shape "
            f"{list(input_shape)}; for rows of numbers use mlp, for texts text_bag or transformer"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise UserError(
            f"{architecture} takes images of {smallest}x{smallest} pixels or more, not "
            f"{height}x{width}; enlarge them with dataset.image_size={smallest}"
        )
    return channels, height, width
