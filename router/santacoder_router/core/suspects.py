"""Which request kills the shard group: found by trying half of the suspects at a time. Pure.

One death is held against nobody: most are no request's fault. Whoever ran again when the group
died once more, and had not got well past the point at which the death before met it, is suspected.
Half of the suspects are tried then: they run, and everybody else waits. If the group dies they
alone are suspects; if they get past their points they are cleared, and the next are tried. Who
runs alone when the group dies, and ran at an earlier death, is guilty: it took at most
2 + ceil(log2(suspects)) deaths in which it ran.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Listed

from santacoder_router.core.group import PlanInFlight, PlannedRow
from santacoder_router.core.sequence import Residency, Sequence
from santacoder_router.core.waiting import WaitingQueue

# So many tokens behind its point a suspect is cleared. A request that kills whenever it decodes
# still gets a token in every life, by having its text read anew.
CLEARING_TOKEN_COUNT = 16


class Suspects:
    """Those that ran when the group died and have not got past that point since."""

    def __init__(self) -> None:
        # By request: the position that the plans in flight would have brought it to.
        self._points: dict[int, int] = {}
        # Who is tried and not cleared yet, and who comes after them; all wait if nobody is tried.
        self._on_trial: set[int] = set()
        self._untried: list[Sequence] = []
        # Who is tried and has no slot.
        self.queue = WaitingQueue()

    def __bool__(self) -> bool:
        return bool(self._points)

    @property
    def is_trying(self) -> bool:
        """Whether only those in slots and in `queue` may run."""
        return bool(self._on_trial)

    def line(self, waiting: WaitingQueue) -> WaitingQueue:
        """Where those stand that may be admitted."""
        return self.queue if self.is_trying else waiting

    def line_of(self, sequence: Sequence, waiting: WaitingQueue) -> WaitingQueue:
        """Where a sequence without a slot stands."""
        return self.queue if sequence in self.queue else waiting

    def waits_for(self, in_flight: Iterable[PlanInFlight]) -> bool:
        """Whether plans are out with others than those tried: a trial has to be theirs alone."""
        return self.is_trying and any(
            row.residency.sequence.request.request_id not in self._on_trial
            for plan in in_flight
            for row in plan.rows
        )

    def judge(self, running: Listed[Residency], waiting: WaitingQueue) -> Sequence | None:
        """The group has died while `running` ran, all of whom wait now; who is guilty.

        Takes those to be tried out of `waiting`.
        """
        before = self._points
        self._end_trial(waiting)
        again = [run.sequence for run in running if run.sequence.request.request_id in before]
        if again and len(running) == 1:
            return again[0]
        for run in running:
            request_id = run.sequence.request.request_id
            self._points[request_id] = max(run.planned_computed, before.get(request_id, 0))
        self._untried = again
        self.try_next(waiting)
        return None

    def clear(self, sequence: Sequence) -> bool:
        """It has got past its point, or has ended; whether that ends a trial."""
        request_id = sequence.request.request_id
        self._points.pop(request_id, None)
        if sequence in self._untried:
            self._untried.remove(sequence)
        if request_id not in self._on_trial:
            return False
        self._on_trial.remove(request_id)
        return not self._on_trial

    def passed(self, rows: Listed[PlannedRow]) -> list[Sequence]:
        """Those of `rows` that have got past their points."""
        sequences = [row.residency.sequence for row in rows]
        return [each for each in sequences if self._has_passed(each)]

    def try_next(self, waiting: WaitingQueue) -> bool:
        """Ends the trial, and begins that of half of the others; False if there are none."""
        self._end_trial(waiting)
        count = (len(self._untried) + 1) // 2
        tried, self._untried = self._untried[:count], self._untried[count:]
        for sequence in tried:
            waiting.remove(sequence)
            self.queue.add(sequence)
            self._on_trial.add(sequence.request.request_id)
        return bool(tried)

    def _has_passed(self, sequence: Sequence) -> bool:
        point = self._points.get(sequence.request.request_id)
        return point is not None and sequence.token_count > point + CLEARING_TOKEN_COUNT

    def _end_trial(self, waiting: WaitingQueue) -> None:
        self._on_trial = set()
        waiting.add_all(self.queue.take_all())
