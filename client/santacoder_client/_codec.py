"""Between the SDK's types and the messages of `inference.proto`; pure, and knows no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import _bounds, _checks
from santacoder_client._options import OPTIONS, Option, check_options
from santacoder_client.errors import ServerError
from santacoder_client.types import (
    Accepted,
    CallerLimits,
    Choice,
    Completion,
    FimOrder,
    FinishReason,
    Infill,
    Limits,
    ModelInfo,
    Output,
    PositionLogprobs,
    Priority,
    Prompt,
    Sampling,
    SpecialToken,
    Stopping,
    Timings,
    TokenLogprob,
    TruncatePolicy,
    Usage,
)

MAX_SENT_BYTES = 4 * 1024 * 1024
"""Largest message that a server takes; its own refusal of a larger one could not say why."""
_ENVELOPE_BYTES = 32
"""More than the message around a completion takes."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Value = TypeVar("Value", bound=_Dataclass)
Sent = TypeVar("Sent", bound=Message)
Member = TypeVar("Member", bound=StrEnum)


class Call(NamedTuple):
    """A completion as sent."""

    completion: pb.CompletionRequest
    timeout_seconds: float | None


def encode_call(prompt: Prompt | Infill, options: Mapping[str, object]) -> Call:
    """The message of one completion, and the deadline that goes beside it.

    Raises:
        TypeError: an option that does not exist.
        InvalidRequest: a value that no message can carry, or that no server allows.
    """
    checked = check_options(options)
    completion = pb.CompletionRequest()
    _put_prompt(completion, prompt)
    for option in OPTIONS:
        if option.name in checked and _has_a_place(option, prompt):
            _put(completion, option, checked[option.name])
    timeout = checked.get("timeout")
    return Call(within_limit(completion), timeout if isinstance(timeout, float) else None)


def encode_session_open(options: Mapping[str, object]) -> pb.SessionOpen:
    """The first message of a session: its `priority` and `cache_salt`."""
    checked = check_options(options)
    opening = pb.SessionOpen()
    for option in OPTIONS:
        if option.name in checked:
            _put(opening, option, checked[option.name])
    return opening


def encode_tokenize(text: object) -> pb.TokenizeRequest:
    """Raises InvalidRequest if it is not text, or too much."""
    checked = _checks.text("text", text)
    _bounds.text_bytes("text", checked)
    return pb.TokenizeRequest(text=checked)


def encode_detokenize(token_ids: object) -> pb.DetokenizeRequest:
    """Raises InvalidRequest if they are not ids, or too many."""
    ids = _checks.token_ids("token_ids", token_ids)
    _bounds.detokenized("token_ids", ids)
    return pb.DetokenizeRequest(token_ids=ids)


def check_timeout(timeout: object) -> float | None:
    """Seconds, or None for no deadline of the client's. Raises InvalidRequest for anything else."""
    return None if timeout is None else _checks.seconds("timeout", timeout)


def within_limit(message: Sent) -> Sent:
    """The message itself. Raises InvalidRequest if no server would take it."""
    size = message.ByteSize() + _ENVELOPE_BYTES
    if size > MAX_SENT_BYTES:
        limit = f"at most {MAX_SENT_BYTES} bytes"
        _checks.refuse("request", "too large", f"{size} bytes", limit, "MESSAGE_TOO_LARGE")
    return message


def decode_completion(response: pb.CompleteResponse) -> Completion:
    """A whole answer."""
    return Completion(
        choices=tuple(_choice(choice) for choice in response.choices),
        usage=decode_usage(response.usage),
        timings=decode_timings(response.timings),
        accepted=decode_accepted(response.accepted),
    )


def decode_accepted(message: pb.Accepted) -> Accepted:
    """The values in force."""
    return _copy(
        Accepted,
        message,
        sampling=_sampling(message.sampling),
        stopping=_copy(Stopping, message.stopping, stop=tuple(message.stopping.stop)),
        output=_copy(Output, message.output),
        priority=_member(Priority, pb.Priority, message.priority) or Priority.NORMAL,
        fim_order=_member(FimOrder, pb.FimOrder, message.fim_order),
        queue_seconds=_seconds(message.queue_duration),
    )


def decode_usage(message: pb.Usage) -> Usage:
    """Token counts."""
    return _copy(Usage, message)


