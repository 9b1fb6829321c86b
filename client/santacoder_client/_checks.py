"""Whether a value can be said in a message at all; `_bounds.py` knows what the contract allows."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

import grpc

from santacoder_client.errors import InvalidRequest, Violation

Member = TypeVar("Member", bound=StrEnum)
Check = Callable[[str, object], object]
"""Takes a field's path and a value; gives the value to send or raises InvalidRequest."""


def refuse(field: str, problem: str, got: str, allowed: str, reason: str) -> NoReturn:
    """Raises InvalidRequest in the one form that all errors of the service have."""
    description = f"{problem}; got {got}; allowed {allowed}"
    raise InvalidRequest(
        f"{field}: {description}",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=reason,
        violations=(Violation(field, description, reason),),
    )


def text(field: str, value: object) -> str:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        _wrong_type(field, value, "a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        got = f"a lone surrogate at character {error.start}"
        refuse(field, "not Unicode text", got, "whole characters", "MALFORMED_REQUEST")
    return value


def integer(field: str, value: object) -> int:
    """An integer of any size; what has `__index__` is one, a bool is not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        _wrong_type(field, value, "an int")
    number: int = value.__index__()
    return number


def int64(field: str, value: object) -> int:
    """An integer of 64 bits."""
    number = integer(field, value)
    if not -(2**63) <= number < 2**63:
        got = str(number) if abs(number) < 10**_SHOWN_CHARACTERS else "a very large number"
        refuse(field, "out of range", got, "an integer of 64 bits", "OUT_OF_RANGE")
    return number


def real(field: str, value: object) -> float:
    """A number as a float, which is infinite where it is too large for one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        _wrong_type(field, value, "a number")
    number: Any = value
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def time_span(field: str, value: object) -> float:
    """A number of seconds."""
    return real(field, value)


def seconds(field: str, value: object) -> float:
    """A finite number of seconds that a Duration can carry."""
    number = real(field, value)
    if not math.isfinite(number) or abs(number) > _DURATION_SECONDS:
        refuse(field, "out of range", f"{number:g}", "a finite number of seconds", "OUT_OF_RANGE")
    return number


def boolean(field: str, value: object) -> bool:
    """True or False themselves."""
    if not isinstance(value, bool):
        _wrong_type(field, value, "True or False")
    return value


def salt(field: str, value: object) -> bytes:
    """Bytes, or text as its UTF-8 bytes."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str):
        _wrong_type(field, value, "bytes or a str")
    return text(field, value).encode()


def items(field: str, value: object, allowed: str) -> Iterable[object]:
    """Several of something; a str, bytes or mapping is one thing."""
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        _wrong_type(field, value, allowed)
    return value


def texts(field: str, value: object) -> list[str]:
    """One string or several."""
    if isinstance(value, str):
        return [text(field, value)]
    several = items(field, value, "a str or a list of them")
    return [text(f"{field}[{index}]", item) for index, item in enumerate(several)]


def token_ids(field: str, value: object) -> list[int]:
    """Several ids."""
    several = items(field, value, "a list of token ids")
    return [int64(f"{field}[{index}]", item) for index, item in enumerate(several)]


def biases(field: str, value: object) -> dict[int, float]:
    """A bias for each of several ids."""
    if not isinstance(value, Mapping):
        _wrong_type(field, value, "a mapping from token id to number")
    return {
        int64(f"{field} key", token_id): real(f"{field}[{token_id}]", bias)
        for token_id, bias in value.items()
    }


def one_of(kind: type[Member]) -> Callable[[str, object], Member]:
    """A check for a member of an enum, or its name in any case."""

    def check(field: str, value: object) -> Member:
        names = ", ".join(member.value for member in kind)
        if not isinstance(value, str):
            _wrong_type(field, value, names)
        try:
            return kind(value.lower())
        except ValueError:
            refuse(field, "unknown", repr(value[:_SHOWN_CHARACTERS]), names, "ENUM_UNKNOWN")

    return check


_DURATION_SECONDS = 315_576_000_000
"""The bound that google.protobuf.Duration sets itself: 10,000 years."""
_SHOWN_CHARACTERS = 64


def _wrong_type(field: str, value: object, allowed: str) -> NoReturn:
    refuse(field, "wrong type", f"a value of type {type(value).__name__}", allowed, "WRONG_TYPE")
