"""The SDK refuses unsent what every server would refuse, for the same reason, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bad_inputs.fields import message
from hypothesis import given, settings
from hypothesis import strategies as st

from santacoder_client._bounds import OF_OPTIONS
from santacoder_client._codec import encode_call, encode_detokenize, encode_tokenize
from santacoder_client._options import OPTIONS
from santacoder_client.errors import InvalidRequest
from santacoder_client.types import Infill
from santacoder_router import errors
from santacoder_router.limits import Limits
from santacoder_router.prompt_checks import check_detokenize, check_tokenize
from santacoder_router.validation import normalise

LIMITS = Limits(
    context_token_count=2048, token_count=49_157, vocabulary_size=49_280, infill_supported=True
)
# What only the served model can tell: its context and its ids.
OF_THE_MODEL = {"CONTEXT_LENGTH", "TOKEN_ID_UNASSIGNED"}
MOST = 2**31 - 1

numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, 1e-40, 0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 1e30]),
    st.sampled_from([math.nan, math.inf, -math.inf, math.nextafter(5, 6), math.nextafter(1, 2)]),
    st.floats(),
    st.floats(-3, 12),
)
integers = st.one_of(
    st.sampled_from([-MOST - 1, -1, 0, 1, 7, 8, 9, 20, 21, 1000, 1001, MOST]),
    st.integers(-MOST - 1, MOST),
    st.integers(-3, 30),
)
texts = st.text(max_size=70) | st.sampled_from(
    ["", "a" * 64, "a" * 65, "a b", "é" * 128, "x" * 257]
)
ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2, 50_000))
OF_KIND: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(-(2**63), 2**63 - 1) | integers,
    "stop": st.lists(texts, max_size=18),
    "stop_token_ids": st.lists(ids, max_size=66),
    "logit_bias": st.dictionaries(ids, numbers, max_size=4)
    | st.just(dict.fromkeys(range(257), 0.0)),
    "cache_salt": st.binary(max_size=70),
    "request_id": texts,
    "time_budget": numbers.filter(lambda value: abs(value) < 1e11),
    **dict.fromkeys(
        ("max_new_tokens", "min_new_tokens", "top_k", "logprobs", "completion_count"), integers
    ),
}
options = st.fixed_dictionaries(
    {}, optional={name: OF_KIND.get(name, numbers) for name in OF_OPTIONS}
)
prompts: st.SearchStrategy[Any] = st.one_of(
    texts, st.lists(ids, max_size=4), st.builds(Infill, texts, texts), st.just("x" * (1 << 20 | 1))
)


def server_says(prompt: Any, given_options: Any) -> set[str]:
    """Every reason for which the server refuses it."""
    try:
        normalise(
            message(prompt, given_options),
            LIMITS,
            draw_seed=lambda: 1,
            draw_request_id=lambda: "drawn",
        )
    except errors.InvalidRequest as error:
        return {str(violation.reason) for violation in error.violations}
    return set()


def sdk_says(prompt: Any, given_options: Any) -> str | None:
    """The reason for which the SDK refuses it, unsent."""
    try:
        encode_call(prompt, given_options)
    except InvalidRequest as error:
        return error.reason
    return None


def agree(prompt: Any, given_options: Any) -> bool:
    server, sdk = server_says(prompt, given_options), sdk_says(prompt, given_options)
    if sdk is not None:
        return sdk in server
    return not server or is_of_the_model(server, prompt, given_options)


def is_of_the_model(server: set[str], prompt: Any, given_options: Any) -> bool:
    """Whether all that the server has against it depends on context and ids of its model."""
    allowed = set(OF_THE_MODEL)
    named = [*given_options.get("stop_token_ids", []), *given_options.get("logit_bias", {})]
    if any(token_id >= LIMITS.token_count for token_id in named):
        allowed.add("TOKEN_ID_LIST")
    if isinstance(prompt, list) and max(prompt, default=0) >= LIMITS.token_count:
        allowed.add("TOKEN_ID_RANGE")
    for name in ("max_new_tokens", "min_new_tokens"):
        if given_options.get(name, 0) > LIMITS.prompt_token_count:
            allowed.add(f"{name.upper()}_RANGE")
    return server <= allowed


@given(prompts, options)
@settings(max_examples=400)
def test_sdk_and_server_judge_every_request_alike(prompt: Any, given_options: Any) -> None:
    assert agree(prompt, given_options), (
        server_says(prompt, given_options),
        sdk_says(prompt, given_options),
    )


@pytest.mark.parametrize("name", OF_OPTIONS)
def test_each_option_alone_is_judged_alike(name: str) -> None:
    @given(OF_KIND.get(name, numbers))
    @settings(max_examples=60)
    def judge(value: Any) -> None:
        assert agree("x", {name: value}), (value, server_says("x", {name: value}))

    judge()


def test_a_bound_is_of_an_option_and_every_number_has_one() -> None:
    names = {option.name for option in OPTIONS}
    assert OF_OPTIONS.keys() <= names
    unbounded = {"ignore_eos", "echo", "fim_order", "truncate", "priority", "timeout"}
    assert names - OF_OPTIONS.keys() == unbounded


@given(st.lists(ids, max_size=3) | st.just([1] * 16_385), texts | st.just("é" * (1 << 19) + "x"))
@settings(max_examples=60)
def test_texts_and_ids_to_convert_are_judged_alike(token_ids: list[int], text: str) -> None:
    for encode, check, value in (
        (encode_detokenize, check_detokenize, token_ids),
        (encode_tokenize, check_tokenize, text),
    ):
        reasons = []
        try:
            request: Any = encode(value)
        except InvalidRequest as error:
            assert error.reason in ("ID_COUNT", "TOKEN_ID_RANGE", "PROMPT_TOO_LARGE")
            continue
        try:
            check(request, LIMITS)
        except errors.InvalidRequest as refusal:
            reasons = [str(violation.reason) for violation in refusal.violations]
        assert set(reasons) <= {"TOKEN_ID_RANGE", "TOKEN_ID_UNASSIGNED"}
