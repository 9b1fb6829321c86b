"""The demo's data: the Python standard library's sources, split by path. Knows nothing of models.

The sources are under the PSF licence. A file's side of the split follows from a hash of its path
alone, so any installation of the same Python version gives the same held-out files.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

# Tables and deliberately broken sources, not code anybody would complete.
EXCLUDED_FOLDERS = ("site-packages", "encodings", "pydoc_data", "lib2to3/tests/data", "__pycache__")
LARGEST_FILE_BYTES = 300_000
HELD_OUT_SHARE_PERCENT = 4
MIN_LINE_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: its path below the library's folder, and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class LineTask:
    """A line to fill in, with all of the file before and after it."""

    path: str
    prefix: str
    line: str
    suffix: str


def default_library() -> Path:
    """The running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def is_held_out(path: str) -> bool:
    """Whether the path's hash puts the file on the held-out side."""
    return int(hashlib.sha256(path.encode()).hexdigest(), 16) % 100 < HELD_OUT_SHARE_PERCENT


def read_library(folder: Path) -> tuple[list[SourceFile], list[SourceFile]]:
    """All sources below `folder` as (training, held out), sorted by path, without duplicates."""
    sides: tuple[list[SourceFile], list[SourceFile]] = ([], [])
    seen: set[str] = set()
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        if any(part in f"{path}/" for part in EXCLUDED_FOLDERS):
            continue
        try:
            text = file.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        if not text.strip() or len(text) > LARGEST_FILE_BYTES or text in seen:
            continue
        seen.add(text)
        sides[is_held_out(path)].append(SourceFile(path, text))
    return sides


def line_tasks(files: list[SourceFile], count: int, seed: int) -> list[LineTask]:
    """`count` lines of at least 8 characters after strip, drawn evenly over all such lines."""
    places = [
        (file, number)
        for file in files
        for number, line in enumerate(file.text.split("\n"))
        if len(line.strip()) >= MIN_LINE_CHARACTERS
    ]
    tasks = []
    for file, number in random.Random(seed).sample(places, min(count, len(places))):
        lines = file.text.split("\n")
        prefix = "".join(f"{line}\n" for line in lines[:number])
        suffix = "".join(f"\n{line}" for line in lines[number + 1 :])
        tasks.append(LineTask(file.path, prefix, lines[number], suffix))
    return tasks


def archive(library: Path, target: Path) -> None:
    """Pack the library's sources, for machines that have another version of it."""
    with tarfile.open(target, "w:gz") as packed:
        for file in sorted(library.rglob("*.py")):
            if "site-packages" not in file.parts:
                packed.add(file, file.relative_to(library).as_posix())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="file to write, .tar.gz")
    archive(default_library(), parser.parse_args().archive)
