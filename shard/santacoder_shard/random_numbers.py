"""Random numbers that depend on nothing but what they are asked for; knows no state and no clock.

Philox-4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as
1, 2, 3" (SC 2011), in integers throughout, so that any device can compute the same bits.
"""

from __future__ import annotations

from typing import Final

_WORD_MASK: Final = 0xFFFF_FFFF
_ROUND_COUNT: Final = 10
# As published. The increments are the golden ratio and sqrt(3) - 1, as 32-bit fractions.
_MULTIPLIERS: Final = (0xD251_1F53, 0xCD9E_8D57)
_KEY_INCREMENTS: Final = (0x9E37_79B9, 0xBB67_AE85)


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four random 32-bit words for a counter of four 32-bit words and a key of two."""
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(_ROUND_COUNT):
        product_0 = _MULTIPLIERS[0] * word_0
        product_1 = _MULTIPLIERS[1] * word_2
        word_0 = (product_1 >> 32) ^ word_1 ^ key_0
        word_1 = product_1 & _WORD_MASK
        word_2 = (product_0 >> 32) ^ word_3 ^ key_1
        word_3 = product_0 & _WORD_MASK
        key_0 = (key_0 + _KEY_INCREMENTS[0]) & _WORD_MASK
        key_1 = (key_1 + _KEY_INCREMENTS[1]) & _WORD_MASK
    return word_0, word_1, word_2, word_3


def random_uint64(seed: int, sample_index: int, position: int) -> int:
    """The random integer that chooses output token `position` of one answer, in [0, 2**64).

    `seed` is a uint64; `sample_index` and `position` are uint32.
    """
    low, high, _, _ = philox((position, 0, sample_index, 0), (seed & _WORD_MASK, seed >> 32))
    return (high << 32) | low
