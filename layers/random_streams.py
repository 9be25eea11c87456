"""Random numbers that are a function of (seed, stream, counter): the same on every device, in any order, in a graph.

splitmix64 (Steele, Lea and Flood 2014) as int64 tensor operations: bits = mix(key(seed, stream) + counter * gamma).
"""

import functools
import hashlib

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)  # as int64, modulo 2^64
_PIECE = 2**16  # how many numbers a thread draws at a time, so that they stay in its core's cache


def random_bits(seed: int, stream: int | str, counter: Tensor) -> Tensor:
    """Return 64 random bits for each element of `counter` (int64, any shape), as int64 of its shape.

    Streams (any integers or texts) of one seed are independent of each other.
    """
    first, second = _MULTIPLIERS
    bits = (counter * _GAMMA).add_(_key(seed, stream))
    bits = bits.bitwise_xor_(_shift_right(bits, 30)).mul_(first)
    bits = bits.bitwise_xor_(_shift_right(bits, 27)).mul_(second)
    return bits.bitwise_xor_(_shift_right(bits, 31))


def random_32_bits(seed: int, stream: int | str, counter: Tensor) -> Tensor:
    """Return for each element of `counter` 32 random bits, as int64."""
    return _shift_right(random_bits(seed, stream, counter), 32)


def random_below(n: int | Tensor, seed: int, stream: int | str, counter: Tensor) -> Tensor:
    """Return for each element of `counter` a random integer of 0 .. n - 1, as int64; n (or each n) is 1 .. 2^31.

    Each value has probability 1/n to within 2^-32.
    """
    return random_32_bits(seed, stream, counter).mul_(n).bitwise_right_shift_(32)


def random_uniform(seed: int, stream: int | str, counter: Tensor) -> Tensor:
    """Return for each element of `counter` a random float32 in [0, 1), a multiple of 2^-24."""
    size = _PIECE * torch.get_num_threads()
    if counter.device.type == "cpu" and counter.numel() > size:
        pieces = [random_uniform(seed, stream, piece) for piece in torch.split(counter.flatten(), size)]
        return torch.cat(pieces).view(counter.shape)
    return _shift_right(random_bits(seed, stream, counter), 40).to(torch.float32).mul_(2.0**-24)


def permutation(
    n: int, seed: int, stream: int | str, epoch: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Return a random order of 0 .. n - 1 (int64, on `device`), another for each `epoch`."""
    counter = torch.arange(epoch * n, (epoch + 1) * n, device=device)
    return random_bits(seed, stream, counter).argsort(stable=True)


@functools.lru_cache(maxsize=1024)
def _key(seed: int, stream: int | str) -> int:
    digest = hashlib.blake2b(f"{seed} {stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Shift without copying the sign bit, which int64's own shift does."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
