"""The bounds that requests are checked against, as one frozen value.

Knows numbers only: the server's own bounds, and what the loaded checkpoint allows. Refuses to know
how they are configured or checked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound on a request; named as in the message `Limits` of inference.proto."""

    context_token_count: int
    """Positions of the model: most tokens of prompt and answer together."""
    token_count: int
    """Ids the tokenizer knows; valid ids are 0 <= id < token_count."""
    vocabulary_size: int
    """Rows of the embedding. Ids from token_count to here exist as rows and mean nothing."""
    infill_supported: bool
    """Whether fill-in-the-middle is served for this checkpoint."""

    prompt_byte_count: int = 1 << 20
    """Most UTF-8 bytes of a prompt, both parts of an infill together, and of a text to tokenize."""
    default_max_new_tokens: int = 128
    """`max_new_tokens` where none is given, if there is room."""
    completion_count: int = 8
    """Most answers to one request."""
    stop_string_count: int = 16
    """Most stop strings."""
    stop_string_byte_count: int = 256
    """Most UTF-8 bytes of a stop string."""
    stop_token_id_count: int = 64
    """Most stop token ids."""
    logit_bias_count: int = 256
    """Most logit biases."""
    logprobs: int = 20
    """Most log probabilities at a position."""
    detokenize_token_count: int = 16_384
    """Most ids to detokenize at once."""
    cache_salt_byte_count: int = 64
    """Most bytes of a cache salt."""
    min_time_budget_seconds: float = 0.01
    """Shortest time budget."""
    max_time_budget_seconds: float = 600.0
    """Longest time budget."""
    tokenizer_seconds: float = 2.0
    """Longest that tokenizing one request may take, waiting for a thread included."""

    default_deadline_seconds: float = 120.0
    """Deadline of a call that brings none."""
    max_deadline_seconds: float = 600.0
    """Longest deadline of a call; a later one is brought forward to it."""
    running_request_count: int = 8
    """Most sequences running at once; the shard's slots."""
    queued_request_count: int = 512
    """Most sequences waiting."""
    queued_token_count: int = 262_144
    """Most prompt tokens waiting."""
    queue_wait_seconds: float = 10.0
    """Longest wait in the queue."""

    @property
    def prompt_token_count(self) -> int:
        """Most tokens of a prompt: the context less the one token that must be generated."""
        return self.context_token_count - 1
