"""Random numbers that are a pure function of their label, the same on every machine for ever.

A label is a few strings and integers, such as ("synthetic", seed, index): whoever knows it draws
the same numbers, so that workers share a plan without talking. The numbers come out of SHAKE-128
and not of a library's generator, whose streams may change from version to version.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Label = tuple[str | int, ...]

_WORD_BYTES = 8
_WORDS_AT_ONCE = 64


class Draws:
    """A sequence of random numbers for one label."""

    def __init__(self, *label: str | int) -> None:
        self._label = label
        self._block_number = 0
        self._words: list[int] = []

    def uniform(self) -> float:
        """From 0 up to, and without, 1."""
        return (self._word() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """An integer from 0 up to, and without, the bound."""
        return (self._word() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def lognormal(self, median: float, sigma: float) -> float:
        """A positive number, whose logarithm has the standard deviation sigma."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return median * math.exp(sigma * radius * math.cos(math.tau * self.uniform()))

    def _word(self) -> int:
        if not self._words:
            content = _bytes((*self._label, self._block_number), _WORD_BYTES * _WORDS_AT_ONCE)
            self._words = np.frombuffer(content, dtype="<u8")[::-1].tolist()
            self._block_number += 1
        return self._words.pop()


def integers_below(bound: int, count: int, label: Label) -> npt.NDArray[np.uint64]:
    """Many integers from 0 up to, and without, a bound below 2**32."""
    words = np.frombuffer(_bytes(label, 4 * count), dtype="<u4").astype(np.uint64)
    return (words * np.uint64(bound)) >> np.uint64(32)


def _bytes(label: Label, count: int) -> bytes:
    # repr keeps ("a", 1) and ("a1",) apart.
    return hashlib.shake_128(repr(label).encode()).digest(count)
