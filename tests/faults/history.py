"""What happened to requests, in the order in which it was seen, and the one judge of it.

Real clients write histories of real processes, and the scheduler's simulation of its own clients.
The judge knows neither: it knows what was asked, what came, and what comes where nothing breaks.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


class What(enum.Enum):
    """What an entry tells."""

    ASKED = "asked"
    DELTA = "delta"
    FINISHED = "finished"
    """A choice has ended; `reason` says how."""
    FAILED = "failed"
    """The whole request has; `reason` says why."""
    FAULT = "fault"
    """Something was broken on purpose; `request` names it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was seen. `start` is the place of a delta's first id in its choice."""

    what: What
    request: str
    choice: int = 0
    start: int = 0
    token_ids: tuple[int, ...] = ()
    reason: str = ""
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Answer:
    """A choice as it is where nothing goes wrong."""

    token_ids: tuple[int, ...]
    reason: str


Truth = Mapping[str, Sequence[Answer]]
"""By request, its choices."""


class Judge:
    """Holds a history against the truth; `violations` are what is wrong with it, a line each."""

    def __init__(self, truth: Truth, may_fail: Iterable[str] = ()) -> None:
        """Requests that `may_fail` may end in any way, with part of their answers."""
        self._truth = truth
        self._may_fail = frozenset(may_fail)
        self._received: dict[tuple[str, int], list[int]] = {}
        self._ends: dict[tuple[str, int], str] = {}
        self._failed: set[str] = set()
        self._asked: set[str] = set()
        self.violations: list[str] = []

    def hear(self, history: Iterable[Entry]) -> list[str]:
        """Every violation, once all is heard."""
        for entry in history:
            if entry.what is not What.FAULT:
                self._take(entry)
        for request in sorted(self._asked):
            self._close(request)
        return self.violations

    def _take(self, entry: Entry) -> None:
        if entry.what is What.ASKED:
            if entry.request in self._asked:
                self._object(entry, "is asked twice")
            self._asked.add(entry.request)
            return
        place = entry.request, entry.choice
        if entry.request not in self._asked:
            self._object(entry, "was not asked for")
        if entry.request in self._failed or place in self._ends:
            self._object(entry, "comes after the end")
        if entry.what is What.DELTA:
            self._take_ids(entry, self._received.setdefault(place, []))
        elif entry.what is What.FINISHED:
            self._ends[place] = entry.reason
        else:
            self._failed.add(entry.request)
            if entry.request not in self._may_fail:
                self._object(entry, f"fails with {entry.reason}")

    def _take_ids(self, entry: Entry, received: list[int]) -> None:
        if entry.start < len(received):
            self._object(entry, f"repeats ids from place {entry.start}; had {len(received)}")
        elif entry.start > len(received):
            self._object(entry, f"leaves ids out; place {entry.start}, had {len(received)}")
        received += entry.token_ids
        expected = self._truth[entry.request][entry.choice].token_ids[: len(received)]
        if tuple(received) != expected:
            self._object(entry, f"has other ids at {len(received)} than where nothing goes wrong")

    def _close(self, request: str) -> None:
        if request in self._failed:
            return
        for choice, answer in enumerate(self._truth[request]):
            place = request, choice
            if place not in self._ends:
                self.violations.append(f"{request}[{choice}] never ends")
            elif request in self._may_fail:
                continue
            elif self._ends[place] != answer.reason:
                self.violations.append(
                    f"{request}[{choice}] ends with {self._ends[place]}; wanted {answer.reason}"
                )
            elif tuple(self._received.get(place, ())) != answer.token_ids:
                self.violations.append(f"{request}[{choice}] ends before its last id")

    def _object(self, entry: Entry, words: str) -> None:
        self.violations.append(f"{entry.request}[{entry.choice}] {entry.what.value}: {words}")


def truth_of(history: Iterable[Entry]) -> dict[str, list[Answer]]:
    """What a history in which nothing went wrong says the answers are."""
    ids: dict[tuple[str, int], list[int]] = {}
    truth: dict[str, list[Answer]] = {}
    ends: dict[tuple[str, int], str] = {}
    for entry in history:
        place = entry.request, entry.choice
        if entry.what is What.DELTA:
            ids.setdefault(place, []).extend(entry.token_ids)
        elif entry.what is What.FINISHED:
            ends[place] = entry.reason
    for request, choice in sorted(ends):
        token_ids = tuple(ids.get((request, choice), ()))
        truth.setdefault(request, []).append(Answer(token_ids, ends[request, choice]))
    return truth
