"""Whether a request is sent again, when, and how often. Pure: clock and chance are handed in.

Three things are told apart. A server that had the request and is gone is waited for: what it had
said is kept, so nothing is asked for twice. A server that refuses is asked again a few times, and
by all requests of a client together no more than a tenth as often as they are answered. A server
that was never reached is soon given up.
"""

from __future__ import annotations

import enum
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc

from santacoder_client._handshake import was_connected
from santacoder_client.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Overloaded,
    SantaCoderError,
    Unavailable,
)

LEAVING_REASONS = ("DRAINING", "ROUTER_FAULT")
COMING_REASON = "WARMING"
IDLE_REASON = "SESSION_IDLE"
IN_USE_REASON = "REQUEST_ID_IN_USE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long and how often a client tries again. Raises ValueError for what makes no sense."""

    outage_seconds: float = 60.0
    """How long a server that had the request may be away."""
    attempt_count: int = 4
    """Most attempts in a row that bring nothing, at a server that refuses or is not reached."""
    first_pause_seconds: float = 0.1
    """Before the second attempt; each further pause is twice as long. Drawn, from half of it on."""
    longest_pause_seconds: float = 2.0
    """No pause of our own is longer; a server may ask for a longer one."""

    def __post_init__(self) -> None:
        seconds = (self.outage_seconds, self.first_pause_seconds, self.longest_pause_seconds)
        if not all(math.isfinite(value) and value >= 0 for value in seconds):
            raise ValueError(f"retry: not a time; got {self!r}; allowed 0 seconds and more")
        if self.attempt_count < 1:
            got = self.attempt_count
            raise ValueError(f"retry.attempt_count: out of range; got {got}; allowed 1 and more")


DEFAULT_POLICY = RetryPolicy()


class RetryBudget:
    """What all requests of a client may repeat at servers that refuse: a token bucket."""

    MOST_TOKENS = 10.0
    TOKENS_PER_ANSWER = 0.1

    def __init__(self) -> None:
        self.has_answered = False
        """Whether any request of this client was ever answered: then there is a server."""
        self._tokens = self.MOST_TOKENS
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more retry may be sent."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def earn(self) -> None:
        """A request was answered."""
        with self._lock:
            self.has_answered = True
            self._tokens = min(self.MOST_TOKENS, self._tokens + self.TOKENS_PER_ANSWER)


class Pause(NamedTuple):
    """What comes before the next attempt."""

    seconds: float
    awaits_server: bool
    """Ask for the server's health too, and attempt nothing before it serves."""


class _Kind(enum.Enum):
    GONE = "gone"
    UNREACHED = "unreached"
    HELD = "held"
    REFUSED = "refused"
    FINAL = "final"


class Retries:
    """The attempts of one request, all within its `timeout_seconds`; without a policy only one."""

    def __init__(
        self,
        policy: RetryPolicy | None,
        budget: RetryBudget,
        timeout_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._clock = clock
        self._draw = draw
        self._started = clock()
        self._deadline = math.inf if timeout_seconds is None else self._started + timeout_seconds
        self._had_server = budget.has_answered
        self._has_tokens = False
        self._forget_failures()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the first attempt."""
        return self._clock() - self._started

    @property
    def has_failed(self) -> bool:
        """Whether an attempt has failed since something new came."""
        return self._failure_count > 0

    def left_seconds(self) -> float | None:
        """The next attempt's deadline; None where there is none."""
        return None if self._deadline == math.inf else max(0.0, self._deadline - self._clock())

    def progressed(self, has_tokens: bool) -> None:
        """This attempt has brought something new."""
        self._had_server = True
        self._has_tokens = self._has_tokens or has_tokens
        if self._failure_count:
            self._forget_failures()

    def answered(self) -> None:
        """The answer is whole."""
        self._budget.earn()

    def after(self, error: SantaCoderError) -> Pause:
        """What to do after an attempt has failed; raises the error if there is to be no other."""
        policy, kind = self._policy, self._kind(error)
        if policy is None or kind is _Kind.FINAL:
            raise error
        self._had_server = self._had_server or kind is _Kind.GONE
        self._has_tokens = False
        if not self._failure_count:
            self._failing_since = self._clock()
        self._failure_count += 1
        is_outage = kind is _Kind.HELD or (kind is _Kind.UNREACHED and self._had_server)
        if not is_outage:
            # One that ends every server it is sent to is not sent for ever either.
            self._counts[kind] += 1
            if self._counts[kind] >= policy.attempt_count:
                raise error
        if kind is _Kind.REFUSED and not self._budget.take():
            raise error
        return self._pause(policy, error, is_outage or kind is _Kind.GONE)

    def is_outage(self, error: SantaCoderError) -> bool:
        """Whether the request may go on, once a server is there."""
        return self._policy is not None and self._kind(error) in (_Kind.GONE, _Kind.HELD)

    def not_serving(self, error: SantaCoderError) -> Pause:
        """What to do while no server is there; raises, in the end, `error` or DeadlineExceeded."""
        if self._policy is None:
            raise error
        self._failure_count += 1
        return self._pause(self._policy, error, awaits_server=True)

    def _kind(self, error: SantaCoderError) -> _Kind:
        match error:
            case Unavailable(reason=None):
                return _Kind.GONE if was_connected(error.message) else _Kind.UNREACHED
            case Unavailable():
                is_coming = error.reason == COMING_REASON and self._had_server
                if error.reason in LEAVING_REASONS or is_coming:
                    return _Kind.GONE
                return _Kind.FINAL if self._has_tokens else _Kind.REFUSED
            case Overloaded(retry_after=float()) if not self._has_tokens:
                return _Kind.REFUSED
            case DeadlineExceeded(reason=reason) if reason == IDLE_REASON:
                return _Kind.GONE  # the session was closed while its next turn was on the way
            case AlreadyExists(reason=reason) if reason == IN_USE_REASON and self._failure_count:
                # The server has not yet seen that the last attempt's connection is gone.
                return _Kind.HELD
        return _Kind.FINAL

    def _pause(self, policy: RetryPolicy, error: SantaCoderError, awaits_server: bool) -> Pause:
        doubled = policy.first_pause_seconds * 2.0 ** min(self._failure_count - 1, 30)
        seconds = min(policy.longest_pause_seconds, doubled) * (0.5 + 0.5 * self._draw())
        if not awaits_server and error.retry_after is not None:
            seconds = max(seconds, error.retry_after * (1.0 + 0.25 * self._draw()))
        end = self._clock() + seconds
        if awaits_server and end >= self._failing_since + policy.outage_seconds:
            raise error
        if end >= self._deadline:
            if not awaits_server:
                raise error
            message = "the timeout passed while no server was there"
            raise DeadlineExceeded(message, code=grpc.StatusCode.DEADLINE_EXCEEDED) from error
        return Pause(seconds, awaits_server)

    def _forget_failures(self) -> None:
        self._failure_count = 0
        self._counts: Counter[_Kind] = Counter()
        self._failing_since = self._started
