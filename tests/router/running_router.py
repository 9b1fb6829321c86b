"""A whole router in the test's process, on a real port, over a mock shard group.

Clients here are generated stubs: what the router says is read as any outsider would read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2
from router.mock_shard import Behaviour, MockGroup

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_router.accounts import Account
from santacoder_router.config import RouterConfig
from santacoder_router.router import Ending, Router
from santacoder_router.step_loop import StepLoop


@dataclass
class Running:
    """A router at work, its shards, and an outsider's stubs."""

    router: Router
    run: asyncio.Task[Ending]
    group: MockGroup
    behaviour: Behaviour
    channel: grpc.aio.Channel
    log: list[dict[str, Any]]

    @property
    def completion(self) -> inference_pb2_grpc.CompletionServiceAsyncStub:
        """CompletionService."""
        return inference_pb2_grpc.CompletionServiceStub(self.channel)

    @property
    def step_loop(self) -> StepLoop:
        """The router's step loop."""
        serving = self.router.lifecycle.serving
        if serving is None:
            raise RuntimeError("the router is not ready")
        return serving.step_loop

    @property
    def generated_count(self) -> int:
        """Tokens that requests have been given so far."""
        name = "santacoder_router_completion_tokens_total"
        return int(self.router.metrics.registry.get_sample_value(name) or 0)

    @property
    def is_sequence_on_shard(self) -> bool:
        """Whether a sequence that has not ended is in a slot of rank 0."""
        return any(not slot.ended for slot in self.group.shards[0].engine.slots.values())

    def account(self, peer: str = "here") -> Account:
        """A caller who is nothing but a connection."""
        return self.router._reception.accounts.of(peer, lambda: None)

    def pass_time(self, seconds: float) -> None:
        """What is due within so many seconds is due now."""
        loop = self.step_loop
        clock = loop._clock
        loop._clock = lambda: clock() + seconds
        loop.wake()

    async def complete(self, **fields: Any) -> pb.CompleteResponse:
        """One unary completion; fields of CompletionRequest."""
        return await self.completion.Complete(pb.CompleteRequest(completion=request(**fields)))

    async def stream(self, **fields: Any) -> list[pb.CompletionEvent]:
        """All events of one streamed completion."""
        message = pb.StreamCompleteRequest(completion=request(**fields))
        return [response.event async for response in self.completion.StreamComplete(message)]

    async def next_life(self) -> None:
        """The group dies, and another one takes its place."""
        await self.group.stop()
        self.group = self.group.next_life()
        await self.group.start()


def request(**fields: Any) -> pb.CompletionRequest:
    """A completion of "def f(x):" unless a prompt is given."""
    if not {"text", "infill", "token_ids"} & set(fields):
        fields["text"] = "def f(x):"
    return pb.CompletionRequest(**fields)


def config(addresses: tuple[str, ...], **settings: Any) -> RouterConfig:
    """Settings that do not make a test wait."""
    standing = RouterConfig(
        shard_addresses=addresses,
        host="127.0.0.1",
        port=0,
        metrics_port=0,
        drain_seconds=5.0,
        start_seconds=60.0,
        recovery_seconds=60.0,
        stall_seconds=20.0,
        log_level="info",
    )
    return dataclasses.replace(standing, **settings)


def make_log(lines: list[dict[str, Any]]) -> structlog.typing.FilteringBoundLogger:
    """A logger that keeps what it is told."""

    def keep(_logger: object, level: str, line: structlog.typing.EventDict) -> str:
        lines.append({"level": level, **line})
        raise structlog.DropEvent

    log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return log


@contextlib.asynccontextmanager
async def running_router(
    folder: Path, behaviour: Behaviour | None = None, size: int = 1, **settings: Any
) -> AsyncIterator[Running]:
    """A ready router; at the end it is stopped, and no plan may have broken a rule."""
    behaviour = behaviour or Behaviour()
    group = MockGroup(folder, behaviour, size)
    await group.start()
    ready = asyncio.Event()
    lines: list[dict[str, Any]] = []
    router = Router(config(group.addresses, **settings), lambda *_: ready.set(), make_log(lines))
    await router.start()
    run = asyncio.create_task(router.run())
    channel = grpc.aio.insecure_channel(router.address)
    running = Running(router, run, group, behaviour, channel, lines)
    try:
        await wait_for(ready)
        yield running
    finally:
        await channel.close()
        router.drain()
        await run
        await router.close()
        await running.group.stop()
    assert running.group.violations == []


async def wait_for(event: asyncio.Event) -> None:
    """Waits for an event, but not for ever."""
    await asyncio.wait_for(event.wait(), 60)


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for something to become true, but not for ever."""
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


async def failure_of(answer: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error of an RPC that fails."""
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the RPC did not fail")


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in an error's ErrorInfo."""
    reason: str = detail(error, error_details_pb2.ErrorInfo).reason
    return reason


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """One of an error's details, by its type."""
    [details] = error.trailing_metadata().get_all("grpc-status-details-bin")
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} among the details")


def text_of(events: list[pb.CompletionEvent], index: int = 0) -> str:
    """The text of a choice, joined."""
    return "".join(e.delta.text for e in events if e.HasField("delta") and e.delta.index == index)


def ids_in(events: list[pb.CompletionEvent], index: int = 0) -> list[int]:
    """The ids of a choice, joined."""
    deltas = [e.delta for e in events if e.HasField("delta")]
    return [token_id for delta in deltas if delta.index == index for token_id in delta.token_ids]
