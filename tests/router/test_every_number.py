"""Every number that a request can hold, found in the contract itself, with every odd value.

A number that is added to the contract and to no line here fails: nobody has said what it may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor import FieldDescriptor

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.errors import InvalidRequest
from santacoder_router.limits import Limits
from santacoder_router.prompt_checks import check_detokenize
from santacoder_router.validation import SessionDefaults, check_session_open, normalise

LIMITS = Limits(
    context_token_count=2048, token_count=49_157, vocabulary_size=49_280, infill_supported=True
)
INT32, INT64 = 2**31 - 1, 2**63 - 1
SUBNORMAL = 5e-324
REALS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
NO_NUMBERS = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_BOOL)
ANY_REASON = ""


class Bounds(NamedTuple):
    """`low` to `high` are allowed, and nothing else but `also`."""

    low: float
    high: float
    reason: str
    also: tuple[float, ...] = ()

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high or value in self.also


IDS = (0, LIMITS.token_count - 1)
ABOVE_ZERO = SUBNORMAL
NUMBERS = {
    "CompletionRequest.completion_count": Bounds(1, 8, "COUNT_RANGE"),
    "CompletionRequest.priority": Bounds(0, 3, "ENUM_UNKNOWN"),
    "CompletionRequest.truncate": Bounds(0, 2, "ENUM_UNKNOWN"),
    "CompletionRequest.time_budget.seconds": Bounds(1, 600, "DURATION_RANGE"),
    "CompletionRequest.time_budget.nanos": Bounds(10**7, 10**9 - 1, "DURATION_RANGE"),
    "CompletionRequest.infill.order": Bounds(0, 2, "ENUM_UNKNOWN"),
    "CompletionRequest.token_ids.ids": Bounds(*IDS, ANY_REASON),
    "CompletionRequest.sampling.temperature": Bounds(0.01, 5, "TEMPERATURE_RANGE", (0,)),
    "CompletionRequest.sampling.top_k": Bounds(0, 1000, "TOP_K_RANGE"),
    "CompletionRequest.sampling.top_p": Bounds(ABOVE_ZERO, 1, "TOP_P_RANGE"),
    "CompletionRequest.sampling.min_p": Bounds(0, 1, "MIN_P_RANGE"),
    "CompletionRequest.sampling.typical_p": Bounds(ABOVE_ZERO, 1, "TYPICAL_P_RANGE"),
    "CompletionRequest.sampling.repetition_penalty": Bounds(0.1, 10, "REPETITION_PENALTY_RANGE"),
    "CompletionRequest.sampling.presence_penalty": Bounds(-2, 2, "PRESENCE_PENALTY_RANGE"),
    "CompletionRequest.sampling.frequency_penalty": Bounds(-2, 2, "FREQUENCY_PENALTY_RANGE"),
    "CompletionRequest.sampling.seed": Bounds(0, INT64, "SEED_RANGE"),
    "CompletionRequest.sampling.logit_bias.key": Bounds(*IDS, "TOKEN_ID_LIST"),
    "CompletionRequest.sampling.logit_bias.value": Bounds(-100, 100, "LOGIT_BIAS_RANGE"),
    "CompletionRequest.stopping.max_new_tokens": Bounds(1, 2047, "MAX_NEW_TOKENS_RANGE"),
    "CompletionRequest.stopping.min_new_tokens": Bounds(0, 2047, "MIN_NEW_TOKENS_RANGE"),
    "CompletionRequest.stopping.stop_token_ids": Bounds(*IDS, "TOKEN_ID_LIST"),
    "CompletionRequest.output.logprobs": Bounds(0, 20, "TOP_N_RANGE"),
    "CompletionRequest.resume.choices.index": Bounds(0, 0, "RESUME_CHOICE"),
    "CompletionRequest.resume.choices.token_ids": Bounds(*IDS, ANY_REASON),
    "CompletionRequest.resume.choices.text_byte_count": Bounds(0, INT32, "RESUME_TEXT"),
    "SessionOpen.priority": Bounds(0, 3, "ENUM_UNKNOWN"),
    "DetokenizeRequest.token_ids": Bounds(*IDS, ANY_REASON),
}
MESSAGES: dict[str, Any] = {
    "CompletionRequest": pb.CompletionRequest,
    "SessionOpen": pb.SessionOpen,
    "TokenizeRequest": pb.TokenizeRequest,
    "DetokenizeRequest": pb.DetokenizeRequest,
    "GetModelRequest": pb.GetModelRequest,
}


def numbers_of(descriptor: Any, path: str) -> Iterator[tuple[str, FieldDescriptor]]:
    """Every number at any depth; of a map its key and its value."""
    for field in descriptor.fields:
        name = f"{path}.{field.name}"
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from numbers_of(field.message_type, name)
        elif field.cpp_type not in NO_NUMBERS:
            yield name, field


FIELDS = {
    path: field
    for name, kind in MESSAGES.items()
    for path, field in numbers_of(kind.DESCRIPTOR, name)
}


def odd_values(field: FieldDescriptor, bounds: Bounds) -> list[float]:
    """Bounds and their neighbours, and what floats and integers have at their edges."""
    if field.cpp_type in REALS:
        edges = [math.nan, math.inf, -math.inf, 0.0, -0.0, SUBNORMAL, -SUBNORMAL]
        near = [math.nextafter(bounds.low, -math.inf), math.nextafter(bounds.high, math.inf)]
        return [*edges, *near, bounds.low, bounds.high, -1.0]
    widest = INT64 if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else INT32
    near_bounds = (bounds.low - 1, bounds.low, bounds.high, bounds.high + 1)
    values = {0, -1, widest, -widest - 1, *map(int, near_bounds)}
    return [value for value in sorted(values) if -widest - 1 <= value <= widest]


def put(message: Any, path: list[str], value: Any) -> None:
    """Sets the number at a path; a list gets one entry, a map one with a value that is fine."""
    for name in path[:-1]:
        following = getattr(message, name)
        if hasattr(following, "GetEntryClass"):
            following[value if path[-1] == "key" else 5] = value if path[-1] == "value" else 1.0
            return
        message = following.add() if hasattr(following, "add") else following
    if hasattr(getattr(message, path[-1]), "append"):
        getattr(message, path[-1]).append(value)
    else:
        setattr(message, path[-1], value)


def reasons(path: str, value: float) -> set[str]:
    """Why a request with this one number is refused."""
    name, *rest = path.split(".")
    message = MESSAGES[name]()
    if name == "CompletionRequest" and rest[0] not in ("infill", "token_ids"):
        message.text = "x"
    put(message, rest, value)
    if rest[0] == "infill":
        message.infill.prefix = "x"
    try:
        if name == "CompletionRequest":
            normalise(message, LIMITS, draw_seed=lambda: 1, draw_request_id=lambda: "drawn")
        elif name == "SessionOpen":
            check_session_open(message, LIMITS, SessionDefaults())
        else:
            check_detokenize(message, LIMITS)
    except InvalidRequest as error:
        return {violation.reason.value for violation in error.violations}
    return set()


def test_every_number_of_the_contract_has_bounds() -> None:
    assert FIELDS.keys() == NUMBERS.keys()


@pytest.mark.parametrize("path", FIELDS)
def test_a_number_is_allowed_within_its_bounds_and_refused_beyond(path: str) -> None:
    bounds = NUMBERS[path]
    for value in odd_values(FIELDS[path], bounds):
        found = reasons(path, value)
        if math.isfinite(value) and bounds.holds(value):
            assert found == set(), value
        else:
            assert found and (not bounds.reason or found == {bounds.reason}), value


def test_a_number_unset_is_never_refused() -> None:
    request = pb.CompletionRequest(text="x")
    normalise(request, LIMITS, draw_seed=lambda: 1, draw_request_id=lambda: "drawn")
    check_session_open(pb.SessionOpen(), LIMITS, SessionDefaults())
    check_detokenize(pb.DetokenizeRequest(), LIMITS)
