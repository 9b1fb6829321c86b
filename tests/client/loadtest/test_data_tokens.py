"""Data of token ids: as many as asked for, plain ones, and families that begin alike."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_data import MODEL, SAME_EXAMPLES, prompts, source

from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.lengths import Lengths, parse_lengths
from santacoder_client.loadtest.data.source import DataError, ModelFacts
from santacoder_client.loadtest.data.token_blocks import TokenBlocks

COUNTS = st.integers(1, 5000)


@st.composite
def any_lengths(draw: st.DrawFn) -> str:
    low, middle, high = sorted((draw(COUNTS), draw(COUNTS), draw(COUNTS)))
    spread = draw(st.sampled_from(["0.01", "0.5", "3", "1e3"]))
    return draw(
        st.sampled_from(
            [
                f"{low}",
                f"uniform:{low}:{high}",
                f"normal:{middle}:{spread}:{low}:{high}",
                f"lognormal:{middle}:{spread}:{low}:{high}",
            ]
        )
    )


@SAME_EXAMPLES
@given(any_lengths(), st.integers())
def test_every_length_is_within_its_bounds_and_its_text_says_all(text: str, seed: int) -> None:
    lengths = parse_lengths("--x", text)
    assert lengths.low <= lengths.draw(Draws("length", seed)) <= lengths.high
    assert parse_lengths("--x", str(lengths)) == lengths


def drawn_lengths(text: str, count: int = 4000) -> list[int]:
    lengths = parse_lengths("--x", text)
    return [lengths.draw(Draws("length", index)) for index in range(count)]


def test_a_normal_has_its_mean_and_deviation() -> None:
    drawn = drawn_lengths("normal:500:50:100:900")
    assert abs(statistics.fmean(drawn) - 500) < 4
    assert abs(statistics.stdev(drawn) - 50) < 3


def test_a_lognormal_has_its_median_and_sigma() -> None:
    drawn = drawn_lengths("lognormal:500:0.4:1:100000")
    assert abs(statistics.median(drawn) / 500 - 1) < 0.05
    assert abs(statistics.stdev(map(math.log, drawn)) - 0.4) < 0.02


def test_bounds_cut_a_distribution_and_gather_nothing_on_themselves() -> None:
    counts = Counter(drawn_lengths("normal:100:100:50:150"))
    assert min(counts) == 50 and max(counts) == 150
    assert counts[50] + counts[150] < 4 * 4000 / 100


def test_a_uniform_reaches_both_bounds_alike() -> None:
    counts = Counter(drawn_lengths("uniform:3:6"))
    assert sorted(counts) == [3, 4, 5, 6]
    assert all(850 < count < 1150 for count in counts.values())


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "1.5", "1_000", " 5", "٣", "1000001", "nan", "12:", "5:6", "fixed:5"),
        *("uniform", "uniform:5", "uniform:9:3", "uniform:0:3", "uniform:1:2:3", "uniform:a:b"),
        *("normal:5:1", "normal:5:0:1:9", "normal:50:1:1:9", "normal:nan:1:1:9", "poisson:4"),
        *("lognormal:5:-1:1:9", "lognormal:0:1:1:9", "lognormal:5:inf:1:9", "9" * 5000),
    ],
)
def test_lengths_that_are_none_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"^--x: .+; got .+; allowed N, uniform") as refusal:
        parse_lengths("--x", text)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


@SAME_EXAMPLES
@given(any_lengths().filter(lambda text: parse_lengths("", text).high < 1000), st.integers(0, 99))
def test_a_prompt_has_exactly_as_many_tokens_as_were_drawn(text: str, seed: int) -> None:
    made = source("--prompt-tokens", text, "--new-tokens", text, "--seed", seed)
    lengths = parse_lengths("", text)
    for prompt in prompts(made, range(5)):
        assert prompt.kind == "token_ids"
        assert lengths.low <= len(prompt.token_ids) <= lengths.high
        assert prompt.max_new_tokens is not None
        assert lengths.low <= prompt.max_new_tokens <= lengths.high
        assert prompt.options == {"ignore_eos": True}


def test_every_plain_id_is_drawn_and_no_other() -> None:
    made = source("--prompt-tokens", 2000, "--new-tokens", 1)
    drawn = {id_ for prompt in prompts(made) for id_ in prompt.token_ids}
    assert drawn == set(range(1000)) - MODEL.special_token_ids


@SAME_EXAMPLES
@given(st.sets(st.integers(-2, 40)), st.integers(1, 40))
def test_specials_are_stepped_over_wherever_they_lie(specials: set[int], token_count: int) -> None:
    plain = set(range(token_count)) - specials
    model = ModelFacts(token_count, frozenset(specials))
    if not plain:
        with pytest.raises(DataError, match="no token ids"):
            TokenBlocks(model)
        return
    counts = Counter(TokenBlocks(model).draw(200 * len(plain), ("all",)))
    assert set(counts) == plain
    assert max(counts.values()) < 290 and min(counts.values()) > 130


def test_two_prompts_have_no_prefix_in_common() -> None:
    made = source("--prompt-tokens", 64)
    assert len({prompt.token_ids[:4] for prompt in prompts(made)}) == 50


def test_a_family_shares_its_prefix_and_nothing_else() -> None:
    made = source("--data", "families", "--families", 3, "--prefix-tokens", 100)
    by_family: dict[str, list[tuple[int, ...]]] = {}
    for prompt in prompts(made):
        by_family.setdefault(prompt.family, []).append(prompt.token_ids)
    assert set(by_family) == {"prefix-0", "prefix-1", "prefix-2"}
    prefixes = {family: {ids[:100] for ids in each} for family, each in by_family.items()}
    assert all(len(each) == 1 for each in prefixes.values())
    assert len(set.union(*prefixes.values())) == 3
    tails = [ids[100:] for each in by_family.values() for ids in each]
    assert {len(tail) for tail in tails} == {64}
    assert len({tail[:4] for tail in tails}) == 50


def family_counts(popularity: str) -> list[int]:
    made = source(
        *("--data", "families", "--families", 4, "--popularity", popularity),
        *("--prefix-tokens", 1, "--tail-tokens", 1),
    )
    counts = Counter(prompt.family for prompt in prompts(made, range(4000)))
    return [counts[f"prefix-{number}"] for number in range(4)]


def test_families_are_asked_for_alike() -> None:
    assert all(abs(count - 1000) < 120 for count in family_counts("uniform"))


def test_zipf_asks_for_the_second_family_half_as_often() -> None:
    whole = sum(1 / rank for rank in range(1, 5))
    for rank, count in enumerate(family_counts("zipf"), start=1):
        assert abs(count - 4000 / rank / whole) < 140


def test_a_steeper_zipf_is_steeper() -> None:
    first, second, *_ = family_counts("zipf:3")
    assert 6 < first / second < 11


def test_tenants_have_salts_of_their_own_and_share_the_families() -> None:
    made = source("--data", "families", "--tenants", 3, "--families", 2)
    seen = {(prompt.cache_salt, prompt.family) for prompt in prompts(made, range(200))}
    salts = (b"tenant-0", b"tenant-1", b"tenant-2")
    assert seen == set(itertools.product(salts, ("prefix-0", "prefix-1")))


def test_without_tenants_there_is_no_salt() -> None:
    assert all(each.cache_salt is None for each in prompts(source("--data", "families")))


@pytest.mark.parametrize(
    "argv",
    [
        ("--prompt-tokens", 2000, "--new-tokens", 49),
        ("--prompt-tokens", "uniform:1:2048"),
        ("--data", "families", "--prefix-tokens", 1985),
    ],
)
def test_lengths_that_no_context_holds_are_refused(argv: tuple[object, ...]) -> None:
    with pytest.raises(DataError, match=r"^--prefix?.+context.+; got .+; allowed 2048|^--prompt"):
        source(*argv)
    longer = ModelFacts(1000, context_token_count=None)
    assert source(*argv, model=longer).prompt(0).token_ids


@pytest.mark.parametrize("text", ["", "zip", "zipf:", "zipf:0", "zipf:nan", "zipf:11", "uniform:1"])
def test_a_popularity_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^--popularity.*: .+; got .+; allowed .+"):
        source("--data", "families", "--popularity", text)


def test_numbers_drawn_today_are_drawn_for_ever() -> None:
    """A stamp in an old result must still mean the same data."""
    draws = Draws("synthetic", 0, 1)
    assert [draws.below(1000) for _ in range(5)] == RECORDED_DRAWS
    assert TokenBlocks(MODEL).draw(5, ("synthetic", 0, 1, "ids")) == RECORDED_IDS
    assert source().prompt(1).token_ids[:5] == RECORDED_IDS
    assert [Lengths("lognormal", 1, 999, 100.0, 0.5).draw(Draws(at)) for at in range(5)] == (
        RECORDED_LENGTHS
    )


RECORDED_DRAWS = [328, 452, 423, 854, 909]
RECORDED_IDS = (671, 679, 595, 17, 803)
RECORDED_LENGTHS = [117, 74, 119, 76, 107]
