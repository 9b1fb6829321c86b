"""Reads JSON files strictly: bounded, no key twice, an object on top. It knows no field."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from santacoder_shard.errors import CheckpointError


def read_file(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file of at most `limit_bytes`; anything else is a CheckpointError."""
    check_regular(path)
    try:
        size_bytes = path.stat().st_size
        if size_bytes > limit_bytes:
            raise CheckpointError(
                f"{path.name}: too large; got {size_bytes} bytes; allowed up to {limit_bytes}"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error


def check_regular(path: Path) -> None:
    """Refuse what is missing, what opening could hang on (a FIFO, a device), and links elsewhere.

    A link may lead to another file of the model's folder, and in the hub's cache to its blobs: a
    folder from somebody else must not make this user's other files be read, and told of.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise CheckpointError(
            f"{path.name}: cannot be read: {error.strerror} in {path.parent}"
        ) from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path.name}: is not a regular file")
    if path.is_symlink() and not path.resolve().is_relative_to(_root_of(path.parent)):
        raise CheckpointError(f"{path.name}: is a link that leaves the model's folder")


def _root_of(folder: Path) -> Path:
    """The folder itself; of a snapshot in the hub's cache, whose files are links, the model's."""
    folder = folder.resolve()
    return folder.parents[1] if folder.parent.name == "snapshots" else folder


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`; `where` starts the error's line."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)[:100]
            raise CheckpointError(f"{where}: the key {twice!r} appears twice")
        return result

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except RecursionError as error:
        raise CheckpointError(f"{where}: is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(f"{where}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: must hold a JSON object; got {type(value).__name__}")
    return value
