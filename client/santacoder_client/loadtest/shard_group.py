"""What the ranks of a shard group say they are, and whether they make one. Drives nothing."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from santacoder.shard.v1 import shard_pb2
from santacoder_client.errors import error_from_rpc
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.target import SHARD_NAME, Security, Target, open_channel

PROTOCOL_VERSION = 1
DESCRIBE_SECONDS = 10.0
SERVICE = "/santacoder.shard.v1.ShardService"


def open_channels(target: Target, security: Security) -> list[grpc.aio.Channel]:
    """A connection to each rank, whose certificate names the rank and not its machine."""
    return [
        open_channel(address, security, SHARD_NAME.format(rank=rank))
        for rank, address in enumerate(target.addresses)
    ]


async def describe(
    channels: Sequence[grpc.aio.Channel], target: Target
) -> shard_pb2.DescribeResponse:
    """What rank 0 says, if all ranks make one group. Raises Unreachable."""
    payload = shard_pb2.DescribeRequest().SerializeToString()
    ranks = []
    for place, channel in enumerate(channels):
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        ask = channel.unary_unary(f"{SERVICE}/Describe")
        try:
            raw = await ask(payload, timeout=DESCRIBE_SECONDS)
        except grpc.RpcError as error:
            told = error_from_rpc(error).message
            address = target.addresses[place]
            raise Unreachable(f"cannot reach the shard at {address}: {told}") from error
        ranks.append(shard_pb2.DescribeResponse.FromString(raw))
    first = ranks[0]
    for place, rank in enumerate(ranks):
        got = (rank.protocol_version, rank.tensor_parallel_size, rank.rank, rank.epoch)
        allowed = (PROTOCOL_VERSION, len(ranks), place, first.epoch)
        if got != allowed:
            raise Unreachable(
                f"{target.address}: no group: protocol, size, rank and epoch of rank {place}; "
                f"got {got}; allowed {allowed}"
            )
    return first
