"""The contract's own bounds, as inference.proto states them, checked before any network.

Reasons and words are the server's. What depends on the served model, such as how long a prompt may
be in tokens, is the server's to judge. Values have been through `_checks.py`, so types are right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from santacoder_client._checks import refuse

Bound = Callable[[str, Any], None]
"""Takes a field's path and a value of the right type; raises InvalidRequest beyond the bound."""

PROMPT_BYTE_COUNT = 1 << 20
"""Most bytes of a prompt, both parts of an infill together, and of a text to tokenize."""
DETOKENIZED_COUNT = 16_384
"""Most ids to detokenize at once."""

_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 0.01, 5.0
_MOST_BIASES, _MOST_BIAS = 256, 100.0
_MOST_STOPS, _MOST_STOP_BYTES, _MOST_STOP_IDS = 16, 256, 64
_MOST_SALT_BYTES = 64
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SHOWN_CHARACTERS = 64


def whole(low: int, high: int, reason: str) -> Bound:
    """An integer from `low` to `high`."""

    def check(field: str, value: int) -> None:
        if not low <= value <= high:
            refuse(field, "out of range", shown(value), f"{low}..{high}", reason)

    return check


def number(low: float, high: float, reason: str, *, above_low: bool = False) -> Bound:
    """A finite number from `low` to `high`, `low` itself only unless `above_low`."""
    allowed = f"above {low:g} to {high:g}" if above_low else f"{low:g}..{high:g}"

    def check(field: str, value: float) -> None:
        if not math.isfinite(value):
            refuse(field, "not a finite number", shown(value), allowed, reason)
        if not low <= value <= high or (above_low and value == low):
            refuse(field, "out of range", shown(value), allowed, reason)

    return check


def temperature(field: str, value: float) -> None:
    """0, or from 0.01 to 5; what lies between would be noise that looks like greedy."""
    reason, allowed = "TEMPERATURE_RANGE", f"0 or {_LEAST_TEMPERATURE:g}..{_MOST_TEMPERATURE:g}"
    if not math.isfinite(value):
        refuse(field, "not a finite number", shown(value), allowed, reason)
    if 0.0 < value < _LEAST_TEMPERATURE:
        refuse(field, "out of range", shown(value), f"{allowed}. Use 0 for greedy", reason)
    if not 0.0 <= value <= _MOST_TEMPERATURE:
        refuse(field, "out of range", shown(value), allowed, reason)


def stop_strings(field: str, value: Sequence[str]) -> None:
    """Few, none empty, none long."""
    _count(field, len(value), _MOST_STOPS, "STOP_LIST", "stop strings")
    for place, text in enumerate(value):
        count = len(text.encode())
        if not 1 <= count <= _MOST_STOP_BYTES:
            what = "too long" if count else "empty"
            allowed = f"1..{_MOST_STOP_BYTES} bytes"
            refuse(f"{field}[{place}]", what, f"{count} bytes", allowed, "STOP_LIST")


def stop_ids(field: str, value: Sequence[int]) -> None:
    """Few, and none negative."""
    _count(field, len(value), _MOST_STOP_IDS, "TOKEN_ID_LIST", "ids")
    token_ids(field, value, "TOKEN_ID_LIST")


def biases(field: str, value: Mapping[int, float]) -> None:
    """Few, of no negative id, each a finite number in range."""
    _count(field, len(value), _MOST_BIASES, "TOKEN_ID_LIST", "entries")
    bias = number(-_MOST_BIAS, _MOST_BIAS, "LOGIT_BIAS_RANGE")
    for token_id, added in sorted(value.items()):
        if token_id < 0:
            refuse(field, "no such token id", shown(token_id), "0 and above", "TOKEN_ID_LIST")
        bias(f"{field}[{token_id}]", added)


def salt(field: str, value: bytes) -> None:
    """Few bytes."""
    _count(field, len(value), _MOST_SALT_BYTES, "CACHE_SALT", "bytes")


