"""Turns a step's logits into token ids, greedy or drawn; knows no model, slot or wire.

A row's id depends on its own logits, parameters, seed and output position alone: rows that need
more than the largest logit are worked on one at a time, in float64 and then in exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from santacoder_shard import logits_processors as processors
from santacoder_shard.random_numbers import random_uint64
from santacoder_shard.step import SamplingParameters, TokenLogprobs


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What decides one row's next token beside its logits.

    token_ids: all ids, prompt and output so far: a sequence, or (faster) an integer tensor [T].
    prompt_length: where output begins in `token_ids`.
    banned_ids: the ending ids while the remaining minimum is above 0, else empty.
    logit_bias: (id, value) pairs.
    logprob_count: how many of the likeliest ids to report with log probabilities; None: no report.
    """

    parameters: SamplingParameters
    token_ids: Sequence[int] | Tensor
    prompt_length: int
    banned_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprob_count: int | None = None

    @property
    def position(self) -> int:
        """Index, in the output, of the token to be sampled."""
        return len(self.token_ids) - self.prompt_length


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """A step's rows, in the order of its logits; only ids below `token_count` exist."""

    rows: tuple[SamplingRow, ...]
    token_count: int


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """One entry a row. A row that is not finite has an id without meaning, and no report.

    token_ids: int64 [R].
    finite: bool [R], whether the raw logits of all existing ids are finite.
    failures: by place, what went wrong with rows that could not be sampled; their ids mean nothing.
    """

    token_ids: Tensor
    logprobs: list[TokenLogprobs | None]
    finite: Tensor
    failures: dict[int, Exception]


def sample(logits: Tensor, batch: SamplingBatch) -> SampledBatch:
    """Choose one id a row from raw float32 logits [R, V], R = len(batch.rows), V >= token_count."""
    existing = logits[:, : batch.token_count]
    highest = existing.max(dim=1)
    # Both are NaN if any logit is.
    finite = highest.values.isfinite() & existing.amin(dim=1).isfinite()
    token_ids = highest.indices
    logprobs: list[TokenLogprobs | None] = [None] * len(batch.rows)
    failures: dict[int, Exception] = {}
    for index, (row, row_is_finite) in enumerate(zip(batch.rows, finite.tolist(), strict=True)):
        if not row_is_finite:
            continue
        # A row's options are its own: whatever goes wrong with them is no other row's fault.
        try:
            if not is_plain_greedy(row):
                token_ids[index] = _choose(existing[index], row)
            if row.logprob_count is not None:
                token_id = int(token_ids[index])
                logprobs[index] = token_logprobs(existing[index], token_id, row.logprob_count)
        except Exception as error:
            failures[index] = error
    return SampledBatch(token_ids, logprobs, finite, failures)


def distribution(logits: Tensor, row: SamplingRow) -> Tensor:
    """Probabilities float64 [N] that `sample` draws from, given one row's finite logits [N]."""
    values = _adjusted(logits, row)
    if row.parameters.temperature == 0.0:
        return torch.zeros_like(values).index_fill_(0, values.argmax(), 1.0)
    weights = _weights(values, row.parameters)
    return weights.double() / weights.sum()


def token_logprobs(logits: Tensor, token_id: int, top_count: int) -> TokenLogprobs:
    """Log probabilities of `token_id` and of the likeliest ids, given one row's raw logits [N]."""
    values = logits.to(torch.float64, copy=True)
    values -= values.logsumexp(dim=0)
    top_ids = processors.largest_ids(values, top_count)
    top = zip(top_ids.tolist(), values[top_ids].tolist(), strict=True)
    return TokenLogprobs(chosen=float(values[token_id]), top=tuple(top))


def draw(weights: Tensor, number: int) -> int:
    """The id at `number` / 2**64 of the integer weights [N], added up in ascending id.

    An id of weight 0 is never drawn.
    """
    cumulative = weights.cumsum(dim=0)
    threshold = (number * int(cumulative[-1])) >> 64
    return int(torch.searchsorted(cumulative, threshold, right=True))


def is_plain_greedy(row: SamplingRow) -> bool:
    """Whether the id is that of the largest raw logit."""
    return (
        row.parameters.temperature == 0.0
        and not row.logit_bias
        and not row.banned_ids
        and not has_penalties(row.parameters)
    )


def has_penalties(parameters: SamplingParameters) -> bool:
    return (
        parameters.repetition_penalty != 1.0
        or parameters.presence_penalty != 0.0
        or parameters.frequency_penalty != 0.0
    )


def _choose(logits: Tensor, row: SamplingRow) -> int:
    parameters = row.parameters
    values = _adjusted(logits, row)
    if parameters.temperature == 0.0:
        return int(values.argmax())
    number = random_uint64(parameters.seed, parameters.sample_index, row.position)
    return draw(_weights(values, parameters), number)


def _adjusted(logits: Tensor, row: SamplingRow) -> Tensor:
    """Logits [N] in float64 after bias, penalties and bans."""
    parameters = row.parameters
    values = logits.to(torch.float64, copy=True)
    processors.add_bias(values, row.logit_bias)
    if has_penalties(parameters):
        seen = torch.as_tensor(row.token_ids, dtype=torch.int64, device=values.device)
        processors.penalize_repetition(values, seen, parameters.repetition_penalty)
        output = seen[row.prompt_length :]
        processors.penalize_output(
            values, output, parameters.presence_penalty, parameters.frequency_penalty
        )
    processors.ban(values, row.banned_ids)
    return values


def _weights(values: Tensor, parameters: SamplingParameters) -> Tensor:
    """Integer weights [N], proportional to the probabilities that temperature and filters leave."""
    weights = processors.weigh(values, parameters.temperature)
    if parameters.top_k > 0:
        weights = processors.keep_top_k(weights, parameters.top_k)
    if parameters.top_p < 1.0:
        weights = processors.keep_top_p(weights, parameters.top_p)
    if parameters.min_p > 0.0:
        weights = processors.keep_min_p(weights, parameters.min_p)
    if parameters.typical_p < 1.0:
        weights = processors.keep_typical_p(weights, parameters.typical_p)
    return weights
