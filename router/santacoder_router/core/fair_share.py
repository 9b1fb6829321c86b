"""Shares out turns among callers by the work they ask for: start-time fair queueing, in tokens.

Each line, a caller's waiting sequences of one class, has a tag: the virtual time of its next turn.
The least tag goes first, and a turn moves its line's tag on by the work it takes over the caller's
weight. Whoever begins to wait starts at the virtual time of now: an idle caller saves nothing up,
and a caller who asks for more waits in its own line. Knows no classes, blocks or slots.
"""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass, field

from santacoder_router.core.plan import Caller
from santacoder_router.core.sequence import Sequence

# Lines without anybody in them that are still remembered for what they have had.
MOST_IDLE_LINES = 1024

_Turn = tuple[float, int, "Line"]


@dataclass(slots=True, eq=False)
class CallerLoad:
    """What a caller has in the scheduler, over all classes."""

    caller: Caller
    running_count: int = 0
    waiting_count: int = 0
    waiting_tokens: int = 0
    # Lines whose turn came while as many ran as may.
    parked: list[Line] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether no more of the caller's sequences may run."""
        return self.running_count >= self.caller.running_limit


@dataclass(slots=True, eq=False)
class Line:
    """A caller's waiting sequences of one class, in order."""

    load: CallerLoad
    share: FairShare
    tag: float = 0.0
    # The caller's as of when somebody began to wait here.
    weight: float = 1.0
    sequences: list[Sequence] = field(default_factory=list)
    work: int = 0
    is_parked: bool = False

    @property
    def length(self) -> float:
        """Work that waits, by the caller's weight."""
        return self.work / self.weight

    @property
    def turn(self) -> tuple[float, int]:
        """When its head's turn is; of two at one time whoever came first."""
        return self.tag, self.sequences[0].order[1]


class FairShare:
    """The lines of one class."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        # By turn; what is no line's turn any more is passed over.
        self._turns: list[_Turn] = []
        self._virtual_time = 0.0
        # Of all lines in which somebody waits.
        self._weight = 0.0
        self.waiting_count = 0
        self.work = 0

    @property
    def lines(self) -> list[Line]:
        """Lines in which somebody waits."""
        return [line for line in self._lines.values() if line.sequences]

    def length(self, caller: Caller) -> float:
        """How long a caller's line is: work that waits, by weight."""
        line = self._lines.get(caller.name)
        return line.length if line is not None else 0.0

    def work_before(self, caller: Caller) -> float:
        """Work that gets its turn before a newcomer: what waits in its line and beside it."""
        line = self._lines.get(caller.name)
        if line is None or not line.sequences:
            return 0.0
        return min(float(self.work), line.length * self._weight)

    def add(self, sequence: Sequence, load: CallerLoad) -> None:
        """A sequence begins to wait, or waits again."""
        line = self._lines.get(load.caller.name)
        if line is None:
            line = self._lines[load.caller.name] = Line(load, self)
        line.load = load
        if not line.sequences:
            line.tag = max(line.tag, self._virtual_time)
            line.weight = load.caller.weight
            self._weight += line.weight
        insort(line.sequences, sequence, key=_order)
        self._count(line, sequence, 1)
        self._queue(line)

    def remove(self, sequence: Sequence) -> None:
        """A sequence waits no longer."""
        line = self._lines[sequence.request.caller.name]
        line.sequences.remove(sequence)
        self._count(line, sequence, -1)
        if not line.sequences:
            self._weight -= line.weight
        self._queue(line)
        if not self.waiting_count:
            # Nobody competes any more: what was had so far is forgiven.
            self._lines.clear()
            self._turns.clear()
            self._virtual_time = self._weight = 0.0

    def head(self) -> Sequence | None:
        """Whose turn it is; None if nobody waits who may run."""
        while self._turns:
            tag, number, line = self._turns[0]
            if line.is_parked or not line.sequences or line.turn != (tag, number):
                heapq.heappop(self._turns)
            elif line.load.is_full:
                heapq.heappop(self._turns)
                line.is_parked = True
                line.load.parked.append(line)
            else:
                return line.sequences[0]
        return None

    def charge(self, sequence: Sequence) -> None:
        """The head has its turn; `remove` comes after this."""
        line = self._lines[sequence.request.caller.name]
        self._virtual_time = max(self._virtual_time, line.tag)
        line.tag += sequence.work / line.weight

    def refund(self, sequence: Sequence, work: int) -> None:
        """A sequence that had its turn has not used so much of its work."""
        line = self._lines.get(sequence.request.caller.name)
        if line is not None:
            line.tag = max(self._virtual_time, line.tag - work / line.weight)
            self._queue(line)

    def unpark(self, line: Line) -> None:
        """The line's caller may run another one. What it missed is not made up for."""
        line.is_parked = False
        line.tag = max(line.tag, self._virtual_time)
        self._queue(line)

    def _count(self, line: Line, sequence: Sequence, sign: int) -> None:
        line.work += sign * sequence.work
        self.work += sign * sequence.work
        self.waiting_count += sign

    def _queue(self, line: Line) -> None:
        if line.sequences and not line.is_parked:
            heapq.heappush(self._turns, (*line.turn, line))
        limit = 2 * self.waiting_count + 64
        if len(self._turns) > limit or len(self._lines) > limit + 2 * MOST_IDLE_LINES:
            self._tidy()

    def _tidy(self) -> None:
        """Forgets turns that are none, and lines that are idle and owe nothing or least lately."""
        lines = self._lines.items()
        busy = {name: line for name, line in lines if line.sequences}
        idle = [
            (name, line)
            for name, line in lines
            if not line.sequences and line.tag > self._virtual_time
        ]
        self._lines = busy | dict(idle[-MOST_IDLE_LINES:])
        self._turns = [(*line.turn, line) for line in busy.values() if not line.is_parked]
        heapq.heapify(self._turns)


def _order(sequence: Sequence) -> tuple[float, int]:
    return sequence.order
