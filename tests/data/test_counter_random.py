from __future__ import annotations

import math

import pytest
import torch

from metakd.data.counter_random import (
    bits_at,
    derive,
    normal,
    permutation,
    random_bits,
    smallest,
    stream_key,
    uniform,
)

MASK = (1 << 64) - 1


def reference_hash(key: int, counter: int) -> int:
    """SplitMix64's output function in Python's unbounded integers."""
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_published_values_of_splitmix64() -> None:
    # The first outputs for seed 1234567, as in Rosetta Code's and Vigna's splitmix64.c listings.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [reference_hash(1234567, i) for i in range(3)] == published
    assert (derive(1234567, torch.arange(3)) & -1).tolist() == [
        v - (1 << 64) if v >> 63 else v for v in published
    ]


def test_equals_the_python_reference_at_extreme_keys_and_counters() -> None:
    counters = [0, 1, 2, 1000, 2**31, 2**40 + 7]
    for key in (0, 1, 2**62, 2**63 - 1, stream_key(3, "meta_train")):
        expected = [reference_hash(key, c) >> 1 for c in counters]
        assert bits_at(key, torch.tensor(counters)).tolist() == expected


def test_tensor_keys_and_negative_streams_equal_the_reference() -> None:
    keys = derive(5, torch.arange(4))
    expected = [reference_hash(reference_hash(5, i), -3) for i in range(4)]
    assert [k & MASK for k in derive(keys, -3).tolist()] == expected


def test_golden_values_never_change() -> None:
    assert stream_key(0, "meta_train", 7) == 662725713179235089
    assert random_bits(42, (3,)).tolist() == [
        6839728766377637706,
        1474913046063446145,
        2569641874231381929,
    ]
    assert permutation(1, 8).tolist() == [4, 3, 7, 0, 1, 5, 6, 2]


def test_keys_tell_names_apart() -> None:
    names = [(0,), (1,), (0, "a"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (0, 1, "a")]
    keys = {stream_key(*n) for n in names}
    assert len(keys) == len(names)
    assert all(0 <= k < 2**63 for k in keys)


def test_uniform_moments_and_range() -> None:
    for dtype in (torch.float32, torch.float64):
        u = uniform(7, (100_000,), dtype=dtype)
        assert u.dtype == dtype
        assert float(u.min()) >= 0
        assert float(u.max()) < 1
        assert abs(float(u.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 1e5)
    histogram = torch.histc(uniform(8, (100_000,)), bins=100, min=0, max=1)
    assert float(((histogram - 1000) ** 2 / 1000).sum()) < 149  # chi-square, 99 dof, 0.1 %


def test_neighbouring_streams_are_uncorrelated() -> None:
    u = uniform(1, (20, 5000), dtype=torch.float64)
    v = torch.stack([uniform(stream_key(0, s), (5000,), dtype=torch.float64) for s in range(20)])
    for table in (u, v):
        off = torch.corrcoef(table) - torch.eye(20)
        assert float(off.abs().max()) < 5 / math.sqrt(5000)


def test_normal_moments() -> None:
    z = normal(3, (200_000,), dtype=torch.float64)
    assert abs(float(z.mean())) < 0.01
    assert abs(float(z.std()) - 1) < 0.01
    assert abs(float((z**4).mean()) - 3) < 0.1


def test_permutation_is_one_and_uniform_in_its_first_place() -> None:
    assert sorted(permutation(5, 1000).tolist()) == list(range(1000))
    firsts = torch.tensor([int(permutation(k, 5)[0]) for k in range(2000)])
    counts = torch.bincount(firsts, minlength=5)
    assert float(((counts - 400.0) ** 2 / 400).sum()) < 18.5  # 4 dof, 0.1 %


def test_smallest_draws_without_replacement() -> None:
    drawn = smallest(random_bits(0, (50, 30)), 10)
    assert all(len(set(row)) == 10 for row in drawn.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_bits_on_a_gpu() -> None:
    assert random_bits(9, (1000,), "cuda").cpu().equal(random_bits(9, (1000,)))
    assert uniform(9, (1000,), "cuda").cpu().equal(uniform(9, (1000,)))
    assert permutation(9, 1000, "cuda").cpu().equal(permutation(9, 1000))
