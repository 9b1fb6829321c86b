"""The source files of a folder, read once: which are taken, which are left out and why.

Knows suffixes of file names and nothing else of a language. Never follows a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from santacoder_client.loadtest.data.source import DataError

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "python": (".py", ".pyi"),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
}
LANGUAGES = ("all", *SUFFIXES)
MOST_FILE_BYTES = 256 * 1024
MOST_BYTES = 256 * 1024 * 1024
"""Of all files together, as every worker holds them."""
MOST_FILES_SEEN = 1_000_000
SKIPPED_FOLDERS = {"node_modules", "__pycache__"}
"""Not written by the person whose folder it is; hidden ones are left out too."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file's text, byte for byte: `text.encode()` is what lies on the disk."""

    path: str
    """Below the folder, with slashes."""
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The files taken, in an order that only their paths decide."""

    folder: str
    files: tuple[SourceFile, ...]
    skipped: Mapping[str, int]
    """How many files were left out, by reason."""


def read_corpus(what: str, folder: str, language: str, most_files: int) -> Corpus:
    """Reads the files of one language or `all`; raises DataError if there are none to read."""
    if not os.path.isdir(folder):
        problem = "not a folder" if os.path.lexists(folder) else "no such folder"
        raise DataError(f"{what}: {problem}; got {folder!r}; allowed a folder of source files")
    skipped: Counter[str] = Counter()
    found = [
        (path, kind) for path, kind in _walk(folder, skipped, what) if language in ("all", kind)
    ]
    # By hash: one file more or less moves no other, and neighbours are not sent one after another.
    found.sort(key=lambda item: hashlib.sha256(os.fsencode(item[0])).digest())
    files = tuple(_taken(folder, found, most_files, skipped))
    if not files:
        raise DataError(
            f"{what}: no file to use; got {folder!r} with {told(skipped)}; "
            f"allowed UTF-8 text files, {_endings(language)}, of 1 to {MOST_FILE_BYTES} bytes"
        )
    return Corpus(folder, files, dict(sorted(skipped.items())))


def told(skipped: Mapping[str, int]) -> str:
    """The counts for a person."""
    if not skipped:
        return "none left out"
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    return f"{sum(skipped.values())} left out ({counts})"


@dataclass(frozen=True, slots=True)
class _Skip:
    reason: str


def _walk(folder: str, skipped: Counter[str], what: str) -> Iterator[tuple[str, str]]:
    """Paths below the folder and their languages."""
    kinds = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
    seen_count = 0

    def unreadable(_: OSError) -> None:
        skipped["unreadable folder"] += 1

    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [each for each in folders if each[0] != "." and each not in SKIPPED_FOLDERS]
        seen_count += len(names)
        if seen_count > MOST_FILES_SEEN:
            allowed = f"at most {MOST_FILES_SEEN} files below it"
            raise DataError(f"{what}: too many files; got {folder!r}; allowed {allowed}")
        for name in names:
            kind = kinds.get(os.path.splitext(name)[1].lower())
            if kind is not None:
                path = os.path.relpath(os.path.join(here, name), folder)
                yield path.replace(os.sep, "/"), kind


def _taken(
    folder: str, found: list[tuple[str, str]], most_files: int, skipped: Counter[str]
) -> Iterator[SourceFile]:
    """The files that can be used, in order, up to the limits."""
    files_left, bytes_left = most_files, MOST_BYTES
    for path, kind in found:
        if not files_left or not bytes_left:
            skipped["over the limit"] += 1
            continue
        text = _read(os.path.join(folder, path))
        if isinstance(text, _Skip):
            skipped[text.reason] += 1
            continue
        files_left, bytes_left = files_left - 1, max(bytes_left - len(text), 0)
        yield SourceFile(path, kind, text)


def _read(path: str) -> str | _Skip:
    """A file's text, or why it is left out. Opens no link, waits for no pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if os.path.islink(path):
        return _Skip("symlink")
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _Skip("not a file")
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError:
        return _Skip("unreadable")
    return _text(content)


def _text(content: bytes) -> str | _Skip:
    if not content.strip():
        return _Skip("empty")
    if len(content) > MOST_FILE_BYTES:
        return _Skip("too large")
    if b"\0" in content:
        return _Skip("binary")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _Skip("not UTF-8")


def _endings(language: str) -> str:
    kinds = SUFFIXES if language == "all" else (language,)
    return " ".join(suffix for kind in kinds for suffix in SUFFIXES[kind])
