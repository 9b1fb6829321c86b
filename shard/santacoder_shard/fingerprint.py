"""A quick hash that is equal wherever a checkpoint's files are equal; it proves no integrity.

Every byte of 4 GB would take seconds on each rank, so large files are sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from santacoder_shard.errors import CheckpointError

EDGE_BYTES = 256 << 10
WINDOW_BYTES = 4 << 10
WINDOW_COUNT = 256


def fingerprint(paths: Sequence[Path], facts: Sequence[str]) -> str:
    """SHA-256 in hex over `facts` and each file's name, size, edges and windows between them."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(fact.encode() + b"\n")
    for path in paths:
        try:
            _add_file(digest, path)
        except OSError as error:
            raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    size_bytes = path.stat().st_size
    digest.update(f"{path.name} {size_bytes}\n".encode())
    middle_bytes = max(0, size_bytes - 2 * EDGE_BYTES)
    # A small file is read whole: its windows then touch each other.
    step_bytes = max(WINDOW_BYTES, middle_bytes // WINDOW_COUNT)
    with path.open("rb") as stream:
        digest.update(stream.read(EDGE_BYTES))
        for start in range(EDGE_BYTES, EDGE_BYTES + middle_bytes, step_bytes):
            stream.seek(start)
            digest.update(stream.read(WINDOW_BYTES))
        stream.seek(max(0, size_bytes - EDGE_BYTES))
        digest.update(stream.read(EDGE_BYTES))
