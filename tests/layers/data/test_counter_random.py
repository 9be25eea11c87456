"""Random numbers that depend on nothing but seed, stream and counter, and look random."""

import hashlib

import numpy as np
import torch

from imae.layers.random_streams import permutation, random_below, random_bits, random_uniform

N = 1 << 16
COUNTER = torch.arange(N)


def chi_square(counts: torch.Tensor) -> float:
    """How far counts are from equal, in standard deviations of the statistic."""
    expected = counts.sum().item() / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    return (statistic - (len(counts) - 1)) / (2 * (len(counts) - 1)) ** 0.5


def test_bits_are_those_of_splitmix64() -> None:
    """Against Python's integers: int64 tensors wrap around, and shift without the sign."""
    key = int.from_bytes(hashlib.blake2b(b"7 crop", digest_size=8).digest(), "little")
    expected = [splitmix64(key, counter) for counter in range(100)]
    assert [bits % 2**64 for bits in random_bits(7, "crop", torch.arange(100)).tolist()] == expected


def splitmix64(key: int, counter: int) -> int:
    z = (key + counter * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_values_never_change() -> None:
    """A run that is repeated with a later version must see the same data."""
    counter = torch.arange(3)
    assert random_bits(0, "a", counter).tolist() == [-5533082776533618011, -7133887583497704637, -8580587098295159608]
    assert random_below(10, 0, "a", torch.arange(8)).tolist() == [7, 6, 5, 5, 4, 6, 6, 9]
    np.testing.assert_allclose(random_uniform(0, "a", counter), [0.7001, 0.6133, 0.5348], atol=1e-4)
    assert permutation(8, 0, "a", 1).tolist() == [5, 2, 3, 6, 4, 1, 0, 7]


def test_a_number_depends_on_its_counter_alone() -> None:
    whole = random_bits(3, 0, COUNTER)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_bits(3, 0, COUNTER[order]), whole[order])
    assert torch.equal(random_bits(3, 0, COUNTER.view(256, 256)), whole.view(256, 256))
    assert torch.equal(COUNTER, torch.arange(N)), "the counter must not change"


def test_every_bit_is_set_half_of_the_time() -> None:
    bits = random_bits(1, "bits", COUNTER)
    for place in range(64):
        ones = (bits >> place & 1).sum().item()
        assert abs(ones - N / 2) < 4.5 * (N / 4) ** 0.5


def test_below_is_uniform_also_with_a_bound_for_each() -> None:
    for n in (2, 9, 10, 1000):
        drawn = random_below(n, 1, "below", COUNTER)
        assert drawn.min() == 0
        assert drawn.max() == n - 1
        assert abs(chi_square(drawn.bincount(minlength=n))) < 4.5
    bounds = torch.tensor([1, 2, 2**31]).repeat(1000)
    drawn = random_below(bounds, 1, "below", COUNTER[:3000])
    assert ((drawn >= 0) & (drawn < bounds)).all()
    assert abs(drawn[2::3].double().mean() / 2**30 - 1) < 0.1


def test_uniform_is_uniform_in_0_to_1() -> None:
    drawn = random_uniform(1, "uniform", COUNTER)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(chi_square((drawn * 256).long().bincount(minlength=256))) < 4.5


def test_neighbours_streams_and_seeds_are_uncorrelated() -> None:
    base = random_uniform(1, "a", COUNTER)
    others = {f"counter + {k}": base.roll(-k) for k in (1, 2, 3, 32, 128)}
    others |= {"stream": random_uniform(1, "b", COUNTER), "number": random_uniform(1, 2, COUNTER)}
    others |= {"seed": random_uniform(2, "a", COUNTER), "far": random_uniform(1, "a", COUNTER + 2**40)}
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([base, other]))[0, 1].item()
        assert abs(correlation) < 4.5 / N**0.5, name
        pairs = (base * 16).long() * 16 + (other * 16).long()
        assert abs(chi_square(pairs.bincount(minlength=256))) < 4.5, name


def test_permutations_hold_each_number_once_and_differ_by_epoch_and_seed() -> None:
    first = permutation(1000, 0, "shuffle")
    assert torch.equal(first.sort().values, torch.arange(1000))
    for other in (permutation(1000, 0, "shuffle", 1), permutation(1000, 1, "shuffle"), permutation(1000, 0, "x")):
        assert (other == first).sum() < 10


def test_each_number_takes_each_place_of_a_permutation_equally_often() -> None:
    places = torch.stack([permutation(5, 0, "places", epoch) for epoch in range(5000)])
    for place in range(5):
        assert abs(chi_square(places[:, place].bincount(minlength=5))) < 4.5
