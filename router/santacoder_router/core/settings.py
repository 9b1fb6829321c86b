"""The scheduler's settings and the numbers it shows. Frozen: changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Capacity as the shard group describes it, and the router's own limits."""

    # Tokens in a KV block.
    block_size: int
    # KV blocks of the group.
    block_count: int
    # Most sequences at once.
    slot_count: int
    # Most blocks a sequence can hold.
    blocks_per_sequence: int
    # Most tokens a step may run, over all rows.
    tokens_per_step: int
    # Most steps of one plan.
    steps_per_lease: int
    # Most plans sent and not yet answered.
    plans_in_flight: int
    # Positions the model has.
    context_token_count: int
    # How long all plans in flight may last together, if nobody arrives who cuts them short: long
    # enough that a fast device does not wait for its next plan.
    lease_seconds: float = 0.01
    # About what a row of a plan's answer costs this router, whether it has one id or eight: plans
    # of many rows last as long, so that their answers are fewer and larger.
    seconds_per_row: float = 100e-6
    # Most tokens of a step in which answers go on, unless more prompts wait than a few steps hold.
    tokens_beside_answers: int = 384
    # Longest wait of a request that has not started.
    queue_wait_seconds: float = 10.0
    # Waiting this long is worth one priority class.
    aging_seconds: float = 5.0

    def plan_seconds(self, row_count: int) -> float:
        """How long a plan of so many rows may last, if nobody arrives who cuts it short."""
        return max(self.lease_seconds / self.plans_in_flight, row_count * self.seconds_per_row)

    @property
    def sequence_limit(self) -> int:
        """Most sequences in slots: with more, a step could not hold one token of each."""
        return min(self.slot_count, self.tokens_per_step)

    @property
    def max_request_tokens(self) -> int:
        """Most tokens, prompt and new ones together, of a request that can ever run."""
        blocks = min(self.blocks_per_sequence, self.block_count)
        return min(self.context_token_count, blocks * self.block_size)


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """The scheduler at one moment; counters grow for the scheduler's life."""

    queued_request_count: int
    queued_token_count: int
    running_request_count: int
    plans_in_flight: int
    free_block_count: int
    cached_block_count: int
    held_block_count: int
    total_block_count: int
    # Counters.
    preemption_count: int
    # Tokens of admitted sequences, and how many of them were found in the prefix cache.
    admitted_token_count: int
    cached_token_count: int
