"""What has come of one completion, and the request for the rest of it; knows no network.

The text is made of the ids and starts with the echo, so a count of its bytes says where it was cut.
A request may itself be for a rest, of which somebody else has received the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.errors import FailedPrecondition

SHORTEST_TIME_BUDGET_SECONDS = 0.01


@dataclass(slots=True)
class _Choice:
    token_ids: list[int] = field(default_factory=list)
    text_byte_count: int = 0
    is_finished: bool = False


def read_bookmark(bookmark: object) -> pb.CompletionRequest:
    """The request for what came after a bookmark. Raises ValueError if it is none."""
    try:
        if isinstance(bookmark, bytes) and bookmark:
            return pb.CompletionRequest.FromString(bookmark)
    except DecodeError:
        pass
    got = f"{len(bookmark)} bytes" if isinstance(bookmark, bytes) else type(bookmark).__name__
    raise ValueError(f"bookmark: cannot be read; got {got}; allowed what bookmark() gave")


class Received:
    """The events of one completion over all attempts: what came, and what is still to come."""

    def __init__(self, request: pb.CompletionRequest) -> None:
        self._request = request
        self._accepted: pb.Accepted | None = None
        self._choices = {choice.index: _taken(choice) for choice in request.resume.choices}
        self._resumed_count = self._received_count() if self._choices else None
        self.is_whole = False
        """Whether the last event has come."""

    def add(self, event: pb.CompletionEvent) -> bool:
        """Takes the next event. False for one that says again what an earlier attempt has said.

        Raises FailedPrecondition at a server that begins anew where it was to go on.
        """
        match event.WhichOneof("event"):
            case "accepted":
                return self._accept(event.accepted)
            case "delta":
                choice = self._choice(event.delta.index)
                choice.token_ids.extend(event.delta.token_ids)
                choice.text_byte_count += len(event.delta.text.encode())
            case "choice_finished":
                self._choice(event.choice_finished.index).is_finished = True
            case "finished":
                self.is_whole = True
        return True

    def rest(self, elapsed_seconds: float) -> pb.CompletionRequest:
        """The request for what is still to come, after so much of its time."""
        rest = pb.CompletionRequest()
        rest.CopyFrom(self._request)
        if rest.HasField("time_budget"):
            left = rest.time_budget.ToNanoseconds() / 1e9 - elapsed_seconds
            nanoseconds = round(max(SHORTEST_TIME_BUDGET_SECONDS, left) * 1e9)
            rest.time_budget.FromNanoseconds(nanoseconds)
        accepted = self._accepted
        if accepted is None:
            return rest
        rest.sampling.seed = accepted.sampling.seed
        rest.stopping.max_new_tokens = accepted.stopping.max_new_tokens
        self._resumed_count = None
        if self._choices:
            self._put_resume(rest.resume, accepted.model_revision)
        return rest

    def _put_resume(self, message: pb.Resume, model_revision: str) -> None:
        message.Clear()
        message.model_revision = model_revision
        for index, choice in sorted(self._choices.items()):
            message.choices.add(
                index=index,
                token_ids=choice.token_ids,
                text_byte_count=choice.text_byte_count,
                finished=choice.is_finished,
            )
        self._resumed_count = self._received_count()

    def _received_count(self) -> int:
        return sum(len(choice.token_ids) for choice in self._choices.values())

    def _accept(self, accepted: pb.Accepted) -> bool:
        is_first = self._accepted is None
        if is_first:
            self._accepted = accepted
        expected = self._resumed_count
        is_set = accepted.HasField("resumed_token_count")
        if expected is not None and not (is_set and accepted.resumed_token_count == expected):
            raise FailedPrecondition(
                "the server cannot go on with an answer that was cut off; it may be too old",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        return is_first

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice())


def _taken(choice: pb.ResumedChoice) -> _Choice:
    return _Choice(list(choice.token_ids), choice.text_byte_count, choice.finished)
