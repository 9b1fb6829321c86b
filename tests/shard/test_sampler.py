"""One id a row: greedy, seeded, over existing ids, and the same whoever else is in the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from santacoder_shard.sampler import (
    SampledBatch,
    SamplingBatch,
    SamplingRow,
    distribution,
    draw,
    sample,
)
from santacoder_shard.step import SamplingParameters

_V = 49_280
_TOKEN_COUNT = 49_155
_GREEDY = SamplingRow(SamplingParameters(), token_ids=(1, 2, 3), prompt_length=2)
_OPTIONS: tuple[dict[str, float], ...] = (
    {},
    {"temperature": 0.8},
    {"temperature": 0.8, "top_k": 50},
    {"temperature": 1.0, "top_p": 0.95},
    {"temperature": 1.3, "min_p": 0.05},
    {"temperature": 1.0, "typical_p": 0.9},
    {"temperature": 0.0, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _row(position: int = 1, **parameters: float) -> SamplingRow:
    chosen = replace(SamplingParameters(), **parameters)  # type: ignore[arg-type]
    return SamplingRow(chosen, token_ids=tuple(range(10 + position)), prompt_length=10)


def _sample(logits: Tensor, *rows: SamplingRow, token_count: int | None = None) -> SampledBatch:
    count = logits.shape[1] if token_count is None else token_count
    return sample(logits, SamplingBatch(rows, count))


def _crowd(size: int) -> tuple[Tensor, tuple[SamplingRow, ...]]:
    logits = 2 * torch.randn(size, _V, generator=torch.Generator().manual_seed(0))
    rows = tuple(
        replace(
            _row(position=index % 11, seed=index, **_OPTIONS[index % len(_OPTIONS)]),
            logprob_count=index % 4 or None,
        )
        for index in range(size)
    )
    return logits, rows


def test_a_row_is_the_same_bit_for_bit_in_a_batch_of_any_size() -> None:
    logits, rows = _crowd(256)
    whole = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    assert len(set(whole.token_ids.tolist())) > 200
    for size in (1, 2, 7, 32):
        part = _sample(logits[:size], *rows[:size], token_count=_TOKEN_COUNT)
        assert part.token_ids.tolist() == whole.token_ids[:size].tolist()
        assert part.logprobs == whole.logprobs[:size]
    for index in range(32, 256, 13):
        alone = _sample(logits[index : index + 1], rows[index], token_count=_TOKEN_COUNT)
        assert int(alone.token_ids[0]) == int(whole.token_ids[index])
        assert alone.logprobs == [whole.logprobs[index]]


def test_a_row_is_the_same_among_other_neighbours_and_in_another_place() -> None:
    logits, rows = _crowd(7)
    there = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    backwards = _sample(logits.flip(0), *reversed(rows), token_count=_TOKEN_COUNT)
    assert backwards.token_ids.flip(0).tolist() == there.token_ids.tolist()


def test_the_number_of_threads_does_not_change_an_id() -> None:
    logits, rows = _crowd(14)
    one = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    torch.set_num_threads(2)
    two = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    assert one.token_ids.tolist() == two.token_ids.tolist()


def test_a_draw_walks_the_weights_in_ascending_id_and_never_lands_on_none() -> None:
    weights = torch.tensor([0, 1, 0, 2**60, 1, 0])
    total = 2**60 + 2
    at = {0: 1, 1: 3, 2: 3, 2**60: 3, 2**60 + 1: 4}
    # The smallest number of those whose share of 2**64 reaches the place.
    assert {place: draw(weights, -(-(place << 64) // total)) for place in at} == at
    assert draw(weights, 2**64 - 1) == 4


def test_token_ids_may_come_as_a_tensor() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(4))
    row = _row(position=3, temperature=2.0, repetition_penalty=1.7, presence_penalty=1.0)
    tensor_row = replace(row, token_ids=torch.tensor(row.token_ids, dtype=torch.int32))
    ours, same = distribution(logits[0], row), distribution(logits[0], tensor_row)
    assert torch.equal(ours, same)
    assert _sample(logits, row).token_ids.tolist() == _sample(logits, tensor_row).token_ids.tolist()


@pytest.mark.parametrize("varied", ["seed", "sample_index"])
def test_another_seed_or_sample_index_gives_another_stream(varied: str) -> None:
    logits = torch.zeros(16, 1000)
    streams = [
        tuple(
            _sample(
                logits, *(_row(position=p, temperature=1.0, **{varied: value}) for p in range(16))
            ).token_ids.tolist()
        )
        for value in (0, 1, 2, 2)
    ]
    assert len(set(streams)) == 3 and streams[2] == streams[3]
    assert len(set(streams[0])) > 8


def test_a_draw_does_not_depend_on_how_much_of_the_text_is_prompt_cached_or_recomputed() -> None:
    logits = torch.randn(1, 100, generator=torch.Generator().manual_seed(2))
    parameters = SamplingParameters(temperature=1.0, seed=9)
    short = SamplingRow(parameters, token_ids=(1, 2, 3, 4), prompt_length=1)
    long = SamplingRow(parameters, token_ids=tuple(range(53)), prompt_length=50)
    assert _sample(logits, short).token_ids.tolist() == _sample(logits, long).token_ids.tolist()


@pytest.mark.parametrize("options", _OPTIONS[1:6], ids=lambda o: "+".join(o))
def test_frequencies_follow_the_distribution(options: dict[str, float]) -> None:
    draw_count = 6000
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(6))
    rows = tuple(_row(position=index, seed=2**64 - 1, **options) for index in range(draw_count))
    sampled = _sample(logits.expand(draw_count, -1), *rows).token_ids
    expected = distribution(logits[0], rows[0]) * draw_count
    counts = torch.bincount(sampled, minlength=40).double()
    assert bool((counts[expected == 0] == 0).all())
    # Chi-square has freedom - 1 mean and twice that variance; ids expected seldom are one class.
    rare = expected < 10
    expected = torch.cat((expected[~rare], expected[rare].sum()[None] + 1e-9))
    counts = torch.cat((counts[~rare], counts[rare].sum()[None]))
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("row_count", [1, 2, 7, 32, 256])
def test_greedy_takes_the_largest_logit_and_of_equals_the_lowest_id(row_count: int) -> None:
    generator = torch.Generator().manual_seed(row_count)
    logits = torch.randn(row_count, _V, generator=generator)
    firsts = torch.randint(0, 20_000, (row_count,), generator=generator)
    for offset in (0, 1, 5, 29_000):
        logits[torch.arange(row_count), firsts + offset] = 9.0
    sampled = _sample(logits, *[_GREEDY] * row_count, token_count=_TOKEN_COUNT)
    assert sampled.token_ids.tolist() == firsts.tolist()
    penalized = replace(_GREEDY, logit_bias=((_TOKEN_COUNT - 1, -1.0),))
    sampled = _sample(logits[:2], *[penalized] * min(row_count, 2), token_count=_TOKEN_COUNT)
    assert sampled.token_ids.tolist() == firsts[:2].tolist()


def test_greedy_comes_after_bias_penalties_and_minimum_length() -> None:
    logits = torch.tensor([[1.5, 4.0, 3.0, 2.0]])
    assert int(_sample(logits, _GREEDY).token_ids) == 1
    biased = replace(_GREEDY, logit_bias=((3, 2.5),))
    assert int(_sample(logits, biased).token_ids) == 3
    assert int(_sample(logits, replace(_GREEDY, banned_ids=(1,))).token_ids) == 2
    penalized = replace(_GREEDY, parameters=SamplingParameters(repetition_penalty=3.0))
    assert int(_sample(logits, penalized).token_ids) == 0
    for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        parameters = SamplingParameters(**penalty)  # type: ignore[arg-type]
        row = SamplingRow(parameters, token_ids=(2, 1), prompt_length=1)
        assert int(_sample(logits, row).token_ids) == 2


@pytest.mark.parametrize("options", _OPTIONS, ids=lambda o: "+".join(o) or "greedy")
def test_ids_that_do_not_exist_never_come_even_if_pushed(options: dict[str, float]) -> None:
    logits = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    logits[:, 20:] = 1e30
    logits[::2, 20:] = math.nan
    bias = tuple((token_id, 100.0) for token_id in range(20, 40))
    rows = [
        replace(
            _row(position=index, **options),
            logit_bias=bias,
            logprob_count=32,
            token_ids=tuple(range(31)),
            prompt_length=31 - index % 16,
        )
        for index in range(64)
    ]
    sampled = _sample(logits, *rows, token_count=20)
    assert sampled.finite.all()
    assert int(sampled.token_ids.max()) < 20
    assert all(
        report is not None and {token_id for token_id, _ in report.top} == set(range(20))
        for report in sampled.logprobs
    )


@pytest.mark.parametrize("options", _OPTIONS, ids=lambda o: "+".join(o) or "greedy")
def test_ending_ids_do_not_come_while_they_are_banned(options: dict[str, float]) -> None:
    logits = torch.zeros(200, 8)
    logits[:, 2] = 4.0
    rows = [_row(position=index, **options) for index in range(200)]
    assert 2 in _sample(logits, *rows).token_ids
    banned = [replace(row, banned_ids=(2, 5, 99)) for row in rows]
    assert set(_sample(logits, *banned).token_ids.tolist()).isdisjoint({2, 5})


def test_a_ban_on_every_id_is_no_ban() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    for temperature in (0.0, 0.01):
        row = replace(_row(temperature=temperature), banned_ids=(0, 1, 2))
        assert int(_sample(logits, row).token_ids) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 17, _TOKEN_COUNT - 1])
def test_a_row_that_is_not_finite_is_reported_and_disturbs_no_other(bad: float, place: int) -> None:
    logits, rows = _crowd(7)
    healthy = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    logits[3, place] = bad
    sick = _sample(logits, *rows, token_count=_TOKEN_COUNT)
    others = [0, 1, 2, 4, 5, 6]
    assert sick.finite.tolist() == [index != 3 for index in range(7)]
    assert sick.token_ids[others].tolist() == healthy.token_ids[others].tolist()
    assert [sick.logprobs[index] for index in others] == [healthy.logprobs[i] for i in others]
    assert sick.logprobs[3] is None
