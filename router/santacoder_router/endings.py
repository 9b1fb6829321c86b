"""What a caller is told of a sequence that ended in a way that is no answer."""

from __future__ import annotations

from santacoder_router.core.plan import FinishReason
from santacoder_router.errors import DeadlineExceeded, Overloaded, Reason, RouterError
from santacoder_router.faults import Log, internal_error

QUEUE_RETRY_SECONDS = 1.0


def error_for(reason: FinishReason, has_started: bool, log: Log) -> RouterError:
    """The error; one of our own making is logged."""
    if reason is FinishReason.DEADLINE:
        return DeadlineExceeded(
            Reason.DEADLINE,
            "deadline: passed before the answer was there",
            metadata={"at": "decode" if has_started else "queue"},
        )
    if reason is FinishReason.QUEUE_TIMEOUT:
        return Overloaded(
            Reason.QUEUE_TIMEOUT,
            "queue: no room came free in time",
            retry_after_seconds=QUEUE_RETRY_SECONDS,
        )
    if reason is FinishReason.NON_FINITE:
        return internal_error(log, "the model gave NaN or infinity", reason=Reason.NUMERIC_FAULT)
    if reason is FinishReason.POISON:
        return internal_error(log, "a request kills the group", reason=Reason.POISON_REQUEST)
    return internal_error(log, f"a sequence ended with {reason.name}")
