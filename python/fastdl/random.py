"""Random numbers by Philox4x32-10: an element's value follows from (seed, offset + its place), never from global state.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

import numpy as np

from . import backend
from ._arguments import axes, integer

_MASK = 2**64 - 1


def _word(name, value):
    """A whole number that 64 bits without sign hold: the kernels' rule for seeds and offsets."""
    value = integer(name, value)
    if not 0 <= value <= _MASK:
        raise ValueError(f"{name}: expected an integer from 0 to 2**64 - 1; got {value}")
    return value


class Stream:
    """A run of random elements under one seed: every taker gets elements of its own.

    Parameters
    ----------
    seed : int
        Key, 0 <= seed < 2**64.
    offset : int
        Elements already used, 0 <= offset < 2**64.
    """

    __slots__ = ("offset", "seed")

    def __init__(self, seed=0, offset=0):
        self.seed, self.offset = _word("seed", seed), _word("offset", offset)

    def take(self, n):
        """Reserve n elements; returns (seed, offset) for a kernel."""
        at = self.offset
        # whole blocks of four words, so that kernels start on a block
        self.offset = (at + n + 3) & ~3 & _MASK
        return self.seed, at

    def split(self, name):
        """A stream of its own for a named purpose, the same for the same seed and name."""
        from zlib import crc32

        return Stream((self.seed * 0x9E3779B97F4A7C15 + crc32(str(name).encode()) * 0xBF58476D1CE4E5B9 + 1) & _MASK)

    def get_state(self):
        """Where the stream is, for `set_state`."""
        return {"seed": self.seed, "offset": self.offset}

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        self.seed, self.offset = _word("seed", state["seed"]), _word("offset", state["offset"])

    def __repr__(self):
        return f"Stream(seed={self.seed}, offset={self.offset})"


def _empty(name, shape, dtype=np.float32):
    return backend.empty(axes(name, shape), None, dtype)


def uniform(shape, low=0.0, high=1.0, seed=0, offset=0):
    """float32 numbers uniform in [low, high).

    Parameters
    ----------
    shape : int or tuple of int
    low, high : float
    seed, offset : int
        Which elements of which stream.

    Returns
    -------
    numpy.ndarray of float32
    """
    return backend.cpu.uniform(low, high, seed, offset, _empty("shape", shape))


def normal(shape, mean=0.0, std=1.0, seed=0, offset=0):
    """float32 numbers from a normal distribution (Box & Muller 1958). Arguments as in `uniform`."""
    return backend.cpu.normal(mean, std, seed, offset, _empty("shape", shape))


def bernoulli(p, seed=0, offset=0):
    """1.0 with probability p[i], else 0.0, for an array p of float32."""
    return backend.cpu.bernoulli(p, seed, offset)


def words(n, seed=0, offset=0):
    """n raw 32-bit words."""
    return backend.cpu.random_words(seed, offset, _empty("n", n, np.uint32))


def permutation(n, seed=0, offset=0):
    """A random order of 0 .. n-1 (int64): places sorted by a 64-bit key each, ties impossible to notice and broken by place.

    Uses 2 n elements of the stream.
    """
    (n,) = axes("n", integer("n", n))
    pairs = words(2 * n, seed, offset).view(np.uint64)
    return np.argsort(pairs, kind="stable")
