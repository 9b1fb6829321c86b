"""Rows 50 to 85: how to go on, when to stop, and what else a request may say."""

from __future__ import annotations

import math

from bad_inputs.fields import field_row, raw_ways
from bad_inputs.prompt_rows import CONTEXT_TOKEN_COUNT, VOCABULARY_SIZE
from bad_inputs.row import Row

from santacoder.inference.v1 import inference_pb2 as pb

TEXT = pb.CompletionRequest(text="x = 1")
SUBNORMAL = 5e-324


def _enum(number: int, value: int) -> bytes:
    """An enum of proto3 holds any number; no generated type lets one be written in Python."""
    return TEXT.SerializeToString() + bytes([number << 3, value])


def _with(words: str, reason: str, **fields: object) -> Row:
    """A row that no keyword of the SDK can say."""
    request = pb.CompletionRequest(text="x = 1", **fields)  # type: ignore[arg-type]
    return Row(int(words.split()[0]), words.partition(" ")[2], reason, raw_ways(request))


def _duration(seconds: int, nanos: int) -> bytes:
    request = pb.CompletionRequest(text="x = 1")
    request.time_budget.seconds, request.time_budget.nanos = seconds, nanos
    return request.SerializeToString()


UNKNOWN = "INVALID_ARGUMENT ENUM_UNKNOWN"
DURATION = "INVALID_ARGUMENT DURATION_RANGE"

SAMPLING_ROWS = (
    *(
        field_row(50, f"temperature {value}", "TEMPERATURE_RANGE", temperature=value)
        for value in (math.nan, math.inf, -math.inf, -1.0, SUBNORMAL, 1e-40, 0.001, 5.1, 100.0)
    ),
    field_row(50, "temperature -0", "OK", temperature=-0.0),
    *(
        field_row(51, f"top_p {value}", "TOP_P_RANGE", top_p=value)
        for value in (0.0, -0.5, 1.5, math.nan, math.inf)
    ),
    *(
        field_row(52, f"top_k {value}", "TOP_K_RANGE", top_k=value)
        for value in (-1, 1001, 70_000, 2**31 - 1)
    ),
    field_row(53, "min_p -0.1", "MIN_P_RANGE", min_p=-0.1),
    field_row(53, "min_p 1.1", "MIN_P_RANGE", min_p=1.1),
    field_row(53, "typical_p 0", "TYPICAL_P_RANGE", typical_p=0.0),
    field_row(53, "typical_p not a number", "TYPICAL_P_RANGE", typical_p=math.nan),
    *(
        field_row(
            54, f"repetition_penalty {value}", "REPETITION_PENALTY_RANGE", repetition_penalty=value
        )
        for value in (0.0, -1.0, 1e30)
    ),
    field_row(55, "presence_penalty 3", "PRESENCE_PENALTY_RANGE", presence_penalty=3.0),
    field_row(55, "frequency_penalty -3", "FREQUENCY_PENALTY_RANGE", frequency_penalty=-3.0),
    *(
        field_row(57, f"max_new_tokens {value}", "MAX_NEW_TOKENS_RANGE", max_new_tokens=value)
        for value in (0, -5)
    ),
    field_row(
        57,
        "max_new_tokens above any context",
        "MAX_NEW_TOKENS_RANGE",
        needs_server=True,
        max_new_tokens=2**31 - 1,
    ),
    field_row(
        58,
        "min_new_tokens above max_new_tokens",
        "MIN_NEW_TOKENS_RANGE",
        min_new_tokens=9,
        max_new_tokens=8,
    ),
    *(
        field_row(59, f"completion_count {value}", "COUNT_RANGE", completion_count=value)
        for value in (0, -1, 9, 10**9)
    ),
    field_row(61, "seed -1", "SEED_RANGE", seed=-1),
    *(
        field_row(62, f"logprobs {value}", "TOP_N_RANGE", logprobs=value)
        for value in (21, 100_000, -1)
    ),
    field_row(63, "a bias of NaN", "LOGIT_BIAS_RANGE", logit_bias={5: math.nan}),
    field_row(63, "a bias of 101", "LOGIT_BIAS_RANGE", logit_bias={5: 101.0}),
    field_row(
        63, "a bias of no id", "TOKEN_ID_LIST", needs_server=True, logit_bias={VOCABULARY_SIZE: 1.0}
    ),
    field_row(
        65,
        "biases that ban every id",
        "TOKEN_ID_LIST",
        logit_bias=dict.fromkeys(range(384), -100.0),
    ),
    field_row(
        66,
        "filters that leave nothing",
        "OK",
        temperature=0.01,
        top_p=1e-300,
        min_p=1.0,
        typical_p=1e-300,
        top_k=1,
        logit_bias=dict.fromkeys(range(256), -100.0),
    ),
    Row(67, "priority 7", UNKNOWN, raw_ways(_enum(9, 7))),
    Row(67, "truncate 99", UNKNOWN, raw_ways(_enum(12, 99))),
    _with("67 order 3", UNKNOWN, infill=pb.InfillPrompt(prefix="x", order=3)),  # type: ignore[arg-type]
)