def request_id(field: str, value: str) -> None:
    """A short name of plain characters."""
    if _REQUEST_ID.fullmatch(value) is None:
        refuse(field, "not a valid id", shown(value), _REQUEST_ID.pattern, "REQUEST_ID")


def prompt_text(field: str, value: str) -> None:
    """Not empty, and not more than is tokenized."""
    if not value:
        allowed = f"1..{PROMPT_BYTE_COUNT} bytes"
        refuse(field, "empty", "0 bytes", allowed, "PROMPT_EMPTY")
    text_bytes(field, value)


def infill(field: str, prefix: str, suffix: str) -> None:
    """Something around the cursor, and not more than is tokenized."""
    if not prefix and not suffix:
        allowed = "at least one of prefix and suffix not empty"
        refuse(field, "nothing around the cursor", "0 bytes", allowed, "FIM_EMPTY")
    text_bytes(field, prefix + suffix)


def prompt_ids(field: str, value: Sequence[int]) -> None:
    """One or more, none negative."""
    if not value:
        refuse(field, "empty", "0 ids", "1 id and more", "PROMPT_EMPTY")
    token_ids(field, value)


def text_bytes(field: str, value: str) -> None:
    """Not more than is tokenized; may be empty."""
    _count(field, len(value.encode()), PROMPT_BYTE_COUNT, "PROMPT_TOO_LARGE", "bytes")


def token_ids(field: str, value: Sequence[int], reason: str = "TOKEN_ID_RANGE") -> None:
    """None negative; how many there are is known to the server alone."""
    if value and min(value) < 0:
        place = next(place for place, token_id in enumerate(value) if token_id < 0)
        what, got = "token id out of range", shown(value[place])
        refuse(f"{field}[{place}]", what, got, "0 and above", reason)


def detokenized(field: str, value: Sequence[int]) -> None:
    """Not too many, and none negative."""
    _count(field, len(value), DETOKENIZED_COUNT, "ID_COUNT", "ids")
    token_ids(field, value)


def shown(value: object) -> str:
    """A value as messages show it: escaped, on one line, short."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_CHARACTERS:
        return "a very large number"
    text = str(value)[: _SHOWN_CHARACTERS + 1].encode("unicode_escape").decode("ascii")
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _count(field: str, count: int, high: int, reason: str, unit: str) -> None:
    if count > high:
        refuse(field, f"too many {unit}", str(count), f"at most {high}", reason)


def check_order(least: object, most: object) -> None:
    """`min_new_tokens` is not above `max_new_tokens`, where both are given."""
    if isinstance(least, int) and isinstance(most, int):
        whole(0, most, "MIN_NEW_TOKENS_RANGE")("stopping.min_new_tokens", least)


_MOST_COUNT = 2**31 - 1

OF_OPTIONS: Mapping[str, Bound] = MappingProxyType(
    {
        "max_new_tokens": whole(1, _MOST_COUNT, "MAX_NEW_TOKENS_RANGE"),
        "min_new_tokens": whole(0, _MOST_COUNT, "MIN_NEW_TOKENS_RANGE"),
        "temperature": temperature,
        "top_k": whole(0, 1000, "TOP_K_RANGE"),
        "top_p": number(0, 1, "TOP_P_RANGE", above_low=True),
        "min_p": number(0, 1, "MIN_P_RANGE"),
        "typical_p": number(0, 1, "TYPICAL_P_RANGE", above_low=True),
        "repetition_penalty": number(0.1, 10, "REPETITION_PENALTY_RANGE"),
        "presence_penalty": number(-2, 2, "PRESENCE_PENALTY_RANGE"),
        "frequency_penalty": number(-2, 2, "FREQUENCY_PENALTY_RANGE"),
        "seed": whole(0, 2**63 - 1, "SEED_RANGE"),
        "stop": stop_strings,
        "stop_token_ids": stop_ids,
        "logit_bias": biases,
        "logprobs": whole(0, 20, "TOP_N_RANGE"),
        "completion_count": whole(1, 8, "COUNT_RANGE"),
        "cache_salt": salt,
        "request_id": request_id,
        "time_budget": number(0.01, 600, "DURATION_RANGE"),
    }
)
