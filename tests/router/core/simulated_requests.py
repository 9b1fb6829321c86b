"""Draws what clients ask for: shared beginnings, salts, classes, options, time limits.

Knows requests and how they ended; knows no scheduler.
"""

from __future__ import annotations

from random import Random

from router.core.simulated_clients import NATURAL_ENDS, Client
from router.core.simulated_model import (
    END_OF_TEXT_ID,
    chain_root,
    extend_chain,
    request_options,
)
from router.core.simulated_worlds import Weather, most_request_tokens

from santacoder_router.core.plan import Caller, Priority, Request, SamplingParameters
from santacoder_router.core.settings import SchedulerConfig


def draw_callers(random: Random) -> list[Caller]:
    """One caller, or some of different weights, of whom some may run few at once."""
    count = random.choice([1, 1, 2, 5])
    return [
        Caller(f"caller {n}", random.choice([1.0, 1.0, 3.0]), random.choice([1, 2, *[1000] * 8]))
        for n in range(count)
    ]


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
        self._callers = draw_callers(random)
        self._salts = [b"", b"tenant"][: random.randint(1, 2)]
        self._stems = [self._ids(self._max_tokens) for _ in range(random.randint(1, 3))]
        # Texts that were answered: prompts go on from them, as an editor's next request does.
        self._answered: list[tuple[int, ...]] = []
        self._cut_off: list[Client] = []
        self._count = 0

    def draw(self, now: float) -> Client:
        """The next request, arriving now."""
        random = self._random
        self._count += 1
        if self._cut_off and random.random() < 0.15:
            return self._resumed(now)
        prompt_ids = self._prompt()
        room = self._max_tokens - len(prompt_ids)
        share = self._weather.answer_share if random.random() < 0.8 else 0.0
        fewest = max(1, min(room, int(share * self._max_tokens)))
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
            caller=random.choice(self._callers),
        )
        return self._client(request, now)

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
        if client.finished not in NATURAL_ENDS:
            self._cut_off.append(client)
            del self._cut_off[:-4]

    def _resumed(self, now: float) -> Client:
        """An answer that was cut off is asked for again, behind ids that its client has."""
        cut_off = self._random.choice(self._cut_off)
        kept_count = self._random.randint(0, len(cut_off.delivered))
        output_ids = tuple(cut_off.delivered[:kept_count])
        request = cut_off.request._replace(
            request_id=self._count,
            deadline=self._time(now),
            time_budget_end=self._time(now),
            output_ids=output_ids,
        )
        client = self._client(request, now)
        for token_id in output_ids:
            client.deliver(token_id)
        return client

    def _client(self, request: Request, now: float) -> Client:
        digest = chain_root(request.cache_key)
        for token_id in request.prompt_ids:
            digest = extend_chain(digest, token_id)
        queue_end = now + self._queue_wait_seconds
        return Client(request, now, queue_end, request_options(request), digest)

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
