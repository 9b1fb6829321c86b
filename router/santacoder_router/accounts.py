"""What each caller has open and how often it asks, against its limits.

A caller is the name of its token, else that of its certificate, else its connection. Knows no
queue: what waits and runs of a caller the scheduler counts. Remembers so many and no more.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from santacoder_router.caller import current_caller, current_limits, set_caller
from santacoder_router.caller_limits import PRIORITIES, CallerLimits, StandingLimits
from santacoder_router.core.plan import Caller, Priority
from santacoder_router.errors import Overloaded, PermissionDenied, Reason

SESSION_RETRY_SECONDS = 1.0
# Known callers are as many as there are tokens; connections come and go.
MOST_ACCOUNTS = 4096

Clock = Callable[[], float]


class Account:
    """One caller. `name` is empty for one that is only a connection."""

    def __init__(self, key: str, name: str, limits: CallerLimits, clock: Clock) -> None:
        self.key = key
        self.name = name
        self.limits = limits
        self._clock = clock
        # When it last found the queue full, by class, in the clock's seconds.
        self.full_at: dict[Priority, float] = {}
        self._session_count = 0
        # Requests that may come at once: a token bucket of one second's worth.
        self._left = self._most
        self._counted_at = clock()

    @property
    def caller(self) -> Caller:
        """As the scheduler shares out."""
        return Caller(self.key, self.limits.weight, self.limits.running)

    @property
    def usual_priority(self) -> Priority:
        """The class of a request that names none."""
        return min(Priority.NORMAL, self.limits.priority)

    def count_request(self) -> None:
        """One more request; raises Overloaded if it is one too many."""
        now, rate = self._clock(), self.limits.rate
        self._left = min(self._most, self._left + rate * (now - self._counted_at))
        self._counted_at = now
        if self._left < 1.0:
            raise Overloaded(
                Reason.RATE,
                f"caller: too many requests; allowed {rate:g} a second",
                retry_after_seconds=(1.0 - self._left) / rate,
            )
        self._left -= 1.0

    def check_priority(self, priority: Priority) -> None:
        """Raises PermissionDenied for a class above the caller's right."""
        highest = self.limits.priority
        if priority > highest:
            allowed = ", ".join(name for name, each in PRIORITIES.items() if each <= highest)
            raise PermissionDenied(
                Reason.PRIORITY_DENIED,
                f"priority: above this caller's right; got {priority.name.lower()};"
                f" allowed {allowed}",
                metadata={"priority": highest.name.lower()},
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Holds one of the caller's sessions; raises Overloaded if all are open."""
        allowed = self.limits.sessions
        if self._session_count >= allowed:
            raise Overloaded(
                Reason.SESSION_LIMIT,
                f"session: the caller has too many; got {self._session_count + 1};"
                f" allowed {allowed}",
                retry_after_seconds=SESSION_RETRY_SECONDS,
            )
        self._session_count += 1
        try:
            yield
        finally:
            self._session_count -= 1

    @property
    def _most(self) -> float:
        return max(1.0, self.limits.rate)


class Accounts:
    """All callers of a router. `asks_certificates`: clients have one, and are known by it."""

    def __init__(self, standing: StandingLimits, asks_certificates: bool, clock: Clock) -> None:
        self._standing = standing
        self._asks_certificates = asks_certificates
        self._clock = clock
        self._known: dict[str, Account] = {}
        self._connections: OrderedDict[str, Account] = OrderedDict()

    def of(self, peer: str, identities: Callable[[], Iterable[bytes] | None]) -> Account:
        """The caller of the running task, whose connection is `peer`.

        `identities` are the names in its certificate.
        """
        if self._asks_certificates and not current_caller():
            for identity in identities() or ():
                set_caller(identity.decode("ascii", "backslashreplace"))
                break
        name = current_caller()
        if not name:
            return self._connection(peer)
        limits = dataclasses.replace(self._standing.known, **current_limits())
        account = self._known.get(name)
        if account is None:
            account = Account(f"caller:{name}", name, limits, self._clock)
            self._known[name] = account
        account.limits = limits
        return account

    def _connection(self, peer: str) -> Account:
        account = self._connections.get(peer)
        if account is None:
            account = Account(f"peer:{peer}", "", self._standing.unknown, self._clock)
            self._connections[peer] = account
            if len(self._connections) > MOST_ACCOUNTS:
                self._connections.popitem(last=False)
        self._connections.move_to_end(peer)
        return account