def decode_timings(message: pb.Timings) -> Timings:
    """Times, in seconds."""
    return Timings(
        queue_seconds=_seconds(message.queue_duration),
        first_token_seconds=_seconds(message.first_token_duration),
        total_seconds=_seconds(message.total_duration),
    )


def decode_finish_reason(number: int) -> FinishReason:
    """Raises ServerError for a reason that this client has not heard of, or none."""
    reason = _member(FinishReason, pb.FinishReason, number)
    if reason is None:
        raise ServerError("the server gave no finish reason")
    return reason


def decode_logprobs(messages: Iterable[pb.PositionLogprobs]) -> tuple[PositionLogprobs, ...]:
    """Log probabilities, one entry a token id."""
    return tuple(
        PositionLogprobs(
            chosen=_copy(TokenLogprob, message.chosen),
            top=tuple(_copy(TokenLogprob, token) for token in message.top),
        )
        for message in messages
    )


def decode_model(message: pb.GetModelResponse) -> ModelInfo:
    """What is served."""
    return _copy(
        ModelInfo,
        message,
        special_tokens=tuple(_copy(SpecialToken, token) for token in message.special_tokens),
        limits=_copy(Limits, message.limits),
        default_sampling=_sampling(message.default_sampling),
        caller_limits=_copy(
            CallerLimits,
            message.caller_limits,
            priority=_member(Priority, pb.Priority, message.caller_limits.priority),
        ),
    )


def optional(message: Message, name: str) -> Any:
    """A field's value; None where it has presence and is not set, a list where it repeats."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _put_prompt(completion: pb.CompletionRequest, prompt: Prompt | Infill) -> None:
    if isinstance(prompt, Infill):
        completion.infill.prefix = _checks.text("infill.prefix", prompt.prefix)
        completion.infill.suffix = _checks.text("infill.suffix", prompt.suffix)
        _bounds.infill("infill", prompt.prefix, prompt.suffix)
    elif isinstance(prompt, str):
        completion.text = _checks.text("text", prompt)
        _bounds.prompt_text("text", prompt)
    else:
        items = _checks.items("prompt", prompt, "a str or a list of token ids")
        ids = _checks.token_ids("token_ids.ids", items)
        _bounds.prompt_ids("token_ids.ids", ids)
        completion.token_ids.ids.extend(ids)


def _has_a_place(option: Option, prompt: Prompt | Infill) -> bool:
    """`timeout` goes beside the message; `fim_order` says nothing where there is no middle."""
    return option.name != "timeout" and (option.group != "infill" or isinstance(prompt, Infill))


def _put(message: Message, option: Option, value: object) -> None:
    """Sets one field, by the shape of its value."""
    target = getattr(message, option.group) if option.group else message
    name = option.field_name or option.name
    match value:
        case FimOrder():
            setattr(target, name, pb.FimOrder.Value(f"FIM_ORDER_{value.name}"))
        case TruncatePolicy():
            setattr(target, name, pb.TruncatePolicy.Value(f"TRUNCATE_POLICY_{value.name}"))
        case Priority():
            setattr(target, name, pb.Priority.Value(f"PRIORITY_{value.name}"))
        case list():
            getattr(target, name).extend(value)
        case dict():
            getattr(target, name).update(value)
        case float() if name == "time_budget":
            getattr(target, name).FromNanoseconds(round(value * 1e9))
        case _:
            setattr(target, name, value)


def _copy(kind: type[Value], message: Message, **rest: object) -> Value:
    """A dataclass from the message's fields of the same names; `rest` holds the other ones."""
    names = (field.name for field in fields(kind) if field.name not in rest)
    return kind(**{name: optional(message, name) for name in names}, **rest)


def _sampling(message: pb.Sampling) -> Sampling:
    return _copy(Sampling, message, logit_bias=dict(message.logit_bias))


def _choice(message: pb.Choice) -> Choice:
    return _copy(
        Choice,
        message,
        finish_reason=decode_finish_reason(message.finish_reason),
        logprobs=decode_logprobs(message.logprobs),
    )


def _member(kind: type[Member], wrapper: Any, number: int) -> Member | None:
    """The SDK's member for a message's; None for unspecified, ServerError for an unheard-of one."""
    if number == 0:
        return None
    known = wrapper.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        enum = wrapper.DESCRIPTOR.name
        raise ServerError(f"the server sent {enum} {number}, which this client is too old to know")
    prefix = wrapper.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return kind[known.name.removeprefix(prefix)]


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
