"""What the fake router says: scripted answers as messages. Pure; knows no server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.errors import Violation
from santacoder_client.types import FinishReason

CANCELLED = pb.CompletionEvent(
    choice_finished=pb.ChoiceFinished(reason=pb.FINISH_REASON_CANCELLED),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an answer fails."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "scripted failure"
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None
    request_id: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer."""

    pieces: tuple[str, ...] = ("ok",)
    finish_reason: FinishReason = FinishReason.LENGTH
    matched_stop: str | None = None
    matched_token_id: int | None = None
    seconds_per_piece: float = 0.0
    """Wait before each piece; a cancel ends it."""
    failure: Failure | None = None
    """Fails after the pieces; without pieces, before anything is answered."""


def events(request: pb.CompletionRequest, answer: Answer) -> Iterator[pb.CompletionEvent]:
    """The events of an answer, in order; those before its failure, if it fails."""
    if answer.failure and not answer.pieces:
        return
    in_force = accepted(request)
    yield pb.CompletionEvent(accepted=in_force)
    choices = range(in_force.completion_count)
    for delta in _deltas(request, answer, choices):
        yield pb.CompletionEvent(delta=delta)
    if answer.failure:
        return
    told = {choice.index for choice in request.resume.choices if choice.finished}
    for index in choices:
        if index not in told:
            yield pb.CompletionEvent(choice_finished=_choice_finished(index, answer))
    completion_count = len(choices) * sum(map(len, answer.pieces))
    yield pb.CompletionEvent(
        finished=pb.Finished(
            usage=pb.Usage(
                prompt_token_count=in_force.prompt_token_count,
                cached_token_count=in_force.cached_token_count,
                completion_token_count=completion_count,
            ),
            timings=pb.Timings(
                queue_duration=Duration(nanos=1_000_000),
                first_token_duration=Duration(nanos=2_000_000),
                total_duration=Duration(nanos=3_000_000),
            ),
        )
    )


def whole(parts: Iterable[pb.CompletionEvent]) -> pb.CompleteResponse:
    """The unary answer that says the same as these events."""
    response = pb.CompleteResponse()
    choices: dict[int, pb.Choice] = {}
    for event in parts:
        if event.HasField("accepted"):
            response.accepted.CopyFrom(event.accepted)
        elif event.HasField("delta"):
            choice = choices.setdefault(event.delta.index, pb.Choice(index=event.delta.index))
            choice.text += event.delta.text
            choice.token_ids.extend(event.delta.token_ids)
            choice.logprobs.extend(event.delta.logprobs)
        elif event.HasField("choice_finished"):
            ended = event.choice_finished
            choice = choices.setdefault(ended.index, pb.Choice(index=ended.index))
            choice.finish_reason = ended.reason
            if ended.HasField("matched_stop"):
                choice.matched_stop = ended.matched_stop
            if ended.HasField("matched_token_id"):
                choice.matched_token_id = ended.matched_token_id
        else:
            response.usage.CopyFrom(event.finished.usage)
            response.timings.CopyFrom(event.finished.timings)
    response.choices.extend(choices[index] for index in sorted(choices))
    return response


def accepted(request: pb.CompletionRequest) -> pb.Accepted:
    """The request's values, and defaults where it has none."""
    default_order = pb.FIM_ORDER_PSM if request.HasField("infill") else pb.FIM_ORDER_UNSPECIFIED
    in_force = pb.Accepted(
        request_id=request.request_id or "fake-1",
        sampling=_default_sampling(),
        stopping=pb.Stopping(max_new_tokens=128, min_new_tokens=0, ignore_eos=False),
        output=pb.Output(echo=False),
        completion_count=request.completion_count or 1,
        priority=request.priority or pb.PRIORITY_NORMAL,
        fim_order=request.infill.order or default_order,
        prompt_token_count=len(request.token_ids.ids) or len(_prompt_text(request)),
        queue_duration=Duration(nanos=1_000_000),
        model_revision="fake",
    )
    in_force.sampling.seed = 0
    in_force.sampling.MergeFrom(request.sampling)
    in_force.stopping.MergeFrom(request.stopping)
    in_force.output.MergeFrom(request.output)
    if request.HasField("resume"):
        resumed = request.resume.choices
        in_force.resumed_token_count = sum(len(choice.token_ids) for choice in resumed)
    return in_force


def model() -> pb.GetModelResponse:
    """A model with the original's limits."""
    return pb.GetModelResponse(
        name="fake",
        revision="fake",
        layer_count=1,
        head_count=1,
        kv_head_count=1,
        embedding_size=1,
        vocabulary_size=0x110000,
        token_count=0x110000,
        dtype="none",
        tensor_parallel_size=1,
        infill_supported=True,
        special_tokens=[pb.SpecialToken(text="<|endoftext|>", token_id=0)],
        limits=pb.Limits(
            context_token_count=2048, prompt_token_count=2047, default_max_new_tokens=128
        ),
        default_sampling=_default_sampling(),
    )


def status(failure: Failure) -> status_pb2.Status:
    """The failure as a server tells it."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=failure.reason, domain="santacoder", metadata=dict(failure.metadata)
        ),
        error_details_pb2.RequestInfo(request_id=failure.request_id),
    ]
    if failure.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(
                field=violation.field,
                description=violation.description,
                reason=violation.reason or "",
            )
            for violation in failure.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if failure.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(failure.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=failure.code.value[0], message=failure.message, details=packed)


def token_ids(text: str) -> list[int]:
    """A character is a token, and its code point is its id."""
    return [ord(character) for character in text]


def _default_sampling() -> pb.Sampling:
    return pb.Sampling(
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        typical_p=1.0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
    )


def _prompt_text(request: pb.CompletionRequest) -> str:
    return request.text or request.infill.prefix + request.infill.suffix


def _deltas(
    request: pb.CompletionRequest, answer: Answer, choices: Iterable[int]
) -> Iterator[pb.Delta]:
    """All pieces but those, or the parts of them, that the request has already."""
    received = {choice.index: len(choice.token_ids) for choice in request.resume.choices}
    prompt = _prompt_text(request) if request.output.echo else ""
    echoes = {index: "" if index in received else prompt for index in choices}
    for text in answer.pieces:
        for index in choices:
            count = min(len(text), received.get(index, 0))
            if count:
                received[index] -= count
            if not count or count < len(text):
                delta = _delta(index, text[count:], request.output)
                delta.text = echoes[index] + delta.text
                echoes[index] = ""
                yield delta


def _delta(index: int, text: str, output: pb.Output) -> pb.Delta:
    delta = pb.Delta(index=index, text=text, token_ids=token_ids(text))
    if output.HasField("logprobs"):
        for token_id in delta.token_ids:
            likeliest = [
                pb.TokenLogprob(token_id=token_id + rank, text=chr(token_id + rank), logprob=-rank)
                for rank in range(max(output.logprobs, 1))
            ]
            top = likeliest[: output.logprobs]
            delta.logprobs.append(pb.PositionLogprobs(chosen=likeliest[0], top=top))
    return delta


def _choice_finished(index: int, answer: Answer) -> pb.ChoiceFinished:
    return pb.ChoiceFinished(
        index=index,
        reason=pb.FinishReason.Value(f"FINISH_REASON_{answer.finish_reason.name}"),
        matched_stop=answer.matched_stop,
        matched_token_id=answer.matched_token_id,
    )
