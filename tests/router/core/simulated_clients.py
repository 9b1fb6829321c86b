"""The clients' side of the simulation: what each asked for, got, and should have got.

Knows requests and events; knows no plans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from router.core.simulated_model import (
    Options,
    extend_chain,
    require,
    sample,
)

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    Request,
    RowState,
    Started,
    Tokens,
)

NATURAL_ENDS = (
    FinishReason.END_OF_TEXT,
    FinishReason.STOP_ID,
    FinishReason.LENGTH,
    FinishReason.NON_FINITE,
)
"""Ends that the shards find themselves."""

_MATCH_REASONS = {
    RowState.END_OF_TEXT: FinishReason.END_OF_TEXT,
    RowState.STOP_ID: FinishReason.STOP_ID,
}


@dataclass
class Client:
    """One request and its story so far."""

    request: Request
    arrival: float
    # When patience in the queue ends.
    queue_end: float
    options: Options
    digest: bytes
    delivered: list[int] = field(default_factory=list)
    has_started: bool = False
    finished: FinishReason | None = None

    def __post_init__(self) -> None:
        request = self.request
        never = (inf, 3, FinishReason.FAILED)
        ends = [
            (request.time_budget_end or inf, 0, FinishReason.TIME_BUDGET),
            (request.deadline or inf, 1, FinishReason.DEADLINE),
        ]
        self._end = min([*ends, never])
        self._end_in_queue = min(self._end, (self.queue_end, 2, FinishReason.QUEUE_TIMEOUT))

    @property
    def longest_text(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.request.prompt_ids) + self.request.max_new_tokens

    @property
    def first_end(self) -> tuple[float, int, FinishReason]:
        """When its time is up, and with which reason; an answer cut short is better than none."""
        return self._end if self.has_started else self._end_in_queue

    def receive(self, event: Event, now: float, vocabulary_size: int) -> None:
        """Checks one event against what the model says and what the contract allows."""
        require(self.finished is None, "I4 event after the end", event)
        if isinstance(event, Started):
            require(not self.has_started, "I4 started twice", event)
            is_prompt = 0 <= event.cached_token_count <= len(self.request.prompt_ids)
            require(is_prompt, "I11 cached more than the prompt", event)
            self.has_started = True
        elif isinstance(event, Tokens):
            self._receive_tokens(event, vocabulary_size)
        else:
            self._check_end(event, now, vocabulary_size)
            self.finished = event.reason

    def _receive_tokens(self, event: Tokens, vocabulary_size: int) -> None:
        require(self.has_started and len(event.token_ids) > 0, "I1 tokens out of nowhere", event)
        if self.options.logprob_count is None:
            require(event.logprobs == (), "I9 logprobs nobody asked for", event)
        else:
            chosen = tuple(-entry.chosen for entry in event.logprobs)
            require(chosen == event.token_ids, "I9 logprobs of other ids", event)
        for token_id in event.token_ids:
            index = len(self.delivered)
            expected, state = sample(self.digest, index, self.options, vocabulary_size)
            require(token_id == expected, "I1 I2 I10 wrong id", event, "expected", expected)
            require(state not in _MATCH_REASONS, "I1 an ending id is output", event)
            self.deliver(token_id)

    def deliver(self, token_id: int) -> None:
        """Has one more id of its answer."""
        self.delivered.append(token_id)
        self.digest = extend_chain(self.digest, token_id)

    def _check_end(self, event: Finished, now: float, vocabulary_size: int) -> None:
        reason, request = event.reason, self.request
        if event.matched_id is not None or reason in _MATCH_REASONS.values():
            index = len(self.delivered)
            expected = sample(self.digest, index, self.options, vocabulary_size)
            known = (event.matched_id, _STATES.get(reason))
            require(known == expected, "I4 wrong end", event, "expected", expected)
        elif reason is FinishReason.LENGTH:
            require(len(self.delivered) == request.max_new_tokens, "I4 wrong length", event)
        elif reason in _TIMES:
            end, _, expected_reason = self.first_end
            is_due = end <= now and reason is expected_reason
            require(is_due, "I4 out of time, but which", event, end, expected_reason)
        else:
            require(reason in _OTHERS, "I4 reason out of the list", event)


_STATES = {reason: state for state, reason in _MATCH_REASONS.items()}
_OTHERS = (
    FinishReason.CANCELLED,
    FinishReason.DISPLACED,
    FinishReason.FAILED,
    FinishReason.NON_FINITE,
    FinishReason.POISON,
)
_TIMES = (FinishReason.TIME_BUDGET, FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT)
