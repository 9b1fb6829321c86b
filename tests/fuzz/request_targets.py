"""The public contract: bytes to a message, to a valid request, to what the scheduler takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from fuzz.messages import messages
from fuzz.mutations import Make, either, mutated, noise
from fuzz.target import Target
from google.protobuf.message import Message

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.errors import Reason, RouterError
from santacoder_router.handlers import parse
from santacoder_router.limits import Limits
from santacoder_router.prompt_checks import check_detokenize, check_tokenize
from santacoder_router.resolution import core_request, put_accepted, resolve
from santacoder_router.text.fim import Sentinels
from santacoder_router.text.prompt import InfillPrompt, Prompt, PromptIds, TextPrompt
from santacoder_router.validation import SessionDefaults, check_session_open, normalise

LIMITS = Limits(
    context_token_count=2048, token_count=49_157, vocabulary_size=49_280, infill_supported=True
)
SENTINELS = Sentinels(prefix=49_153, middle=49_154, suffix=49_155)
MOST_ERROR_BYTES = 4096 + 1024

Check = Callable[[Any], object]


def complete(message: pb.CompletionRequest) -> None:
    """As far as a request goes before it waits for its turn; a text's bytes stand for its ids."""
    valid = normalise(message, LIMITS, draw_seed=lambda: 1, draw_request_id=lambda: "drawn")
    resolved = resolve(valid, _ids_of(valid.prompt), LIMITS, SENTINELS)
    request = core_request(resolved, request_id=1, sample_index=1, arrival=0.0, deadline=1.0)
    if not 1 <= request.max_new_tokens <= LIMITS.context_token_count - len(request.prompt_ids):
        raise AssertionError("a request that does not fit was let through")
    put_accepted(resolved, pb.Accepted())


def _ids_of(prompt: Prompt) -> PromptIds:
    if isinstance(prompt, TextPrompt):
        return PromptIds(tuple(prompt.text.encode()))
    if isinstance(prompt, InfillPrompt):
        return PromptIds(tuple(prompt.prefix.encode()), tuple(prompt.suffix.encode()), prompt.order)
    return PromptIds(prompt.token_ids)


def turn(message: pb.CompletionSessionRequest) -> None:
    """One message of a session."""
    if message.WhichOneof("action") == "open":
        check_session_open(message.open, LIMITS, SessionDefaults())
    else:
        complete(message.completion)


CHECKS: dict[type[Message], Check] = {
    pb.CompleteRequest: lambda message: complete(message.completion),
    pb.StreamCompleteRequest: lambda message: complete(message.completion),
    pb.CompletionSessionRequest: turn,
    pb.TokenizeRequest: lambda message: check_tokenize(message, LIMITS),
    pb.DetokenizeRequest: lambda message: check_detokenize(message, LIMITS),
    # Asks nothing, so that nothing can be wrong.
    pb.GetModelRequest: lambda _message: None,
}
SEEDS = tuple(
    pb.CompleteRequest(
        completion=pb.CompletionRequest(
            text="def f(x):",
            request_id="r-1",
            sampling=pb.Sampling(temperature=0.8, top_k=50, seed=7, logit_bias={5: 1.0}),
            stopping=pb.Stopping(max_new_tokens=16, stop=["\n\n"], stop_token_ids=[1]),
            **more,
        )
    ).SerializeToString()
    for more in (
        {},
        {"infill": pb.InfillPrompt(prefix="a", suffix="b", order=pb.FIM_ORDER_SPM)},
        {"token_ids": pb.TokenIds(ids=[1, 2, 3])},
        {"resume": pb.Resume(choices=[pb.ResumedChoice(token_ids=[1, 2])])},
    )
)


def take(kind: type[Message], check: Check, data: bytes) -> None:
    """As a handler does: parse, check, and tell whoever asked in a status that they can read."""
    try:
        check(parse(kind, data))
    except RouterError as error:
        # Nine of ten bytes of noise are no message, and what they are told tells their number only.
        if error.reason is Reason.MALFORMED_REQUEST and len(data) % 16:
            return
        status = error.to_status("fuzz")
        if not status.code or not status.message.isascii() or "\n" in status.message:
            raise AssertionError(f"not a status to send: {status}") from error
        if status.ByteSize() > MOST_ERROR_BYTES:
            raise AssertionError(f"a status of {status.ByteSize()} bytes") from error


def mend(message: Any, source: random.Random) -> None:
    """Most random requests are wrong in many ways: half of them get little to be wrong about."""
    if not hasattr(message, "completion") or source.random() < 0.5:
        return
    completion: Any = message.completion
    wrong = source.choice(("sampling", "stopping", "output", "resume", "prompt"))
    for name in ("sampling", "stopping", "output", "resume"):
        if name != wrong:
            completion.ClearField(name)
    if wrong != "prompt":
        completion.text = "def f(x):"
    for name in (
        "request_id",
        "completion_count",
        "priority",
        "time_budget",
        "truncate",
        "cache_salt",
    ):
        if source.random() < 0.9:
            completion.ClearField(name)


def raw_targets() -> tuple[Target, ...]:
    """Noise and mutated messages to every method."""
    make = either(noise(), noise(), mutated(SEEDS))
    return tuple(
        Target(f"raw {kind.DESCRIPTOR.name}", make, partial(take, kind, check))
        for kind, check in CHECKS.items()
    )


def structured_targets() -> tuple[Target, ...]:
    """Messages of the right type with any values."""
    return tuple(
        Target(f"structured {kind.DESCRIPTOR.name}", _structured(kind), partial(take, kind, check))
        for kind, check in CHECKS.items()
        if kind is not pb.GetModelRequest
    )


def _structured(kind: type[Message]) -> Make:
    return messages(kind, mend)
