"""The records of a run as columns of numbers, which is what arithmetic on millions wants.

Records are taken one by one and need not be kept: a message with tokens costs 12 bytes here instead
of some hundred. Computes nothing; what is unknown is NaN.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from santacoder_client.loadtest.record import Outcome, RequestRecord

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OUTCOMES = tuple(Outcome)
TIMES = ("scheduled_at", "dispatched_at", "finished_at", "cancelled_at", "server_queue_seconds")
COUNTS = ("prompt_token_count", "cached_token_count", "completion_token_count")
_NAN = float("nan")


class Columns:
    """All requests of a run, in the order in which they were added."""

    def __init__(self) -> None:
        self._times = {name: array("d") for name in TIMES}
        self._counts = {name: array("q") for name in COUNTS}
        self._outcomes = array("q")
        self._errors = array("q")
        self._chunk_counts = array("q")
        self._chunk_times = array("d")
        self._chunk_tokens = array("i")
        self.error_kinds: dict[tuple[str, str, str], int] = {}
        """Status, reason and outcome of every kind of end, and its number in `errors`."""
        self.error_examples: list[str] = []

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> Self:
        """The columns of records, which are looked at once."""
        columns = cls()
        for record in records:
            columns.add(record)
        return columns

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, record: RequestRecord) -> None:
        """Takes in a request that has ended; later changes to the record are not seen."""
        for name, times in self._times.items():
            value = getattr(record, name)
            times.append(_NAN if value is None else value)
        for name, counts in self._counts.items():
            counts.append(getattr(record, name))
        self._outcomes.append(OUTCOMES.index(record.outcome))
        self._errors.append(self._kind(record))
        self._chunk_counts.append(len(record.chunks))
        self._chunk_times.extend([chunk.at_seconds for chunk in record.chunks])
        self._chunk_tokens.extend([chunk.token_count for chunk in record.chunks])

    def _kind(self, record: RequestRecord) -> int:
        key = (record.status, record.reason, record.outcome)
        number = self.error_kinds.setdefault(key, len(self.error_kinds))
        if number == len(self.error_examples):
            self.error_examples.append(record.message)
        return number

    def times(self, name: str) -> Floats:
        """One of TIMES, a value a request."""
        return _numbers(self._times[name], np.float64)

    def counts(self, name: str) -> Integers:
        """One of COUNTS, a value a request."""
        return _numbers(self._counts[name], np.int64)

    def ended_as(self, *outcomes: Outcome) -> npt.NDArray[np.bool_]:
        """Which requests ended in one of these ways."""
        places = [OUTCOMES.index(outcome) for outcome in outcomes]
        return np.isin(_numbers(self._outcomes, np.int64), places)

    @property
    def errors(self) -> Integers:
        """The number of each request's kind of end."""
        return _numbers(self._errors, np.int64)

    @property
    def chunk_counts(self) -> Integers:
        """How many messages with tokens each request got."""
        return _numbers(self._chunk_counts, np.int64)

    @property
    def chunk_times(self) -> Floats:
        """When each message came; those of a request stand together, in order."""
        return _numbers(self._chunk_times, np.float64)

    @property
    def chunk_tokens(self) -> Integers:
        """How many tokens each message held."""
        return _numbers(self._chunk_tokens, np.int32).astype(np.int64)


def _numbers(values: array[Any], kind: type) -> npt.NDArray[Any]:
    # A copy: an array that numpy looks into can no longer grow.
    return np.array(values, dtype=kind)
