"""Messages of any type with values at the edges of what each field can hold. Seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INT32, INT64, UINT32, UINT64 = 2**31 - 1, 2**63 - 1, 2**32 - 1, 2**64 - 1
SMALL = (0, 1, 2, 3, 7, 8, 9, 16, 20, 21, 64, 65, 255, 256, 1000, 1001, 2047, 2048, 49_156, 49_157)
REALS = (
    *(0.0, -0.0, 1.0, -1.0, 0.01, 0.1, 0.5, 2.0, 5.0, 10.0, -2.0, 100.0, 5e-324, 1e-40, 1e308),
    *(math.nan, math.inf, -math.inf, math.nextafter(1.0, 2.0), math.nextafter(5.0, 6.0)),
)
TEXTS = (
    "",
    "x",
    "def f(x):\n",
    "<fim-middle>",
    "é☃😀",
    "\0",
    "a" * 64,
    "a" * 65,
    "x" * 257,
    "../a",
)
DEPTH = 6
FIELD_SHARE = 0.4
"""How many of a message's fields are set."""

Draw = Callable[[random.Random], Any]


def integer(low: int, high: int) -> Draw:
    """Mostly small, or at an end."""

    def draw(source: random.Random) -> int:
        kind = source.random()
        if kind < 0.6:
            return source.choice(SMALL)
        if kind < 0.8:
            return source.choice((low, low + 1, -1 if low else 0, high - 1, high))
        return source.randint(low, high)

    return draw


def real(source: random.Random) -> float:
    return source.choice(REALS) if source.random() < 0.7 else source.uniform(-3.0, 12.0)


def text(source: random.Random) -> str:
    return source.choice(TEXTS)


def data(source: random.Random) -> bytes:
    """Often packed 32-bit words, as shard.v1 has them."""
    count = source.choice((0, 1, 2, 4, 8, 65))
    return source.randbytes(count * source.choice((1, 4, 4)))


DRAWS: dict[int, Draw] = {
    FieldDescriptor.CPPTYPE_INT32: integer(-INT32 - 1, INT32),
    FieldDescriptor.CPPTYPE_INT64: integer(-INT64 - 1, INT64),
    FieldDescriptor.CPPTYPE_UINT32: integer(0, UINT32),
    FieldDescriptor.CPPTYPE_UINT64: integer(0, UINT64),
    FieldDescriptor.CPPTYPE_DOUBLE: real,
    FieldDescriptor.CPPTYPE_FLOAT: real,
    FieldDescriptor.CPPTYPE_BOOL: lambda source: source.random() < 0.5,
    FieldDescriptor.CPPTYPE_ENUM: lambda source: source.choice((0, 1, 2, 3, 4, 7, -1, 99, INT32)),
}


def fill(source: random.Random, message: Any, depth: int = DEPTH) -> None:
    """Sets some of a message's fields, at any depth."""
    for field in message.DESCRIPTOR.fields:
        if source.random() < FIELD_SHARE:
            _set(source, message, field, depth)


def _set(source: random.Random, message: Any, field: FieldDescriptor, depth: int) -> None:
    target = getattr(message, field.name)
    is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    if hasattr(target, "GetEntryClass"):
        key, value = (DRAWS[part.cpp_type] for part in field.message_type.fields)  # type: ignore[union-attr]
        for _ in range(source.choice((1, 2, 257))):
            target[key(source)] = value(source)
    elif is_message and depth:
        entries = (
            [target.add() for _ in range(source.choice((1, 2, 9)))]
            if _repeats(target)
            else [target]
        )
        for entry in entries:
            entry.SetInParent() if not _repeats(target) else None
            fill(source, entry, depth - 1)
    elif not is_message:
        draw = _draw_of(field)
        if _repeats(target):
            target.extend(draw(source) for _ in range(source.choice((1, 2, 17, 65))))
        else:
            setattr(message, field.name, draw(source))


def _repeats(target: object) -> bool:
    return hasattr(target, "extend")


def _draw_of(field: FieldDescriptor) -> Draw:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return data if field.type == FieldDescriptor.TYPE_BYTES else text
    return DRAWS[field.cpp_type]


def messages(kind: type[Message], mend: Callable[[Any, random.Random], None] | None = None) -> Draw:
    """Serialized messages; `mend` makes some of them sound where chance would hardly ever."""

    def make(source: random.Random) -> bytes:
        message = kind()
        fill(source, message)
        if mend is not None:
            mend(message, source)
        return message.SerializeToString()

    return make
