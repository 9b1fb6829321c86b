"""Every option's distribution is that of transformers' processors on the same logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
import transformers
from torch import Tensor

from santacoder_shard.sampler import SamplingRow, distribution
from santacoder_shard.step import SamplingParameters

_N = 499
_PROMPT = (3, 5, 5, 8, 13, 21, 34, 55, 489)
_OUTPUT = (8, 8, 8, 2, 401, 34, 2, 70)
_ENDING = (0, 1, 2, 490)
_BIAS = ((4, 3.5), (8, -6.0), (77, 100.0), (78, -100.0))

Processor = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _logits(seed: int, width: int = _N, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(width, generator=torch.Generator().manual_seed(seed))


def _row(banned: bool = False, bias: bool = False, **parameters: float) -> SamplingRow:
    return SamplingRow(
        replace(SamplingParameters(temperature=1.0), **parameters),  # type: ignore[arg-type]
        token_ids=_PROMPT + _OUTPUT,
        prompt_length=len(_PROMPT),
        banned_ids=_ENDING if banned else (),
        logit_bias=_BIAS if bias else (),
    )


@dataclass(frozen=True)
class _OutputPenalties:
    """OpenAI's formula, in float64: logit - count * frequency - (count > 0) * presence."""

    presence: float
    frequency: float

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        output = input_ids[0, len(_PROMPT) :].tolist()
        penalized = scores.clone()
        for token_id in set(output):
            penalized[0, token_id] -= output.count(token_id) * self.frequency + self.presence
        return penalized


def _judges(row: SamplingRow) -> list[Processor]:
    """The processors a row's options stand for, in the order that the contract names."""
    p = row.parameters
    judges: list[Processor] = []
    if row.logit_bias:
        bias: list[list[list[int] | float]] = [
            [[token_id], value] for token_id, value in row.logit_bias
        ]
        judges.append(transformers.SequenceBiasLogitsProcessor(bias))
    if p.repetition_penalty != 1.0:
        judges.append(transformers.RepetitionPenaltyLogitsProcessor(p.repetition_penalty))
    judges.append(_OutputPenalties(p.presence_penalty, p.frequency_penalty))
    if row.banned_ids:
        judges.append(
            transformers.MinNewTokensLengthLogitsProcessor(
                len(_PROMPT), len(_OUTPUT) + 1, list(row.banned_ids)
            )
        )
    judges.append(transformers.TemperatureLogitsWarper(float(p.temperature)))
    if p.top_k:
        judges.append(transformers.TopKLogitsWarper(p.top_k))
    if p.top_p < 1:
        judges.append(transformers.TopPLogitsWarper(p.top_p))
    if p.min_p > 0:
        judges.append(transformers.MinPLogitsWarper(p.min_p))
    if p.typical_p < 1:
        judges.append(transformers.TypicalLogitsWarper(p.typical_p))
    return judges


def _judged(logits: Tensor, row: SamplingRow) -> Tensor:
    input_ids, scores = torch.tensor([row.token_ids]), logits.double()[None]
    for judge in _judges(row):
        scores = judge(input_ids, scores)
    return scores[0].softmax(dim=0)


def _assert_agrees(logits: Tensor, row: SamplingRow) -> Tensor:
    ours, theirs = distribution(logits, row), _judged(logits, row)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)
    # Below 1e-12 a share may round to no weight at all; nothing that is filtered out has any.
    assert bool((ours[theirs > 1e-12] > 0).all())
    assert bool((ours[theirs == 0] == 0).all())
    return ours


_OPTIONS: dict[str, list[dict[str, float]]] = {
    "temperature": [{"temperature": t} for t in (0.01, 0.3, 1.0, 1.7, 5.0)],
    "top_k": [{"top_k": k} for k in (1, 2, 50, _N - 1, _N, 1000)],
    "top_p": [{"top_p": p} for p in (1e-9, 0.05, 0.5, 0.9, 0.95, 0.999999)],
    "min_p": [{"min_p": p} for p in (1e-6, 0.02, 0.3, 1.0)],
    "typical_p": [{"typical_p": p} for p in (1e-9, 0.2, 0.5, 0.95, 0.9999)],
    "repetition_penalty": [{"repetition_penalty": p} for p in (0.1, 0.8, 1.3, 10.0)],
    "presence_penalty": [{"presence_penalty": p} for p in (-2.0, 0.5, 2.0)],
    "frequency_penalty": [{"frequency_penalty": p} for p in (-2.0, 0.5, 2.0)],
    "logit_bias": [{"bias": True}],
    "minimum_length": [{"banned": True}],
}


