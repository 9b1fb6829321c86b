"""The figures of a run and of the runs before it, in one JSON file, part by part. Measures nothing.

A key of the table stands at the top of the file; `parts` says which were measured, when and how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class OtherDevice(Exception):
    """The file's figures were measured on another device: they do not belong in one table."""


class Record:
    """What has been measured on one device; written after every part."""

    def __init__(self, path: Path | None, facts: Mapping[str, object]) -> None:
        self._path = path
        self.values: dict[str, float] = {}
        self.parts: dict[str, dict[str, object]] = {}
        self._facts = dict(facts)
        if path is not None and path.exists():
            self._read(json.loads(path.read_text()))

    def _read(self, written: dict[str, object]) -> None:
        if written["device"] != self._facts["device"]:
            raise OtherDevice(
                f"{self._path}: measured on {written['device']}; this is {self._facts['device']}"
            )
        parts, values = written["parts"], written["keys"]
        if not isinstance(parts, dict) or not isinstance(values, list):
            raise ValueError(f"{self._path}: not a file of this benchmark")
        self.parts = parts
        self.values = {key: float(str(written[key])) for key in values}

    def add(self, part: str, values: Mapping[str, float], how: Mapping[str, object]) -> None:
        """Take in a finished part and write the file."""
        self.values |= values
        self.parts[part] = {**how, "keys": list(values)}
        if self._path is not None:
            self._path.write_text(json.dumps(self.document(), indent=2) + "\n")

    def document(self) -> dict[str, object]:
        """The whole file."""
        ends = {"parts": self.parts, "keys": list(self.values)}
        return {**self._facts, **self.values, **ends}
