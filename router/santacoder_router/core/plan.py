"""What goes into the scheduler and what comes out of it: frozen, of integers, floats and tuples.

Knows no text, no wire and no clock: times are seconds of whatever clock the caller uses throughout.
Named tuples, where several are made a request: a frozen data class takes three times as long.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Priority(enum.IntEnum):
    """Scheduling class; a greater one goes first, unless a lower one has waited for long."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


class RowState(enum.IntEnum):
    """What a row is after its last step; the numbers are those of shard.proto."""

    RUNNING = 1
    END_OF_TEXT = 2
    STOP_ID = 3
    LENGTH = 4
    KV_LIMIT = 5
    NON_FINITE = 6
    MASKED = 7


class FinishReason(enum.IntEnum):
    """Why a sequence ended, for the scheduler. Stop strings are found outside, and cancelled."""

    END_OF_TEXT = 1
    LENGTH = 2
    STOP_ID = 3
    TIME_BUDGET = 4
    CANCELLED = 5
    DEADLINE = 6
    QUEUE_TIMEOUT = 7
    NON_FINITE = 8
    FAILED = 9
    # Its place in a full queue went to another.
    DISPLACED = 10
    # There was no memory for it.
    SHED = 11
    # The shard group died whenever it ran.
    POISON = 12


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


class Caller(NamedTuple):
    """Who shares with whom: requests of one name share one turn, in the proportion of weights."""

    name: str = ""
    weight: float = 1.0
    # Most sequences in slots at once; the others wait.
    running_limit: int = 1 << 30


ANYBODY = Caller()


class Request(NamedTuple):
    """One sequence to generate. A request for several answers is several of these.

    `deadline` and `time_budget_end` are absolute times: past the first the request fails, past the
    second what it has is its answer. `cache_key` seeds the prefix cache's hashes (tenant and salt).
    `output_ids` were accepted by another scheduler: the request goes on behind them, as after a
    preemption, and its maximum and minimum count them.
    """

    request_id: int
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    min_new_tokens: int = 0
    sampling: SamplingParameters = SamplingParameters()
    ignore_eos: bool = False
    stop_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprob_count: int | None = None
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    time_budget_end: float | None = None
    cache_key: bytes = b""
    output_ids: tuple[int, ...] = ()
    caller: Caller = ANYBODY


class Admit(NamedTuple):
    """A sequence takes a slot.

    `token_ids` holds prompt and accepted output; output starts at `prompt_length`.
    """

    sequence: int
    generation: int
    slot: int
    token_ids: tuple[int, ...]
    prompt_length: int
    computed_length: int
    sampling: SamplingParameters
    remaining_min_tokens: int
    remaining_max_tokens: int
    ignore_eos: bool
    stop_ids: tuple[int, ...]
    logit_bias: tuple[tuple[int, float], ...]
    logprob_count: int | None


class Retire(NamedTuple):
    """A sequence leaves its slot."""

    sequence: int
    generation: int


class Row(NamedTuple):
    """Run `token_count` tokens of a slot from its computed length on.

    What follows the last one is sampled if `sample`.
    """

    sequence: int
    slot: int
    token_count: int
    sample: bool
    kv_token_limit: int


class BlockGrant(NamedTuple):
    """Blocks appended to a slot's table from place `first_index` on."""

    slot: int
    first_index: int
    block_ids: tuple[int, ...]


class BlockCopy(NamedTuple):
    """Copy one whole KV block before the plan's first step."""

    source: int
    target: int


class StepPlan(NamedTuple):
    """One frame of work, the same for every rank; carried out in the order of shard.proto."""

    number: int
    retires: tuple[Retire, ...]
    admits: tuple[Admit, ...]
    grants: tuple[BlockGrant, ...]
    copies: tuple[BlockCopy, ...]
    rows: tuple[Row, ...]
    num_steps: int


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probability of one sampled id, and (id, log probability) pairs, likeliest first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class RowResult(NamedTuple):
    """What one row sampled in the steps reported. `logprobs` is empty or one entry a token."""

    token_ids: tuple[int, ...]
    state: RowState
    logprobs: tuple[TokenLogprobs, ...] = ()


class StepResult(NamedTuple):
    """Steps of a plan have run; `rows` is in the plan's order. Several may answer one plan."""

    plan_number: int
    first_step: int
    steps_run: int
    final: bool
    rows: tuple[RowResult, ...]
    device_seconds: float


class Started(NamedTuple):
    """The request is in a plan for the first time."""

    request_id: int
    cached_token_count: int


class Tokens(NamedTuple):
    """Accepted output ids of a request, in order, each reported once; never those that end it."""

    request_id: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]


class Finished(NamedTuple):
    """The request's one and last event. `matched_id` is the id that ended it, if one did."""

    request_id: int
    reason: FinishReason
    matched_id: int | None = None


Event = Started | Tokens | Finished
