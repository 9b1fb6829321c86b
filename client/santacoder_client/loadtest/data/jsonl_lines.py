"""What one JSON object of a data file asks for. Knows no file and no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from santacoder_client import _checks
from santacoder_client._options import OPTIONS, check_options
from santacoder_client.errors import InvalidRequest
from santacoder_client.loadtest.data.settings import shown
from santacoder_client.loadtest.data.source import DataError, Prompt

MOST_SECONDS = 366 * 24 * 3600.0
_SHAPES = ({"prompt"}, {"prefix", "suffix"}, {"token_ids"})
_TRACE_KEYS = {"timestamp", "input_length", "output_length", "hash_ids"}
_OWN_KEYS = {"at", "family", "expected"}
_OPTION_NAMES = {option.name for option in OPTIONS} - {"request_id"}
"""Without the request's id: a line is sent more than once, an id is taken only once."""
MOST_LENGTH = 10_000_000
MOST_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A line of a timed trace: lengths, and the hashes of the prompt's blocks."""

    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of either kind."""

    where: str
    """`FILE:LINE`, for errors."""
    at_seconds: float | None
    prompt: Prompt
    trace: TraceLine | None = None


def prompt_lines(objects: Iterable[tuple[str, dict[str, object]]]) -> Iterator[Line]:
    """Each object as a prompt; raises DataError where it is none."""
    for where, values in objects:
        try:
            if values.keys() & _TRACE_KEYS:
                yield _trace_line(where, values)
            else:
                yield _prompt_line(where, values)
        except InvalidRequest as error:
            raise DataError(f"{where}: {error.message}") from error


def _prompt_line(where: str, values: dict[str, object]) -> Line:
    shapes = [keys for keys in _SHAPES if keys & values.keys()]
    if len(shapes) != 1 or not shapes[0] <= values.keys():
        got = ", ".join(sorted(key for keys in _SHAPES for key in keys & values.keys()))
        allowed = "prompt, or prefix and suffix, or token_ids"
        raise DataError(f"{where}: not exactly one prompt; got {got or 'none'}; allowed {allowed}")
    _refuse_others(where, values, shapes[0] | _OWN_KEYS | _OPTION_NAMES)
    options = _options(values)
    new_tokens, salt = options.pop("max_new_tokens", None), options.pop("cache_salt", None)
    at_seconds = _seconds(where, "at", values["at"]) if "at" in values else None
    prompt = replace(
        _content(where, values),
        family=_checks.text("family", values.get("family", "")),
        max_new_tokens=new_tokens if isinstance(new_tokens, int) else None,
        cache_salt=salt if isinstance(salt, bytes) else None,
        scheduled_at=at_seconds,
        expected=_checks.text("expected", values["expected"]) if "expected" in values else None,
        options=options,
    )
    return Line(where, at_seconds, prompt)


def _content(where: str, values: dict[str, object]) -> Prompt:
    """The prompt alone; an empty one is refused here, as every server would."""
    if "token_ids" in values:
        ids = values["token_ids"]
        if not isinstance(ids, list) or not ids:
            _wrong(where, "token_ids", ids, "a list of one token id or more")
        numbers = (
            _integer(where, f"token_ids[{place}]", token_id, 0, MOST_INTEGER)
            for place, token_id in enumerate(ids)
        )
        return Prompt(kind="token_ids", token_ids=tuple(numbers))
    if "prompt" in values:
        text = _checks.text("prompt", values["prompt"])
        if not text:
            _wrong(where, "prompt", text, "one character or more")
        return Prompt(kind="text", text=text)
    prefix = _checks.text("prefix", values["prefix"])
    suffix = _checks.text("suffix", values["suffix"])
    if not prefix and not suffix:
        _wrong(where, "prefix and suffix", "", "one character or more in either")
    return Prompt(kind="infill", prefix=prefix, suffix=suffix)


def _options(values: Mapping[str, object]) -> dict[str, object]:
    """The request options among the values, checked as the SDK checks its keywords."""
    given = {name: value for name, value in values.items() if name in _OPTION_NAMES}
    biases = given.get("logit_bias")
    if isinstance(biases, dict):
        # JSON has only strings for keys; what is no number stays one, and is refused below.
        given["logit_bias"] = {_key(name): bias for name, bias in biases.items()}
    return check_options(given)


def _key(name: str) -> int | str:
    return int(name) if name.isascii() and name.isdigit() and len(name) < 20 else name


def _trace_line(where: str, values: dict[str, object]) -> Line:
    for key in sorted(_TRACE_KEYS - values.keys()):
        raise DataError(
            f"{where}: {key}: missing; got nothing; allowed all of {_names(_TRACE_KEYS)}"
        )
    _refuse_others(where, values, _TRACE_KEYS)
    hash_ids = values["hash_ids"]
    if not isinstance(hash_ids, list) or not hash_ids:
        _wrong(where, "hash_ids", hash_ids, "a list of one integer or more")
    trace = TraceLine(
        input_length=_integer(where, "input_length", values["input_length"], 1, MOST_LENGTH),
        output_length=_integer(where, "output_length", values["output_length"], 1, MOST_LENGTH),
        hash_ids=tuple(
            _integer(where, f"hash_ids[{place}]", hash_id, 0, MOST_INTEGER)
            for place, hash_id in enumerate(hash_ids)
        ),
    )
    milliseconds = _integer(where, "timestamp", values["timestamp"], 0, int(MOST_SECONDS * 1000))
    return Line(where, milliseconds / 1000, Prompt(kind="token_ids"), trace)


def _refuse_others(where: str, values: Mapping[str, object], known: set[str]) -> None:
    for key in values:
        if key not in known:
            allowed = _names(known)
            raise DataError(f"{where}: unknown key; got {shown(key)}; allowed {allowed}")


def _integer(where: str, key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _wrong(where, key, value, f"an integer from {low} to {high}")
    return value


def _seconds(where: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(where, key, value, "a number of seconds")
    if not 0 <= value <= MOST_SECONDS:
        _wrong(where, key, value, f"seconds from 0 to {MOST_SECONDS:g}")
    return float(value)


def _wrong(where: str, key: str, value: object, allowed: str) -> NoReturn:
    got = shown(value) if isinstance(value, str) else _json(value)
    raise DataError(f"{where}: {key}: wrong value; got {got}; allowed {allowed}")


def _json(value: object) -> str:
    """A value as the file has it, if that is short."""
    if isinstance(value, list | dict):
        return f"a JSON {type(value).__name__} of {len(value)}"
    text = json.dumps(value) if not isinstance(value, int) or abs(value) < 10**40 else "an integer"
    return text


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))
