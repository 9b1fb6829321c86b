"""Whether a request may join the queue, and who leaves it for that. Pure: the time is handed in.

Refused is whoever has enough waiting, whoever finds the queue full and comes before nobody in it,
and whoever would not be served in time. How long that is is measured, and told with the refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from santacoder_router.accounts import Account
from santacoder_router.caller_limits import CallerLimits
from santacoder_router.core.plan import Caller, Priority
from santacoder_router.core.room import displaced_by
from santacoder_router.core.sequence import Sequence
from santacoder_router.core.waiting import WaitingQueue
from santacoder_router.errors import DeadlineExceeded, Overloaded, Reason, RouterError
from santacoder_router.limits import Limits

# Told where nobody has had to wait yet, so that nothing has been measured.
UNMEASURED_RETRY_SECONDS = 1.0
LEAST_RETRY_SECONDS = 0.1
MOST_RETRY_SECONDS = 60.0
# Of the longest wait, what a caller may still wait for who found the queue full not long ago.
STANDING_SHARE = 0.05
OVERLOAD_REASONS = (Reason.QUEUE_FULL, Reason.PREFILL_BACKLOG, Reason.QUEUE_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What a request would add to the queue."""

    caller: Caller
    priority: Priority
    sequence_count: int
    token_count: int
    """Of all its sequences, prompts and what is resumed."""
    work: int
    """Tokens that all its sequences may take, new ones too."""
    seconds_left: float
    """Time to its deadline."""


def enter(
    newcomer: Newcomer, waiting: WaitingQueue, limits: Limits, account: Account, now: float
) -> list[Sequence]:
    """Who has to leave the queue for a newcomer; raises Overloaded or DeadlineExceeded."""
    wait_seconds = waiting.seconds_until_turn(newcomer.caller, newcomer.priority, now)
    refusal = _own_refusal(newcomer, waiting, account.limits, wait_seconds)
    refusal = refusal or _late_refusal(newcomer, limits, wait_seconds)
    full_seconds = now - account.full_at.get(newcomer.priority, -inf)
    if full_seconds <= limits.queue_wait_seconds:
        refusal = refusal or _standing_refusal(newcomer, waiting, limits, wait_seconds)
    displaced = None
    if refusal is None:
        displaced = _displaced(newcomer, waiting, limits)
    if displaced is None:
        refusal = refusal or _full(newcomer, waiting, limits, wait_seconds)
        if refusal.reason in OVERLOAD_REASONS:
            account.full_at[newcomer.priority] = now
        raise refusal
    return displaced


def _displaced(newcomer: Newcomer, waiting: WaitingQueue, limits: Limits) -> list[Sequence] | None:
    places = len(waiting) + newcomer.sequence_count - limits.queued_request_count
    tokens = waiting.token_count + newcomer.token_count - limits.queued_token_count
    if places <= 0 and tokens <= 0:
        return []
    caller, priority, work = newcomer.caller, newcomer.priority, newcomer.work
    return displaced_by(caller, priority, work, waiting, (places, tokens))


def retry_seconds(wait_seconds: float | None) -> float:
    """When to come back, as told: by then the queue as it is now will have been worked off."""
    if wait_seconds is None:
        return UNMEASURED_RETRY_SECONDS
    return min(MOST_RETRY_SECONDS, max(LEAST_RETRY_SECONDS, wait_seconds))


def _own_refusal(
    newcomer: Newcomer, waiting: WaitingQueue, own: CallerLimits, wait_seconds: float | None
) -> RouterError | None:
    load = waiting.load(newcomer.caller)
    for got, allowed, unit in (
        (load.waiting_count + newcomer.sequence_count, own.queued, "sequences"),
        (load.waiting_tokens + newcomer.token_count, own.queued_tokens, "tokens"),
    ):
        if got > allowed:
            return Overloaded(
                Reason.CALLER_QUEUE_FULL,
                f"caller: too much waits; got {got} {unit} with this request; allowed {allowed}",
                retry_after_seconds=retry_seconds(wait_seconds),
            )
    return None


def _late_refusal(
    newcomer: Newcomer, limits: Limits, wait_seconds: float | None
) -> RouterError | None:
    if wait_seconds is None:
        return None
    if wait_seconds > newcomer.seconds_left:
        return DeadlineExceeded(
            Reason.DEADLINE,
            f"deadline: would pass in the queue; got {newcomer.seconds_left:.2f} s;"
            f" allowed above {wait_seconds:.2f} s now",
            metadata={"at": "admission"},
        )
    if wait_seconds > limits.queue_wait_seconds:
        return Overloaded(
            Reason.QUEUE_TIMEOUT,
            f"queue: no room would come free in time; got {wait_seconds:.1f} s;"
            f" allowed {limits.queue_wait_seconds:g} s",
            retry_after_seconds=retry_seconds(wait_seconds),
        )
    return None


def _standing_refusal(
    newcomer: Newcomer, waiting: WaitingQueue, limits: Limits, wait_seconds: float | None
) -> RouterError | None:
    """A queue is for bursts: one that stays full makes everybody late and serves nobody more.

    Whoever was refused finds it kept short, until that was long ago: to what the slots run at once,
    or a small part of the longest wait. Who waits in other classes does not count.
    """
    waiting_count = waiting.share(newcomer.priority).waiting_count
    allowed_seconds = STANDING_SHARE * limits.queue_wait_seconds
    is_short = wait_seconds is None or wait_seconds <= allowed_seconds
    if is_short or waiting_count < limits.running_request_count:
        return None
    return Overloaded(
        Reason.QUEUE_FULL,
        f"queue: was full a moment ago, and is kept short; got a wait of {wait_seconds:.1f} s;"
        f" allowed {allowed_seconds:g} s",
        retry_after_seconds=retry_seconds(wait_seconds),
    )


def _full(
    newcomer: Newcomer, waiting: WaitingQueue, limits: Limits, wait_seconds: float | None
) -> Overloaded:
    count = len(waiting) + newcomer.sequence_count
    if count > limits.queued_request_count:
        reason, got, allowed, unit = (
            Reason.QUEUE_FULL,
            count,
            limits.queued_request_count,
            "sequences",
        )
    else:
        count = waiting.token_count + newcomer.token_count
        reason, got, allowed, unit = (
            Reason.PREFILL_BACKLOG,
            count,
            limits.queued_token_count,
            "tokens",
        )
    return Overloaded(
        reason,
        f"queue: full; got {got} {unit} with this request; allowed {allowed}",
        retry_after_seconds=retry_seconds(wait_seconds),
    )
