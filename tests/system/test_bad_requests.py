"""Bad requests of every kind while a victim streams: each is told why, the victim loses nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from running_service import WAIT_SECONDS, Service
from system.cases import SLOW, TOKEN_COUNT, prompt_ids

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import (
    AlreadyExists,
    Client,
    CompletionOptions,
    DeadlineExceeded,
    InvalidRequest,
)

SERVICES = "santacoder.inference.v1."
COMPLETE = f"/{SERVICES}CompletionService/Complete"
STREAM = f"/{SERVICES}CompletionService/StreamComplete"
SESSION = f"/{SERVICES}CompletionService/CompletionSession"
TOKENIZE = f"/{SERVICES}TokenizerService/Tokenize"
DETOKENIZE = f"/{SERVICES}TokenizerService/Detokenize"
UNARY_METHODS = (COMPLETE, TOKENIZE, DETOKENIZE, f"/{SERVICES}ModelService/GetModel")
VICTIM_PROMPT = prompt_ids(81, 30)
VICTIM_OPTIONS = CompletionOptions(
    max_new_tokens=200, temperature=0.8, seed=4, ignore_eos=True, logprobs=1
)
TEXT = "x = 1"
ADDED_TOKEN_COUNT = 5
VOCABULARY_SIZE = 400

# Options, the field at fault as it is named, the reason.
BAD_OPTIONS: tuple[tuple[CompletionOptions, str, str], ...] = (
    ({"temperature": -1.0}, "sampling.temperature", "TEMPERATURE_RANGE"),
    ({"temperature": 0.001}, "sampling.temperature", "TEMPERATURE_RANGE"),
    ({"temperature": math.nan}, "sampling.temperature", "TEMPERATURE_RANGE"),
    ({"temperature": math.inf}, "sampling.temperature", "TEMPERATURE_RANGE"),
    ({"top_k": -1}, "sampling.top_k", "TOP_K_RANGE"),
    ({"top_k": 2**31 - 1}, "sampling.top_k", "TOP_K_RANGE"),
    ({"top_p": 0.0}, "sampling.top_p", "TOP_P_RANGE"),
    ({"top_p": 1.5}, "sampling.top_p", "TOP_P_RANGE"),
    ({"min_p": -0.1}, "sampling.min_p", "MIN_P_RANGE"),
    ({"typical_p": 0.0}, "sampling.typical_p", "TYPICAL_P_RANGE"),
    ({"repetition_penalty": 0.0}, "sampling.repetition_penalty", "REPETITION_PENALTY_RANGE"),
    ({"presence_penalty": 3.0}, "sampling.presence_penalty", "PRESENCE_PENALTY_RANGE"),
    ({"frequency_penalty": -3.0}, "sampling.frequency_penalty", "FREQUENCY_PENALTY_RANGE"),
    ({"seed": -1}, "sampling.seed", "SEED_RANGE"),
    ({"logit_bias": {5: math.nan}}, "sampling.logit_bias[5]", "LOGIT_BIAS_RANGE"),
    ({"logit_bias": {VOCABULARY_SIZE: 1.0}}, "sampling.logit_bias", "TOKEN_ID_LIST"),
    ({"max_new_tokens": 0}, "stopping.max_new_tokens", "MAX_NEW_TOKENS_RANGE"),
    ({"max_new_tokens": -5}, "stopping.max_new_tokens", "MAX_NEW_TOKENS_RANGE"),
    ({"max_new_tokens": 10**6}, "stopping.max_new_tokens", "MAX_NEW_TOKENS_RANGE"),
    ({"min_new_tokens": 9, "max_new_tokens": 8}, "stopping.min_new_tokens", "MIN_NEW_TOKENS_RANGE"),
    ({"stop": [""]}, "stopping.stop[0]", "STOP_LIST"),
    ({"stop": ["x"] * 17}, "stopping.stop", "STOP_LIST"),
    ({"stop_token_ids": [-1]}, "stopping.stop_token_ids[0]", "TOKEN_ID_LIST"),
    ({"logprobs": 21}, "output.logprobs", "TOP_N_RANGE"),
    ({"completion_count": 0}, "completion_count", "COUNT_RANGE"),
    ({"completion_count": 9}, "completion_count", "COUNT_RANGE"),
    ({"cache_salt": b"s" * 65}, "cache_salt", "CACHE_SALT"),
    ({"request_id": "no spaces"}, "request_id", "REQUEST_ID"),
    ({"time_budget": 0.001}, "time_budget", "DURATION_RANGE"),
)
BAD_PROMPTS: tuple[tuple[str | list[int], str], ...] = (
    ("", "PROMPT_EMPTY"),
    ([], "PROMPT_EMPTY"),
    ([-1], "TOKEN_ID_RANGE"),
    ([VOCABULARY_SIZE], "TOKEN_ID_RANGE"),
    ([2**62], "TOKEN_ID_RANGE"),
    ([TOKEN_COUNT + ADDED_TOKEN_COUNT], "TOKEN_ID_UNASSIGNED"),
    ([1] * 2048, "CONTEXT_LENGTH"),
    ("x" * ((1 << 20) + 1), "PROMPT_TOO_LARGE"),
)
# A length beyond the end, a wire type that does not exist, noise.
MALFORMED = (b"\x0a\xff", b"\x0f", bytes(range(255, 0, -1)))

Said = tuple[list[int], str, list[float]]


def stream_again_and_again(
    client: Client, has_begun: threading.Event, stop: threading.Event
) -> list[Said]:
    """What each stream has said, one after the other, until told to stop."""
    answers = []
    while not stop.is_set():
        pieces = []
        for piece in client.stream(VICTIM_PROMPT, **VICTIM_OPTIONS):
            has_begun.set()
            pieces.append(piece)
        answers.append(
            (
                [token_id for piece in pieces for token_id in piece.token_ids],
                "".join(piece.text for piece in pieces),
                [entry.chosen.logprob for piece in pieces for entry in piece.logprobs],
            )
        )
    return answers


@pytest.fixture(scope="module")
def undisturbed(client: Client) -> Said:
    done = client.complete(VICTIM_PROMPT, **VICTIM_OPTIONS)
    return done.token_ids, done.text, [entry.chosen.logprob for entry in done.logprobs]


@pytest.fixture(autouse=True)
def victim(service: Service, client: Client, undisturbed: Said) -> Iterator[None]:
    """Streams run throughout every test, and nothing of them may be lost or held afterwards."""
    service.wait_metric("santacoder_router_running_requests", 0)
    held = service.metric("santacoder_router_kv_blocks", state="held")
    has_begun, stop = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        streaming = thread.submit(stream_again_and_again, client, has_begun, stop)
        try:
            assert has_begun.wait(WAIT_SECONDS)
            yield
        finally:
            stop.set()
    answers = streaming.result()
    assert answers == [undisturbed] * len(answers)
    service.wait_metric("santacoder_router_running_requests", 0)
    service.wait_metric("santacoder_router_kv_blocks", held, state="held")


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    """Without the SDK's checks, and able to send more than the server takes."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(service.target, options=options) as opened:
        yield opened


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Code and reason with which a raw call fails; no reason where gRPC itself refuses."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        assert any(detail.Unpack(info) for detail in status.details)
        assert info.domain == "santacoder"
    return error.code(), info.reason


