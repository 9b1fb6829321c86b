"""Checks of single fields, which collect what is wrong instead of stopping at the first fault.

Knows ranges and how a violation is worded. Refuses to know which fields a request has.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from santacoder_router.errors import InvalidRequest, Reason, Violation


@dataclass(frozen=True, slots=True)
class NumberRange:
    """From `low` to `high`, both allowed, `low` only unless `above_low`."""

    low: float
    high: float
    reason: Reason
    above_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether a finite number is in the range."""
        return self.low <= value <= self.high and not (self.above_low and value == self.low)

    def __str__(self) -> str:
        if self.above_low:
            return f"above {self.low:g} to {self.high:g}"
        return f"{self.low:g}..{self.high:g}"


class FieldChecks:
    """The violations of one request. Checks return the value, so that they read as assignments."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def refuse(
        self,
        path: str,
        reason: Reason,
        what: str,
        got: object,
        allowed: str,
        advice: str = "",
        **metadata: object,
    ) -> None:
        """Note that a field is wrong. `metadata` goes into the error's `ErrorInfo`."""
        self._violations.append(Violation(path, reason, what, got, allowed, advice, metadata))

    def raise_if_any(self) -> None:
        """Raises InvalidRequest with all violations, if there is one."""
        if self._violations:
            raise InvalidRequest(self._violations)

    def integer(self, path: str, value: int, low: int, high: int, reason: Reason) -> int:
        """`low` and `high` are both allowed."""
        if not low <= value <= high:
            self.refuse(path, reason, "out of range", value, f"{low}..{high}")
        return value

    def number(self, path: str, value: float, bounds: NumberRange) -> float:
        """NaN and infinity are never allowed. -0 becomes 0."""
        if not math.isfinite(value):
            self.refuse(path, bounds.reason, "not a finite number", value, str(bounds))
        elif not bounds.holds(value):
            self.refuse(path, bounds.reason, "out of range", value, str(bounds))
        return value + 0.0

    def count(self, path: str, count: int, high: int, reason: Reason, unit: str) -> bool:
        """Whether a list or a text is short enough to be looked into."""
        if count > high:
            self.refuse(path, reason, f"too many {unit}", count, f"at most {high}")
        return count <= high

    def known(self, path: str, number: int, numbers: Collection[int]) -> bool:
        """Whether an enum's number is one this server knows; 0, the default, always is."""
        if number not in numbers:
            allowed = f"0..{max(numbers)}"
            self.refuse(path, Reason.ENUM_UNKNOWN, "unknown enum number", number, allowed)
        return number in numbers

    def token_ids(
        self,
        path: str,
        ids: Sequence[int],
        token_count: int,
        vocabulary_size: int,
        reason: Reason | None = None,
    ) -> tuple[int, ...]:
        """Every id must be one the tokenizer knows; the first that is not is named.

        The reason is TOKEN_ID_UNASSIGNED up to the vocabulary's size and TOKEN_ID_RANGE elsewhere,
        unless one is given.
        """
        # A tuple is quicker to walk than a message's list. Minimum and maximum come first: they run
        # in C, and nearly always that is all.
        ids = tuple(ids)
        if ids and not (min(ids) >= 0 and max(ids) < token_count):
            place = next(i for i, token_id in enumerate(ids) if not 0 <= token_id < token_count)
            unassigned = token_count <= ids[place] < vocabulary_size
            by_value = Reason.TOKEN_ID_UNASSIGNED if unassigned else Reason.TOKEN_ID_RANGE
            what = "token id stands for nothing" if unassigned else "token id out of range"
            allowed = f"0..{token_count - 1}"
            self.refuse(f"{path}[{place}]", reason or by_value, what, ids[place], allowed)
        return ids
