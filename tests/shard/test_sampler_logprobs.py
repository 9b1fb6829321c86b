"""Log probabilities are those of the model, whatever the sampling options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from santacoder_shard.sampler import SamplingBatch, SamplingRow, sample
from santacoder_shard.step import SamplingParameters, TokenLogprobs

_N = 30
_WARPED = SamplingRow(
    SamplingParameters(temperature=1.5, top_k=9, repetition_penalty=1.4, presence_penalty=1.0),
    token_ids=tuple(range(20)),
    prompt_length=10,
    banned_ids=(4,),
    logit_bias=((7, 12.0),),
)


def _logits() -> Tensor:
    return 2 * torch.randn(1, _N + 2, generator=torch.Generator().manual_seed(8))


def _report(logits: Tensor, row: SamplingRow) -> tuple[int, TokenLogprobs | None]:
    sampled = sample(logits, SamplingBatch((row,), _N))
    return int(sampled.token_ids), sampled.logprobs[0]


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_they_come_from_the_raw_logits_of_existing_ids(count: int) -> None:
    logits = _logits()
    logits[:, _N:] = 50.0
    token_id, report = _report(logits, replace(_WARPED, logprob_count=count))
    expected = logits[0, :_N].double().log_softmax(dim=0)
    ids = sorted(range(_N), key=lambda i: -float(expected[i]))[:count]
    assert report is not None
    assert report.chosen == pytest.approx(float(expected[token_id]), abs=1e-12)
    assert [i for i, _ in report.top] == ids
    assert [value for _, value in report.top] == pytest.approx(expected[ids].tolist(), abs=1e-12)


def test_none_are_made_where_none_are_wanted() -> None:
    assert _report(_logits(), _WARPED)[1] is None


def test_equals_are_listed_lowest_id_first() -> None:
    logits = torch.zeros(1, _N)
    logits[0, [11, 23]] = 2.0
    _, report = _report(logits, replace(_WARPED, logprob_count=5))
    assert report is not None
    assert [token_id for token_id, _ in report.top] == [11, 23, 0, 1, 2]
