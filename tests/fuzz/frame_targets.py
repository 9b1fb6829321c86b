"""The private contract, shard.v1: a rank reads the router's frames, and the router a rank's."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import shard_frames
from fuzz.messages import messages
from fuzz.mutations import either, mutated, noise
from fuzz.target import Target
from google.protobuf.message import DecodeError

from santacoder.shard.v1 import shard_pb2
from santacoder_router import codec as router_codec
from santacoder_router.core.plan import Row, StepPlan
from santacoder_router.handshake import GroupMixed, GroupRefused, agree
from santacoder_router.shard_group import ShardGroup
from santacoder_shard import codec as shard_codec

ROW_COUNT = 2
PLAN = StepPlan(
    number=1,
    retires=(),
    admits=(),
    grants=(),
    copies=(),
    rows=tuple(Row(row, row, 1, True, 64) for row in range(ROW_COUNT)),
    num_steps=2,
)
DESCRIPTION = shard_pb2.DescribeResponse(
    protocol_version=1,
    epoch=3,
    tensor_parallel_size=1,
    block_size=16,
    block_count=64,
    slot_count=8,
    blocks_per_sequence=16,
    tokens_per_step=64,
    steps_per_lease=4,
    plans_in_flight=2,
    sentinel_ids=shard_frames.packed((1, 2, 3, 4)),
)
FRAMES = (
    shard_frames.hello(),
    shard_frames.plan(1, slots=(0, 1)),
    shard_frames.plan(2, slots=(0, 1), num_steps=4, interruptible=True),
    shard_frames.interrupt(1),
)
ANSWERS = (
    shard_codec.encode_accepted(1, bytes(16)),
    shard_codec.encode_error(0, 1, "plan 1 failed"),
    shard_pb2.ExecuteResponse(
        result=shard_pb2.StepResult(
            plan_number=1,
            steps_run=1,
            final=True,
            row_token_counts=shard_frames.packed((1, 1)),
            token_ids=shard_frames.packed((5, 6)),
            row_states=bytes((1, 2)),
            logprobs=[
                shard_pb2.TokenLogprobs(token_index=0, top_ids=bytes(4), top_logprobs=bytes(4))
            ],
        )
    ).SerializeToString(),
    shard_pb2.ExecuteResponse(
        heartbeat=shard_pb2.Heartbeat(progress_age_us=5, phase=shard_pb2.PHASE_RUNNING)
    ).SerializeToString(),
)


class _Link:
    """A rank that is written to and never answers."""

    rank = 0

    def send(self, _frame: bytes) -> None:
        """Lost."""


def take_at_rank(data: bytes) -> None:
    """A rank decodes a frame, or says in one line what is wrong with it."""
    try:
        shard_codec.decode_request(data)
        shard_codec.decode_describe(data)
    except shard_codec.FrameError as error:
        if "\n" in str(error) or len(str(error)) > 500:
            raise AssertionError(f"not one line: {error}") from error


def take_at_router(data: bytes) -> None:
    """The router takes a rank's frame for a plan in flight, or gives the group up."""
    try:
        response = shard_pb2.ExecuteResponse.FromString(data)
    except DecodeError:
        return  # gRPC ends the stream, and the group with it
    links: Any = [_Link()]
    group = ShardGroup(links, router_codec.decode_description(DESCRIPTION), lambda: 0.0)
    group.send(PLAN, 1.0)
    group._on_frame(0, response)
    for arrived in group.take_results():
        if len(arrived.result.rows) != ROW_COUNT:
            raise AssertionError("a result of other rows than the plan's")


def take_description(data: bytes) -> None:
    """The router believes what a rank says it is, or refuses the group."""
    try:
        message = shard_pb2.DescribeResponse.FromString(data)
        agree([router_codec.decode_description(message)])
    except (DecodeError, router_codec.CodecError, GroupMixed, GroupRefused):
        return


def _mend_answer(message: Any, source: random.Random) -> None:
    """Of the right plan and shape more often than chance would have it."""
    if message.HasField("result") and source.random() < 0.8:
        message.result.plan_number = 1
        message.result.row_token_counts = shard_frames.packed((1, source.choice((0, 1, 2))))
        message.result.row_states = bytes(
            source.choice((0, 1, 2, 7, 8, 255)) for _ in range(ROW_COUNT)
        )
        message.result.digest = hashlib.sha256(b"x").digest()[:16]


def raw_targets() -> tuple[Target, ...]:
    """Noise and mutated frames, both ways."""
    return (
        Target("raw frame at a rank", either(noise(), mutated(FRAMES)), take_at_rank),
        Target("raw frame at the router", either(noise(), mutated(ANSWERS)), take_at_router),
    )


def structured_targets() -> tuple[Target, ...]:
    """Frames of the right type with any values, both ways, and descriptions."""
    description = DESCRIPTION.SerializeToString()
    return (
        Target("frame at a rank", messages(shard_pb2.ExecuteRequest), take_at_rank),
        Target(
            "frame at the router", messages(shard_pb2.ExecuteResponse, _mend_answer), take_at_router
        ),
        Target("description of a rank", mutated((description,)), take_description),
    )
