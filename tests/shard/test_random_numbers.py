"""The random numbers are Philox's own, uniform, and of another stream for every key."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from santacoder_shard.random_numbers import philox, random_uint64

_ONES = 0xFFFF_FFFF


# The known answers published with the generator (Random123, kat_vectors, philox4x32 10).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((_ONES,) * 4, (_ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert philox(counter, key) == words


def test_a_number_is_the_first_two_words_keyed_by_seed_and_counted_by_position_and_sample() -> None:
    low, high, _, _ = philox((7, 0, 3, 0), (0x89AB_CDEF, 0x0123_4567))
    assert random_uint64(0x0123_4567_89AB_CDEF, sample_index=3, position=7) == high << 32 | low


def test_the_whole_range_of_seeds_is_used() -> None:
    seeds = [0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
    numbers = [random_uint64(seed, 0, 0) for seed in seeds]
    assert len(set(numbers)) == len(seeds)
    assert all(0 <= number < 2**64 for number in numbers)


def test_seeds_samples_and_positions_have_numbers_of_their_own() -> None:
    keys = [(a, b, c) for a in range(20) for b in range(20) for c in range(20)]
    assert len({random_uint64(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("varied", ["seed", "sample_index", "position"])
def test_numbers_are_uniform_along_every_axis(varied: str) -> None:
    draw_count, bin_count = 16_000, 64
    counts = [0] * bin_count
    for index in range(draw_count):
        arguments = {"seed": 11, "sample_index": 2, "position": 5} | {varied: index}
        counts[random_uint64(**arguments) * bin_count >> 64] += 1
    expected = draw_count / bin_count
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    freedom = bin_count - 1
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_numbers_of_neighbouring_positions_are_uncorrelated() -> None:
    uniforms = [random_uint64(5, 0, position) / 2**64 - 0.5 for position in range(16_000)]
    products = [first * second for first, second in pairwise(uniforms)]
    # The product of two independent uniforms on (-1/2, 1/2) has standard deviation 1/12.
    assert abs(sum(products)) < 4 / 12 * math.sqrt(len(products))
