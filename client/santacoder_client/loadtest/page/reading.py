"""A result as the page reads it: what is absent, of another type or no number is None or empty.

A page must come out of every result, those of an interrupted run and of another version included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A place in a JSON document."""

    value: object = None

    def at(self, *names: str) -> Part:
        """The part under these names, one below the other."""
        value = self.value
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return Part(value)

    def number(self, *names: str) -> float | None:
        value = self.at(*names).value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def text(self, *names: str) -> str:
        """A string, or a plain value written as one."""
        value = self.at(*names).value
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return f"{value:g}" if isinstance(value, float) else str(value)
        return ""

    def flag(self, *names: str) -> bool:
        return self.at(*names).value is True

    def parts(self, *names: str) -> list[Part]:
        """The members of a list."""
        value = self.at(*names).value
        return [Part(member) for member in value] if isinstance(value, list) else []

    def items(self, *names: str) -> list[tuple[str, Part]]:
        """The members of an object, in its order."""
        value = self.at(*names).value
        if not isinstance(value, dict):
            return []
        return [(name, Part(member)) for name, member in value.items()]

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Every plain value below, with its dotted name."""
        for name, part in self.items():
            if isinstance(part.value, dict):
                yield from part.leaves(f"{prefix}{name}.")
            elif isinstance(part.value, list):
                yield prefix + name, _listed(part)
            else:
                yield prefix + name, part.text()

    def __bool__(self) -> bool:
        return bool(self.value)


def _listed(part: Part) -> str:
    """A list on one line; one of more than plain values as JSON has it."""
    if any(isinstance(member.value, dict | list) for member in part.parts()):
        return json.dumps(part.value, ensure_ascii=False)
    return ", ".join(member.text() for member in part.parts())
