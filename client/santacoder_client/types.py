"""What the SDK takes and gives, as frozen values; knows no message and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Prompt = str | Sequence[int]
"""Text, or token ids as `tokenize` returns them. Ids are lists wherever they come back."""


class FinishReason(StrEnum):
    """Why a choice ended."""

    END_OF_TEXT = "END_OF_TEXT"
    """The model ended the text itself."""
    LENGTH = "LENGTH"
    """`max_new_tokens` or the context's end was reached."""
    STOP = "STOP"
    """A stop string or stop token id was met; it is not part of the text."""
    TIME_BUDGET = "TIME_BUDGET"
    """`time_budget` ran out; the text so far is the answer."""
    CANCELLED = "CANCELLED"
    """Cancelled, or superseded in its session."""


class FimOrder(StrEnum):
    """How a fill-in-the-middle prompt is laid out."""

    PSM = "psm"
    """Prefix, suffix, middle: the server's default."""
    SPM = "spm"
    """Suffix first, so that a growing prefix only appends."""


class TruncatePolicy(StrEnum):
    """What to do with a prompt that does not fit the context."""

    REFUSE = "refuse"
    """Refuse it: the server's default."""
    KEEP_NEAREST = "keep_nearest"
    """Keep the prefix's end and the suffix's start; `Usage` says how much was dropped."""


class Priority(StrEnum):
    """Who goes first when there is not room for all."""

    LOW = "low"
    """Work nobody is waiting for."""
    NORMAL = "normal"
    """The server's default."""
    HIGH = "high"
    """Someone is watching the cursor."""


@dataclass(frozen=True, slots=True)
class Infill:
    """Text before and after the cursor."""

    prefix: str
    suffix: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log probability, before bias, penalties and temperature."""

    token_id: int
    text: str
    logprob: float
    """Natural logarithm."""


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """Log probabilities at one position."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """The likeliest tokens, likeliest first."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, every value filled in."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    """None only in `ModelInfo`: a seed is drawn for each request that gives none."""
    logit_bias: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Stopping:
    """When a choice stops, every value filled in."""

    max_new_tokens: int
    min_new_tokens: int
    stop: tuple[str, ...]
    stop_token_ids: list[int]
    ignore_eos: bool


@dataclass(frozen=True, slots=True)
class Output:
    """What is returned beside the text."""

    logprobs: int | None
    echo: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The values in force for one request, defaults filled in by the server."""

    request_id: str
    sampling: Sampling
    stopping: Stopping
    output: Output
    completion_count: int
    priority: Priority
    fim_order: FimOrder | None
    """None for a prompt that is not infill."""
    prompt_token_count: int
    cached_token_count: int
    queue_seconds: float
    model_revision: str
    resumed_token_count: int | None = None
    """Ids that the request brought of an answer that had been cut off; None for a new answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request."""

    prompt_token_count: int
    """The prompt as run, sentinels included."""
    cached_token_count: int
    """How much of it came from the prefix cache."""
    completion_token_count: int
    """Returned, over all choices."""
    dropped_prefix_token_count: int
    """Dropped from the prompt or prefix by `truncate`."""
    dropped_suffix_token_count: int
    """Dropped from the suffix by `truncate`."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds by the server's clock."""

    queue_seconds: float
    """Arrival to the first step."""
    first_token_seconds: float
    """Arrival to the first token."""
    total_seconds: float
    """Arrival to the end."""


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice; always whole characters, sometimes none."""

    index: int
    """Which choice, from 0."""
    text: str
    token_ids: list[int]
    logprobs: tuple[PositionLogprobs, ...]
    """One entry a token id, if asked for."""
    finish_reason: FinishReason | None = None
    """Set on the choice's last piece alone."""
    matched_stop: str | None = None
    matched_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished answer."""

    index: int
    text: str
    token_ids: list[int]
    """What was generated; neither the prompt nor the id that ended it."""
    logprobs: tuple[PositionLogprobs, ...]
    """One entry a token id, if asked for."""
    finish_reason: FinishReason
    matched_stop: str | None
    matched_token_id: int | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `text`, `token_ids`, `finish_reason` and `logprobs` are choice 0's."""

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    accepted: Accepted

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def token_ids(self) -> list[int]:
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[PositionLogprobs, ...]:
        return self.choices[0].logprobs

    @property
    def request_id(self) -> str:
        return self.accepted.request_id


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A special token of the tokenizer."""

    text: str
    token_id: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that requests are checked against."""

    context_token_count: int
    prompt_token_count: int
    prompt_byte_count: int
    default_max_new_tokens: int
    completion_count: int
    stop_string_count: int
    stop_string_byte_count: int
    stop_token_id_count: int
    logit_bias_count: int
    logprobs: int
    detokenize_token_count: int
    running_request_count: int
    queued_request_count: int
    queued_token_count: int


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What the caller who asks may have, beside others."""

    running_request_count: int
    """Most requests running at once; more of them wait."""
    queued_request_count: int
    queued_token_count: int
    session_count: int
    requests_per_second: float
    priority: Priority | None
    """Highest scheduling class; None where the server does not say."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a server serves."""

    name: str
    revision: str
    tokenizer_hash: str
    layer_count: int
    head_count: int
    kv_head_count: int
    embedding_size: int
    vocabulary_size: int
    token_count: int
    """Ids the tokenizer knows; ids from here on are never generated."""
    dtype: str
    tensor_parallel_size: int
    numerics_id: str
    """Two servers with the same id give the same bits."""
    infill_supported: bool
    special_tokens: tuple[SpecialToken, ...]
    end_of_text_token_id: int
    limits: Limits
    default_sampling: Sampling
    server_version: str
    kv_cache_token_count: int
    caller_limits: CallerLimits
