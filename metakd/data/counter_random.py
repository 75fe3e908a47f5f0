"""Random numbers as a pure function of a key and a position, identical on every device.

There is no state to carry: number `i` of key `k` is a hash of (k, i), so any step of a stream can
be drawn without the steps before it, in one vectorised go, on a CPU or a GPU, with equal bits.
The hash is SplitMix64's output function (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", 2014) in int64 arithmetic, which wraps around alike on all devices.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "bits_at",
    "derive",
    "normal",
    "permutation",
    "random_bits",
    "smallest",
    "stream_key",
    "uniform",
    "uniform_from_bits",
]

Device = torch.device | str | None


def _signed(value: int) -> int:
    """Return the int64 with the same 64 bits as the unsigned `value`."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def stream_key(seed: int, *names: str | int) -> int:
    """Return the key of the stream that `seed` and `names` name, e.g. ``(0, "meta_train", 7)``.

    Returns:
        an int in [0, 2**63); different names give unrelated keys on every machine.
    """
    text = json.dumps([seed, *names]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def _xor_shift(z: Tensor, shift: int) -> Tensor:
    """In place z ^ (z >>> shift); torch's own shift of int64 drags the sign along."""
    return z.bitwise_xor_((z >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def _mix(z: Tensor) -> Tensor:
    """Scramble the 64 bits of every element of `z`, in place."""
    z = _xor_shift(z, 30).mul_(_MULTIPLY_1)
    z = _xor_shift(z, 27).mul_(_MULTIPLY_2)
    return _xor_shift(z, 31)


def derive(key: int | Tensor, ids: int | Tensor) -> Tensor:
    """Return the keys of the streams numbered `ids` under `key`; both broadcast.

    At least one of them is an int64 tensor.

    Returns:
        int64, all 64 bits used (so it may be negative).
    """
    if isinstance(ids, int):
        assert isinstance(key, Tensor)
        return _mix(key + _signed((ids + 1) * _GOLDEN % (1 << 64)))
    return _mix((ids + 1) * _GOLDEN + key)


def bits_at(key: int | Tensor, counters: Tensor) -> Tensor:
    """Return the random numbers of `key` at the positions `counters`; both broadcast.

    Returns:
        int64 in [0, 2**63).
    """
    return (derive(key, counters) >> 1).bitwise_and_((1 << 63) - 1)


def random_bits(key: int, shape: Sequence[int], device: Device = None) -> Tensor:
    """Return int64 of `shape` in [0, 2**63), the first numbers of `key` in row-major order."""
    count = math.prod(shape)
    return bits_at(key, torch.arange(count, device=device)).view(*shape)


def uniform_from_bits(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers in [0, 1) from `bits` in [0, 2**63): the top 24 or, for float64, 53 bits."""
    if dtype == torch.float64:
        return (bits >> 10).to(dtype).mul_(2.0**-53)
    return (bits >> 39).to(torch.float32).mul_(2.0**-24).to(dtype)


def uniform(
    key: int, shape: Sequence[int], device: Device = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return uniform numbers in [0, 1) of `shape`, bit for bit the same on every device."""
    return uniform_from_bits(random_bits(key, shape, device), dtype)


def normal(
    key: int, shape: Sequence[int], device: Device = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return standard normal numbers of `shape` (Box and Muller's transform).

    Devices agree up to the rounding of their own logarithm and cosine.
    """
    pair = uniform(key, (2, *shape), device, torch.float64)
    radius = (-2.0 * torch.log1p(-pair[0])).sqrt_()  # 1 - u is in (0, 1]: no logarithm of 0
    return (radius * torch.cos(2.0 * math.pi * pair[1])).to(dtype)


def permutation(key: int, n: int, device: Device = None) -> Tensor:
    """Return a random order of 0 … n-1, int64 [n]."""
    return random_bits(key, (n,), device).argsort(stable=True)


def smallest(bits: Tensor, k: int) -> Tensor:
    """Return where the `k` smallest of the last dimension are, in ascending order of value.

    With independent `bits` that is a uniform draw of `k` without replacement, in random order.

    Returns:
        int64 [..., k].
    """
    return bits.topk(k, dim=-1, largest=False, sorted=True).indices
