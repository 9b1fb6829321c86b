"""What an outsider finds on the port: both reflections, tokens, the model, the limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from router.mock_shard import Behaviour, ids_of
from router.running_router import Running, config, failure_of, reason_of, request, running_router

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_router.router import Router
from santacoder_router.server import PUBLIC_SERVICES, PortTaken

VERSIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]


async def reflect(
    running: Running, version: str, question: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    """One question over raw bytes."""
    method: Any = running.channel.stream_stream(f"/{version}/ServerReflectionInfo")
    call: Any = method(iter([question.SerializeToString()]))
    async for data in call:
        return reflection_pb2.ServerReflectionResponse.FromString(data)
    raise AssertionError("no answer")


@pytest.mark.parametrize("version", VERSIONS)
def test_reflection_lists_the_services(tmp_path: Path, version: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            question = reflection_pb2.ServerReflectionRequest(list_services="*")
            answer = await reflect(running, version, question)
            names = {service.name for service in answer.list_services_response.service}
            assert names == {*PUBLIC_SERVICES, *VERSIONS, "grpc.health.v1.Health"}

    asyncio.run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_has_reflection_alone_completes(tmp_path: Path, version: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            question = reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="santacoder.inference.v1.CompletionService"
            )
            answer = await reflect(running, version, question)
            pool = descriptor_pool.DescriptorPool()
            files = answer.file_descriptor_response.file_descriptor_proto
            for data in reversed(files):
                pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
            service = pool.FindServiceByName("santacoder.inference.v1.CompletionService")
            method = service.methods_by_name["Complete"]
            ask_type: Any = message_factory.GetMessageClass(method.input_type)
            answer_type: Any = message_factory.GetMessageClass(method.output_type)
            ask = ask_type()
            ask.completion.text = "a"
            call: Any = running.channel.unary_unary(f"/{service.full_name}/Complete")
            completion = answer_type.FromString(await call(ask.SerializeToString()))
            assert completion.choices[0].text

    asyncio.run(scenario())


def test_tokens_go_there_and_back_and_special_tokens_stay_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            stub = inference_pb2_grpc.TokenizerServiceStub(running.channel)
            text = "é <fim-middle> <|endoftext|>\0"
            ids = (await stub.Tokenize(pb.TokenizeRequest(text=text))).token_ids
            assert tuple(ids) == ids_of(text)
            assert (await stub.Detokenize(pb.DetokenizeRequest(token_ids=ids))).text == text
            special = await stub.Detokenize(pb.DetokenizeRequest(token_ids=[256]))
            assert special.text == "<|endoftext|>"
            error = await failure_of(stub.Detokenize(pb.DetokenizeRequest(token_ids=[261])))
            assert reason_of(error) == "TOKEN_ID_UNASSIGNED"

    asyncio.run(scenario())


def test_the_model_is_described_with_the_limits_that_hold(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(block_count=8, context_token_count=256)
        async with running_router(tmp_path, behaviour) as running:
            stub = inference_pb2_grpc.ModelServiceStub(running.channel)
            model = await stub.GetModel(pb.GetModelRequest())
            assert (model.name, model.kv_head_count, model.token_count) == ("mock", 1, 261)
            assert model.infill_supported
            assert [token.token_id for token in model.special_tokens] == [256, 257, 258, 259, 260]
            assert model.kv_cache_token_count == 128
            # A pool smaller than the context bounds a request, and the limits say so.
            assert model.limits.context_token_count == 128
            fits = pb.Stopping(max_new_tokens=119, ignore_eos=True)
            assert len((await running.complete(stopping=fits)).choices[0].token_ids) == 119
            over = pb.Stopping(max_new_tokens=120)
            error = await failure_of(running.complete(stopping=over))
            assert reason_of(error) == "CONTEXT_LENGTH"

    asyncio.run(scenario())


def test_a_message_over_the_transport_limit_is_refused_and_the_server_lives(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            error = await failure_of(running.complete(text="x" * (5 << 20)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            error = await failure_of(running.complete(text="x" * (2 << 20)))
            assert reason_of(error) == "PROMPT_TOO_LARGE"
            assert (await running.complete()).choices

    asyncio.run(scenario())


@pytest.mark.fault("X8")
@pytest.mark.parametrize("which", ["port", "metrics_port"])
def test_a_port_that_is_taken_is_an_error(tmp_path: Path, which: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            router = running.router
            taken = router.address if which == "port" else router.metrics_address
            port = int(taken.rsplit(":", 1)[1])
            second = Router(
                config(("unix:/nowhere",), **{which: port}), lambda *_: None, running.router._log
            )
            with pytest.raises(PortTaken, match=str(port)):
                await second.start()
            await second.close()

    asyncio.run(scenario())


def test_a_router_without_shards_says_that_it_is_warming(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            cold = Router(config((f"unix:{tmp_path}/none",)), lambda *_: None, running.router._log)
            await cold.start()
            run = asyncio.create_task(cold.run())
            async with grpc.aio.insecure_channel(cold.address) as channel:
                stub = inference_pb2_grpc.CompletionServiceStub(channel)
                answer = stub.Complete(pb.CompleteRequest(completion=request()))
                error = await failure_of(answer)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert reason_of(error) == "WARMING"
            cold.drain()
            await run
            await cold.close()

    asyncio.run(scenario())
