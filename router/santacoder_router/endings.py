"""What a caller is told of a sequence that ended in a way that is no answer."""

from __future__ import annotations

from santacoder_router.core.plan import FinishReason
from santacoder_router.errors import DeadlineExceeded, Overloaded, Reason, RouterError
from santacoder_router.faults import Log, internal_error

MEMORY_RETRY_SECONDS = 5.0


def error_for(
    reason: FinishReason, has_started: bool, retry_seconds: float, log: Log
) -> RouterError:
    """The error; one of our own making is logged. `retry_seconds` is when to come back."""
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
            retry_after_seconds=retry_seconds,
        )
    if reason is FinishReason.DISPLACED:
        return Overloaded(
            Reason.QUEUE_FULL,
            "queue: full; its place went to another caller or a higher priority",
            retry_after_seconds=retry_seconds,
        )
    if reason is FinishReason.SHED:
        return memory_pressure()
    if reason is FinishReason.NON_FINITE:
        return internal_error(log, "the model gave NaN or infinity", reason=Reason.NUMERIC_FAULT)
    if reason is FinishReason.POISON:
        return internal_error(log, "a request kills the group", reason=Reason.POISON_REQUEST)
    return internal_error(log, f"a sequence ended with {reason.name}")


def memory_pressure() -> Overloaded:
    """What a request is told for which there is no memory."""
    return Overloaded(
        Reason.MEMORY_PRESSURE,
        "server: is running out of memory",
        retry_after_seconds=MEMORY_RETRY_SECONDS,
    )
