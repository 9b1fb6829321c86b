"""The clients' side of the simulation: what each asked for, got, and should have got.

Knows requests and events; knows no plans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from router.core.simulated_model import (
    END_OF_TEXT_ID,
    Options,
    chain_root,
    extend_chain,
    request_options,
    require,
    sample,
)

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    Priority,
    Request,
    RowState,
    SamplingParameters,
    Started,
    Tokens,
)

_MATCH_REASONS = {
    RowState.END_OF_TEXT: FinishReason.END_OF_TEXT,
    RowState.STOP_ID: FinishReason.STOP_ID,
}


@dataclass
class Client:
    """One request and its story so far."""

    request: Request
    arrival: float
    options: Options
    digest: bytes
    delivered: list[int] = field(default_factory=list)
    has_started: bool = False
    finished: FinishReason | None = None

    def receive(self, event: Event, now: float, vocabulary_size: int) -> None:
        """Checks one event against what the model says and what the contract allows."""
        require(self.finished is None, "I4 event after the end", event)
        if isinstance(event, Started):
            require(not self.has_started, "I4 started twice", event)
            is_partial = 0 <= event.cached_token_count < len(self.request.prompt_ids)
            require(is_partial, "I11 cached more than the prompt", event)
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
        elif reason is FinishReason.DEADLINE:
            require(_has_passed(request.deadline, now), "I4 deadline still ahead", event)
        elif reason is FinishReason.TIME_BUDGET:
            require(_has_passed(request.time_budget_end, now), "I4 budget left", event)
        elif reason is FinishReason.QUEUE_TIMEOUT:
            require(not self.has_started, "I4 queue timeout after the start", event)
        else:
            closed = (FinishReason.CANCELLED, FinishReason.NON_FINITE)
            require(reason in closed, "I4 reason out of the list", event)


_STATES = {reason: state for state, reason in _MATCH_REASONS.items()}


def _has_passed(end: float | None, now: float) -> bool:
    return end is not None and end <= now


class RequestSource:
    """Draws requests: shared prefixes, salts, classes, options and time limits of all kinds."""

    def __init__(self, random: Random, max_request_tokens: int, vocabulary_size: int) -> None:
        self._random = random
        self._max_tokens = min(max_request_tokens, 160)
        self._vocabulary_size = vocabulary_size
        self._salts = [b"", b"tenant"][: random.randint(1, 2)]
        self._stems = [self._ids(self._max_tokens) for _ in range(random.randint(1, 3))]
        # Texts that were answered: prompts go on from them, as an editor's next request does.
        self._answered: list[tuple[int, ...]] = []
        self._count = 0

    def draw(self, now: float) -> Client:
        """The next request, arriving now."""
        random = self._random
        self._count += 1
        prompt_ids = self._prompt()
        room = self._max_tokens - len(prompt_ids)
        max_new_tokens = random.randint(1, max(1, min(room, random.choice([1, 8, 40, 160]))))
        request = Request(
            request_id=self._count,
            prompt_ids=prompt_ids,
            max_new_tokens=max_new_tokens,
            min_new_tokens=random.choice([0, 0, random.randint(0, max_new_tokens)]),
            sampling=SamplingParameters(
                seed=random.randint(0, 2), sample_index=random.randint(0, 1)
            ),
            ignore_eos=random.random() < 0.3,
            stop_ids=tuple(random.choice([(), (3,), (3, END_OF_TEXT_ID)])),
            logit_bias=tuple(random.choice([(), (), ((5, 1.5),)])),
            logprob_count=random.choice([None, None, 0]),
            priority=random.choice(list(Priority)),
            deadline=self._time(now, 0.1),
            time_budget_end=self._time(now, 0.1),
            cache_key=random.choice(self._salts),
        )
        return Client(request, now, request_options(request), _prompt_digest(request))

    def remember(self, client: Client) -> None:
        """A request has ended: its text may begin later prompts."""
        self._answered.append(client.request.prompt_ids + tuple(client.delivered))
        del self._answered[:-4]

    def _prompt(self) -> tuple[int, ...]:
        random = self._random
        if self._answered and random.random() < 0.3:
            answered = random.choice(self._answered)
            return (answered + self._ids(random.choice([0, 1, 9])))[: self._max_tokens - 1]
        stem = random.choice(self._stems)
        length = random.randint(1, random.choice([3, 20, self._max_tokens]))
        length = min(length, self._max_tokens - 1)
        if random.random() < 0.4:
            # Whole blocks of any size from 2 to 16: the case where a prompt is cached to its end.
            length = max(1, length // 16 * 16)
            return stem[:length]
        kept = random.randint(0, length)
        return stem[:kept] + self._ids(length - kept)

    def _ids(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.randrange(self._vocabulary_size) for _ in range(count))

    def _time(self, now: float, rate: float) -> float | None:
        return now + self._random.uniform(0, 2) if self._random.random() < rate else None


def _prompt_digest(request: Request) -> bytes:
    digest = chain_root(request.cache_key)
    for token_id in request.prompt_ids:
        digest = extend_chain(digest, token_id)
    return digest
