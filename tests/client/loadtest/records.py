"""Records made by hand: requests whose every time is known."""

from __future__ import annotations

from collections.abc import Sequence

from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord


def answered(
    index: int = 0,
    due: float = 0.0,
    delay: float = 0.0,
    first: float | None = 0.1,
    gaps: Sequence[float] = (),
    tokens: Sequence[int] | None = None,
    tail: float = 0.0,
    **changes: object,
) -> RequestRecord:
    """A request answered whole; `first` is counted from dispatch, `tail` from the last message."""
    sent = due + delay
    times = [] if first is None else [sent + first]
    for gap in gaps:
        times.append(times[-1] + gap)
    counts = tokens if tokens is not None else [1] * len(times)
    record = RequestRecord(
        index=index,
        target="127.0.0.1:1",
        kind="token_ids",
        scheduled_at=due,
        dispatched_at=sent,
        accepted_at=sent,
        chunks=[Chunk(at, count) for at, count in zip(times, counts, strict=True)],
        finished_at=(times[-1] if times else sent) + tail,
        outcome=Outcome.OK,
        status="OK",
        prompt_token_count=10,
        completion_token_count=sum(counts),
    )
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def failed(
    index: int = 0, due: float = 0.0, after: float = 0.05, reason: str = "QUEUE_FULL"
) -> RequestRecord:
    """A request that the server refused."""
    return RequestRecord(
        index=index,
        target="127.0.0.1:1",
        kind="token_ids",
        scheduled_at=due,
        dispatched_at=due,
        finished_at=due + after,
        outcome=Outcome.FAILED,
        status="RESOURCE_EXHAUSTED",
        reason=reason,
        message=f"refused {index}",
    )


def cut(
    index: int = 0,
    due: float = 0.0,
    first: float | None = 0.1,
    after: float = 0.3,
    confirmed: float | None = 0.002,
    outcome: Outcome = Outcome.SUPERSEDED,
    reason: str = "",
) -> RequestRecord:
    """A request that was ended by the load, and when the server confirmed it."""
    return RequestRecord(
        index=index,
        target="127.0.0.1:1",
        kind="token_ids",
        scheduled_at=due,
        dispatched_at=due,
        chunks=[Chunk(due + first, 1)] if first is not None else [],
        cancelled_at=due + after,
        finished_at=due + after + confirmed if confirmed is not None else None,
        outcome=outcome,
        status="CANCELLED",
        reason=reason,
    )


def unsent(index: int = 0, due: float = 0.0) -> RequestRecord:
    """A request that was never sent."""
    return RequestRecord(index=index, target="127.0.0.1:1", kind="token_ids", scheduled_at=due)
