"""Builds shard.proto frames as a router would, without the router's or the shard's own codec."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from santacoder.shard.v1 import shard_pb2


def packed(ids: Iterable[int]) -> bytes:
    """Little-endian uint32."""
    values = list(ids)
    return struct.pack(f"<{len(values)}I", *values)


def unpacked(data: bytes) -> tuple[int, ...]:
    """Little-endian uint32, back."""
    return struct.unpack(f"<{len(data) // 4}I", data)


def hello(protocol_version: int = 1, epoch: int = 3, rank: int = 0) -> bytes:
    """The frame that opens a stream."""
    message = shard_pb2.Hello(protocol_version=protocol_version, epoch=epoch, rank=rank)
    return shard_pb2.ExecuteRequest(hello=message).SerializeToString()


def plan(
    number: int,
    epoch: int = 3,
    slots: Sequence[int] = (0,),
    num_steps: int = 1,
    step_deadline_us: int = 0,
    interruptible: bool = False,
) -> bytes:
    """A plan in which each slot runs one sampled token a step."""
    rows = shard_pb2.Rows(
        slots=packed(slots),
        token_counts=packed(1 for _ in slots),
        samples=bytes([1] * len(slots)),
        kv_token_limits=packed(64 for _ in slots),
    )
    message = shard_pb2.Plan(
        epoch=epoch,
        number=number,
        rows=rows,
        num_steps=num_steps,
        step_deadline_us=step_deadline_us,
        interruptible=interruptible,
    )
    return shard_pb2.ExecuteRequest(plan=message).SerializeToString()


def interrupt(plan_number: int) -> bytes:
    """Cuts a lease short."""
    message = shard_pb2.Interrupt(plan_number=plan_number)
    return shard_pb2.ExecuteRequest(interrupt=message).SerializeToString()
