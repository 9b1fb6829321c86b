"""Events of one completion into pieces and, at the end, the whole answer; knows no network."""

from __future__ import annotations

from dataclasses import dataclass, field

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import _codec
from santacoder_client.errors import Cancelled
from santacoder_client.types import (
    Accepted,
    Choice,
    Completion,
    Piece,
    PositionLogprobs,
    Timings,
    Usage,
)


@dataclass(slots=True)
class _Growing:
    """One choice, as far as it has come."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    last: Piece | None = None


class Assembly:
    """Takes a completion's events in order; gives a piece for each that a reader should see."""

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self._choices: dict[int, _Growing] = {}

    def add(self, event: pb.CompletionEvent) -> Piece | None:
        """Takes one event. None for those that bring no piece."""
        match event.WhichOneof("event"):
            case "accepted":
                self.accepted = _codec.decode_accepted(event.accepted)
            case "delta":
                return self._delta(event.delta)
            case "choice_finished":
                return self._choice_finished(event.choice_finished)
            case "finished":
                self.usage = _codec.decode_usage(event.finished.usage)
                self.timings = _codec.decode_timings(event.finished.timings)
        return None

    def completion(self) -> Completion:
        """The whole answer. Raises Cancelled if it did not come to its end."""
        if self.accepted is None or self.usage is None or self.timings is None:
            raise Cancelled("the request ended before its answer did")
        return Completion(
            choices=tuple(_whole(self._choices[index]) for index in sorted(self._choices)),
            usage=self.usage,
            timings=self.timings,
            accepted=self.accepted,
        )

    def _choice(self, index: int) -> _Growing:
        return self._choices.setdefault(index, _Growing())

    def _delta(self, delta: pb.Delta) -> Piece:
        piece = Piece(
            index=delta.index,
            text=delta.text,
            token_ids=list(delta.token_ids),
            logprobs=_codec.decode_logprobs(delta.logprobs),
        )
        choice = self._choice(delta.index)
        choice.texts.append(piece.text)
        choice.token_ids.extend(piece.token_ids)
        choice.logprobs.extend(piece.logprobs)
        return piece

    def _choice_finished(self, finished: pb.ChoiceFinished) -> Piece | None:
        choice = self._choice(finished.index)
        if choice.last is not None:  # superseded just after it ended
            return None
        choice.last = Piece(
            index=finished.index,
            text="",
            token_ids=[],
            logprobs=(),
            finish_reason=_codec.decode_finish_reason(finished.reason),
            matched_stop=_codec.optional(finished, "matched_stop"),
            matched_token_id=_codec.optional(finished, "matched_token_id"),
        )
        return choice.last


def _whole(choice: _Growing) -> Choice:
    last = choice.last
    if last is None or last.finish_reason is None:
        raise Cancelled("a choice ended without saying why")
    return Choice(
        index=last.index,
        text="".join(choice.texts),
        token_ids=choice.token_ids,
        logprobs=tuple(choice.logprobs),
        finish_reason=last.finish_reason,
        matched_stop=last.matched_stop,
        matched_token_id=last.matched_token_id,
    )
