"""Second stage of a request: its prompt as ids, checked against the context. Pure.

Decides the prompt to run and how many tokens it may make; says so in the scheduler's terms and in
those of the wire. Refuses to know text, clocks and queues.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from santacoder.inference.v1 import inference_pb2
from santacoder_router.caller import tenant_key
from santacoder_router.core import plan
from santacoder_router.errors import InvalidRequest, Reason, Violation
from santacoder_router.limits import Limits
from santacoder_router.text.fim import Sentinels, lay_out, sentinel_count
from santacoder_router.text.prompt import PromptIds
from santacoder_router.text.truncation import Cut, keep_nearest
from santacoder_router.validation import ValidRequest


class ResolvedRequest(NamedTuple):
    """A request that fits. `fim_order` is 0 for a prompt that is no infill, else as on the wire."""

    valid: ValidRequest
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    fim_order: int
    dropped_prefix_token_count: int
    dropped_suffix_token_count: int

    @property
    def content(self) -> int:
        """Stands for what is asked: equal where the same is, whether begun anew or resumed."""
        valid = self.valid
        return hash(
            (
                self.prompt_ids,
                self.max_new_tokens,
                # One that was drawn is told, and comes back with what is resumed.
                replace(valid.sampling, seed=0),
                valid.logit_bias,
                valid.min_new_tokens,
                valid.stop,
                valid.stop_token_ids,
                valid.ignore_eos,
                valid.logprob_count,
                valid.echo,
                valid.completion_count,
            )
        )


def resolve(
    valid: ValidRequest, prompt: PromptIds, limits: Limits, sentinels: Sentinels | None
) -> ResolvedRequest:
    """Fit prompt and new tokens into the context.

    A prompt that does not fit is refused, or cut if the request allows it. Raises InvalidRequest.
    """
    max_new_tokens = _max_new_tokens(valid, prompt, limits)
    if valid.min_new_tokens > max_new_tokens:
        path, reason = "stopping.min_new_tokens", Reason.MIN_NEW_TOKENS_RANGE
        got, allowed = valid.min_new_tokens, f"0..{max_new_tokens}"
        raise InvalidRequest([Violation(path, reason, "above max_new_tokens", got, allowed)])
    cut = _fit(valid, prompt, max_new_tokens, limits)
    return ResolvedRequest(
        valid=valid,
        prompt_ids=lay_out(cut.prompt, sentinels),
        max_new_tokens=max_new_tokens,
        fim_order=prompt.order or 0,
        dropped_prefix_token_count=cut.dropped_prefix_count,
        dropped_suffix_token_count=cut.dropped_suffix_count,
    )


def core_request(
    resolved: ResolvedRequest,
    *,
    request_id: int,
    sample_index: int,
    arrival: float,
    deadline: float | None,
    output_ids: tuple[int, ...] = (),
    caller: plan.Caller = plan.ANYBODY,
) -> plan.Request:
    """One of the request's choices as the scheduler takes it. Times are seconds of its clock.

    `output_ids` are what the choice has said already.
    """
    valid = resolved.valid
    budget = valid.time_budget_seconds
    return plan.Request(
        request_id=request_id,
        prompt_ids=resolved.prompt_ids,
        max_new_tokens=resolved.max_new_tokens,
        min_new_tokens=valid.min_new_tokens,
        sampling=_sampling_of(valid, sample_index),
        ignore_eos=valid.ignore_eos,
        stop_ids=valid.stop_token_ids,
        logit_bias=valid.logit_bias,
        logprob_count=valid.logprob_count,
        priority=valid.priority,
        deadline=deadline,
        time_budget_end=None if budget is None else arrival + budget,
        cache_key=tenant_key(valid.cache_salt),
        output_ids=output_ids,
        caller=caller,
    )


def _sampling_of(valid: ValidRequest, index: int) -> plan.SamplingParameters:
    return replace(valid.sampling, sample_index=index) if index else valid.sampling


def put_accepted(resolved: ResolvedRequest, message: inference_pb2.Accepted) -> None:
    """The values in force. Cached count, queue time and revision are for the caller to add."""
    # Filled in place: a message that is handed to another's constructor is copied.
    valid = resolved.valid
    message.request_id = valid.request_id
    message.completion_count = valid.completion_count
    message.priority = inference_pb2.Priority.ValueType(valid.priority)
    message.fim_order = inference_pb2.FimOrder.ValueType(resolved.fim_order)
    message.prompt_token_count = len(resolved.prompt_ids)
    put_sampling(valid.sampling, message.sampling)
    if valid.logit_bias:
        message.sampling.logit_bias.update(valid.logit_bias)
    stopping = message.stopping
    stopping.max_new_tokens = resolved.max_new_tokens
    stopping.min_new_tokens = valid.min_new_tokens
    stopping.stop.extend(valid.stop)
    stopping.stop_token_ids.extend(valid.stop_token_ids)
    stopping.ignore_eos = valid.ignore_eos
    message.output.echo = valid.echo
    if valid.logprob_count is not None:
        message.output.logprobs = valid.logprob_count
    if valid.resume is not None:
        message.resumed_token_count = valid.resume.token_count


def put_sampling(sampling: plan.SamplingParameters, message: inference_pb2.Sampling) -> None:
    """Sampling as on the wire, without biases."""
    message.temperature = sampling.temperature
    message.top_k = sampling.top_k
    message.top_p = sampling.top_p
    message.min_p = sampling.min_p
    message.typical_p = sampling.typical_p
    message.repetition_penalty = sampling.repetition_penalty
    message.presence_penalty = sampling.presence_penalty
    message.frequency_penalty = sampling.frequency_penalty
    message.seed = sampling.seed


def _room(prompt: PromptIds, limits: Limits) -> int:
    """Positions that the whole prompt leaves for new tokens; negative if it does not fit."""
    taken = len(prompt.prefix) + len(prompt.suffix) + sentinel_count(prompt.order)
    return limits.context_token_count - taken


def _max_new_tokens(valid: ValidRequest, prompt: PromptIds, limits: Limits) -> int:
    if valid.max_new_tokens is not None:
        return valid.max_new_tokens
    room = _room(prompt, limits)
    if room >= 1:
        return min(limits.default_max_new_tokens, room)
    if not valid.keep_nearest:
        raise _too_long(prompt, 1, limits)
    # The prompt will be cut in any case, so the answer gets its usual length; never over half.
    return min(limits.default_max_new_tokens, limits.context_token_count // 2)


def _fit(valid: ValidRequest, prompt: PromptIds, max_new_tokens: int, limits: Limits) -> Cut:
    if max_new_tokens <= _room(prompt, limits):
        return Cut(prompt, 0, 0)
    kept_count = limits.context_token_count - max_new_tokens - sentinel_count(prompt.order)
    if not valid.keep_nearest or kept_count < 1:
        raise _too_long(prompt, max_new_tokens, limits)
    return keep_nearest(prompt, kept_count)


def _too_long(prompt: PromptIds, max_new_tokens: int, limits: Limits) -> InvalidRequest:
    context = limits.context_token_count
    count = context - _room(prompt, limits)
    metadata = {
        "prompt_token_count": count,
        "max_new_tokens": max_new_tokens,
        "context_token_count": context,
    }
    got = f"{count} prompt tokens and max_new_tokens {max_new_tokens}"
    what, allowed = "too long for the context", f"at most {context} together"
    violation = Violation("prompt", Reason.CONTEXT_LENGTH, what, got, allowed, metadata=metadata)
    return InvalidRequest([violation])
