"""Prompt and answer fit the context together, and what is in force is what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import Priority, SamplingParameters
from santacoder_router.errors import InvalidRequest, Reason
from santacoder_router.limits import Limits
from santacoder_router.resolution import (
    ResolvedRequest,
    core_request,
    put_accepted,
    put_sampling,
    resolve,
)
from santacoder_router.text.fim import Sentinels
from santacoder_router.text.prompt import FimOrder, PromptIds, TextPrompt
from santacoder_router.validation import ValidRequest

LIMITS = Limits(
    context_token_count=2048, token_count=300, vocabulary_size=320, infill_supported=True
)
SENTINELS = Sentinels(prefix=297, middle=298, suffix=299)
VALID = ValidRequest(
    request_id="r",
    prompt=TextPrompt("x"),
    keep_nearest=False,
    sampling=SamplingParameters(seed=5),
    logit_bias=(),
    max_new_tokens=None,
    min_new_tokens=0,
    stop=(),
    stop_token_ids=(),
    ignore_eos=False,
    logprob_count=None,
    echo=False,
    completion_count=1,
    priority=Priority.NORMAL,
    cache_salt=b"",
    time_budget_seconds=None,
)


def plain(token_count: int) -> PromptIds:
    return PromptIds(tuple(i % 290 for i in range(token_count)))


def fit(
    prompt: PromptIds, max_new_tokens: int | None = None, keep_nearest: bool = False
) -> ResolvedRequest:
    valid = VALID._replace(max_new_tokens=max_new_tokens, keep_nearest=keep_nearest)
    return resolve(valid, prompt, LIMITS, SENTINELS)


@pytest.mark.parametrize(
    ("prompt_count", "max_new_tokens"), [(1, 128), (1920, 128), (1921, 127), (2047, 1)]
)
def test_unset_max_new_tokens_is_128_or_the_room_left(
    prompt_count: int, max_new_tokens: int
) -> None:
    resolved = fit(plain(prompt_count))
    assert resolved.max_new_tokens == max_new_tokens
    assert resolved.prompt_ids == plain(prompt_count).prefix


def test_the_sentinels_take_room_too() -> None:
    resolved = fit(PromptIds((1,) * 1000, (2,) * 1000, FimOrder.PSM))
    assert (len(resolved.prompt_ids), resolved.max_new_tokens) == (2003, 45)


@pytest.mark.parametrize(
    ("prompt_count", "max_new_tokens", "counted"),
    [(2048, None, 1), (1921, 128, 128), (2047, 2, 2), (1, 2048, 2048)],
)
def test_what_does_not_fit_is_refused_with_both_counts(
    prompt_count: int, max_new_tokens: int | None, counted: int
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fit(plain(prompt_count), max_new_tokens)
    assert caught.value.reason is Reason.CONTEXT_LENGTH
    assert caught.value.metadata == {
        "prompt_token_count": str(prompt_count),
        "max_new_tokens": str(counted),
        "context_token_count": "2048",
    }
    assert str(caught.value) == (
        f"prompt: too long for the context; got {prompt_count} prompt tokens"
        f" and max_new_tokens {counted}; allowed at most 2048 together"
    )


@given(
    prefix=st.integers(0, 5000),
    suffix=st.integers(0, 5000),
    order=st.sampled_from([None, *FimOrder]),
    max_new_tokens=st.none() | st.integers(1, 2044),
)
def test_keep_nearest_always_fits_and_reports_what_was_dropped(
    prefix: int, suffix: int, order: FimOrder | None, max_new_tokens: int | None
) -> None:
    prompt = PromptIds((1,) * max(prefix, 1), (2,) * suffix if order else (), order)
    resolved = fit(prompt, max_new_tokens, keep_nearest=True)
    assert resolved.max_new_tokens >= 1
    assert len(resolved.prompt_ids) + resolved.max_new_tokens <= 2048
    if max_new_tokens is not None:
        assert resolved.max_new_tokens == max_new_tokens
    kept = resolved.prompt_ids
    assert kept.count(1) == len(prompt.prefix) - resolved.dropped_prefix_token_count
    assert kept.count(2) == len(prompt.suffix) - resolved.dropped_suffix_token_count
    assert sum(i > 290 for i in kept) == (3 if order else 0)


def test_keep_nearest_leaves_alone_what_fits() -> None:
    resolved = fit(plain(2047), keep_nearest=True)
    assert (len(resolved.prompt_ids), resolved.dropped_prefix_token_count) == (2047, 0)


def test_keep_nearest_cuts_to_what_max_new_tokens_leaves() -> None:
    resolved = fit(plain(3000), 100, keep_nearest=True)
    assert resolved.prompt_ids == plain(3000).prefix[-1948:]
    assert resolved.dropped_prefix_token_count == 3000 - 1948
    assert fit(plain(3000), keep_nearest=True).max_new_tokens == 128


def test_in_a_short_context_a_cut_prompt_keeps_half() -> None:
    limits = replace(LIMITS, context_token_count=64)
    resolved = resolve(VALID._replace(keep_nearest=True), plain(100), limits, None)
    assert (len(resolved.prompt_ids), resolved.max_new_tokens) == (32, 32)


def test_keep_nearest_cannot_make_room_where_the_answer_takes_all() -> None:
    with pytest.raises(InvalidRequest) as caught:
        fit(PromptIds((1,), (2,), FimOrder.PSM), 2045, keep_nearest=True)
    assert caught.value.reason is Reason.CONTEXT_LENGTH


def test_min_new_tokens_is_held_against_the_default_too() -> None:
    valid = VALID._replace(min_new_tokens=129)
    with pytest.raises(InvalidRequest) as caught:
        resolve(valid, plain(10), LIMITS, SENTINELS)
    assert str(caught.value) == (
        "stopping.min_new_tokens: above max_new_tokens; got 129; allowed 0..128"
    )
    assert caught.value.reason is Reason.MIN_NEW_TOKENS_RANGE


FULL = VALID._replace(
    sampling=SamplingParameters(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.5,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        seed=99,
    ),
    logit_bias=((3, -1.5), (4, 2.0)),
    max_new_tokens=20,
    min_new_tokens=2,
    stop=("\n\n",),
    stop_token_ids=(8, 9),
    ignore_eos=True,
    logprob_count=0,
    echo=True,
    completion_count=2,
    priority=Priority.HIGH,
    cache_salt=b"salt",
    time_budget_seconds=1.5,
)


def test_each_choice_is_a_request_to_the_scheduler_with_its_own_sample_index() -> None:
    resolved = resolve(FULL, PromptIds((1, 2)), LIMITS, None)
    request = core_request(resolved, request_id=6, sample_index=1, arrival=10.0, deadline=30.0)
    assert request.request_id == 6
    assert request.prompt_ids == (1, 2)
    assert (request.max_new_tokens, request.min_new_tokens) == (20, 2)
    assert request.sampling == replace(FULL.sampling, sample_index=1)
    assert (request.ignore_eos, request.stop_ids) == (True, (8, 9))
    assert (request.logit_bias, request.logprob_count) == (((3, -1.5), (4, 2.0)), 0)
    assert (request.priority, request.cache_key) == (Priority.HIGH, b"salt")
    assert (request.deadline, request.time_budget_end) == (30.0, 11.5)


def test_without_a_time_budget_there_is_no_end_to_it() -> None:
    request = core_request(fit(plain(3)), request_id=1, sample_index=0, arrival=10.0, deadline=None)
    assert (request.deadline, request.time_budget_end) == (None, None)


def accepted(resolved: ResolvedRequest) -> inference_pb2.Accepted:
    message = inference_pb2.Accepted()
    put_accepted(resolved, message)
    return message


def test_the_accepted_message_says_every_value_in_force() -> None:
    resolved = resolve(FULL, PromptIds((1,), (2,), FimOrder.SPM), LIMITS, SENTINELS)
    assert accepted(resolved) == inference_pb2.Accepted(
        request_id="r",
        sampling=inference_pb2.Sampling(
            temperature=0.5,
            top_k=7,
            top_p=0.9,
            min_p=0.1,
            typical_p=0.8,
            repetition_penalty=1.5,
            presence_penalty=-0.5,
            frequency_penalty=0.25,
            seed=99,
            logit_bias={3: -1.5, 4: 2.0},
        ),
        stopping=inference_pb2.Stopping(
            max_new_tokens=20,
            min_new_tokens=2,
            stop=["\n\n"],
            stop_token_ids=[8, 9],
            ignore_eos=True,
        ),
        output=inference_pb2.Output(logprobs=0, echo=True),
        completion_count=2,
        priority=inference_pb2.PRIORITY_HIGH,
        fim_order=inference_pb2.FIM_ORDER_SPM,
        prompt_token_count=5,
    )


def test_defaults_are_echoed_as_set_and_logprobs_stay_unset() -> None:
    message = accepted(fit(plain(3)))
    options = {field.name for field in inference_pb2.Sampling.DESCRIPTOR.fields}
    said = {field.name for field, _ in message.sampling.ListFields()}
    assert said == options - {"logit_bias"}
    assert message.stopping.HasField("min_new_tokens")
    assert message.stopping.HasField("ignore_eos")
    assert message.stopping.max_new_tokens == 128
    assert message.output.HasField("echo")
    assert not message.output.HasField("logprobs")
    assert message.fim_order == inference_pb2.FIM_ORDER_UNSPECIFIED


def test_default_sampling_can_be_said_alone() -> None:
    message = inference_pb2.Sampling()
    put_sampling(SamplingParameters(), message)
    assert (message.temperature, message.top_p, message.repetition_penalty) == (0.0, 1.0, 1.0)
