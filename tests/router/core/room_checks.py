"""Who had to make room in a full queue, worked out anew, one after the other.

Knows clients and their lines; believes nothing that the scheduler says of lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.core.simulated_clients import Client
from router.core.simulated_model import require

from santacoder_router.core.plan import Caller, Priority
from santacoder_router.core.sequence import Sequence

Lines = Mapping[tuple[str, Priority], list[Client]]
"""Who waits, by caller and class, first come first."""


class RoomCheck:
    """A newcomer of so much work at the door, and those who wait."""

    def __init__(self, caller: Caller, priority: Priority, work: int, lines: Lines) -> None:
        self._priority = priority
        self._lines = {line: list(clients) for line, clients in lines.items()}
        own = self._lines.get((caller.name, priority), [])
        self._own_length = (sum(map(_work, own)) + work) / caller.weight

    def check(self, displaced: Iterable[Sequence] | None, places: int, tokens: int) -> None:
        """Whether they are the right ones, no more and no fewer."""
        if displaced is None:
            while places > 0 or tokens > 0:
                client = self._next()
                if client is None:
                    return
                places, tokens = places - 1, tokens - _tokens(client)
            require(False, "I12 a newcomer is refused though others had to make room")
        for sequence in displaced or ():
            require(places > 0 or tokens > 0, "I12 more make room than have to", sequence.request)
            expected = self._next(sequence.request.request_id)
            require(expected is not None, "I12 not who has to make room", sequence.request)
            places, tokens = places - 1, tokens - sequence.token_count
        require(places <= 0 and tokens <= 0, "I12 too few make room", places, tokens)

    def _next(self, request_id: int | None = None) -> Client | None:
        """Who goes next: that one, if it is among those who may."""
        for priority in Priority:
            if priority > self._priority:
                return None
            least = self._own_length if priority == self._priority else 0.0
            lengths = {
                line: sum(map(_work, clients)) / clients[0].request.caller.weight
                for line, clients in self._lines.items()
                if line[1] == priority and clients and not clients[-1].has_started
            }
            longest = max(lengths.values(), default=0.0)
            among = [line for line, length in lengths.items() if length > longest - 1e-9]
            if longest > least + 1e-9:
                for line in among:
                    client = self._lines[line][-1]
                    if request_id in (None, client.request.request_id):
                        return self._lines[line].pop()
                return None
        return None


def _work(client: Client) -> int:
    return len(client.request.prompt_ids) + client.request.max_new_tokens


def _tokens(client: Client) -> int:
    return len(client.request.prompt_ids) + len(client.delivered)
