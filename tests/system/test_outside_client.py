"""Outside clients without the SDK: one with generated stubs, one with nothing but reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from running_service import WAIT_SECONDS, Service
from system.cases import prompt_ids

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_client import Client

COMPLETION = "santacoder.inference.v1.CompletionService"
TOKENIZER = "santacoder.inference.v1.TokenizerService"
MODEL = "santacoder.inference.v1.ModelService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
PROMPT = prompt_ids(31, 40)
# As slow an answer as there is: what is seen while it runs is looked at four times a second.
CHOICE_COUNT = 8
SLOW_TOKEN_COUNT = 1900 * CHOICE_COUNT
GENERATED = "santacoder_router_completion_tokens_total"
CANCELLED = {"method": "StreamComplete", "code": "CANCELLED"}
Json = dict[str, Any]


class Reflected:
    """A client that has learned every message and method from the server's reflection.

    Its descriptors are in a pool of their own: the generated code of this repository is not used.
    """

    def __init__(self, channel: grpc.Channel, reflection: str) -> None:
        self._channel = channel
        self._reflection = reflection
        self._pool = DescriptorPool()
        self._known: set[str] = set()

    def services(self) -> set[str]:
        answer = self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {service.name for service in answer.list_services_response.service}
        for name in names:
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            self._learn(self._ask(request))
        return names

    def unary(self, service: str, method: str, request: Json) -> Json:
        """Call a method with a message written as JSON, and read the answer as such."""
        call, message = self._prepare(self._channel.unary_unary, service, method, request)
        return json_format.MessageToDict(call(message, timeout=WAIT_SECONDS))

    def stream(self, service: str, method: str, request: Json) -> Any:
        """The call, to iterate over messages or to cancel."""
        call, message = self._prepare(self._channel.unary_stream, service, method, request)
        return call(message, timeout=WAIT_SECONDS)

    def _prepare(
        self, kind: Callable[..., Any], service: str, method: str, request: Json
    ) -> tuple[Any, Message]:
        descriptor = self._pool.FindServiceByName(service).methods_by_name[method]
        message = GetMessageClass(descriptor.input_type)()
        call = kind(
            f"/{service}/{method}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        return call, json_format.ParseDict(request, message)

    def _ask(self, request: Message) -> Any:
        call = self._channel.stream_stream(
            f"/{self._reflection}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        [answer] = call(iter([request]), timeout=WAIT_SECONDS)
        return answer

    def _learn(self, answer: Any) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in self._known:
                continue
            self._known.add(file.name)
            for name in file.dependency:
                request = reflection_pb2.ServerReflectionRequest(file_by_filename=name)
                self._learn(self._ask(request))
            self._pool.Add(file)


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as opened:
        yield opened


@pytest.fixture(scope="module", params=REFLECTION, ids=["v1alpha", "v1"])
def reflected(request: pytest.FixtureRequest, channel: grpc.Channel) -> Reflected:
    client = Reflected(channel, request.param)
    assert client.services() == {COMPLETION, TOKENIZER, MODEL, HEALTH, *REFLECTION}
    return client


@pytest.fixture(scope="module")
def expected(client: Client) -> list[int]:
    """What the SDK gets."""
    return client.complete(PROMPT, max_new_tokens=32, ignore_eos=True).token_ids


def completion(max_new_tokens: int) -> Json:
    """The request as JSON, in the proto's names."""
    return {
        "completion": {
            "token_ids": {"ids": PROMPT},
            "stopping": {"max_new_tokens": max_new_tokens, "ignore_eos": True},
        }
    }


