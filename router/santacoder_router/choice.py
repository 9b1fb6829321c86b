"""One answer as it grows: its sequence's events in, text and an end out.

Finds stop strings. Knows no other choice, no time and no gRPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core import plan
from santacoder_router.pending import PendingDelta
from santacoder_router.text.detokenizer import ChoiceText

STREAM_BUFFER_BYTES = 64 * 1024

REASONS = {
    plan.FinishReason.END_OF_TEXT: inference_pb2.FINISH_REASON_END_OF_TEXT,
    plan.FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
    plan.FinishReason.STOP_ID: inference_pb2.FINISH_REASON_STOP,
    plan.FinishReason.TIME_BUDGET: inference_pb2.FINISH_REASON_TIME_BUDGET,
    plan.FinishReason.CANCELLED: inference_pb2.FINISH_REASON_CANCELLED,
}


class WholeRequest(Protocol):
    """What a choice tells the request that it belongs to."""

    @property
    def name(self) -> str:
        """The request's id, as its caller knows it."""

    def started(self, cached_token_count: int) -> None:
        """The choice is in a plan."""

    def grew(self) -> None:
        """The choice has new tokens."""

    def stop(self, sequence: int) -> None:
        """The choice has ended while its sequence still runs."""

    def hold(self, sequence: int, is_held: bool) -> None:
        """The choice's reader is behind, or has caught up."""

    def ended(self, reason: inference_pb2.FinishReason.ValueType) -> None:
        """The choice has ended."""

    def fail(self, error: Exception) -> None:
        """The request cannot go on."""

    def fail_for(self, reason: plan.FinishReason) -> None:
        """The sequence ended in a way that is no answer."""


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """Why a choice ended, and what ended it."""

    reason: inference_pb2.FinishReason.ValueType
    matched_stop: str | None = None
    matched_token_id: int | None = None

    def message(self, index: int) -> inference_pb2.ChoiceFinished:
        """As an event of the wire."""
        return inference_pb2.ChoiceFinished(
            index=index,
            reason=self.reason,
            matched_stop=self.matched_stop,
            matched_token_id=self.matched_token_id,
        )


class Choice:
    """One answer as it grows; reads the events of its sequence."""

    def __init__(
        self,
        request: WholeRequest,
        sequence: int,
        text: ChoiceText,
        pending: PendingDelta,
        token_count: int = 0,
    ) -> None:
        """`token_count` of its ids are with the reader already."""
        self._request = request
        self._sequence = sequence
        self._text = text
        self.pending = pending
        self.end: ChoiceEnd | None = None
        self.is_end_told = False
        self.token_count = token_count
        # No bound for an answer that is given whole.
        self._bound_bytes = 1 << 40
        self._is_held = False

    @property
    def is_cancelled(self) -> bool:
        """Whether it was ended before its own end."""
        return self.end is not None and self.end.reason == inference_pb2.FINISH_REASON_CANCELLED

    @property
    def name(self) -> str:
        """The request's id, as its caller knows it."""
        return self._request.name

    def read(self, event: plan.Event) -> None:
        """The next event of the sequence."""
        match event:
            case plan.Started():
                self._request.started(event.cached_token_count)
            case plan.Tokens():
                self._grow(event)
            case plan.Finished():
                self._finish(event)

    def fail(self, error: Exception) -> None:
        """The sequence cannot go on."""
        self._request.fail(error)

    def bound(self, choice_count: int) -> None:
        """So many choices share what may wait for one reader; what is above that is not made."""
        self._bound_bytes = STREAM_BUFFER_BYTES // choice_count

    def let_go(self) -> None:
        """The reader has taken what there was."""
        if self._is_held:
            self._is_held = False
            self._request.hold(self._sequence, False)

    def cancel(self) -> None:
        """Ends the choice now, unless it has ended."""
        if self.end is None:
            self._request.stop(self._sequence)
            self._end(ChoiceEnd(inference_pb2.FINISH_REASON_CANCELLED))

    def end_unrun(self, end: ChoiceEnd, is_told: bool) -> None:
        """It had ended when its reader was cut off, who may know it."""
        if is_told:
            self.end, self.is_end_told = end, True
        else:
            self._end(end)

    def put_whole(self, message: inference_pb2.Choice) -> None:
        """The answer; for a choice that has ended and of which nothing was taken."""
        self.pending.move_to(message)
        end = self.end
        if end is None:
            return
        message.finish_reason = end.reason
        if end.matched_stop is not None:
            message.matched_stop = end.matched_stop
        if end.matched_token_id is not None:
            message.matched_token_id = end.matched_token_id

    def _grow(self, event: plan.Tokens) -> None:
        if self.end is not None:
            return
        piece = self._text.push(event.token_ids, event.logprobs)
        self.pending.add(piece)
        self.token_count += len(piece.token_ids)
        self._request.grew()
        if piece.matched_stop is not None:
            self._request.stop(self._sequence)
            self._end(ChoiceEnd(inference_pb2.FINISH_REASON_STOP, matched_stop=piece.matched_stop))
        elif self.pending.byte_count > self._bound_bytes and not self._is_held:
            self._is_held = True
            self._request.hold(self._sequence, True)

    def _finish(self, event: plan.Finished) -> None:
        if self.end is not None:
            return
        reason = REASONS.get(event.reason)
        if reason is None:
            self._request.fail_for(event.reason)
        else:
            self._end(ChoiceEnd(reason, matched_token_id=event.matched_id))

    def _end(self, end: ChoiceEnd) -> None:
        # What was held back in case a stop string came is let go; it may complete one itself.
        piece = self._text.finish()
        self.pending.add(piece)
        if piece.matched_stop is not None:
            end = ChoiceEnd(inference_pb2.FINISH_REASON_STOP, matched_stop=piece.matched_stop)
        self.end = end
        self._request.ended(end.reason)
