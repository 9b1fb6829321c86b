"""A running request: its choices' events from the scheduler in, events of the wire out.

Finds stop strings, counts and times. Knows no gRPC and no scheduling: it cancels by a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from google.protobuf import duration_pb2

from santacoder.inference.v1 import inference_pb2
from santacoder_router.choice import Choice
from santacoder_router.core import plan
from santacoder_router.endings import error_for
from santacoder_router.request_trace import Timeline, current_trace
from santacoder_router.resolution import ResolvedRequest, put_accepted
from santacoder_router.resumption import Beginning, begin_anew
from santacoder_router.surroundings import Surroundings

REASON_NAMES = {
    number: name.removeprefix("FINISH_REASON_")
    for name, number in inference_pb2.FinishReason.items()
}


class Generation:
    """All choices of one request. `arrival` is a time of the surroundings' clock, in seconds.

    Choice n is the sequence `sequences[n]` of the scheduler and reads its events as `choices[n]`.
    """

    def __init__(
        self,
        resolved: ResolvedRequest,
        sequences: range,
        arrival: float,
        surroundings: Surroundings,
        beginnings: Sequence[Beginning] | None = None,
        caller: plan.Caller = plan.ANYBODY,
    ) -> None:
        """Begins anew, unless `beginnings` say where each choice goes on."""
        self._resolved = resolved
        self._caller = caller
        self._arrival = arrival
        self._surroundings = surroundings
        beginnings = beginnings or begin_anew(resolved, surroundings.tokenizer)
        self.choices = [
            Choice(self, sequence, beginning.text, beginning.pending, len(beginning.token_ids))
            for sequence, beginning in zip(sequences, beginnings, strict=True)
        ]
        self._started_at: float | None = None
        self._first_token_at: float | None = None
        self._ended_at: float | None = None
        self._cached_token_count = 0
        self._is_accepted = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        # Whether a turn to tell of changes has been asked for, or nobody wants to be told.
        self._has_asked = True
        self._is_over = asyncio.Event()
        self._end_unrun(beginnings)

    @property
    def content(self) -> int:
        """A hash of what was asked."""
        return self._resolved.content

    @property
    def is_answered(self) -> bool:
        """Whether every choice has come to an end of its own."""
        is_cut_off = self._error is not None or any(each.is_cancelled for each in self.choices)
        return self._ended_at is not None and not is_cut_off

    async def events(self) -> AsyncIterator[inference_pb2.CompletionEvent]:
        """Everything that happens, as it happens; what waits for a slow reader is joined.

        Raises the RouterError that ends the request.
        """
        for choice in self.choices:
            choice.bound(len(self.choices))
        # Something may have happened already.
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._has_asked = False
            # Asked before: what happens while the reader is slow is for the next round.
            error, is_over = self._error, self._ended_at is not None
            for event in self._take():
                yield event
            if error is not None:
                raise error
            if is_over:
                yield self._finished_event()
                return

    async def answer(self) -> inference_pb2.CompleteResponse:
        """The whole answer, once it is there. Raises the RouterError that ends the request."""
        # Not woken by every token: a crowd of waiting answers would be woken at every step.
        await self._is_over.wait()
        if self._error is not None:
            raise self._error
        response = inference_pb2.CompleteResponse()
        self._put_accepted(response.accepted)
        for choice in self.choices:
            if not choice.is_end_told:
                choice.put_whole(response.choices.add())
        self._put_usage(response.usage)
        self._put_timings(response.timings)
        return response

    def cancel(self) -> None:
        """Ends every choice that has not ended, at once; its reason is CANCELLED. Idempotent."""
        for choice in self.choices:
            choice.cancel()

    def close(self) -> None:
        """Ends what still runs, for nobody reads on."""
        self.cancel()
        if (trace := current_trace.get()) is not None:
            trace.add(self._timeline())
        # They hold this request too: a circle, which the collector alone would find and much later.
        self.choices = []

    @property
    def name(self) -> str:
        """The request's id, as its caller knows it."""
        return self._resolved.valid.request_id

    def started(self, cached_token_count: int) -> None:
        """The first of the choices is in a plan."""
        if self._started_at is not None:
            return
        now = self._surroundings.clock()
        self._started_at = now
        self._cached_token_count = cached_token_count
        metrics = self._surroundings.metrics
        metrics.queue_time.observe(now - self._arrival)
        metrics.prompt_tokens.inc(len(self._resolved.prompt_ids))
        metrics.cached_tokens.inc(cached_token_count)
        self._change()

    def grew(self) -> None:
        """A choice has new tokens."""
        if self._first_token_at is None:
            self._first_token_at = self._surroundings.clock()
            seconds = self._first_token_at - self._arrival
            self._surroundings.metrics.first_token.observe(seconds)
            # Somebody waits for this one; of those that follow, a few at a time are as good.
            self._changed.set()
        self._change()

    def stop(self, sequence: int) -> None:
        """A choice has ended while its sequence still runs."""
        self._surroundings.cancel(sequence)

    def hold(self, sequence: int, is_held: bool) -> None:
        """A choice's reader is behind, or has caught up."""
        self._surroundings.hold(sequence, is_held)

    def ended(self, reason: inference_pb2.FinishReason.ValueType) -> None:
        """A choice has ended."""
        self._surroundings.metrics.choices.labels(REASON_NAMES[reason]).inc()
        self._look_for_end()
        self._change()

    def fail(self, error: Exception) -> None:
        """The request cannot go on; the first error counts."""
        if self._error is None:
            self._error = error
            self._is_over.set()
            self._change()

    def fail_for(self, reason: plan.FinishReason) -> None:
        """A sequence ended in a way that is no answer."""
        surroundings, valid = self._surroundings, self._resolved.valid
        if reason is plan.FinishReason.POISON:
            surroundings.poison.add(self._resolved.prompt_ids)
        log = surroundings.log.bind(request_id=valid.request_id)
        seconds = surroundings.retry_seconds(self._caller, valid.priority)
        self.fail(error_for(reason, self._started_at is not None, seconds, log))

    def _timeline(self) -> Timeline:
        ended_at = self._surroundings.clock() if self._ended_at is None else self._ended_at
        times = (self._arrival, self._started_at, self._first_token_at, ended_at)
        token_count = sum(choice.token_count for choice in self.choices)
        counts = (len(self._resolved.prompt_ids), self._cached_token_count, token_count)
        return Timeline(self._resolved.valid.request_id, *times, *counts)

    def _end_unrun(self, beginnings: Sequence[Beginning]) -> None:
        """What had ended when the caller was cut off has nothing to run."""
        for choice, beginning in zip(self.choices, beginnings, strict=True):
            if beginning.end is not None:
                choice.end_unrun(beginning.end, beginning.is_end_told)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if all(choice.end is not None for choice in self.choices):
            self._ended_at = self._surroundings.clock()
            self._is_over.set()

    def _change(self) -> None:
        if not self._has_asked:
            self._has_asked = True
            self._surroundings.turns.ask(self._changed.set)

    def _take(self) -> Iterator[inference_pb2.CompletionEvent]:
        has_news = self._started_at is not None or any(choice.end for choice in self.choices)
        if not has_news:
            return
        if not self._is_accepted:
            self._is_accepted = True
            yield self._accepted_event()
        for index, choice in enumerate(self.choices):
            end = choice.end
            if choice.pending:
                event = inference_pb2.CompletionEvent()
                choice.pending.move_to(event.delta)
                choice.let_go()
                yield event
            if end is not None and not choice.is_end_told:
                choice.is_end_told = True
                yield inference_pb2.CompletionEvent(choice_finished=end.message(index))

    # Messages are filled in place: one that is handed to another's constructor is copied.

    def _accepted_event(self) -> inference_pb2.CompletionEvent:
        event = inference_pb2.CompletionEvent()
        self._put_accepted(event.accepted)
        return event

    def _finished_event(self) -> inference_pb2.CompletionEvent:
        event = inference_pb2.CompletionEvent()
        self._put_usage(event.finished.usage)
        self._put_timings(event.finished.timings)
        return event

    def _put_accepted(self, message: inference_pb2.Accepted) -> None:
        put_accepted(self._resolved, message)
        message.cached_token_count = self._cached_token_count
        message.model_revision = self._surroundings.model_revision
        self._put_since_arrival(self._started_at, message.queue_duration)

    def _put_usage(self, message: inference_pb2.Usage) -> None:
        resolved = self._resolved
        message.prompt_token_count = len(resolved.prompt_ids)
        message.cached_token_count = self._cached_token_count
        message.completion_token_count = sum(choice.token_count for choice in self.choices)
        message.dropped_prefix_token_count = resolved.dropped_prefix_token_count
        message.dropped_suffix_token_count = resolved.dropped_suffix_token_count

    def _put_timings(self, message: inference_pb2.Timings) -> None:
        self._put_since_arrival(self._started_at, message.queue_duration)
        self._put_since_arrival(self._first_token_at, message.first_token_duration)
        self._put_since_arrival(self._ended_at, message.total_duration)

    def _put_since_arrival(self, at: float | None, message: duration_pb2.Duration) -> None:
        """Time from arrival to `at`; to now where that never came."""
        end = self._surroundings.clock() if at is None else at
        nanos = max(0, round((end - self._arrival) * 1e9))
        message.seconds, message.nanos = divmod(nanos, 1_000_000_000)