def send(channel: grpc.Channel, path: str, data: bytes) -> bytes:
    """The bytes of an answer; without a serializer, bytes go and come as they are."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return call(data, timeout=WAIT_SECONDS)


def send_to_stream(channel: grpc.Channel, path: str, data: bytes) -> list[bytes]:
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
    return list(call(data, timeout=WAIT_SECONDS))


def converse(channel: grpc.Channel, *frames: bytes) -> list[bytes]:
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(SESSION)
    return list(call(iter(frames), timeout=WAIT_SECONDS))


def test_bad_options_are_refused_by_field_and_reason(client: Client) -> None:
    for options, field, reason in BAD_OPTIONS:
        with pytest.raises(InvalidRequest) as caught:
            client.complete(TEXT, **options)
        [violation] = caught.value.violations
        assert (violation.field, caught.value.reason) == (field, reason), options
        assert "; got " in violation.description and "; allowed " in violation.description
        assert "\n" not in caught.value.message
        with pytest.raises(InvalidRequest) as caught:
            next(client.stream(TEXT, **options))
        assert caught.value.reason == reason


def test_bad_prompts_are_refused_by_reason(client: Client) -> None:
    for prompt, reason in BAD_PROMPTS:
        with pytest.raises(InvalidRequest) as caught:
            client.complete(prompt)
        assert caught.value.reason == reason, reason
    with pytest.raises(InvalidRequest) as caught:
        client.infill("", "")
    assert caught.value.reason == "FIM_EMPTY"
    with pytest.raises(InvalidRequest) as caught:
        client.detokenize([VOCABULARY_SIZE])
    assert caught.value.reason == "TOKEN_ID_RANGE"
    with pytest.raises(DeadlineExceeded):
        client.complete(prompt_ids(82, 1000), timeout=1e-6)


@pytest.mark.fault("C10")
def test_the_name_of_a_running_request_is_taken(client: Client) -> None:
    slow = SLOW | CompletionOptions(request_id="mine")
    with client.stream(TEXT, **slow) as stream:
        next(stream)
        with pytest.raises(AlreadyExists) as caught:
            client.complete(TEXT, request_id="mine")
    assert caught.value.reason == "REQUEST_ID_IN_USE"


def test_malformed_bytes_are_invalid_argument_on_every_method(channel: grpc.Channel) -> None:
    malformed = (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    for data in MALFORMED:
        calls: list[Callable[[], object]] = [
            *(partial(send, channel, path, data) for path in UNARY_METHODS),
            partial(send_to_stream, channel, STREAM, data),
            partial(converse, channel, data),
        ]
        assert [refusal(call) for call in calls] == [malformed] * 6


def test_what_no_sdk_would_send_is_refused_too(channel: grpc.Channel) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    empty = pb.CompleteRequest().SerializeToString()
    assert refusal(lambda: send(channel, COMPLETE, empty)) == (invalid, "PROMPT_MISSING")
    latin = pb.TokenizeRequest(text="XY").SerializeToString().replace(b"XY", b"\xe9\xe8")
    assert refusal(lambda: send(channel, TOKENIZE, latin)) == (invalid, "MALFORMED_REQUEST")
    # An enum of proto3 holds any number; no generated type lets one be written in Python.
    unknown = pb.CompletionRequest(text=TEXT).SerializeToString() + b"\x48\x63"
    framed = b"\x0a" + bytes([len(unknown)]) + unknown
    assert refusal(lambda: send(channel, COMPLETE, framed)) == (invalid, "ENUM_UNKNOWN")
    early = pb.CompletionSessionRequest(turn=1, completion=pb.CompletionRequest(text=TEXT))
    order = refusal(lambda: converse(channel, early.SerializeToString()))
    assert order == (invalid, "PROTOCOL_ORDER")
    nothing = refusal(lambda: send(channel, f"/{SERVICES}CompletionService/Nothing", empty))
    assert nothing == (grpc.StatusCode.UNIMPLEMENTED, "")


def test_an_oversize_message_is_refused_and_the_connection_lives_on(channel: grpc.Channel) -> None:
    oversize = pb.TokenizeRequest(text="x" * (5 << 20)).SerializeToString()
    refused = refusal(lambda: send(channel, TOKENIZE, oversize))
    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "")
    large = pb.TokenizeRequest(text="x" * (2 << 20)).SerializeToString()
    assert refusal(lambda: send(channel, TOKENIZE, large)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PROMPT_TOO_LARGE",
    )
    answer = send(channel, TOKENIZE, pb.TokenizeRequest(text=TEXT).SerializeToString())
    assert pb.TokenizeResponse.FromString(answer).token_ids


def test_health_serves_through_it_all(channel: grpc.Channel) -> None:
    for data in MALFORMED:
        with pytest.raises(grpc.RpcError):
            send(channel, COMPLETE, data)
    request = health_pb2.HealthCheckRequest()
    status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=WAIT_SECONDS).status
    assert status == health_pb2.HealthCheckResponse.SERVING
