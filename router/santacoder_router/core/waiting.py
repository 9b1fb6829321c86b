"""The sequences that want a slot, and whose turn it is. Knows no blocks and no plans.

First those that ran when their group died; then by class; within a class callers share
(`fair_share.py`), and within a caller's line it goes by arrival. A class that waits rises: every
`aging_seconds` since its last turn, or since somebody began to wait in it, count as one class more.
So a flood of a low class gets a turn now and then, and no more, before those who are above it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from santacoder_router.core.drain import DrainRate
from santacoder_router.core.fair_share import CallerLoad, FairShare
from santacoder_router.core.plan import Caller, Priority
from santacoder_router.core.sequence import Sequence


class WaitingQueue:
    """Everybody without a slot; nobody overtakes the head while it stays the head."""

    def __init__(self, aging_seconds: float) -> None:
        self._aging_seconds = aging_seconds
        self._restored: list[Sequence] = []
        self._shares = {priority: FairShare() for priority in Priority}
        # When each class last had a turn, or somebody began to wait in it.
        self._since = dict.fromkeys(Priority, 0.0)
        self._loads: dict[str, CallerLoad] = {}
        self._drain = DrainRate()
        self._count = 0
        self.token_count = 0
        # Only those that are tried may have a slot.
        self.is_trying = False

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._restored
        for share in self._shares.values():
            for line in share.lines:
                yield from line.sequences

    @property
    def head(self) -> Sequence | None:
        """The next to get a slot."""
        if self.is_trying:
            return next((each for each in self._restored if each.is_tried), None)
        if self._restored or not self._count:
            return self._restored[0] if self._restored else None
        found: Sequence | None = None
        first = (0.0, 0.0)
        for priority, share in self._shares.items():
            sequence = share.head() if share.waiting_count else None
            if sequence is not None:
                since = self._since[priority]
                place = (since - priority * self._aging_seconds, since)
                if found is None or place < first:
                    found, first = sequence, place
        return found

    def load(self, caller: Caller) -> CallerLoad:
        """What a caller has here and in slots; not kept for one who has nothing."""
        return self._loads.get(caller.name) or CallerLoad(caller)

    def share(self, priority: Priority) -> FairShare:
        """Those of a class."""
        return self._shares[priority]

    def seconds_until_turn(self, caller: Caller, priority: Priority, now: float) -> float | None:
        """At least how long a newcomer will wait; None where nobody knows.

        What is ahead of it: its caller's line, as much of the others' as they get meanwhile, and
        those above its class.
        """
        share = self._shares[priority]
        above = sum(each.work for rank, each in self._shares.items() if rank > priority)
        own = share.work_before(caller)
        return self._drain.seconds_for(round(above + own), now)

    def add(self, sequence: Sequence, now: float) -> None:
        """A sequence begins to wait."""
        request = sequence.request
        load = self._loads.get(request.caller.name)
        if load is None:
            load = self._loads[request.caller.name] = CallerLoad(request.caller)
        load.caller = request.caller
        self._tally(sequence, load, 1)
        sequence.is_restored |= sequence.is_tried
        if sequence.is_restored:
            insort(self._restored, sequence, key=_order)
            return
        share = self._shares[request.priority]
        if not share.waiting_count:
            self._since[request.priority] = now
        share.add(sequence, load)

    def put_back(self, sequence: Sequence, now: float) -> None:
        """A sequence has lost its slot, and waits for another."""
        self._leave_slot(sequence)
        self.add(sequence, now)

    def put_first(self, sequence: Sequence, now: float) -> None:
        """A sequence has lost its slot by no fault of its own."""
        sequence.is_restored = True
        self.put_back(sequence, now)

    def hold(self, sequence: Sequence) -> None:
        """A sequence has lost its slot, and does not want another for now."""
        sequence.is_held = True
        self._leave_slot(sequence)
        self._forget(self._loads.get(sequence.request.caller.name))

    def let_go(self, sequence: Sequence, now: float) -> None:
        """A sequence that was held wants a slot again."""
        sequence.is_held = False
        self.add(sequence, now)

    def take(self, sequence: Sequence, now: float) -> None:
        """The head gets a slot. Only its first is a turn that counts."""
        priority = sequence.request.priority
        if sequence.is_restored:
            sequence.is_restored = False
            self._restored.remove(sequence)
        else:
            self._since[priority] = now
            if sequence.generation == 1:
                self._shares[priority].charge(sequence)
            self._shares[priority].remove(sequence)
        load = self._loads[sequence.request.caller.name]
        load.running_count += 1
        self._drain.take(sequence.work, now)
        self._tally(sequence, load, -1)

    def keep_waiting(self, now: float) -> None:
        """Whoever is still here could not be admitted."""
        if self._count:
            self._drain.block(now)

    def end(self, sequence: Sequence) -> None:
        """A sequence has ended, in the queue or in its slot; what it did not use is given back."""
        request = sequence.request
        if sequence.residency is not None:
            self._leave_slot(sequence)
        elif not sequence.is_held:
            if sequence.is_restored:
                self._restored.remove(sequence)
            else:
                self._shares[request.priority].remove(sequence)
            self._tally(sequence, self._loads[request.caller.name], -1)
        if sequence.generation:
            unused = request.max_new_tokens - len(sequence.output_ids)
            self._shares[request.priority].refund(sequence, unused)
        self._forget(self._loads.get(request.caller.name))

    def _leave_slot(self, sequence: Sequence) -> None:
        load = self._loads[sequence.request.caller.name]
        load.running_count -= 1
        if load.parked and not load.is_full:
            parked, load.parked = load.parked, []
            for line in parked:
                line.share.unpark(line)

    def _tally(self, sequence: Sequence, load: CallerLoad, sign: int) -> None:
        self._count += sign
        self.token_count += sign * sequence.token_count
        load.waiting_count += sign
        load.waiting_tokens += sign * sequence.token_count
        if not self._count:
            self._drain.rest()

    def _forget(self, load: CallerLoad | None) -> None:
        if load is not None and not load.running_count and not load.waiting_count:
            del self._loads[load.caller.name]


def _order(sequence: Sequence) -> tuple[float, int]:
    return sequence.order
