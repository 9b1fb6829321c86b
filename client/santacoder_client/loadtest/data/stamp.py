"""The sha256 that says whether two runs had the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

DATA_VERSION = 1
"""One more whenever a source gives other prompts than before for the same options and files."""


def stamp_of(
    name: str, options: Mapping[str, object], contents: Iterable[tuple[str, bytes]] = ()
) -> str:
    """Over version, name, options with their seed, and every file's name and bytes, in order."""
    stamp = hashlib.sha256()
    head = json.dumps([DATA_VERSION, name, dict(options)], sort_keys=True, ensure_ascii=True)
    _add(stamp, head.encode())
    for file_name, content in contents:
        _add(stamp, file_name.encode("utf-8", "surrogateescape"))
        _add(stamp, content)
    return stamp.hexdigest()


def _add(stamp: hashlib._Hash, part: bytes) -> None:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    stamp.update(len(part).to_bytes(8, "little"))
    stamp.update(part)
