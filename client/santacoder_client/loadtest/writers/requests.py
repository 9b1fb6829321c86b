"""A line of JSON for every request: all that a record holds, times in seconds on the run's clock.

`chunks` are pairs of a time and a number of tokens. What never happened is null. Reading is strict:
what is computed from records must not be computed from what only looks like them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord
from santacoder_client.loadtest.schema import AtLeast, Mismatch, reader_of
from santacoder_client.loadtest.writers.files import open_whole

SECONDS_MAX = 31 * 86400.0
LINE_BYTES_MAX = 16 * 2**20
COUNT_MAX = 2**31 - 1
FIELDS = tuple(field.name for field in fields(RequestRecord))

Moment = Annotated[float, AtLeast(0, SECONDS_MAX)]
Count = Annotated[int, AtLeast(0, COUNT_MAX)]
_KINDS: dict[Any, Any] = {float: Moment, float | None: Moment | None, int: Count}


def write_requests(path: str | Path, records: Iterable[RequestRecord]) -> None:
    """Writes a line for each. Raises LoadTestError, as for a full disk."""
    with open_whole(path) as file:
        for record in records:
            file.write(line_of(record))


def line_of(record: RequestRecord) -> str:
    """The line of one request, with its end."""
    values = {name: getattr(record, name) for name in FIELDS}
    values["chunks"] = [(chunk.at_seconds, chunk.token_count) for chunk in record.chunks]
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text + "\n"


def read_requests(path: str | Path) -> Iterator[RequestRecord]:
    """The requests in a file, one after the other. Raises UsageError, with the line's number."""
    read = _line_reader()
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                yield read(line, f"{path}:{number}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"{path}: {reason}") from error


def _line_reader() -> Callable[[bytes, str], RequestRecord]:
    hints = get_type_hints(RequestRecord)
    outcomes = Literal["ok", "failed", "cancelled", "superseded", "unsent"]
    kinds = {name: _KINDS.get(hints[name], hints[name]) for name in FIELDS}
    kinds |= {"chunks": Any, "outcome": outcomes}
    readers = {name: reader_of(kind) for name, kind in kinds.items()}

    def read(line: bytes, place: str) -> RequestRecord:
        values = _object(line, place)
        try:
            parts = {name: each(values[name], name) for name, each in readers.items()}
            parts["chunks"] = _chunks(parts["chunks"])
        except Mismatch as error:
            raise UsageError(f"{place}: {error}") from error
        return RequestRecord(**parts | {"outcome": Outcome(parts["outcome"])})

    return read


def _object(line: bytes, place: str) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise UsageError(f"{place}: line too long; got more; allowed {LINE_BYTES_MAX} bytes")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.keys() != set(FIELDS):
        allowed = "lines that --requests-output wrote"
        raise UsageError(f"{place}: not a request; got {line[:40]!r}; allowed {allowed}")
    return values


def _chunks(value: object) -> list[Chunk]:
    """The messages, each not before the last."""
    if not isinstance(value, list):
        raise _no_chunks(value)
    chunks: list[Chunk] = []
    begin = 0.0
    at: Any
    count: Any
    for pair in value:
        at, count = pair if isinstance(pair, list) and len(pair) == 2 else ("", "")
        if type(at) not in (int, float) or type(count) is not int:
            raise _no_chunks(pair)
        if not begin <= at <= SECONDS_MAX or not 1 <= count <= COUNT_MAX:
            raise _no_chunks(pair)
        begin = float(at)
        chunks.append(Chunk(begin, count))
    return chunks


def _no_chunks(value: object) -> Mismatch:
    allowed = "[seconds, tokens] in order of time"
    return Mismatch(f"chunks: not messages with tokens; got {value!r:.64}; allowed {allowed}")
