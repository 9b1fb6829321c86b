"""The kinds of worlds a seed may draw: capacities, and how rough it gets. Knows no scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from santacoder_router.core.settings import SchedulerConfig


@dataclass(frozen=True)
class Weather:
    """How rough a world is: rates of what may go wrong, weights of what may happen."""

    cut_rate: float
    poison_rate: float
    arrive: float
    cancel: float
    execute: float
    deliver: float
    die: float
    repeat: float


def draw_config(random: Random) -> SchedulerConfig:
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
        queue_wait_seconds=random.choice([0.5, 5.0]),
        aging_seconds=random.choice([0.05, 1.0, 5.0]),
    )


def draw_weather(random: Random) -> Weather:
    """Calm worlds find what is slow to appear, rough ones what is rare."""
    is_rough = random.random() < 0.5
    return Weather(
        cut_rate=random.choice([0.0, 0.2]),
        poison_rate=random.choice([0.0, 0.05]) if is_rough else 0.0,
        arrive=random.choice([1.0, 3.0]),
        cancel=random.choice([0.0, 0.2, 1.0]),
        execute=random.choice([2.0, 6.0]),
        deliver=random.choice([2.0, 6.0]),
        die=0.05 if is_rough else 0.0,
        repeat=0.2,
    )
