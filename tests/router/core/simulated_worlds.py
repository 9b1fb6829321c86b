"""The kinds of worlds a seed may draw: capacities, and how rough it gets. Knows no scheduler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from random import Random
from unittest import mock

from santacoder_router.core import prefix
from santacoder_router.core.settings import SchedulerConfig


@dataclass(frozen=True)
class Weather:
    """How rough a world is: rates of what may go wrong, weights of what may happen."""

    cut_rate: float
    poison_rate: float
    time_limit_rate: float
    # Of the longest text the part that is prompt, at most, and that is new, at least.
    prompt_share: float
    answer_share: float
    arrive: float
    cancel: float
    execute: float
    deliver: float
    die: float
    misdeliver: float
    wake: float
    hold: float


def draw_world(random: Random) -> tuple[SchedulerConfig, Weather]:
    """A world of any kind, or one that preempts a lot, or one where most give up."""
    config, weather = _draw_config(random), _draw_weather(random)
    kind = random.random()
    if kind < 0.3:
        return _pressed(config, weather, random)
    return config, _impatient(weather) if kind < 0.4 else weather


def _draw_config(random: Random) -> SchedulerConfig:
    """Any size from a pool for one short sequence to one that never fills."""
    block_size = random.choice([2, 4, 8, 16])
    return SchedulerConfig(
        block_size=block_size,
        block_count=min(
            512, 2 ** random.choice([2, 3, 4, 5, 5, 6, 6, 7, 9]) + random.randint(0, 9)
        ),
        slot_count=random.choice([1, 3, 8, 8, 64]),
        blocks_per_sequence=random.choice([4, 16, 160]),
        tokens_per_step=random.choice([1, 3, 16, 64, 64, 512]),
        steps_per_lease=random.choice([1, 4, 16]),
        plans_in_flight=random.randint(1, 4),
        context_token_count=random.choice([48, 2048]),
        lease_seconds=random.choice([0.0005, 0.0025, 0.1]),
        seconds_per_row=random.choice([0.0, 0.0001, 0.001]),
        queue_wait_seconds=random.choice([0.5, 5.0]),
        aging_seconds=random.choice([0.05, 1.0, 5.0]),
        tokens_beside_answers=random.choice([1, 16, 512]),
    )


def _draw_weather(random: Random) -> Weather:
    """Calm worlds find what is slow to appear, rough ones what is rare."""
    is_rough = random.random() < 0.5
    return Weather(
        cut_rate=random.choice([0.0, 0.2]),
        poison_rate=random.choice([0.0, 0.05, 0.1]) if is_rough else 0.0,
        time_limit_rate=random.choice([0.1, 0.1, 0.7]),
        prompt_share=1.0,
        answer_share=0.0,
        arrive=random.choice([1.0, 1.0, 3.0, 3.0, 12.0]),
        cancel=random.choice([0.0, 0.2, 1.0, 5.0]),
        execute=random.choice([2.0, 6.0]),
        deliver=random.choice([2.0, 6.0]),
        die=random.choice([0.05, 0.2]) if is_rough else 0.0,
        misdeliver=0.2,
        wake=0.3,
        hold=random.choice([0.0, 0.0, 0.5]),
    )


def _pressed(
    config: SchedulerConfig, weather: Weather, random: Random
) -> tuple[SchedulerConfig, Weather]:
    """Short prompts, long answers, few blocks: all are admitted and most preempted."""
    small = replace(
        config,
        block_size=random.choice([2, 4]),
        block_count=random.randint(6, 40),
        slot_count=random.choice([8, 64]),
        blocks_per_sequence=random.choice([16, 160]),
        tokens_per_step=random.choice([16, 64]),
        queue_wait_seconds=5.0,
    )
    busy = replace(
        weather,
        time_limit_rate=0.05,
        prompt_share=random.choice([0.2, 0.4]),
        answer_share=random.choice([0.2, 0.6]),
        arrive=random.choice([1.0, 3.0]),
        cancel=random.choice([0.0, 0.2, 1.0]),
        execute=6.0,
        deliver=6.0,
    )
    return small, busy


def _impatient(weather: Weather) -> Weather:
    """Many arrive, and nearly as many leave again: what they leave behind piles up, if it can."""
    return replace(weather, time_limit_rate=0.9, arrive=12.0, cancel=16.0)


def most_request_tokens(config: SchedulerConfig) -> int:
    """Most tokens of a request, as the pool, a block table and the model's positions allow."""
    blocks = config.block_count, config.blocks_per_sequence
    return min(config.context_token_count, *(count * config.block_size for count in blocks))


def most_sequences(config: SchedulerConfig) -> int:
    """Most sequences at once, as slots and the tokens of a step allow."""
    return sorted([config.slot_count, config.tokens_per_step])[0]


def has_weak_digests(seed: int) -> bool:
    """Whether unequal prefixes often have equal digests in a seed's world."""
    return Random(f"digests of {seed}").random() < 0.15


def digests_of(seed: int) -> AbstractContextManager[object]:
    """The digests of a seed's prefixes, for as long as the context lasts."""
    if has_weak_digests(seed):
        return mock.patch.object(prefix, "blake2b", _one_byte_digest)
    return nullcontext()


def _one_byte_digest(data: bytes, digest_size: int = 1, key: bytes = b"") -> blake2b:
    return blake2b(data, digest_size=1, key=key)
