"""Whose turn it has to be, worked out anew from arrivals, turns and ends, as plainly as it can be.

Believes nothing that the scheduler says of order, shares or counts. Knows no blocks and no plans.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping

from router.core.simulated_clients import Client
from router.core.simulated_model import require

from santacoder_router.core.plan import Priority

_Line = tuple[str, Priority]
_Place = tuple[float, int]


class FairLine:
    """Everybody who waits, and what each caller has had."""

    def __init__(self, aging_seconds: float, clients: Mapping[int, Client]) -> None:
        self._aging_seconds = aging_seconds
        self._clients = clients
        self._restored: dict[int, Client] = {}
        # Who alone may have a slot, if it is looked for who kills the group.
        self.tried: set[int] | None = None
        # Of each line those who wait, first come first; whoever is in none of them is not here.
        self._lines: dict[_Line, list[_Place]] = {}
        self._running: dict[int, Client] = {}
        self._held: dict[int, Client] = {}
        self._running_counts: Counter[str] = Counter()
        self._charged: set[int] = set()
        self._tags: dict[_Line, float] = {}
        self._virtual_times = dict.fromkeys(Priority, 0.0)
        self._since = dict.fromkeys(Priority, 0.0)

    def arrive(self, client: Client, now: float) -> None:
        """Begins to wait, or waits again."""
        line = _line(client)
        if not self._is_class_waiting(line[1]):
            self._since[line[1]] = now
        if line not in self._lines:
            self._lift(line)
        insort(self._lines.setdefault(line, []), self._place(client))

    def preempt(self, request_id: int, now: float) -> None:
        """Has lost its slot."""
        if request_id in (self.tried or ()):
            self.make_way(request_id)
        else:
            self.arrive(self._leave_slot(request_id), now)

    def make_way(self, request_id: int) -> None:
        """Has lost its slot to those that are tried, and goes first after them."""
        self._restored[request_id] = self._leave_slot(request_id)

    @property
    def held(self) -> list[Client]:
        """Who has neither a slot nor a place in the line."""
        return list(self._held.values())

    @property
    def lines(self) -> dict[_Line, list[Client]]:
        """Who waits, by caller and class, first come first."""
        return {
            line: [self._clients[number] for _, number in places]
            for line, places in self._lines.items()
        }

    def hold(self, client: Client) -> None:
        """Loses its slot and wants no other for now; only whoever has one."""
        if client.request.request_id in self._running:
            self._held[client.request.request_id] = self._leave_slot(client.request.request_id)

    def let_go(self, client: Client, now: float) -> None:
        """Wants a slot again."""
        if self._held.pop(client.request.request_id, None):
            self.arrive(client, now)

    def die(self) -> None:
        """All that run have lost their group, and go first."""
        for request_id in list(self._running):
            self._restored[request_id] = self._leave_slot(request_id)

    def end(self, client: Client) -> None:
        """Has ended, wherever it was; what it has not used counts for its caller."""
        request, line = client.request, _line(client)
        if request.request_id in self._running:
            self._leave_slot(request.request_id)
        elif self._place(client) in self._lines.get(line, ()):
            self._stop_waiting(client)
        self._restored.pop(request.request_id, None)
        self._held.pop(request.request_id, None)
        if request.request_id in self._charged and line in self._tags:
            unused = request.max_new_tokens - len(client.delivered)
            self._tags[line] -= unused / request.caller.weight
            self._lift(line)

    def check_turn(self, request_id: int, now: float) -> None:
        """Gets a slot, which has to be its turn."""
        turn = self.turn()
        require(turn == request_id, "I19 L2 not whose turn it is", request_id, "expected", turn)
        client = self._restored.pop(request_id, None)
        if client is None:
            client = self._clients[request_id]
            line, priority = _line(client), client.request.priority
            self._since[priority] = now
            if request_id not in self._charged:
                tag = self._tags[line]
                self._virtual_times[priority] = max(self._virtual_times[priority], tag)
                work = len(client.request.prompt_ids) + client.request.max_new_tokens
                self._tags[line] = tag + work / client.request.caller.weight
                self._charged.add(request_id)
            self._stop_waiting(client)
        self._running[request_id] = client
        caller = client.request.caller
        self._running_counts[caller.name] += 1
        is_allowed = self._running_counts[caller.name] <= caller.running_limit
        require(is_allowed, "I12 a caller runs too many", caller)

    def turn(self) -> int | None:
        """Who is the next to get a slot."""
        if self.tried is not None:
            tried = [client for number, client in self._restored.items() if number in self.tried]
            return min(tried, key=self._place).request.request_id if tried else None
        if self._restored:
            return min(self._restored.values(), key=self._place).request.request_id
        firsts: dict[Priority, tuple[float, int]] = {}
        for line, places in self._lines.items():
            number = places[0][1]
            caller = self._clients[number].request.caller
            if self._running_counts[caller.name] < caller.running_limit:
                turn = (self._tags[line], number)
                firsts[line[1]] = min(turn, firsts.get(line[1], turn))
        if not firsts:
            return None
        return firsts[min(firsts, key=self._class_place)][1]

    def _class_place(self, priority: Priority) -> tuple[float, float]:
        since = self._since[priority]
        return since - priority * self._aging_seconds, since

    def _is_class_waiting(self, priority: Priority) -> bool:
        return any(line[1] == priority for line in self._lines)

    def _place(self, client: Client) -> _Place:
        request = client.request
        return client.arrival - request.priority * self._aging_seconds, request.request_id

    def _leave_slot(self, request_id: int) -> Client:
        client = self._running.pop(request_id)
        caller = client.request.caller
        self._running_counts[caller.name] -= 1
        if self._running_counts[caller.name] == caller.running_limit - 1:
            # What it missed while it might not run is not made up for.
            for line in self._lines:
                if line[0] == caller.name:
                    self._lift(line)
        return client

    def _stop_waiting(self, client: Client) -> None:
        line = _line(client)
        self._lines[line].remove(self._place(client))
        if not self._lines[line]:
            del self._lines[line]
        if not self._is_class_waiting(line[1]):
            self._virtual_times[line[1]] = 0.0
            self._tags = {each: tag for each, tag in self._tags.items() if each[1] != line[1]}

    def _lift(self, line: _Line) -> None:
        self._tags[line] = max(self._tags.get(line, 0.0), self._virtual_times[line[1]])


def _line(client: Client) -> _Line:
    return client.request.caller.name, client.request.priority
