"""Every bound of the contract: what is refused, with which reason, and what unset means."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import Priority, SamplingParameters
from santacoder_router.errors import InvalidRequest, Reason, Unsupported
from santacoder_router.limits import Limits
from santacoder_router.prompt_checks import check_detokenize, check_tokenize
from santacoder_router.text.prompt import FimOrder, InfillPrompt, TextPrompt, TokenPrompt
from santacoder_router.validation import (
    SessionDefaults,
    ValidRequest,
    check_session_open,
    malformed,
    normalise,
)

LIMITS = Limits(
    context_token_count=2048, token_count=49_157, vocabulary_size=49_280, infill_supported=True
)
NAN, INFINITY, SUBNORMAL = math.nan, math.inf, 5e-324
MIB = 1 << 20


def completion(prompt: object = "x", **fields: object) -> inference_pb2.CompletionRequest:
    """A request with a prompt (str, (prefix, suffix) or ids) and fields by dotted path."""
    request = inference_pb2.CompletionRequest()
    if isinstance(prompt, str):
        request.text = prompt
    elif isinstance(prompt, tuple):
        request.infill.prefix, request.infill.suffix = prompt
    elif isinstance(prompt, list):
        request.token_ids.ids.extend(prompt)
        request.token_ids.SetInParent()
    for path, value in fields.items():
        _assign(request, path.replace("__", "."), value)
    return request


def resumed(token_ids: list[int] | None = None, **fields: Any) -> inference_pb2.ResumedChoice:
    return inference_pb2.ResumedChoice(token_ids=token_ids, **fields)


def _assign(message: Message, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    if isinstance(value, list):
        getattr(message, name).extend(value)
    elif isinstance(value, dict):
        getattr(message, name).update(value)
    elif isinstance(value, tuple):
        getattr(message, name).seconds, getattr(message, name).nanos = value
    else:
        setattr(message, name, value)


def check(request: inference_pb2.CompletionRequest, limits: Limits = LIMITS) -> ValidRequest:
    return normalise(request, limits, draw_seed=lambda: 77, draw_request_id=lambda: "drawn")


def reasons(request: inference_pb2.CompletionRequest, limits: Limits = LIMITS) -> list[Reason]:
    """The reasons for which a request is refused; none if it is not."""
    try:
        check(request, limits)
    except InvalidRequest as error:
        return [violation.reason for violation in error.violations]
    return []


# The number is the case's in the list of bad inputs; `None` is a case that must pass.
CASES: list[tuple[int, inference_pb2.CompletionRequest, Reason | None]] = [
    (31, completion(None), Reason.PROMPT_MISSING),
    (32, completion(""), Reason.PROMPT_EMPTY),
    (33, completion("é" * (MIB // 2)), None),
    (33, completion("é" * (MIB // 2) + "x"), Reason.PROMPT_TOO_LARGE),
    (33, completion(("x" * (MIB // 2), "y" * (MIB // 2 + 1))), Reason.PROMPT_TOO_LARGE),
    (38, completion("\x00"), None),
    (38, completion("\ufeff\u202ex"), None),
    (39, completion("<fim-middle><|endoftext|>"), None),
    (40, completion([]), Reason.PROMPT_EMPTY),
    (41, completion([0] * 2047), None),
    (41, completion([0] * 2048), Reason.CONTEXT_LENGTH),
    (41, completion([0] * 1_000_000), Reason.CONTEXT_LENGTH),
    (41, completion([-1] * 1_000_000), Reason.CONTEXT_LENGTH),
    (42, completion([5, -1]), Reason.TOKEN_ID_RANGE),
    (42, completion([2**63 - 1]), Reason.TOKEN_ID_RANGE),
    (42, completion([2**32]), Reason.TOKEN_ID_RANGE),
    (42, completion([49_280]), Reason.TOKEN_ID_RANGE),
    (44, completion([49_157]), Reason.TOKEN_ID_UNASSIGNED),
    (44, completion([49_279]), Reason.TOKEN_ID_UNASSIGNED),
    (45, completion([49_153, 1, 49_155, 49_154]), None),
    (47, completion(("", "")), Reason.FIM_EMPTY),
    (47, completion(("", "x")), None),
    (47, completion(("x", "")), None),
    (54, completion(sampling__repetition_penalty=1e30), Reason.REPETITION_PENALTY_RANGE),
    (57, completion(stopping__max_new_tokens=-5), Reason.MAX_NEW_TOKENS_RANGE),
    (57, completion(stopping__max_new_tokens=2**31 - 1), Reason.MAX_NEW_TOKENS_RANGE),
    (59, completion(completion_count=2**31 - 1), Reason.COUNT_RANGE),
    (62, completion(output__logprobs=100_000), Reason.TOP_N_RANGE),
    (67, completion(priority=7), Reason.ENUM_UNKNOWN),
    (67, completion(priority=-1), Reason.ENUM_UNKNOWN),
    (67, completion(truncate=99), Reason.ENUM_UNKNOWN),
    (67, completion(("x", "y"), infill__order=3), Reason.ENUM_UNKNOWN),
    (69, completion(stopping__stop=["x"] * 16), None),
    (69, completion(stopping__stop=["x"] * 17), Reason.STOP_LIST),
    (69, completion(stopping__stop=["x", ""]), Reason.STOP_LIST),
    (69, completion(stopping__stop=["é" * 128]), None),
    (69, completion(stopping__stop=["é" * 128 + "x"]), Reason.STOP_LIST),
    (69, completion(stopping__stop=["x" * 10_240]), Reason.STOP_LIST),
    (72, completion(stopping__stop_token_ids=list(range(64))), None),
    (72, completion(stopping__stop_token_ids=list(range(65))), Reason.TOKEN_ID_LIST),
    (72, completion(stopping__stop_token_ids=[-1]), Reason.TOKEN_ID_LIST),
    (72, completion(stopping__stop_token_ids=[49_157]), Reason.TOKEN_ID_LIST),
    (72, completion(stopping__stop_token_ids=[2**40]), Reason.TOKEN_ID_LIST),
    (73, completion(time_budget=(0, 0)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(0, 9_999_999)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(0, 10_000_000)), None),
    (73, completion(time_budget=(600, 0)), None),
    (73, completion(time_budget=(600, 1)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(-1, 0)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(31_536_000, 0)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(1, -1)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(1, 1_000_000_000)), Reason.DURATION_RANGE),
    (73, completion(time_budget=(2**62, 0)), Reason.DURATION_RANGE),
    (76, completion(cache_salt=bytes(64)), None),
    (76, completion(cache_salt=b""), None),
    (76, completion(cache_salt=bytes(65)), Reason.CACHE_SALT),
    (78, completion(request_id="A.z_0:-"), None),
    (78, completion(request_id="a" * 64), None),
    (78, completion(request_id="a" * 65), Reason.REQUEST_ID),
    (78, completion(request_id=""), Reason.REQUEST_ID),
    (78, completion(request_id="a b"), Reason.REQUEST_ID),
    (78, completion(request_id="a\n"), Reason.REQUEST_ID),
    (78, completion(request_id="../a"), Reason.REQUEST_ID),
    (78, completion(request_id="😀"), Reason.REQUEST_ID),
    (78, completion(request_id="é"), Reason.REQUEST_ID),
    *(
        (80, completion(resume__choices=choices, **fields), reason)
        for choices, fields, reason in [
            ([resumed()], {}, None),
            ([resumed([5] * 2047)], {}, None),
            ([resumed([5] * 2048)], {}, Reason.RESUME_TOKENS),
            ([resumed([-1] * 1_000_000)], {}, Reason.RESUME_TOKENS),
            ([resumed([5] * 9)], {"stopping__max_new_tokens": 9}, None),
            ([resumed([5] * 10)], {"stopping__max_new_tokens": 9}, Reason.RESUME_TOKENS),
            ([resumed([5, -1])], {}, Reason.TOKEN_ID_RANGE),
            ([resumed([2**63 - 1])], {}, Reason.TOKEN_ID_RANGE),
            ([resumed([49_157])], {}, Reason.TOKEN_ID_UNASSIGNED),
            ([resumed(index=1)], {}, Reason.RESUME_CHOICE),
            ([resumed(index=-1)], {}, Reason.RESUME_CHOICE),
            ([resumed(), resumed()], {}, Reason.RESUME_CHOICE),
            ([resumed(), resumed()], {"completion_count": 2}, Reason.RESUME_CHOICE),
            ([resumed(), resumed(index=1)], {"completion_count": 2}, None),
            ([resumed()] * 100_000, {"completion_count": 8}, Reason.RESUME_CHOICE),
            ([resumed(text_byte_count=-1)], {}, Reason.RESUME_TEXT),
        ]
    ),
]


@pytest.mark.parametrize(
    ("request_message", "reason"),
    [case[1:] for case in CASES],
    ids=[f"row{row}-{place}" for place, (row, _, _) in enumerate(CASES)],
)
def test_bad_inputs_are_refused_with_their_reason(
    request_message: inference_pb2.CompletionRequest, reason: Reason | None
) -> None:
    assert reasons(request_message) == ([] if reason is None else [reason])


INTEGERS = [
    ("sampling.top_k", 0, 1000, Reason.TOP_K_RANGE),
    ("sampling.seed", 0, 2**63 - 1, Reason.SEED_RANGE),
    ("stopping.max_new_tokens", 1, 2047, Reason.MAX_NEW_TOKENS_RANGE),
    ("stopping.min_new_tokens", 0, 2047, Reason.MIN_NEW_TOKENS_RANGE),
    ("output.logprobs", 0, 20, Reason.TOP_N_RANGE),
    ("completion_count", 1, 8, Reason.COUNT_RANGE),
]


@pytest.mark.parametrize(("path", "low", "high", "reason"), INTEGERS)
def test_an_integer_is_allowed_from_its_lowest_to_its_highest_and_not_beyond(
    path: str, low: int, high: int, reason: Reason
) -> None:
    widest = 2**63 if path == "sampling.seed" else 2**31
    for value in (low, low + 1, high - 1, high):
        assert reasons(completion(**{path: value})) == []
    for value in {-widest, -1, low - 1}:
        assert reasons(completion(**{path: value})) == [reason]
    for value in {high + 1, widest - 1} - {high, 2**63}:
        assert reasons(completion(**{path: value})) == [reason]


NUMBERS = [
    ("temperature", [0.0, -0.0, 0.01, 1.0, 5.0], [-1.0, -SUBNORMAL, SUBNORMAL, 1e-40, 0.0099, 5.1]),
    ("top_p", [SUBNORMAL, 0.5, 1.0], [0.0, -0.0, -0.1, 1.0000001]),
    ("min_p", [0.0, -0.0, SUBNORMAL, 1.0], [-SUBNORMAL, -0.1, 1.0000001]),
    ("typical_p", [SUBNORMAL, 0.5, 1.0], [0.0, -0.0, -0.1, 1.0000001]),
    ("repetition_penalty", [0.1, 1.0, 10.0], [0.0, -0.0, SUBNORMAL, -1.0, 0.0999, 10.1]),
    ("presence_penalty", [-2.0, -0.0, 0.0, SUBNORMAL, 2.0], [-2.1, -3.0, 2.1, 3.0]),
    ("frequency_penalty", [-2.0, -0.0, 0.0, SUBNORMAL, 2.0], [-2.1, -3.0, 2.1, 3.0]),
]


@pytest.mark.parametrize(("name", "allowed", "refused"), NUMBERS)
def test_a_sampling_number_is_finite_and_in_range(
    name: str, allowed: list[float], refused: list[float]
) -> None:
    reason = Reason(f"{name.upper()}_RANGE")
    for value in allowed:
        sampling = check(completion(**{f"sampling.{name}": value})).sampling
        assert getattr(sampling, name) == value
    for value in (*refused, 100.0, -100.0, NAN, INFINITY, -INFINITY):
        assert reasons(completion(**{f"sampling.{name}": value})) == [reason], value


@pytest.mark.parametrize("name", ["temperature", "min_p", "presence_penalty", "frequency_penalty"])
def test_minus_zero_becomes_zero(name: str) -> None:
    value = getattr(check(completion(**{f"sampling.{name}": -0.0})).sampling, name)
    assert math.copysign(1.0, value) == 1.0


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        (dict.fromkeys(range(256), 1.0), []),
        (dict.fromkeys(range(257), 1.0), [Reason.TOKEN_ID_LIST]),
        ({0: 100.0, 1: -100.0, 2: -0.0, 3: SUBNORMAL, 49_156: 0.0}, []),
        ({0: 100.1}, [Reason.LOGIT_BIAS_RANGE]),
        ({0: NAN, 1: INFINITY, 2: -INFINITY}, [Reason.LOGIT_BIAS_RANGE] * 3),
        ({-1: 0.0}, [Reason.TOKEN_ID_LIST]),
        ({49_157: 0.0}, [Reason.TOKEN_ID_LIST]),
        ({2**40: 0.0}, [Reason.TOKEN_ID_LIST]),
    ],
)
def test_logit_biases_are_few_finite_and_of_tokens_that_exist(
    biases: dict[int, float], expected: list[Reason]
) -> None:
    assert reasons(completion(sampling__logit_bias=biases)) == expected


def test_banning_every_token_of_a_small_vocabulary_is_refused() -> None:
    limits = Limits(
        context_token_count=64, token_count=4, vocabulary_size=4, infill_supported=False
    )
    banned = dict.fromkeys(range(4), -100.0)
    assert reasons(completion(sampling__logit_bias=banned), limits) == [Reason.EMPTY_DISTRIBUTION]
    assert reasons(completion(sampling__logit_bias=banned | {3: -99.0}), limits) == []


def test_biases_are_in_order_of_id() -> None:
    valid = check(completion(sampling__logit_bias={9: 1.0, 3: -2.0, 49_156: 0.5}))
    assert valid.logit_bias == ((3, -2.0), (9, 1.0), (49_156, 0.5))


def test_min_new_tokens_may_not_pass_max_new_tokens() -> None:
    for least, expected in ((5, []), (6, [Reason.MIN_NEW_TOKENS_RANGE])):
        request = completion(stopping__max_new_tokens=5, stopping__min_new_tokens=least)
        assert reasons(request) == expected


def test_unset_means_the_default_and_not_zero() -> None:
    assert check(completion()) == ValidRequest(
        request_id="drawn",
        prompt=TextPrompt("x"),
        keep_nearest=False,
        sampling=SamplingParameters(seed=77),
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
        is_id_drawn=True,
    )


def test_what_is_set_is_kept() -> None:
    request = completion(
        ("before", "after"),
        infill__order=inference_pb2.FIM_ORDER_SPM,
        request_id="mine",
        sampling__temperature=0.8,
        sampling__top_k=40,
        sampling__seed=0,
        stopping__max_new_tokens=9,
        stopping__min_new_tokens=2,
        stopping__stop=["b", "a", "b"],
        stopping__stop_token_ids=[7, 3, 7],
        stopping__ignore_eos=True,
        output__logprobs=0,
        output__echo=True,
        completion_count=3,
        priority=inference_pb2.PRIORITY_HIGH,
        cache_salt=b"\x00\xff",
        time_budget=(1, 500_000_000),
        truncate=inference_pb2.TRUNCATE_POLICY_KEEP_NEAREST,
    )
    assert check(request) == ValidRequest(
        request_id="mine",
        prompt=InfillPrompt("before", "after", FimOrder.SPM),
        keep_nearest=True,
        sampling=SamplingParameters(temperature=0.8, top_k=40, seed=0),
        logit_bias=(),
        max_new_tokens=9,
        min_new_tokens=2,
        stop=("b", "a"),
        stop_token_ids=(7, 3),
        ignore_eos=True,
        logprob_count=0,
        echo=True,
        completion_count=3,
        priority=Priority.HIGH,
        cache_salt=b"\x00\xff",
        time_budget_seconds=1.5,
    )


def test_an_unspecified_enum_is_the_default() -> None:
    request = completion(("x", "y"), infill__order=0, priority=0, truncate=0)
    valid = check(request)
    assert valid.prompt == InfillPrompt("x", "y", FimOrder.PSM)
    assert (valid.priority, valid.keep_nearest) == (Priority.NORMAL, False)


def test_the_last_prompt_set_is_the_prompt() -> None:
    request = completion("x")
    request.token_ids.ids.append(4)
    assert check(request).prompt == TokenPrompt((4,))


def test_ids_that_will_be_cut_may_be_more_than_the_context_up_to_a_text_s_size() -> None:
    keep = inference_pb2.TRUNCATE_POLICY_KEEP_NEAREST
    valid = check(completion([1] * 5000, truncate=keep))
    assert valid.prompt == TokenPrompt((1,) * 5000)
    assert reasons(completion([1] * (MIB + 1), truncate=keep)) == [Reason.PROMPT_TOO_LARGE]


def test_an_infill_that_is_not_served_is_refused_after_its_faults_are() -> None:
    limits = Limits(
        context_token_count=64, token_count=300, vocabulary_size=300, infill_supported=False
    )
    with pytest.raises(Unsupported) as caught:
        check(completion(("x", "y")), limits)
    assert caught.value.reason is Reason.FIM_UNSUPPORTED
    assert reasons(completion(("", "")), limits) == [Reason.FIM_EMPTY]
    assert reasons(completion("x"), limits) == []


def test_all_violations_are_found_at_once() -> None:
    request = completion(
        "",
        request_id="!",
        sampling__top_k=-1,
        sampling__min_p=NAN,
        stopping__max_new_tokens=0,
        completion_count=0,
        priority=9,
    )
    assert set(reasons(request)) == {
        Reason.PROMPT_EMPTY,
        Reason.REQUEST_ID,
        Reason.TOP_K_RANGE,
        Reason.MIN_P_RANGE,
        Reason.MAX_NEW_TOKENS_RANGE,
        Reason.COUNT_RANGE,
        Reason.ENUM_UNKNOWN,
    }


@pytest.mark.parametrize(
    ("request_message", "message"),
    [
        (
            completion(sampling__top_k=70_000),
            "sampling.top_k: out of range; got 70000; allowed 0..1000",
        ),
        (
            completion(sampling__temperature=0.001),
            "sampling.temperature: out of range; got 0.001; allowed 0 or 0.01..5. Use 0 for greedy",
        ),
        (
            completion(sampling__top_p=NAN),
            "sampling.top_p: not a finite number; got nan; allowed above 0 to 1",
        ),
        (
            completion([3, 4, 49_200]),
            "token_ids.ids[2]: token id stands for nothing; got 49200; allowed 0..49156",
        ),
        (
            completion(stopping__stop=["x", "secret" * 100]),
            "stopping.stop[1]: too long; got 600 bytes; allowed 1..256 bytes",
        ),
        (
            completion(request_id="a\n" * 40),
            r"request_id: not a valid id; got " + r"a\n" * 20 + "a..."
            "; allowed [A-Za-z0-9._:-]{1,64}",
        ),
        (
            completion(sampling__logit_bias={7: 101.0}),
            "sampling.logit_bias[7]: out of range; got 101.0; allowed -100..100",
        ),
    ],
)
def test_the_message_names_field_fault_value_and_range(
    request_message: inference_pb2.CompletionRequest, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request_message)
    assert str(caught.value) == message


def test_a_prompt_of_too_many_ids_tells_the_counts() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(completion([0] * 3000))
    assert caught.value.metadata == {"prompt_token_count": "3000", "context_token_count": "2048"}


@given(data=st.binary(max_size=200))
def test_any_message_that_parses_is_accepted_or_refused_and_never_crashes(data: bytes) -> None:
    request = inference_pb2.CompletionRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return
    assert all(isinstance(reason, Reason) for reason in reasons(request))


def test_a_session_sets_what_its_turns_leave_unset() -> None:
    opened = inference_pb2.SessionOpen(priority=inference_pb2.PRIORITY_HIGH, cache_salt=b"s")
    defaults = check_session_open(opened, LIMITS, SessionDefaults())
    assert defaults == SessionDefaults(Priority.HIGH, b"s")
    assert (
        check_session_open(inference_pb2.SessionOpen(), LIMITS, SessionDefaults())
        == SessionDefaults()
    )

    def turn(request: inference_pb2.CompletionRequest) -> tuple[Priority, bytes]:
        valid = normalise(
            request, LIMITS, draw_seed=lambda: 0, draw_request_id=lambda: "t", defaults=defaults
        )
        return valid.priority, valid.cache_salt

    assert turn(completion()) == (Priority.HIGH, b"s")
    assert turn(completion(priority=inference_pb2.PRIORITY_LOW)) == (Priority.LOW, b"s")
    assert turn(completion(cache_salt=b"")) == (Priority.HIGH, b"")


def test_a_session_opened_wrongly_is_refused() -> None:
    opened = inference_pb2.SessionOpen(cache_salt=bytes(65))
    _assign(opened, "priority", 8)
    with pytest.raises(InvalidRequest) as caught:
        check_session_open(opened, LIMITS, SessionDefaults())
    assert {v.reason for v in caught.value.violations} == {Reason.ENUM_UNKNOWN, Reason.CACHE_SALT}


def test_a_text_to_tokenize_may_be_empty_and_may_not_be_too_large() -> None:
    assert check_tokenize(inference_pb2.TokenizeRequest(text=""), LIMITS) == ""
    assert check_tokenize(inference_pb2.TokenizeRequest(text="x" * MIB), LIMITS) == "x" * MIB
    with pytest.raises(InvalidRequest) as caught:
        check_tokenize(inference_pb2.TokenizeRequest(text="x" * (MIB + 1)), LIMITS)
    assert caught.value.reason is Reason.PROMPT_TOO_LARGE


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], None),
        ([0, 49_156], None),
        ([1] * 16_384, None),
        ([1] * 16_385, Reason.ID_COUNT),
        ([-1], Reason.TOKEN_ID_RANGE),
        ([49_157], Reason.TOKEN_ID_UNASSIGNED),
    ],
)
def test_ids_to_detokenize_are_counted_and_checked(ids: list[int], reason: Reason | None) -> None:
    message = inference_pb2.DetokenizeRequest(token_ids=ids)
    if reason is None:
        assert check_detokenize(message, LIMITS) == tuple(ids)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_detokenize(message, LIMITS)
    assert caught.value.reason is reason


def test_bytes_that_do_not_parse_are_malformed() -> None:
    error = malformed("CompleteRequest", 12)
    assert error.reason is Reason.MALFORMED_REQUEST
    assert str(error) == "request: cannot be parsed; got 12 bytes; allowed a CompleteRequest"
