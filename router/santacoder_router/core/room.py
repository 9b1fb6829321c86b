"""Who gives up a place in a full queue for a newcomer. Pure; knows no limits and no time.

Lower classes do, and in the newcomer's class those whose line is longer than its own would be: so
nobody keeps others out by asking for a lot. Whoever has had a slot keeps its place.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from santacoder_router.core.fair_share import FairShare, Line
from santacoder_router.core.plan import Caller, Priority
from santacoder_router.core.sequence import Sequence
from santacoder_router.core.waiting import WaitingQueue


def displaced_by(
    caller: Caller, priority: Priority, work: int, waiting: WaitingQueue, room: tuple[int, int]
) -> list[Sequence] | None:
    """Who has to leave for a newcomer of so much work, that wants `room`: places and tokens.

    The newest of the longest line goes first. None if that is not enough: then nobody leaves.
    """
    places, tokens = room
    displaced: list[Sequence] = []
    own_length = waiting.share(priority).length(caller) + work / caller.weight
    for rank in (each for each in Priority if each <= priority):
        longer_than = own_length if rank == priority else 0.0
        for sequence in _newest_of_longest(waiting.share(rank), longer_than):
            if places <= 0 and tokens <= 0:
                break
            displaced.append(sequence)
            places -= 1
            tokens -= sequence.token_count
    return displaced if places <= 0 and tokens <= 0 else None


def _newest_of_longest(share: FairShare, longer_than: float) -> Iterator[Sequence]:
    """Those who may go, while their line, without who went before, is longer than that."""
    lengths = [(-line.length, number) for number, line in enumerate(share.lines)]
    newest: list[tuple[Line, Iterator[Sequence]]] = [
        (line, reversed(line.sequences)) for line in share.lines
    ]
    heapq.heapify(lengths)
    while lengths:
        length, number = heapq.heappop(lengths)
        if -length <= longer_than:
            return
        line, sequences = newest[number]
        sequence = next(sequences, None)
        if sequence is not None and not sequence.generation:
            yield sequence
            heapq.heappush(lengths, (length + sequence.work / line.weight, number))