OTHER_ROWS = (
    field_row(69, "17 stop strings", "STOP_LIST", stop=["x"] * 17),
    field_row(69, "an empty stop string", "STOP_LIST", stop=["a", ""]),
    field_row(69, "a stop string of 10 KiB", "STOP_LIST", stop=["x" * 10_240]),
    field_row(72, "stop id -1", "TOKEN_ID_LIST", stop_token_ids=[-1]),
    field_row(72, "65 stop ids", "TOKEN_ID_LIST", stop_token_ids=list(range(65))),
    field_row(
        72,
        "a stop id of no token",
        "TOKEN_ID_LIST",
        needs_server=True,
        stop_token_ids=[VOCABULARY_SIZE],
    ),
    *(
        field_row(73, f"time_budget {value}", "DURATION_RANGE", time_budget=value)
        for value in (-1.0, 0.0, 0.001, 31_536_000.0)
    ),
    Row(73, "time_budget with a second of nanoseconds", DURATION, raw_ways(_duration(1, 10**9))),
    Row(73, "time_budget with negative nanoseconds", DURATION, raw_ways(_duration(1, -1))),
    field_row(76, "a salt of 65 bytes", "CACHE_SALT", cache_salt=b"s" * 65),
    field_row(76, "a salt of any 64 bytes", "OK", cache_salt=bytes(range(192, 256))),
    *(
        field_row(78, f"request_id {value[:20]!r}", "REQUEST_ID", request_id=value)
        for value in ("", "a" * 65, "a b", "a\nb", "../a", "😀", "é")
    ),
    _with(
        "83 a resume of more than was asked for",
        "INVALID_ARGUMENT RESUME_TOKENS",
        resume=pb.Resume(choices=[pb.ResumedChoice(token_ids=[1] * CONTEXT_TOKEN_COUNT)]),
    ),
    _with(
        "84 a resume with ids that are none",
        "INVALID_ARGUMENT TOKEN_ID_RANGE",
        resume=pb.Resume(choices=[pb.ResumedChoice(token_ids=[-1])]),
    ),
    _with(
        "85 a resume of text that the ids do not bring",
        "INVALID_ARGUMENT RESUME_TEXT",
        resume=pb.Resume(choices=[pb.ResumedChoice(token_ids=[1], text_byte_count=10**6)]),
    ),
    _with(
        "85 a resume of another model's answer",
        "FAILED_PRECONDITION RESUME_MODEL",
        resume=pb.Resume(model_revision="another"),
    ),
    _with(
        "86 a resume of a choice that was not asked for",
        "INVALID_ARGUMENT RESUME_CHOICE",
        resume=pb.Resume(choices=[pb.ResumedChoice(index=1)]),
    ),
)
