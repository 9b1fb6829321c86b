"""From a public request to what a shard admits. Pure; refuses what only a router can do."""

from __future__ import annotations

import struct

import grpc

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.shard.v1 import shard_pb2
from santacoder_client.errors import InvalidRequest

DEFAULT_NEW_TOKENS = 128


def admit_of(request: pb.CompletionRequest, group: shard_pb2.DescribeResponse) -> shard_pb2.Admit:
    """The request without slot and sequence. Raises InvalidRequest."""
    ids = request.token_ids.ids
    if not ids:
        raise _refused("prompt: a shard takes token ids; got text; allowed token_ids")
    if request.stopping.stop or request.completion_count > 1:
        raise _refused("request: only a router knows stop strings and several answers")
    room = min(group.context_token_count, group.blocks_per_sequence * group.block_size) - len(ids)
    new = request.stopping.max_new_tokens or min(DEFAULT_NEW_TOKENS, room)
    if not 1 <= new <= room:
        raise _refused(f"max_new_tokens: out of range; got {new}; allowed 1 to {room}")
    if any(not 0 <= each < group.token_count for each in ids):
        raise _refused(f"token_ids.ids: out of range; allowed below {group.token_count}")
    biases = dict(request.sampling.logit_bias)
    return shard_pb2.Admit(
        token_ids=_packed(list(ids)),
        prompt_length=len(ids),
        sampling=_sampling(request.sampling),
        remaining_min_tokens=request.stopping.min_new_tokens,
        remaining_max_tokens=new,
        ignore_eos=request.stopping.ignore_eos,
        stop_ids=_packed(list(request.stopping.stop_token_ids)),
        bias_ids=_packed(list(biases)),
        bias_values=struct.pack(f"<{len(biases)}f", *biases.values()),
        wants_logprobs=request.output.HasField("logprobs"),
        logprob_count=request.output.logprobs,
    )


def _sampling(asked: pb.Sampling) -> shard_pb2.Sampling:
    """With every default filled in."""
    return shard_pb2.Sampling(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p if asked.HasField("top_p") else 1.0,
        min_p=asked.min_p,
        typical_p=asked.typical_p if asked.HasField("typical_p") else 1.0,
        repetition_penalty=asked.repetition_penalty or 1.0,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.seed,
    )


def _packed(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, code=grpc.StatusCode.INVALID_ARGUMENT, reason="NOT_FOR_A_SHARD")
