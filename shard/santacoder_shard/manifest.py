"""SHA256SUMS in a model's folder, as `sha256sum` writes it: what its files are, to the bit.

No loader sees that a bit of a weight has flipped. A folder without the file is not checked. Needs
no torch. Hashing takes half a second a gigabyte, so files that were checked are known again by
what the file system says of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from santacoder_shard import strict_json
from santacoder_shard.errors import CheckpointError, first_few
from santacoder_shard.weight_files import find_weight_files

MANIFEST = "SHA256SUMS"
LIMIT_BYTES = 1 << 20
LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>[^/\\\0]{1,255})")


def verify(folder: Path, verified_as: str = "") -> str:
    """Checks the files that are loaded; what they are known by from then on, empty if unchecked.

    Nothing is read again where `verified_as` is what they are known by now. Raises CheckpointError.
    """
    path = folder / MANIFEST
    if not (path.is_symlink() or path.exists()):
        return ""
    files = find_weight_files(folder)
    loaded = (folder / "config.json", folder / "tokenizer.json", files.main, *files.paths)
    names = sorted({path.name for path in loaded})
    # Before the reading: what changes meanwhile is not what was read.
    identity = _identity(folder, [MANIFEST, *names])
    if identity == verified_as:
        return identity
    digests = _read(path)
    if missing := [name for name in names if name not in digests]:
        raise CheckpointError(f"{MANIFEST}: lacks files that are loaded: {first_few(missing)}")
    for name in names:
        digest = _digest(folder / name)
        if digest != digests[name]:
            raise CheckpointError(
                f"{name}: is not the file that {MANIFEST} names; got SHA-256 {digest[:16]}...;"
                f" allowed {digests[name][:16]}..."
            )
    return identity


def _read(path: Path) -> dict[str, str]:
    """Digests by name."""
    try:
        lines = strict_json.read_file(path, LIMIT_BYTES).decode().splitlines()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path.name}: is not text") from None
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        found = LINE.fullmatch(line)
        if found is None:
            raise CheckpointError(
                f"{path.name}: line {number}: is not a line of sha256sum; got {line!r:.60};"
                " allowed 64 digits of 0-9a-f, two spaces, a name"
            )
        if digests.setdefault(found["name"], found["digest"]) != found["digest"]:
            raise CheckpointError(f"{path.name}: line {number}: names {found['name']!r:.60} twice")
    return digests


def _digest(path: Path) -> str:
    strict_json.check_regular(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error


def _identity(folder: Path, names: Iterable[str]) -> str:
    """Changes whenever a file is written to or replaced."""
    identity = hashlib.sha256()
    for name in names:
        path = folder / name
        strict_json.check_regular(path)
        state = path.stat()
        facts = (name, state.st_dev, state.st_ino, state.st_size, state.st_ctime_ns)
        identity.update(repr(facts).encode())
    return identity.hexdigest()
