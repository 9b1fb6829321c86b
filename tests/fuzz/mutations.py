"""Inputs for readers of bytes: noise, and sound inputs with a few things done to them. Seeded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Make = Callable[[random.Random], bytes]

NUMBERS = (
    b"0 -1 1 1.0 -0 1e999 1e-999 NaN Infinity null true false [] {} 9223372036854775808"
    b' 18446744073709551616 4294967296 2147483648 -2147483649 "" "x"'
).split(b" ")
NUMBER = re.compile(rb"-?\d+")
WORDS = (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 9, b"\0" * 8, b'{"', b"}}", b"[[[[")
MOST_CHANGES = 4
POOL_BYTES = 1 << 16


def noise(most_bytes: int = 64) -> Make:
    """Random bytes of any length up to so many: slices of a pool, one for each source."""
    pool, owner = b"", random.Random()

    def make(source: random.Random) -> bytes:
        nonlocal pool, owner
        if source is not owner:
            pool, owner = source.randbytes(POOL_BYTES), source
        # Quicker than randrange, and as good here.
        start = int(source.random() * POOL_BYTES)
        return pool[start : start + int(source.random() * most_bytes)]

    return make


def mutated(seeds: Sequence[bytes], is_text: bool = False) -> Make:
    """One of the sound inputs with one to four changes; of text, numbers are changed as well."""
    changes = (*CHANGES, *([change_number] * 4 if is_text else []))

    def make(source: random.Random) -> bytes:
        data = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, MOST_CHANGES)):
            if data:
                source.choice(changes)(source, data, seeds)
        return bytes(data)

    return make


def either(*makers: Make) -> Make:
    """Each as often as the others."""

    def make(source: random.Random) -> bytes:
        return makers[int(source.random() * len(makers))](source)

    return make


def flip_bit(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def set_byte(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    data[source.randrange(len(data))] = source.choice(
        (0, 1, 0x7F, 0x80, 0xFF, source.getrandbits(8))
    )


def cut_out(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    start = source.randrange(len(data))
    del data[start : start + source.randint(1, 16)]


def cut_short(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[source.randrange(len(data)) :]


def repeat(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    start = source.randrange(len(data))
    part = data[start : start + source.randint(1, 64)]
    data[start:start] = part * source.choice((1, 1, 1, 16))


def put_word(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    start = source.randrange(len(data))
    data[start:start] = source.choice(WORDS)


def splice(source: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = source.choice(seeds)
    start = source.randrange(len(other) + 1)
    data[source.randrange(len(data)) :] = other[start:]


def change_number(source: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    found = list(NUMBER.finditer(data))
    if found:
        place = source.choice(found)
        data[place.start() : place.end()] = source.choice(NUMBERS)


CHANGES = (flip_bit, set_byte, cut_out, cut_short, repeat, put_word, splice)
