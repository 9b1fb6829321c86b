"""What a simulated shard group is like: plain values, fixed for its life."""

from __future__ import annotations

import math
from dataclasses import dataclass

BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How long a step takes. A row that runs one token and samples is a decode row."""

    base_seconds: float = 0.0
    per_row_seconds: float = 0.0
    """For every decode row."""
    prefill_seconds: float = 0.0
    """For every token of all other rows. Tokens found in the prefix cache are not run."""
    jitter: float = 0.0
    """Sigma of the logarithm of a factor on the whole."""

    @property
    def is_instant(self) -> bool:
        """Whether steps take no time at all."""
        return not (self.base_seconds or self.per_row_seconds or self.prefill_seconds)


@dataclass(frozen=True, slots=True)
class Failures:
    """What goes wrong, in seconds from the first plan with rows of the process."""

    die_after: float = math.inf
    """The process ends at once, with exit status 1."""
    hang_after: float = math.inf
    hang_seconds: float = math.inf
    """How long no step ends from `hang_after` on; heartbeats go on."""
    fail_share: float = 0.0
    """Part of the sequences that are given up alone when they are admitted."""


@dataclass(frozen=True, slots=True)
class MockOptions:
    """A group."""

    rank_count: int = 1
    slot_count: int = 256
    block_count: int = 0
    """KV blocks; 0 is enough for every slot to be full."""
    context_token_count: int = 2048
    tokens_per_step: int = 2048
    steps_per_lease: int = 16
    plans_in_flight: int = 2
    times: StepTimes = StepTimes()
    failures: Failures = Failures()
    end_every: int = 0
    """Every so-manieth token is the end of its text, by chance; 0 is never."""
    seed: int = 0

    @property
    def blocks_per_sequence(self) -> int:
        """Enough for the whole context."""
        return -(-self.context_token_count // BLOCK_SIZE)

    @property
    def kv_block_count(self) -> int:
        """Blocks that the group has."""
        return self.block_count or self.slot_count * self.blocks_per_sequence