@pytest.mark.parametrize("option", _OPTIONS)
def test_an_option_alone_agrees_with_transformers(option: str) -> None:
    for seed, chosen in enumerate(_OPTIONS[option]):
        logits = _logits(seed)
        ours = _assert_agrees(logits, _row(**chosen))  # type: ignore[arg-type]
        neutral = chosen in ({"temperature": 1.0}, {"top_k": _N}, {"top_k": 1000})
        assert torch.equal(ours, distribution(logits, _row())) == neutral


_COMBINATIONS: list[dict[str, float]] = [
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 1.2, "top_k": 100, "typical_p": 0.8},
    {"temperature": 0.8, "top_p": 0.95, "typical_p": 0.6, "min_p": 0.01},
    {"repetition_penalty": 1.3, "presence_penalty": 1.0, "frequency_penalty": 0.7, "top_k": 25},
    {"bias": True, "repetition_penalty": 1.8, "temperature": 4.0, "top_p": 0.7},
    {"bias": True, "banned": True, "top_k": 3},
    {
        "bias": True,
        "banned": True,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.6,
        "frequency_penalty": -0.4,
        "temperature": 3.0,
        "top_k": 60,
        "top_p": 0.9,
        "min_p": 0.02,
        "typical_p": 0.7,
    },
]


@pytest.mark.parametrize("combination", _COMBINATIONS, ids=lambda c: "+".join(c))
def test_options_combined_in_our_order_agree_with_transformers(
    combination: dict[str, float],
) -> None:
    for seed in range(5):
        _assert_agrees(_logits(100 + seed), _row(**combination))  # type: ignore[arg-type]


@pytest.mark.parametrize("spread", [0.02, 2.0, 8.0])
def test_agreement_holds_at_the_full_vocabulary(spread: float) -> None:
    logits = _logits(7, width=49_280, spread=spread)
    for chosen in ({"top_p": 0.95}, {"top_k": 1000}, {"typical_p": 0.9}, {"temperature": 0.2}):
        _assert_agrees(logits, _row(**chosen))


def test_the_caller_s_logits_are_left_as_they_were() -> None:
    logits = _logits(3).double()
    before = logits.clone()
    distribution(logits, _row(**_COMBINATIONS[-1]))  # type: ignore[arg-type]
    assert torch.equal(logits, before)


def test_repetition_sees_the_prompt_and_the_other_penalties_do_not() -> None:
    only_in_prompt, logits = 489, _logits(1)
    plain = distribution(logits, _row())
    output_only = distribution(logits, _row(presence_penalty=2.0, frequency_penalty=2.0))
    both = distribution(logits, _row(repetition_penalty=1.5))
    untouched = 300
    ratio = plain[only_in_prompt] / plain[untouched]
    assert output_only[only_in_prompt] / output_only[untouched] == pytest.approx(float(ratio))
    assert both[only_in_prompt] / both[untouched] != pytest.approx(float(ratio))


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ({"top_k": 7}, 7),
        ({"top_p": 0.25}, 5),
        ({"top_p": 0.26}, 6),
        ({"typical_p": 0.5}, 10),
        ({"min_p": 1.0}, 20),
    ],
)
def test_where_equals_compete_filters_keep_the_lowest_ids(
    parameters: dict[str, float], kept: int
) -> None:
    probabilities = distribution(torch.full((20,), -1.5), _plain(**parameters))
    expected = torch.zeros(20, dtype=torch.float64)
    expected[:kept] = 1 / kept
    torch.testing.assert_close(probabilities, expected)


def test_top_k_takes_what_is_above_the_border_before_equals_at_the_border() -> None:
    logits = torch.tensor([1.0, 5.0, 1.0, 1.0, 9.0])
    assert distribution(logits, _plain(top_k=3)).nonzero().flatten().tolist() == [0, 1, 4]


def test_min_p_compares_more_finely_than_float32() -> None:
    logits = torch.tensor([0.0, -1.25])
    ratio = float(logits[1].double().exp())
    for factor, kept in ((1 - 1e-9, 2), (1 + 1e-9, 1)):
        probabilities = distribution(logits, _plain(min_p=ratio * factor))
        assert int((probabilities > 0).sum()) == kept


def _plain(**parameters: float) -> SamplingRow:
    chosen = replace(SamplingParameters(temperature=1.0), **parameters)  # type: ignore[arg-type]
    return SamplingRow(chosen, token_ids=(1,), prompt_length=1)
