"""First stage of a request: every field checked, every default filled in. Pure.

Knows the contract of inference.proto and the limits. Refuses to know tokenizers, time and the
scheduler's state; what depends on the number of prompt tokens is in `resolution.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from santacoder.inference.v1 import inference_pb2
from santacoder_router import generation_checks
from santacoder_router.core.plan import Priority, SamplingParameters
from santacoder_router.errors import InvalidRequest, Reason, Unsupported, Violation
from santacoder_router.field_checks import FieldChecks
from santacoder_router.limits import Limits
from santacoder_router.prompt_checks import check_prompt
from santacoder_router.resume_checks import Resume, check_resume
from santacoder_router.text.prompt import InfillPrompt, Prompt

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
NANOSECONDS = 1_000_000_000
# The numbers of the enums, read once: the library builds a list at each look.
TRUNCATE_POLICIES = frozenset(inference_pb2.TruncatePolicy.values())
PRIORITIES = frozenset(inference_pb2.Priority.values())


@dataclass(frozen=True, slots=True)
class SessionDefaults:
    """What holds for a request that says nothing else: its caller's, or its session's."""

    priority: Priority = Priority.NORMAL
    cache_salt: bytes = b""


class ValidRequest(NamedTuple):
    """A request within every bound that can be checked before tokenizing.

    All defaults are filled in but that of `max_new_tokens`, which needs the prompt's length.
    `logit_bias` is in order of id. `keep_nearest` allows a prompt that is too long to be cut.
    """

    request_id: str
    prompt: Prompt
    keep_nearest: bool
    sampling: SamplingParameters
    logit_bias: tuple[tuple[int, float], ...]
    max_new_tokens: int | None
    min_new_tokens: int
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    ignore_eos: bool
    logprob_count: int | None
    echo: bool
    completion_count: int
    priority: Priority
    cache_salt: bytes
    time_budget_seconds: float | None
    resume: Resume | None = None
    is_id_drawn: bool = False
    """Whether the caller left the id to the server."""


def normalise(
    request: inference_pb2.CompletionRequest,
    limits: Limits,
    *,
    draw_seed: Callable[[], int],
    draw_request_id: Callable[[], str],
    defaults: SessionDefaults | None = None,
) -> ValidRequest:
    """Check a request and fill in its defaults.

    `draw_seed` gives 0 to 2^63 - 1 and `draw_request_id` a valid id, where the request has none.
    Raises InvalidRequest with every violation, or Unsupported for an infill prompt that is right
    in itself but not served here.
    """
    checks = FieldChecks()
    defaults = defaults or SessionDefaults()
    sampling, stopping, output = request.sampling, request.stopping, request.output
    keep_nearest = _keep_nearest(checks, request)
    completion_count = _completion_count(checks, request, limits)
    valid = ValidRequest(
        request_id=_request_id(checks, request, draw_request_id),
        prompt=check_prompt(checks, request, limits, keep_nearest),
        keep_nearest=keep_nearest,
        sampling=generation_checks.check_sampling(checks, request, draw_seed),
        logit_bias=generation_checks.check_logit_bias(checks, sampling, limits),
        max_new_tokens=generation_checks.check_max_new_tokens(checks, stopping, limits),
        min_new_tokens=generation_checks.check_min_new_tokens(checks, stopping, limits),
        stop=generation_checks.check_stop(checks, stopping, limits),
        stop_token_ids=generation_checks.check_stop_token_ids(checks, stopping, limits),
        ignore_eos=stopping.ignore_eos,
        logprob_count=_logprob_count(checks, output, limits),
        echo=output.echo,
        completion_count=completion_count,
        priority=_priority(checks, request, defaults.priority),
        cache_salt=_cache_salt(checks, request, limits, defaults.cache_salt),
        time_budget_seconds=_time_budget_seconds(checks, request, limits),
        resume=check_resume(checks, request, limits, completion_count),
        is_id_drawn=not request.HasField("request_id"),
    )
    checks.raise_if_any()
    _require_support(valid.prompt, limits)
    return valid


def check_session_open(
    message: inference_pb2.SessionOpen, limits: Limits, standing: SessionDefaults
) -> SessionDefaults:
    """What a session sets for its turns. Raises InvalidRequest with every violation.

    `standing` holds for one that says nothing.
    """
    checks = FieldChecks()
    defaults = SessionDefaults(
        priority=_priority(checks, message, standing.priority),
        cache_salt=_cache_salt(checks, message, limits, standing.cache_salt),
    )
    checks.raise_if_any()
    return defaults


def malformed(message_type: str, byte_count: int) -> InvalidRequest:
    """The error for bytes that are no message of the type a method takes."""
    what, got, allowed = "cannot be parsed", f"{byte_count} bytes", f"a {message_type}"
    return InvalidRequest(
        [Violation("request", Reason.MALFORMED_REQUEST, what, got, allowed)],
    )


def _require_support(prompt: Prompt, limits: Limits) -> None:
    if isinstance(prompt, InfillPrompt) and not limits.infill_supported:
        raise Unsupported(
            Reason.FIM_UNSUPPORTED,
            "infill: fill-in-the-middle is not served here; got infill; allowed text or token_ids",
        )


def _request_id(
    checks: FieldChecks, request: inference_pb2.CompletionRequest, draw: Callable[[], str]
) -> str:
    if not request.HasField("request_id"):
        return draw()
    request_id = request.request_id
    if REQUEST_ID_PATTERN.fullmatch(request_id) is None:
        allowed = REQUEST_ID_PATTERN.pattern
        checks.refuse("request_id", Reason.REQUEST_ID, "not a valid id", request_id, allowed)
    return request_id


def _keep_nearest(checks: FieldChecks, request: inference_pb2.CompletionRequest) -> bool:
    checks.known("truncate", request.truncate, TRUNCATE_POLICIES)
    return request.truncate == inference_pb2.TRUNCATE_POLICY_KEEP_NEAREST


def _logprob_count(
    checks: FieldChecks, message: inference_pb2.Output, limits: Limits
) -> int | None:
    if not message.HasField("logprobs"):
        return None
    path, reason = "output.logprobs", Reason.TOP_N_RANGE
    return checks.integer(path, message.logprobs, 0, limits.logprobs, reason)


def _completion_count(
    checks: FieldChecks, request: inference_pb2.CompletionRequest, limits: Limits
) -> int:
    if not request.HasField("completion_count"):
        return 1
    path, reason = "completion_count", Reason.COUNT_RANGE
    return checks.integer(path, request.completion_count, 1, limits.completion_count, reason)


def _priority(
    checks: FieldChecks,
    message: inference_pb2.CompletionRequest | inference_pb2.SessionOpen,
    default: Priority,
) -> Priority:
    known = checks.known("priority", message.priority, PRIORITIES)
    return Priority(message.priority) if known and message.priority else default


def _cache_salt(
    checks: FieldChecks,
    message: inference_pb2.CompletionRequest | inference_pb2.SessionOpen,
    limits: Limits,
    default: bytes,
) -> bytes:
    if not message.HasField("cache_salt"):
        return default
    count, high = len(message.cache_salt), limits.cache_salt_byte_count
    checks.count("cache_salt", count, high, Reason.CACHE_SALT, "bytes")
    return message.cache_salt


def _time_budget_seconds(
    checks: FieldChecks, request: inference_pb2.CompletionRequest, limits: Limits
) -> float | None:
    if not request.HasField("time_budget"):
        return None
    budget = request.time_budget
    seconds = budget.seconds + budget.nanos / NANOSECONDS
    low, high = limits.min_time_budget_seconds, limits.max_time_budget_seconds
    if not (0 <= budget.nanos < NANOSECONDS and low <= seconds <= high):
        allowed = f"{low:g} s..{high:g} s"
        got = f"{budget.seconds} s and {budget.nanos} ns"
        checks.refuse("time_budget", Reason.DURATION_RANGE, "out of range", got, allowed)
    return seconds
