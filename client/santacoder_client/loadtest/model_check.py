"""Asks every target what it serves, before and after a run: who is not there is told at once."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._codec import decode_model
from santacoder_client.errors import error_from_rpc
from santacoder_client.loadtest.data.source import ModelFacts
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.result import TargetInfo
from santacoder_client.loadtest.shard_group import describe, open_channels
from santacoder_client.loadtest.target import Security, Target, open_channel
from santacoder_client.types import ModelInfo

ANSWER_SECONDS = 10.0
_METHOD = "/santacoder.inference.v1.ModelService/GetModel"


@dataclass(frozen=True, slots=True)
class Served:
    """A target that answered."""

    info: TargetInfo
    facts: ModelFacts


async def ask_models(targets: Sequence[Target], security: Security) -> tuple[Served, ...]:
    """What every target serves, in their order. Raises Unreachable."""
    return tuple(await asyncio.gather(*(_ask(target, security) for target in targets)))


def common_facts(served: Sequence[Served]) -> ModelFacts:
    """What holds for all targets: data must suit each of them."""
    contexts = [each.facts.context_token_count for each in served]
    return ModelFacts(
        token_count=min(each.facts.token_count for each in served),
        special_token_ids=frozenset().union(*(each.facts.special_token_ids for each in served)),
        context_token_count=min((each for each in contexts if each), default=None),
    )


async def _ask(target: Target, security: Security) -> Served:
    if target.mode == "shard":
        return await _ask_shards(target, security)
    model = decode_model(await _get_model(target, security))
    described: dict[str, Any] = asdict(model)
    info = TargetInfo(target.address, target.mode, security.tls, described)
    return Served(info, _facts(model))


async def _ask_shards(target: Target, security: Security) -> Served:
    channels = open_channels(target, security)
    try:
        group = await describe(channels, target)
    finally:
        for channel in channels:
            await channel.close()
    ids = struct.unpack(f"<{len(group.sentinel_ids) // 4}I", group.sentinel_ids)
    facts = ModelFacts(
        token_count=group.token_count,
        special_token_ids=frozenset({group.end_of_text_id, *ids}),
        context_token_count=group.context_token_count,
    )
    model = {
        "name": group.model_name,
        "revision": group.model_revision,
        "dtype": group.dtype,
        "numerics_id": group.numerics_id,
        "tensor_parallel_size": group.tensor_parallel_size,
        "token_count": group.token_count,
        "server_version": group.version,
    }
    return Served(TargetInfo(target.address, target.mode, security.tls, model), facts)


async def _get_model(target: Target, security: Security) -> pb.GetModelResponse:
    async with open_channel(target.addresses[0], security) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
        payload = pb.GetModelRequest().SerializeToString()
        try:
            # Waits for a server that starts, but not for one that never comes.
            raw = await ask(payload, timeout=ANSWER_SECONDS, metadata=security.metadata)
        except grpc.RpcError as error:
            told = error_from_rpc(error)
            raise Unreachable(
                f"cannot reach the server at {target.address}: {told.message}",
                f"is a server running at {target.address}? `santacoder-serve` starts one",
            ) from error
    return pb.GetModelResponse.FromString(raw)


def _facts(model: ModelInfo) -> ModelFacts:
    return ModelFacts(
        token_count=model.token_count,
        special_token_ids=frozenset(token.token_id for token in model.special_tokens),
        context_token_count=model.limits.context_token_count or None,
    )
