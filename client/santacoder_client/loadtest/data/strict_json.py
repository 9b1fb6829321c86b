"""JSON, a line at a time, without the freedoms that hide a mistake. Knows no prompt."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import NoReturn

from santacoder_client.loadtest.data.settings import shown
from santacoder_client.loadtest.data.source import DataError

MOST_LINE_BYTES = 4 * 1024 * 1024
"""What the service takes in one message."""
MOST_FILE_BYTES = 256 * 1024 * 1024


def read_file(what: str, path: str) -> bytes:
    """A file's bytes; refuses what is no file, and what is too large to hold."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"{what}: not a file; got {path!r}; allowed a JSONL file")
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"{what}: {error.strerror}; got {path!r}; allowed a file that can be read"
        ) from error
    if len(content) > MOST_FILE_BYTES:
        allowed = f"at most {MOST_FILE_BYTES}"
        raise DataError(f"{what}: too large; got over {MOST_FILE_BYTES} bytes; allowed {allowed}")
    return content


def objects(path: str, content: bytes) -> Iterator[tuple[str, dict[str, object]]]:
    """Where each object stands, `FILE:LINE`, and the object. Blank lines are passed over."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        where = f"{path}:{number}"
        if len(line) > MOST_LINE_BYTES:
            allowed = f"at most {MOST_LINE_BYTES}"
            raise DataError(f"{where}: line too long; got {len(line)} bytes; allowed {allowed}")
        if line.strip():
            yield where, _object(where, line)


class _Refused(ValueError):
    pass


def _object(where: str, line: bytes) -> dict[str, object]:
    try:
        value = json.loads(
            line.decode(), object_pairs_hook=_without_repeats, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        got = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        raise DataError(f"{where}: not UTF-8; got {got}; allowed UTF-8 text") from error
    except json.JSONDecodeError as error:
        got = (
            shown(error.doc[error.pos : error.pos + 20].strip())
            if error.pos < len(error.doc)
            else "the end of the line"
        )
        problem = error.msg[:1].lower() + error.msg[1:]
        raise DataError(
            f"{where}: not JSON at column {error.colno}, {problem}; got {got}; "
            "allowed one JSON object a line"
        ) from error
    except _Refused as error:
        raise DataError(f"{where}: {error}") from error
    except (ValueError, RecursionError) as error:  # too many digits, or too deep
        got = "too many digits" if isinstance(error, ValueError) else "too many brackets"
        raise DataError(f"{where}: not JSON; got {got}; allowed one JSON object a line") from error
    if not isinstance(value, dict):
        got = type(value).__name__
        raise DataError(f"{where}: no object; got a JSON {got}; allowed one JSON object a line")
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"key given twice; got {shown(twice)}; allowed each key once")
    return whole


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"not a JSON number; got {name}; allowed finite numbers")
