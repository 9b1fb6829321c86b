"""The clients' side of the simulation: what each asked for, got, and should have got.

Knows requests and events; knows no plans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
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
from router.core.simulated_worlds import Weather, most_request_tokens

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
from santacoder_router.core.settings import SchedulerConfig

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
            closed = (FinishReason.CANCELLED, FinishReason.FAILED, FinishReason.NON_FINITE)
            require(reason in closed, "I4 reason out of the list", event)


_STATES = {reason: state for state, reason in _MATCH_REASONS.items()}
_TIMES = (FinishReason.TIME_BUDGET, FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT)


class RequestSource:
    """Draws requests: shared prefixes, salts, classes, options and time limits of all kinds."""

    def __init__(
        self,
        random: Random,
        config: SchedulerConfig,
        weather: Weather,
        vocabulary_size: int,
    ) -> None:
        self._random = random
        self._weather = weather
        self._block_size = config.block_size
        self._limit = most_request_tokens(config)
        self._max_tokens = min(self._limit, 160)
        self._queue_wait_seconds = config.queue_wait_seconds
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
        fewest = max(1, min(room, int(self._weather.answer_share * self._max_tokens)))
        most = min(room, random.choice([1, 8, 40, 160]))
        max_new_tokens = random.randint(fewest, max(fewest, most))
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
            deadline=self._time(now),
            time_budget_end=self._time(now),
            cache_key=random.choice(self._salts),
        )
        queue_end = now + self._queue_wait_seconds
        client = Client(request, now, queue_end, request_options(request), _prompt_digest(request))
        if random.random() < 0.15:
            self._resume(client, random.randrange(max_new_tokens))
        return client

    def draw_impossible(self) -> Request:
        """A request for no token, after no token, for one too many, or with all it wants."""
        too_many = self._limit + self._random.choice([1, 1, 7])
        prompt_length, max_new_tokens = self._random.choice(
            [(0, 1), (1, 0), (too_many - 1, 1), (1, too_many - 1), (too_many, 1)]
        )
        request = Request(2**40, (1,) * prompt_length, max_new_tokens)
        is_complete = self._random.random() < 0.2
        complete = Request(2**40, (1,), 1, output_ids=(2,))
        return complete if is_complete else request

    def remember(self, client: Client) -> None:
        """A request has ended: its text may begin later prompts."""
        self._answered.append(client.request.prompt_ids + tuple(client.delivered))
        del self._answered[:-4]

    def _resume(self, client: Client, output_count: int) -> None:
        """The client has output of another router already, and wants what comes behind it."""
        for index in range(output_count):
            token_id, state = sample(client.digest, index, client.options, self._vocabulary_size)
            if state is not RowState.RUNNING:
                break
            client.deliver(token_id)
        client.request = client.request._replace(output_ids=tuple(client.delivered))

    def _prompt(self) -> tuple[int, ...]:
        random = self._random
        if self._answered and random.random() < 0.3:
            answered = random.choice(self._answered)
            return (answered + self._ids(random.choice([0, 1, 9])))[: self._max_tokens - 1]
        stem = random.choice(self._stems)
        most = max(1, int(self._weather.prompt_share * (self._max_tokens - 1)))
        length = min(most, random.randint(1, random.choice([3, 20, self._max_tokens])))
        if random.random() < 0.4:
            # Whole blocks: the case where a prompt is cached to its end.
            return stem[: max(1, length // self._block_size * self._block_size)]
        kept = random.randint(0, length)
        return stem[:kept] + self._ids(length - kept)

    def _ids(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.randrange(self._vocabulary_size) for _ in range(count))

    def _time(self, now: float) -> float | None:
        is_limited = self._random.random() < self._weather.time_limit_rate
        return now + self._random.uniform(0, 2) if is_limited else None


def _prompt_digest(request: Request) -> bytes:
    digest = chain_root(request.cache_key)
    for token_id in request.prompt_ids:
        digest = extend_chain(digest, token_id)
    return digest
