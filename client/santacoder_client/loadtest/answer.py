"""From what came over the wire to a record. Pure: messages are read when the request is over, so
that reading them cannot make the times of others late. Tokens are counted by their ids, never by
messages: a server may put several into one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.errors import SantaCoderError, error_from_rpc, error_from_status
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord

Arrivals = list[tuple[float, bytes]]
"""When each message came, and the message."""
Reading = Callable[[], None]
END_OF_RUN = "END_OF_RUN"
"""The reason of requests that were cancelled because the run would not wait longer."""
_SHOWN_CHARACTERS = 200


def read_stream(record: RequestRecord, arrivals: Arrivals) -> None:
    """Notes the events of a stream."""
    read_events(
        record, ((at, pb.StreamCompleteResponse.FromString(raw).event) for at, raw in arrivals)
    )


def read_events(record: RequestRecord, events: Iterable[tuple[float, pb.CompletionEvent]]) -> None:
    """Notes events with the times at which they came."""
    for at, event in events:
        kind = event.WhichOneof("event")
        if kind == "delta":
            count = len(event.delta.token_ids)
            if count:
                record.chunks.append(Chunk(at, count))
                record.completion_token_count += count
        elif kind == "accepted":
            record.accepted_at = at
            _note_accepted(record, event.accepted)
        elif kind == "finished":
            _note_usage(record, event.finished.usage)
            _note_timings(record, event.finished.timings)


def read_unary(record: RequestRecord, raw: bytes) -> None:
    """Notes a whole answer, which tells no time but its own."""
    response = pb.CompleteResponse.FromString(raw)
    _note_accepted(record, response.accepted)
    _note_usage(record, response.usage)
    _note_timings(record, response.timings)


def note_rpc_error(record: RequestRecord, error: grpc.RpcError) -> None:
    """Notes that the server or the wire failed the request."""
    note_error(record, error_from_rpc(error))


def note_status(record: RequestRecord, status: status_pb2.Status) -> None:
    """Notes that a session refused or failed the turn."""
    note_error(record, error_from_status(status))


def note_error(record: RequestRecord, error: SantaCoderError) -> None:
    """Notes a failure of any origin."""
    record.outcome = Outcome.FAILED
    record.status = error.code.name
    record.reason = error.reason or ""
    record.message = error.message[:_SHOWN_CHARACTERS]


def note_unreadable(record: RequestRecord, error: DecodeError) -> None:
    """Notes that the answer is no message of this contract."""
    record.outcome = Outcome.FAILED
    record.status = grpc.StatusCode.INTERNAL.name
    record.reason = "UNREADABLE_ANSWER"
    record.message = str(error)[:_SHOWN_CHARACTERS]


def note_cancelled(record: RequestRecord, reason: str = "") -> None:
    """Notes that the load itself ended the request."""
    record.outcome = Outcome.CANCELLED
    record.status = grpc.StatusCode.CANCELLED.name
    record.reason = reason


def being_cancelled() -> bool:
    """Whether the running task is to end, apart from the call that it waits for.

    grpc.aio raises CancelledError for both.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _note_accepted(record: RequestRecord, accepted: pb.Accepted) -> None:
    record.prompt_token_count = accepted.prompt_token_count
    record.cached_token_count = accepted.cached_token_count
    if accepted.HasField("queue_duration"):
        record.server_queue_seconds = accepted.queue_duration.ToNanoseconds() / 1e9


def _note_usage(record: RequestRecord, usage: pb.Usage) -> None:
    record.prompt_token_count = usage.prompt_token_count
    record.cached_token_count = usage.cached_token_count
    # What was counted on the way stands, where it was: a server's sum is its claim, not our figure.
    record.completion_token_count = record.completion_token_count or usage.completion_token_count


def _note_timings(record: RequestRecord, timings: pb.Timings) -> None:
    record.server_queue_seconds = timings.queue_duration.ToNanoseconds() / 1e9
    record.server_first_token_seconds = timings.first_token_duration.ToNanoseconds() / 1e9
    record.server_total_seconds = timings.total_duration.ToNanoseconds() / 1e9
