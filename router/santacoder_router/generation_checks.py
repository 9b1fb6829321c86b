"""Checks of how tokens are chosen and when to stop, with the defaults filled in. Pure.

Bounds that are the contract's own stand here; those that a server may set are in `limits.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import SamplingParameters
from santacoder_router.errors import Reason
from santacoder_router.field_checks import FieldChecks, NumberRange
from santacoder_router.limits import Limits

MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 5.0
MAX_TOP_K = 1000
MAX_SEED = 2**63 - 1
MAX_LOGIT_BIAS = 100.0
ALLOWED_TEMPERATURE = f"0 or {MIN_TEMPERATURE:g}..{MAX_TEMPERATURE:g}"
LOGIT_BIAS_RANGE = NumberRange(-MAX_LOGIT_BIAS, MAX_LOGIT_BIAS, Reason.LOGIT_BIAS_RANGE)

SAMPLING_RANGES = MappingProxyType(
    {
        "top_p": NumberRange(0.0, 1.0, Reason.TOP_P_RANGE, above_low=True),
        "min_p": NumberRange(0.0, 1.0, Reason.MIN_P_RANGE),
        "typical_p": NumberRange(0.0, 1.0, Reason.TYPICAL_P_RANGE, above_low=True),
        "repetition_penalty": NumberRange(0.1, 10.0, Reason.REPETITION_PENALTY_RANGE),
        "presence_penalty": NumberRange(-2.0, 2.0, Reason.PRESENCE_PENALTY_RANGE),
        "frequency_penalty": NumberRange(-2.0, 2.0, Reason.FREQUENCY_PENALTY_RANGE),
    }
)


def check_sampling(
    checks: FieldChecks, request: inference_pb2.CompletionRequest, draw_seed: Callable[[], int]
) -> SamplingParameters:
    """Every sampling option but the biases. `draw_seed` is called where there is no seed."""
    if not request.HasField("sampling"):
        return SamplingParameters(seed=draw_seed())
    message = request.sampling

    def number(name: str, value: float) -> float:
        return checks.number(f"sampling.{name}", value, SAMPLING_RANGES[name])

    # Where the default is not 0, an unset field must not be read: it would give 0.
    has = message.HasField
    seed = message.seed if has("seed") else draw_seed()
    return SamplingParameters(
        temperature=_temperature(checks, message.temperature),
        top_k=checks.integer("sampling.top_k", message.top_k, 0, MAX_TOP_K, Reason.TOP_K_RANGE),
        top_p=number("top_p", message.top_p if has("top_p") else 1.0),
        min_p=number("min_p", message.min_p),
        typical_p=number("typical_p", message.typical_p if has("typical_p") else 1.0),
        repetition_penalty=number(
            "repetition_penalty",
            message.repetition_penalty if has("repetition_penalty") else 1.0,
        ),
        presence_penalty=number("presence_penalty", message.presence_penalty),
        frequency_penalty=number("frequency_penalty", message.frequency_penalty),
        seed=checks.integer("sampling.seed", seed, 0, MAX_SEED, Reason.SEED_RANGE),
    )


def check_logit_bias(
    checks: FieldChecks, message: inference_pb2.Sampling, limits: Limits
) -> tuple[tuple[int, float], ...]:
    """The biases in order of id."""
    path, biases = "sampling.logit_bias", message.logit_bias
    if not biases:
        return ()
    high = limits.logit_bias_count
    if not checks.count(path, len(biases), high, Reason.TOKEN_ID_LIST, "entries"):
        return ()
    ordered = tuple(sorted(biases.items()))
    for token_id, bias in ordered:
        if not 0 <= token_id < limits.token_count:
            allowed = f"0..{limits.token_count - 1}"
            checks.refuse(path, Reason.TOKEN_ID_LIST, "no such token id", token_id, allowed)
        checks.number(f"{path}[{token_id}]", bias, LOGIT_BIAS_RANGE)
    if len(ordered) >= limits.token_count and max(biases.values()) == -MAX_LOGIT_BIAS:
        got, allowed = f"{len(ordered)} banned ids", f"at most {limits.token_count - 1}"
        checks.refuse(path, Reason.EMPTY_DISTRIBUTION, "bans every token", got, allowed)
    return tuple((token_id, bias + 0.0) for token_id, bias in ordered)


def check_max_new_tokens(
    checks: FieldChecks, message: inference_pb2.Stopping, limits: Limits
) -> int | None:
    """None where the request leaves it to the room there is."""
    if not message.HasField("max_new_tokens"):
        return None
    path, reason = "stopping.max_new_tokens", Reason.MAX_NEW_TOKENS_RANGE
    return checks.integer(path, message.max_new_tokens, 1, limits.prompt_token_count, reason)


def check_min_new_tokens(
    checks: FieldChecks, message: inference_pb2.Stopping, limits: Limits
) -> int:
    """At most `max_new_tokens`, where that is set; `resolution.py` looks again where it is not."""
    path, reason = "stopping.min_new_tokens", Reason.MIN_NEW_TOKENS_RANGE
    high = limits.prompt_token_count
    if 1 <= message.max_new_tokens < high:
        high = message.max_new_tokens
    return checks.integer(path, message.min_new_tokens, 0, high, reason)


def check_stop(
    checks: FieldChecks, message: inference_pb2.Stopping, limits: Limits
) -> tuple[str, ...]:
    """The stop strings, each once."""
    if not message.stop:
        return ()
    path, reason = "stopping.stop", Reason.STOP_LIST
    if not checks.count(path, len(message.stop), limits.stop_string_count, reason, "stop strings"):
        return ()
    high = limits.stop_string_byte_count
    for place, text in enumerate(message.stop):
        count = len(text.encode())
        if not 1 <= count <= high:
            what = "too long" if count else "empty"
            allowed = f"1..{high} bytes"
            checks.refuse(f"{path}[{place}]", reason, what, f"{count} bytes", allowed)
    return tuple(dict.fromkeys(message.stop))


def check_stop_token_ids(
    checks: FieldChecks, message: inference_pb2.Stopping, limits: Limits
) -> tuple[int, ...]:
    """The stop ids, each once."""
    if not message.stop_token_ids:
        return ()
    path, reason, ids = "stopping.stop_token_ids", Reason.TOKEN_ID_LIST, message.stop_token_ids
    if not checks.count(path, len(ids), limits.stop_token_id_count, reason, "ids"):
        return ()
    valid = checks.token_ids(path, ids, limits.token_count, limits.vocabulary_size, reason)
    return tuple(dict.fromkeys(valid))


def _temperature(checks: FieldChecks, value: float) -> float:
    path, reason = "sampling.temperature", Reason.TEMPERATURE_RANGE
    allowed = ALLOWED_TEMPERATURE
    if not math.isfinite(value):
        checks.refuse(path, reason, "not a finite number", value, allowed)
    elif 0.0 < value < MIN_TEMPERATURE:
        checks.refuse(path, reason, "out of range", value, allowed, "Use 0 for greedy")
    elif not 0.0 <= value <= MAX_TEMPERATURE:
        checks.refuse(path, reason, "out of range", value, allowed)
    return value + 0.0
