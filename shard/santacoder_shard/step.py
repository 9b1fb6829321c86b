"""A plan and its outcome as the shard sees them: plain data, no wire, no tensors.

`codec.py` makes these from shard.proto; `worker.py` and `engine.py` know nothing else of routers.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class RowState(enum.IntEnum):
    """What a row is after its last step; the numbers are those of shard.proto."""

    RUNNING = 1
    END_OF_TEXT = 2
    STOP_ID = 3
    LENGTH = 4
    KV_LIMIT = 5
    NON_FINITE = 6
    MASKED = 7


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Sampling with every default filled in; field meanings as in shard.proto."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    sample_index: int = 0


@dataclass(frozen=True, slots=True)
class Admit:
    """A sequence takes a slot; fields as in shard.proto. `logprob_count` None: none are wanted."""

    sequence: int
    generation: int
    slot: int
    token_ids: Sequence[int]
    """Off the wire an array: thousands of them are checked and laid out without a loop."""
    prompt_length: int
    computed_length: int
    sampling: SamplingParameters
    remaining_min_tokens: int
    remaining_max_tokens: int
    ignore_eos: bool
    stop_ids: tuple[int, ...]
    logit_bias: tuple[tuple[int, float], ...]
    logprob_count: int | None


@dataclass(frozen=True, slots=True)
class Retire:
    """A sequence leaves its slot; idempotent, and keyed by the pair."""

    sequence: int
    generation: int


@dataclass(frozen=True, slots=True)
class BlockGrant:
    """Blocks appended to a slot's table from place `first_index` on."""

    slot: int
    first_index: int
    block_ids: tuple[int, ...]


class Row(NamedTuple):
    """Run `token_count` tokens of a slot from its computed length on; sample after if `sample`."""

    slot: int
    token_count: int
    sample: bool
    kv_token_limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One frame of work, done in the order of its fields; `copies` are (source, target) blocks."""

    number: int
    retires: tuple[Retire, ...]
    admits: tuple[Admit, ...]
    grants: tuple[BlockGrant, ...]
    copies: tuple[tuple[int, int], ...]
    rows: tuple[Row, ...]
    num_steps: int
    time_cap_seconds: float
    interruptible: bool
    step_deadline_seconds: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probability of a sampled id, and the likeliest (id, log probability), likeliest first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class RowOutcome(NamedTuple):
    """What one row sampled in the steps reported. `logprobs` is empty or one entry a token."""

    token_ids: tuple[int, ...]
    state: RowState
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """Steps of a plan have run; `rows` is in the order of the plan's rows."""

    plan_number: int
    first_step: int
    steps_run: int
    final: bool
    rows: tuple[RowOutcome, ...]
    device_seconds: float
