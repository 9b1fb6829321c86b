"""Dataclasses to JSON and back, strictly: every name there, none unknown, every value of its type.

Knows no result and no file. What a field may hold stands in its type, bounds included:
`Annotated[float, AtLeast(0)]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Read = Callable[[object, str], Any]
"""Gives the typed value of a JSON value, or raises Mismatch. The string is the value's place."""

SHOWN_CHARACTERS = 64
INTEGER_MAX = 2**1000
"""Beyond it lies no float."""


class Mismatch(Exception):
    """A value that the type does not allow: `<place>: <what is wrong>; got ...; allowed ...`."""


@dataclasses.dataclass(frozen=True, slots=True)
class AtLeast:
    """Bounds of a number, both included."""

    low: float
    high: float = math.inf


def to_json(value: Any) -> Any:
    """A tree of dataclasses, tuples and plain values as JSON has it; tuples become lists."""
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: to_json(member) for name, member in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(member) for member in value]
    return value


def reader_of(kind: Any) -> Read:
    """What reads values of a type. Build it once, where many values are read."""
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _object_reader(kind)
    if origin is Annotated:
        plain, bounds = get_args(kind)
        return _bounded_reader(reader_of(plain), bounds)
    if origin in (UnionType, Union):
        (some,) = (option for option in get_args(kind) if option is not NoneType)
        return _optional_reader(reader_of(some))
    if origin is Literal:
        return _choice_reader(get_args(kind))
    if origin is tuple:
        return _list_reader(reader_of(get_args(kind)[0]))
    if origin is dict:
        return _mapping_reader(reader_of(get_args(kind)[1]))
    if kind is Any:
        return lambda value, place: value
    return _plain_reader(kind)


def _object_reader(kind: Any) -> Read:
    hints = get_type_hints(kind, include_extras=True)
    readers = {field.name: reader_of(hints[field.name]) for field in dataclasses.fields(kind)}

    def read(value: object, place: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(place, "not an object", value, "an object")
        _check_names(value, readers, place)
        parts = {name: read(value[name], _below(place, name)) for name, read in readers.items()}
        return kind(**parts)

    return read


def _check_names(value: dict[str, Any], known: Iterable[str], place: str) -> None:
    for name in known:
        if name not in value:
            raise Mismatch(f"{_below(place, name)}: missing; got nothing; allowed a value")
    for name in value:
        if name not in known:
            allowed = ", ".join(known)
            raise _mismatch(_below(place, name), "unknown name", name, allowed)


def _bounded_reader(read: Read, bounds: AtLeast) -> Read:
    def read_bounded(value: object, place: str) -> Any:
        number = read(value, place)
        if bounds.low <= number <= bounds.high:
            return number
        high = f" to {bounds.high:g}" if math.isfinite(bounds.high) else " or more"
        raise _mismatch(place, "out of range", value, f"{bounds.low:g}{high}")

    return read_bounded


def _optional_reader(read: Read) -> Read:
    return lambda value, place: None if value is None else read(value, place)


def _choice_reader(choices: tuple[object, ...]) -> Read:
    def read(value: object, place: str) -> Any:
        if isinstance(value, str) and value in choices:
            return value
        raise _mismatch(place, "not one of the choices", value, ", ".join(map(str, choices)))

    return read


def _list_reader(read: Read) -> Read:
    def read_all(value: object, place: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(place, "not a list", value, "a list")
        return tuple(read(member, f"{place}[{index}]") for index, member in enumerate(value))

    return read_all


def _mapping_reader(read: Read) -> Read:
    def read_all(value: object, place: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(place, "not an object", value, "an object")
        return {name: read(member, _below(place, name)) for name, member in value.items()}

    return read_all


def _plain_reader(kind: type) -> Read:
    allowed = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}[kind]

    def read(value: object, place: str) -> Any:
        # In Python true is an integer; here it is not.
        if type(value) is kind and (kind is not float or math.isfinite(value)):  # type: ignore[arg-type]
            return value
        if kind is float and type(value) is int and abs(value) <= INTEGER_MAX:
            return float(value)
        raise _mismatch(place, f"not {allowed}", value, allowed)

    return read


def _below(place: str, name: str) -> str:
    # A name may be anything that JSON can write.
    shown = name if name.isprintable() and len(name) <= SHOWN_CHARACTERS else f"{name!r:.64}"
    return f"{place}.{shown}" if place else shown


def _mismatch(place: str, wrong: str, value: object, allowed: str) -> Mismatch:
    got = repr(value)
    shown = got if len(got) <= SHOWN_CHARACTERS else got[:SHOWN_CHARACTERS] + "..."
    return Mismatch(f"{place or 'result'}: {wrong}; got {shown}; allowed {allowed}")
