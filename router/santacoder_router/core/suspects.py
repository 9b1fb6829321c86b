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
        # Who is tried and not cleared yet, and who comes after them.
        self._on_trial: dict[int, Sequence] = {}
        self._untried: list[Sequence] = []
        # Those that were tried are cleared: it is time for the next.
        self.is_trial_over = False

    def __bool__(self) -> bool:
        return bool(self._points)

    def waits_for(self, in_flight: Iterable[PlanInFlight]) -> bool:
        """Whether plans are out with others than those tried: a trial has to be theirs alone."""
        return bool(self._on_trial) and any(
            row.residency.sequence.request.request_id not in self._on_trial
            for plan in in_flight
            for row in plan.rows
        )

    def judge(self, at_work: Listed[Residency], waiting: WaitingQueue) -> Sequence | None:
        """The group has died while these ran, all of whom wait now; who is guilty."""
        if not at_work:
            # A death that nobody had a part in tells nothing, and a trial goes on.
            return None
        before = dict(self._points)
        again = [run.sequence for run in at_work if run.sequence.request.request_id in before]
        for run in at_work:
            request_id = run.sequence.request.request_id
            self._points[request_id] = max(run.planned_computed, before.get(request_id, 0))
        if again and len(at_work) == 1:
            self._untried = []
            self.try_next(waiting)
            return again[0]
        # Whoever had lost its slot, or has no reader, is not among the first to run again.
        self._untried = [sequence for sequence in again if sequence.is_restored]
        self.try_next(waiting)
        return None

    def clear(self, sequence: Sequence) -> None:
        """It has got past its point, has ended, or is not to run for now."""
        request_id = sequence.request.request_id
        self._points.pop(request_id, None)
        if sequence in self._untried:
            self._untried.remove(sequence)
        if self._on_trial.pop(request_id, None) is not None:
            sequence.is_tried = False
            self.is_trial_over = not self._on_trial

    def clear_passed(self, rows: Listed[PlannedRow]) -> None:
        """Clears those of `rows` that have got past their points."""
        for row in rows:
            if self._has_passed(row.residency.sequence):
                self.clear(row.residency.sequence)

    def try_next(self, waiting: WaitingQueue) -> bool:
        """Ends the trial, and begins that of half of the others; False if there are none.

        Whoever has a slot has to make way for them.
        """
        for sequence in self._on_trial.values():
            sequence.is_tried = False
        self.is_trial_over = False
        count = (len(self._untried) + 1) // 2
        tried, self._untried = self._untried[:count], self._untried[count:]
        self._on_trial = {sequence.request.request_id: sequence for sequence in tried}
        for sequence in tried:
            sequence.is_tried = True
        waiting.is_trying = bool(tried)
        return waiting.is_trying

    def _has_passed(self, sequence: Sequence) -> bool:
        point = self._points.get(sequence.request.request_id)
        return point is not None and sequence.token_count > point + CLEARING_TOKEN_COUNT
