"""ShardService on grpc.aio: who may open the one Execute stream, and how it ends. Knows no tensors.

Handlers get raw bytes and parse them here, so that malformed messages get INVALID_ARGUMENT.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import grpc

from santacoder.shard.v1 import shard_pb2
from santacoder_shard import codec
from santacoder_shard.execution import ExecuteStream, RankIdentity, StreamFault
from santacoder_shard.log import Logger
from santacoder_shard.worker import PlanRunner

SERVICE_NAME = "santacoder.shard.v1.ShardService"
_Context = grpc.aio.ServicerContext[bytes, bytes]
Admit = Callable[[_Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How the rank's one stream ended: by the router's half-close, or why not, in one line."""

    clean: bool
    reason: str
    cause: BaseException | None = None


class ShardServicer:
    """Describe, and one Execute stream; `ended` is set when that stream ends, however it does."""

    def __init__(
        self,
        description: shard_pb2.DescribeResponse,
        runner: PlanRunner,
        model_thread: Executor,
        ended: asyncio.Future[StreamEnd],
        log: Logger,
        heartbeat_seconds: float = 1.0,
        admit: Admit | None = None,
    ) -> None:
        """`admit` ends an RPC of whoever may not call; without it the listener keeps them off."""
        self._description = description
        self._identity = RankIdentity(
            description.rank, description.epoch, description.tensor_parallel_size
        )
        self._runner = runner
        self._model_thread = model_thread
        self._ended = ended
        self._log = log
        self._heartbeat_seconds = heartbeat_seconds
        self._admit = admit
        self._stream_taken = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is to be given."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Execute": grpc.stream_stream_rpc_method_handler(self._execute),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def _describe(self, request: bytes, context: _Context) -> bytes:
        if self._admit is not None:
            await self._admit(context)
        try:
            include_tokenizer = codec.decode_describe(request)
        except codec.FrameError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = shard_pb2.DescribeResponse()
        answer.CopyFrom(self._description)
        if not include_tokenizer:
            answer.ClearField("tokenizer_json")
        return answer.SerializeToString()

    async def _execute(self, _frames: AsyncIterator[bytes], context: _Context) -> None:
        if self._admit is not None:
            await self._admit(context)
        try:
            self._claim(await context.read())
        except codec.FrameError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StreamFault as refusal:
            self._log.warning("stream refused", reason=refusal.message)
            await context.abort(refusal.code, refusal.message)
        stream = ExecuteStream(
            self._identity,
            self._runner,
            self._model_thread,
            self._description.plans_in_flight,
            self._heartbeat_seconds,
        )
        try:
            await stream.serve(context)
        except StreamFault as fault:
            self._end(clean=False, reason=fault.message, cause=fault.__cause__)
            # A router that hangs up on the first error frame misses nothing.
            with contextlib.suppress(asyncio.CancelledError):
                await context.write(
                    codec.encode_error(self._identity.rank, fault.plan_number, fault.message)
                )
                await context.abort(fault.code, fault.message)
        except (asyncio.CancelledError, grpc.RpcError, grpc.aio.BaseError):
            self._end(clean=False, reason="the router's stream broke")
            raise
        else:
            self._end(clean=True, reason="the router closed its stream")

    def _claim(self, first_frame: object) -> None:
        """Take the rank's one stream for whoever opened it with the right hello."""
        if not isinstance(first_frame, bytes):
            raise _refusal("hello: missing; the stream closed without a frame")
        hello = codec.decode_request(first_frame)
        if not isinstance(hello, codec.Hello):
            raise _refusal("hello: missing; it must be the first frame")
        for name, got, own in (
            ("protocol_version", hello.protocol_version, codec.PROTOCOL_VERSION),
            ("epoch", hello.epoch, self._identity.epoch),
            ("rank", hello.rank, self._identity.rank),
        ):
            if got != own:
                raise _refusal(f"hello.{name}: not this rank's; got {got}; allowed {own}")
        if self._stream_taken:
            raise _refusal("Execute: this rank has had its one stream; it serves no second")
        self._stream_taken = True

    def _end(self, *, clean: bool, reason: str, cause: BaseException | None = None) -> None:
        if cause is not None:
            self._log.error("plan failed", exc_info=cause)
        if not self._ended.done():
            self._ended.set_result(StreamEnd(clean, reason, cause))


def _refusal(message: str) -> StreamFault:
    return StreamFault(grpc.StatusCode.FAILED_PRECONDITION, message)