def slow_completion() -> Json:
    """A request that runs for seconds."""
    request = completion(SLOW_TOKEN_COUNT // CHOICE_COUNT)
    slow = {"completion_count": CHOICE_COUNT, "output": {"logprobs": 20}}
    return {"completion": request["completion"] | slow}


def held_blocks(service: Service) -> float:
    return service.metric("santacoder_router_kv_blocks", state="held")


def cancel_in_mid_stream(service: Service, start: Callable[[], Any]) -> None:
    """Cancels once tokens come; everything that the request held is free again soon after."""
    service.wait_metric("santacoder_router_running_requests", 0)
    before = held_blocks(service)
    cancelled = service.metric("santacoder_router_requests_total", **CANCELLED)
    generated = service.metric(GENERATED)
    call = start()
    while not next(call).event.delta.token_ids:
        pass
    service.wait_metric("santacoder_router_running_requests", CHOICE_COUNT)
    assert held_blocks(service) > before
    call.cancel()
    service.wait_metric("santacoder_router_running_requests", 0)
    service.wait_metric("santacoder_router_kv_blocks", before, state="held")
    service.wait_metric("santacoder_router_requests_total", cancelled + 1, **CANCELLED)
    # By the cancel, and not because it had come to its end.
    assert service.metric(GENERATED) - generated < SLOW_TOKEN_COUNT
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.CANCELLED


# --- generated stubs ---


def test_generated_stubs_complete_and_stream(channel: grpc.Channel, expected: list[int]) -> None:
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    request = json_format.ParseDict(completion(32), pb.CompleteRequest())
    answer = stub.Complete(request, timeout=WAIT_SECONDS)
    assert list(answer.choices[0].token_ids) == expected
    asked = json_format.ParseDict(completion(32), pb.StreamCompleteRequest())
    kinds: list[str | None] = []
    ids: list[int] = []
    for response in stub.StreamComplete(asked, timeout=WAIT_SECONDS):
        kinds.append(response.event.WhichOneof("event"))
        ids += response.event.delta.token_ids
    assert ids == expected
    assert (kinds[0], kinds[-2], kinds[-1]) == ("accepted", "choice_finished", "finished")
    assert set(kinds[1:-2]) == {"delta"}


@pytest.mark.fault("C2")
def test_generated_stubs_cancel_and_the_blocks_are_free_again(
    service: Service, channel: grpc.Channel
) -> None:
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    request = json_format.ParseDict(slow_completion(), pb.StreamCompleteRequest())
    cancel_in_mid_stream(service, lambda: stub.StreamComplete(request, timeout=WAIT_SECONDS))


def test_generated_stubs_tokenize_and_describe(channel: grpc.Channel) -> None:
    tokenizer = inference_pb2_grpc.TokenizerServiceStub(channel)
    ids = tokenizer.Tokenize(pb.TokenizeRequest(text="x = 12"), timeout=WAIT_SECONDS).token_ids
    request = pb.DetokenizeRequest(token_ids=ids)
    assert tokenizer.Detokenize(request, timeout=WAIT_SECONDS).text == "x = 12"
    model = inference_pb2_grpc.ModelServiceStub(channel)
    assert model.GetModel(pb.GetModelRequest(), timeout=WAIT_SECONDS).head_count == 4


def test_generated_stubs_read_health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", COMPLETION, TOKENIZER, MODEL):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=WAIT_SECONDS).status == serving
        call = stub.Watch(request, timeout=WAIT_SECONDS)
        assert next(call).status == serving
        call.cancel()
    unknown = health_pb2.HealthCheckRequest(service="nothing")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(unknown, timeout=WAIT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    call = stub.Watch(unknown, timeout=WAIT_SECONDS)
    assert next(call).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    call.cancel()


# --- reflection alone ---


def test_reflection_alone_completes_and_streams(reflected: Reflected, expected: list[int]) -> None:
    answer = reflected.unary(COMPLETION, "Complete", completion(32))
    assert [int(i) for i in answer["choices"][0]["tokenIds"]] == expected
    assert answer["choices"][0]["finishReason"] == "FINISH_REASON_LENGTH"
    ids = []
    for message in reflected.stream(COMPLETION, "StreamComplete", completion(32)):
        ids += message.event.delta.token_ids
    assert ids == expected


def test_reflection_alone_cancels_and_the_blocks_are_free_again(
    service: Service, reflected: Reflected
) -> None:
    request = slow_completion()
    cancel_in_mid_stream(service, lambda: reflected.stream(COMPLETION, "StreamComplete", request))


def test_reflection_alone_tokenizes_and_describes(reflected: Reflected) -> None:
    ids = reflected.unary(TOKENIZER, "Tokenize", {"text": "x = 12"})["tokenIds"]
    assert reflected.unary(TOKENIZER, "Detokenize", {"token_ids": ids}) == {"text": "x = 12"}
    model = reflected.unary(MODEL, "GetModel", {})
    assert model["limits"]["contextTokenCount"] == 2048


def test_reflection_alone_reads_health(reflected: Reflected) -> None:
    assert reflected.unary(HEALTH, "Check", {"service": COMPLETION}) == {"status": "SERVING"}
    call = reflected.stream(HEALTH, "Watch", {})
    assert json_format.MessageToDict(next(call)) == {"status": "SERVING"}
    call.cancel()
