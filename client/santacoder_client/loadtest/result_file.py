"""Result files: JSON that is read strictly, and written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.result import SCHEMA, Result
from santacoder_client.loadtest.schema import Mismatch, reader_of, to_json
from santacoder_client.loadtest.writers.files import write_whole

FILE_BYTES_MAX = 256 * 2**20


def to_text(result: Result) -> str:
    """The result as a JSON text, the same for the same result."""
    return json.dumps(to_json(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_text(text: str | bytes, name: str) -> Result:
    """The result in a JSON text. Raises UsageError, which names the file and the place."""
    try:
        value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError, Mismatch) as error:
        reason = str(error) if not isinstance(error, RecursionError) else "nested too deeply"
        raise UsageError(
            f"{name}: not a JSON result; got {reason}; allowed what santacoder-load wrote"
        ) from error
    try:
        result: Result = reader_of(Result)(_of_this_schema(value), "")
    except Mismatch as error:
        raise UsageError(f"{name}: {error}") from error
    return result


def load(path: str | Path) -> Result:
    """Reads a result file. Raises UsageError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"{path}: {reason}; got nothing; allowed a result's file") from error
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path}: too large; got more; allowed {FILE_BYTES_MAX} bytes")
    return from_text(content, str(path))


def save(result: Result, path: str | Path) -> None:
    """Writes a result file whole or not at all. Raises LoadTestError."""
    write_whole(path, to_text(result))


def _of_this_schema(value: object) -> object:
    """The same value, if it says that it has our schema: any other complaint would mislead."""
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise Mismatch(
            f"schema: not a result of this version; got {schema!r:.64}; allowed {SCHEMA!r}"
        )
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Mismatch("a name stands twice in an object")
    return value


def _no_constant(name: str) -> float:
    raise Mismatch(f"{name} is no JSON number")
