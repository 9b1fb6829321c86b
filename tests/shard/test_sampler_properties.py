"""Whatever the logits and options: a distribution without NaN, and an id that is allowed."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from santacoder_shard.sampler import SamplingBatch, SamplingRow, distribution, sample
from santacoder_shard.step import SamplingParameters

_DUMMY_COUNT = 3

_LOGITS = st.one_of(
    st.floats(-20, 20, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([0.0, -0.0, 1e30, -1e30, 3e38, -3e38, 1e-40]),
)
_PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.one_of(st.sampled_from([0.0, 0.01, 1.0]), st.floats(0.01, 5)),
    top_k=st.integers(0, 1000) | st.integers(0, 5),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0, 1, exclude_min=True),
    repetition_penalty=st.floats(0.1, 10),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    seed=st.integers(0, 2**64 - 1),
    sample_index=st.integers(0, 7),
)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Tensor, SamplingRow]:
    """Raw logits [1, N + dummies] and a row over N ids."""
    values = draw(st.lists(_LOGITS, min_size=1, max_size=30))
    if draw(st.booleans()):
        values = [values[0]] * len(values)
    ids = st.integers(0, len(values) - 1)
    token_ids = draw(st.lists(ids, min_size=1, max_size=20))
    row = SamplingRow(
        draw(_PARAMETERS),
        token_ids=token_ids,
        prompt_length=draw(st.integers(1, len(token_ids))),
        banned_ids=tuple(draw(st.lists(ids, max_size=10))),
        logit_bias=tuple(draw(st.dictionaries(ids, st.floats(-100, 100), max_size=5)).items()),
        logprob_count=draw(st.none() | st.integers(0, 20)),
    )
    return torch.tensor([values + [3e38] * _DUMMY_COUNT]), row


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(_cases())
def test_there_is_always_a_distribution_and_an_allowed_id(case: tuple[Tensor, SamplingRow]) -> None:
    logits, row = case
    token_count = logits.shape[1] - _DUMMY_COUNT
    probabilities = distribution(logits[0, :token_count], row)
    assert bool(probabilities.isfinite().all()) and bool((probabilities >= 0).all())
    assert abs(float(probabilities.sum()) - 1) < 1e-9
    sampled = sample(logits, SamplingBatch((row,), token_count))
    token_id = int(sampled.token_ids)
    assert sampled.finite.tolist() == [True]
    assert 0 <= token_id < token_count
    assert float(probabilities[token_id]) > 0
    if len(set(row.banned_ids)) < token_count:
        assert token_id not in row.banned_ids
        assert float(probabilities[list(row.banned_ids)].sum()) == 0


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(_cases(), _cases())
def test_a_neighbour_changes_nothing(
    case: tuple[Tensor, SamplingRow], other: tuple[Tensor, SamplingRow]
) -> None:
    (logits, row), (other_logits, other_row) = case, other
    token_count = logits.shape[1] - _DUMMY_COUNT
    neighbour = torch.zeros_like(logits)
    width = min(logits.shape[1], other_logits.shape[1])
    neighbour[0, :width] = other_logits[0, :width]
    alone = sample(logits, SamplingBatch((row,), token_count))
    both = sample(torch.cat((neighbour, logits)), SamplingBatch((other_row, row), token_count))
    assert int(both.token_ids[1]) == int(alone.token_ids[0])
    assert both.logprobs[1] == alone.logprobs[0]
